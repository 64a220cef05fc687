"""Load the exported model and predict with it; all that the image needs of this package.

`packager` calls `load`, and the object's `predict`, because `[tool.packager]` names them.
Nothing here may import what `[project.dependencies]` does not list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import skops.io

__all__ = ["NUMERIC", "SEXES", "SIGNATURE", "TRUSTED", "Predictor", "frame", "load"]

NUMERIC = ("culmen_length_mm", "culmen_depth_mm", "flipper_length_mm")
SEXES = ("FEMALE", "MALE")

SIGNATURE: dict[str, list[dict[str, Any]]] = {
    "inputs": [
        *({"name": name, "datatype": "FP64", "shape": [-1], "nullable": True} for name in NUMERIC),
        {"name": "sex", "datatype": "BYTES", "shape": [-1], "nullable": True},
    ],
    "outputs": [
        {"name": "species", "datatype": "BYTES", "shape": [-1]},
        {"name": "probability", "datatype": "FP64", "shape": [-1, 3]},
    ],
}
"""Inputs and outputs, in the terms of the Open Inference Protocol v2; -1 is the row count."""

TRUSTED = (
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
)
"""Types that skops does not know as harmless and that this model is made of.

Written by hand, so that a model file that wants anything else is refused.
"""


@dataclass(frozen=True)
class Predictor:
    """A loaded model.

    Parameters
    ----------
    model : object
        A fitted scikit-learn classifier of the columns that `frame` makes.
    """

    model: Any

    def predict(self, inputs: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
        """Predict one species for each row.

        Parameters
        ----------
        inputs : mapping
            One column for each input of `SIGNATURE`; None is a missing value.

        Returns
        -------
        dict
            ``species``, and ``probability``: one number for each species, in alphabetical
            order of their names.
        """
        table = frame(inputs)
        if table.empty:
            return {"species": [], "probability": []}
        probability = self.model.predict_proba(table)
        species = self.model.classes_[probability.argmax(axis=1)]
        return {"species": species.tolist(), "probability": probability.tolist()}


def frame(inputs: Mapping[str, Iterable[Any]]) -> pd.DataFrame:
    """Make the table that the model is trained on and predicts from.

    Parameters
    ----------
    inputs : mapping
        One column for each input of `SIGNATURE`; others are left out.

    Returns
    -------
    pandas.DataFrame
        Floats, missing ones NaN; sex upper case, missing ones None.

    Raises
    ------
    ValueError
        When a column is missing, columns differ in length, or a value is of the wrong kind.
    """
    names = [*NUMERIC, "sex"]
    missing = [name for name in names if name not in inputs]
    if missing:
        raise ValueError(f"inputs lack {', '.join(missing)}; needed are {', '.join(names)}")
    columns = {name: list(inputs[name]) for name in names}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns differ in length: {lengths}")
    table = {name: _numbers(name, columns[name]) for name in NUMERIC}
    table["sex"] = pd.Series([_sex(value) for value in columns["sex"]], dtype=object)
    return pd.DataFrame(table)


def load(path: Path) -> Predictor:
    """Load an exported model.

    Parameters
    ----------
    path : Path
        A file that `train` wrote.

    Returns
    -------
    Predictor
        Ready to predict.

    Raises
    ------
    skops.io.exceptions.UntrustedTypesFoundException
        When the file holds a type that `TRUSTED` does not name.
    """
    return Predictor(skops.io.load(path, trusted=list(TRUSTED)))


def _numbers(name: str, values: list[Any]) -> pd.Series:
    try:
        return pd.Series(values, dtype="float64")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds something that is no number: {error}") from None


def _sex(value: Any) -> str | None:
    if pd.isna(value):
        return None
    sex = str(value).upper()
    if sex not in SEXES:
        raise ValueError(f"sex is {value!r}; it can be {', '.join(SEXES)}, or missing")
    return sex
