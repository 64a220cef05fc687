"""Say how good the exported model is on rows it has not seen, beside a baseline."""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, recall_score

from . import data
from .examples import columns
from .export import json_bytes
from .predict import Predictor, load

__all__ = ["evaluate"]

MODEL = data.FOLDER.parent / "models" / "model.skops"


def evaluate(
    predictor: Predictor, training: pd.DataFrame, held_out: pd.DataFrame
) -> dict[str, Any]:
    """Measure a model.

    Parameters
    ----------
    predictor : Predictor
        The exported model, loaded again.
    training : pandas.DataFrame
        The rows it was trained on: the baseline always answers their most frequent species.
    held_out : pandas.DataFrame
        The rows it is measured on.

    Returns
    -------
    dict
        Numbers of rows; scores between 0 and 1, the log loss in nats, each rounded to six
        digits, which is where processors agree.
    """
    truth = held_out["species"]
    outputs = predictor.predict(columns(held_out))
    species = sorted(training["species"].unique())
    baseline = DummyClassifier(strategy="most_frequent").fit(training, training["species"])
    recall = recall_score(truth, outputs["species"], labels=species, average=None)
    return {
        "rows": {"training": len(training), "held_out": len(held_out)},
        "accuracy": _rounded(accuracy_score(truth, outputs["species"])),
        "balanced_accuracy": _rounded(balanced_accuracy_score(truth, outputs["species"])),
        "log_loss": _rounded(log_loss(truth, outputs["probability"], labels=species)),
        "recall": {name: _rounded(value) for name, value in zip(species, recall, strict=True)},
        "baseline": {"accuracy": _rounded(accuracy_score(truth, baseline.predict(held_out)))},
    }


def main() -> None:
    """Evaluate ``models/model.skops`` and print the result."""
    if not MODEL.is_file():
        sys.exit(f"{MODEL} is missing: train first")
    try:
        training, held_out = data.split(data.load())
    except data.DataError as error:
        sys.exit(str(error))
    print(json_bytes(evaluate(load(MODEL), training, held_out)).decode(), end="")


def _rounded(value: float) -> float:
    return round(float(value), 6)


if __name__ == "__main__":
    main()
