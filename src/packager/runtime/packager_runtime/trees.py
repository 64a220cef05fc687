"""Boosted trees in their libraries' own files: XGBoost's JSON and UBJSON, LightGBM's text."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .builtin import BuiltIn, matrix, module, unnamed
from .facts import InputError, Tensor

__all__ = ["Trees", "is_lightgbm", "lightgbm", "xgboost"]

_LIGHTGBM = b"tree\n"
_HEAD_BYTES = 1 << 20  # LightGBM's names of columns stand there, too
_OBJECTIVE = re.compile(rb"^objective=(\w+)", re.MULTILINE)
_CLASSES = {"binary:logistic", "binary", "multi:softprob", "multiclass", "multiclassova"}


class Trees(BuiltIn):
    """Boosted trees over columns of numbers.

    Parameters
    ----------
    run : callable
        From a matrix, NaN where a value is missing, to what the library predicts.
    names : sequence of str
        Of the columns.
    named : bool
        Whether the names are the file's.
    objective : str
        What was trained, in the library's words: whether the answer is probabilities.
    """

    def __init__(
        self, run: Callable[[Any], Any], names: Sequence[str], *, named: bool, objective: str
    ) -> None:
        super().__init__([Tensor(name, "FP64", nullable=True) for name in names], named=named)
        self._run = run
        self._tells_classes = objective in _CLASSES

    def predict(self, inputs: Mapping[str, list[Any]]) -> dict[str, Any]:
        """Predict; of a classification the class, counted from 0, and all probabilities."""
        found = self._run(matrix(self.columns(inputs)))
        if not self._tells_classes:
            return {"prediction": found}
        if found.ndim == 1:
            found = importlib.import_module("numpy").stack([1 - found, found], axis=1)
        return {"prediction": found.argmax(axis=1), "probability": found}


def xgboost(path: Path) -> Trees:
    """Load what XGBoost's `save_model` wrote.

    Parameters
    ----------
    path : Path
        JSON or UBJSON.

    Returns
    -------
    Trees
        With the names of the columns that it was trained on, if they had any.

    Raises
    ------
    InputError
        When the file is something else, or the model takes categories.
    """
    library = module("xgboost", path)
    booster = library.Booster()
    try:
        booster.load_model(path)
    except library.core.XGBoostError:
        raise InputError(f"{path.name} is no model of XGBoost") from None
    if "c" in (booster.feature_types or ()):
        raise _categories(path)
    learner = json.loads(booster.save_config())["learner"]
    best = booster.attr("best_iteration")
    trees = (0, int(best) + 1 if best else 0)

    def run(rows: Any) -> Any:
        return booster.inplace_predict(rows, iteration_range=trees)

    names = booster.feature_names
    return Trees(
        run,
        names or unnamed(booster.num_features()),
        named=bool(names),
        objective=learner["objective"]["name"],
    )


def is_lightgbm(path: Path) -> bool:
    """Tell whether a text file begins as LightGBM's do."""
    with path.open("rb") as file:
        return file.read(len(_LIGHTGBM)) == _LIGHTGBM


def lightgbm(path: Path) -> Trees:
    """Load what LightGBM's `save_model` wrote.

    Parameters
    ----------
    path : Path
        Text.

    Returns
    -------
    Trees
        With the names of its columns; LightGBM makes up its own where there were none.

    Raises
    ------
    InputError
        When the file is something else, or the model takes categories.
    """
    library = module("lightgbm", path)
    try:
        booster = library.Booster(model_file=path)
    except library.basic.LightGBMError as wrong:
        raise InputError(f"{path.name} is no model of LightGBM: {wrong}") from None
    if booster.pandas_categorical:
        raise _categories(path)
    with path.open("rb") as file:
        found = _OBJECTIVE.search(file.read(_HEAD_BYTES))
    names = booster.feature_name()
    named = names != [f"Column_{at}" for at in range(len(names))]
    objective = found[1].decode() if found else ""
    return Trees(booster.predict, names, named=named, objective=objective)


def _categories(path: Path) -> InputError:
    return InputError(
        f"{path.name} takes categories, which the built-in loader does not know: load it with a "
        "predictor of the project's own"
    )
