"""The model as BentoML serves it."""

from pathlib import Path

import bentoml
from penguins.predict import load


@bentoml.service(name="penguins")
class Penguins:
    """Predicts, by the same code as in the image."""

    def __init__(self) -> None:
        self._model = load(Path("/srv/packager/model/model.skops"))

    @bentoml.api
    def predict(self, inputs: list[dict]) -> dict:
        """Predict."""
        return self._model.predict({one["name"]: one["data"] for one in inputs})
