"""Train the model, and write it with its metrics and its recorded examples."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from . import data, examples, export
from .evaluate import evaluate
from .predict import NUMERIC, SEXES, frame, load

__all__ = ["fit", "main", "train"]


def fit(training: pd.DataFrame) -> CalibratedClassifierCV:
    """Fit the classifier.

    Parameters
    ----------
    training : pandas.DataFrame
        Species and inputs.

    Returns
    -------
    CalibratedClassifierCV
        A support vector machine whose scores are calibrated to probabilities.
    """
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    # An unknown sex matches neither category: it becomes two zeros.
    sex = OneHotEncoder(categories=[list(SEXES)], handle_unknown="ignore", sparse_output=False)
    inputs = ColumnTransformer([("numbers", numbers, list(NUMERIC)), ("sex", sex, ["sex"])])
    model = CalibratedClassifierCV(make_pipeline(inputs, SVC()), ensemble=False)
    return model.fit(frame(training), training["species"])


def train(output: Path, *, seed: int = data.SEED, rows: examples.Rows | None = None) -> None:
    """Train, export, and record.

    What is recorded and measured is the exported file, loaded again, not the object in memory.

    Parameters
    ----------
    output : Path
        The folder for ``model.skops``, ``metrics.json`` and ``examples.json``.
    seed : int
        Decides which rows are held out.
    rows : examples.Rows, optional
        What to record; the held-out rows if absent.

    Raises
    ------
    DataError
        When the data file is not the one that the registry describes.
    """
    training, held_out = data.split(data.load(), seed)
    content = export.model_bytes(fit(training))
    export.write(output / "model.skops", content)
    model = f"sha256:{hashlib.sha256(content).hexdigest()}"
    predictor = load(output / "model.skops")
    metrics = {"model": model, **evaluate(predictor, training, held_out)}
    recorded = examples.record(predictor, rows or examples.held_out(held_out), model=model)
    export.write(output / "metrics.json", export.json_bytes(metrics))
    export.write(output / "examples.json", export.json_bytes(recorded))


def main(arguments: list[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=data.FOLDER.parent / "models")
    parser.add_argument(
        "--examples",
        type=Path,
        metavar="FILE.csv",
        help="record these rows instead of the held-out ones, where the data must not travel",
    )
    parser.add_argument(
        "--examples-license", metavar="TEXT", help="the licence under which those rows travel"
    )
    chosen = parser.parse_args(arguments)
    if (chosen.examples is None) != (chosen.examples_license is None):
        parser.error("--examples and --examples-license go together")
    try:
        rows = chosen.examples and examples.own(chosen.examples, chosen.examples_license)
        train(chosen.output, rows=rows)
    except data.DataError as error:
        sys.exit(str(error))
    print(f"Wrote model.skops, metrics.json and examples.json to {chosen.output}")


if __name__ == "__main__":
    main()
