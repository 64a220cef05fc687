"""The model as MLServer serves it."""

from pathlib import Path

import numpy
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from penguins.predict import load


class Penguins(MLModel):
    """Predicts, by the same code as in the image."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = load(Path("/srv/packager/model/model.skops"))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Predict."""
        columns = {
            one.name: (
                StringCodec.decode_input(one)
                if one.datatype == "BYTES"
                else NumpyCodec.decode_input(one).tolist()
            )
            for one in payload.inputs
        }
        found = self._model.predict(columns)
        outputs = [
            StringCodec.encode_output("species", found["species"]),
            NumpyCodec.encode_output("probability", numpy.array(found["probability"])),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
