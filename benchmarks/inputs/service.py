"""The model as BentoML serves it."""

import bentoml


@bentoml.service(name="peers")
class Peers:
    """Predicts."""

    def __init__(self) -> None:
        import skops.io

        self.model = skops.io.load("models/model.skops")

    @bentoml.api
    def predict(self, rows: list[list[float]]) -> list[bool]:
        """Predict."""
        return list(self.model.predict(rows))
