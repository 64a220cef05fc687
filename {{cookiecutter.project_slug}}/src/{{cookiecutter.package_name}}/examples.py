"""Record examples: inputs, and what the exported model predicts for them.

`packager` replays them in the sealed image and compares, so an image that predicts
something else is never delivered.  Whatever is recorded travels inside the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from . import data
from .predict import SIGNATURE, Predictor, frame

__all__ = ["TOLERANCE", "Rows", "columns", "held_out", "own", "record"]

TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}
"""How far a replay may be off, relatively and absolutely; other processors give 1.5e-14."""

_NAMES = [column["name"] for column in SIGNATURE["inputs"]]


@dataclass(frozen=True)
class Rows:
    """Inputs that may travel inside the image.

    Parameters
    ----------
    table : pandas.DataFrame
        Holds a column for each input.
    source : str
        Where the rows come from.
    license_text : str
        Under which licence they may travel.
    """

    table: pd.DataFrame
    source: str
    license_text: str


def columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Take the model's inputs out of a table.

    Parameters
    ----------
    table : pandas.DataFrame
        Holds a column for each input.

    Returns
    -------
    dict
        Plain Python values; None where one is missing.
    """
    return {
        name: [None if pd.isna(value) else value for value in table[name].tolist()]
        for name in _NAMES
    }


def held_out(table: pd.DataFrame) -> Rows:
    """Take the rows that were held out: published data, under the registry's licence.

    Parameters
    ----------
    table : pandas.DataFrame
        The second part of `data.split`.

    Returns
    -------
    Rows
        Ready to `record`.
    """
    entry = data.registry()
    source = f"held-out rows of data/{entry['file']}, {entry['source']}"
    return Rows(table, source, entry["license"])


def own(path: Path, license_text: str) -> Rows:
    """Read rows from a file of one's own, where the data must not travel.

    Parameters
    ----------
    path : Path
        CSV; its header names the inputs, and other columns are ignored and not recorded.
    license_text : str
        Under which licence these rows may travel.

    Returns
    -------
    Rows
        Ready to `record`.

    Raises
    ------
    DataError
        When there is no such file, or the model cannot take what it holds.
    """
    if not path.is_file():
        raise data.DataError(f"{path} is missing")
    try:
        table = pd.read_csv(path)
        frame(table)
    except ValueError as error:
        raise data.DataError(f"{path}: {error}") from None
    return Rows(table[_NAMES], path.name, license_text)


def record(predictor: Predictor, rows: Rows, *, model: str) -> dict[str, Any]:
    """Predict rows, and describe what was predicted from what.

    Parameters
    ----------
    predictor : Predictor
        The exported model, loaded again.
    rows : Rows
        What to predict.
    model : str
        The model file's digest, ``"sha256:…"``.

    Returns
    -------
    dict
        The content of ``examples.json``.
    """
    inputs = columns(rows.table)
    return {
        "format": 1,
        "model": model,
        "signature": SIGNATURE,
        "tolerance": TOLERANCE,
        "data": {"rows": len(rows.table), "source": rows.source, "license": rows.license_text},
        "inputs": inputs,
        "outputs": predictor.predict(inputs),
    }
