"""Load the exported model and predict with it; with `features` and `exported`, all the image needs.

`packager` calls `load`, and the object's `predict`, because `[tool.packager]` names them.
Nothing here may import what `[project.dependencies]` does not list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import exported
from .features import Config, encode

__all__ = ["Predictor", "load"]


@dataclass(frozen=True)
class Predictor:
    """A loaded model.

    Attributes
    ----------
    config : Config
        Its inputs and its output.
    run : callable
        From the matrix that `encode` makes to probabilities, shape (rows, classes), or for a
        regression to values, shape (rows,).
    """

    config: Config
    run: Callable[[np.ndarray], np.ndarray]

    def predict(self, inputs: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
        """Predict each row.

        Parameters
        ----------
        inputs : mapping
            A column for each of the model's inputs; None is a missing value.

        Returns
        -------
        dict
            The target by its name; for a classification also ``probability``, for each row one
            number for each class, in the order of `Config.classes`.

        Raises
        ------
        ValueError
            When the inputs are not what `encode` takes.
        """
        matrix = encode(self.config, inputs)
        names = [self.config.target, "probability"] if self.config.classes else [self.config.target]
        if not len(matrix):
            return {name: [] for name in names}
        output = np.asarray(self.run(matrix), dtype=np.float64)
        if not self.config.classes:
            return {self.config.target: output.tolist()}
        best = [self.config.classes[index] for index in output.argmax(axis=1)]
        return {self.config.target: best, "probability": output.tolist()}


def load(path: Path) -> Predictor:
    """Load an exported model.

    Parameters
    ----------
    path : Path
        A file that training wrote.

    Returns
    -------
    Predictor
        Ready to predict.

    Raises
    ------
    ValueError
        When the file is something else.
    """
    return Predictor(*exported.load(path))
