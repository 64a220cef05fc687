"""Record examples: inputs, and what the exported model predicts for them.

`packager` replays them in the sealed image and compares, so an image that predicts
something else is never delivered.  Whatever is recorded travels inside the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .data import DataError, columns
from .export import TOLERANCE
from .features import encode, signature
from .predict import Predictor
from .registry import Entry
from .settings import ROOT, Settings

__all__ = ["Rows", "chosen", "own", "ranges", "record", "sample", "tolerance"]

_SAMPLE_ROWS = 3
_MOST_WORDS = 50


@dataclass(frozen=True)
class Rows:
    """Inputs that may travel inside the image.

    Attributes
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


def chosen(held_out: pd.DataFrame, entry: Entry, settings: Settings) -> Rows:
    """Take the rows that the settings want recorded.

    Parameters
    ----------
    held_out : pandas.DataFrame
        The second part of `data.split`: these, if the settings name no others.
    entry : Entry
        What the registry says about the data.
    settings : Settings
        May name a file of rows that stands in for data that must not travel.

    Returns
    -------
    Rows
        Ready to `record`.

    Raises
    ------
    DataError
        When the file that the settings name cannot be used.
    """
    if settings.data.examples:
        path = ROOT / settings.data.examples
        return own(path, settings.data.examples_license, settings)
    return Rows(held_out, f"held-out rows of {entry.path.name}, {entry.source}", entry.license)


def own(path: Path, license_text: str, settings: Settings) -> Rows:
    """Read rows from a file of one's own, where the data must not travel.

    Parameters
    ----------
    path : Path
        CSV; its header names the inputs, and other columns are ignored and not recorded.
    license_text : str
        Under which licence these rows may travel.
    settings : Settings
        Names the inputs.

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
        raise DataError(f"{path} is missing")
    try:
        # A word is a word, though it look like a number or like "NA".
        words = dict.fromkeys(settings.features.categorical, str)
        table = pd.read_csv(path, dtype=words, keep_default_na=False, na_values=[""])
        encode(settings.config, {name: table[name].astype(object) for name in table})
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return Rows(table[list(settings.config.inputs)], path.name, license_text)


def record(
    predictor: Predictor,
    rows: Rows,
    settings: Settings,
    *,
    model: str,
    training: pd.DataFrame,
) -> dict[str, Any]:
    """Predict rows, and describe what was predicted from what.

    Parameters
    ----------
    predictor : Predictor
        The exported model, loaded again.
    rows : Rows
        What to predict.
    settings : Settings
        Names the inputs.
    model : str
        The model file's digest, ``"sha256:…"``.
    training : pandas.DataFrame
        The rows that the model was fitted to.  Their ranges are recorded, so that a row
        outside of them can be flagged, but not of data that must not travel.

    Returns
    -------
    dict
        The content of ``examples.json``.
    """
    inputs = columns(rows.table, settings)
    outputs = predictor.predict(inputs)
    recorded: dict[str, Any] = {
        "format": 1,
        "model": model,
        "signature": signature(predictor.config),
        "tolerance": tolerance(outputs),
        "data": {"rows": len(rows.table), "source": rows.source, "license": rows.license_text},
        "inputs": inputs,
        "outputs": outputs,
    }
    if not settings.data.examples:
        recorded["ranges"] = ranges(columns(training, settings))
    return recorded


def ranges(inputs: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Say which values each input has.

    Parameters
    ----------
    inputs : dict
        Columns; None is a missing value.

    Returns
    -------
    dict
        For a column of numbers its ``min`` and ``max``, for one of words its sorted ``values``;
        nothing for one that is empty, or that has too many words to be a category.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, column in inputs.items():
        values = {value for value in column if value is not None}
        if values and _is_numeric([*values]):
            found[name] = {"min": min(values), "max": max(values)}
        elif 0 < len(values) <= _MOST_WORDS:
            found[name] = {"values": sorted(values)}
    return found


def tolerance(outputs: dict[str, list[Any]]) -> dict[str, float]:
    """Say how far a replay may be off, on the scale of what is predicted.

    Parameters
    ----------
    outputs : dict
        What was predicted.

    Returns
    -------
    dict
        ``rtol`` as the format has it, ``atol`` times the largest value if that is over one.
    """
    numbers = np.hstack([np.ravel(column) for column in outputs.values() if _is_numeric(column)])
    scale = max(1.0, float(np.abs(numbers).max(initial=0)))
    return {"rtol": TOLERANCE["rtol"], "atol": TOLERANCE["atol"] * scale}


def sample(rows: Rows, settings: Settings) -> bytes:
    """Write the first of the recorded rows as CSV, to try the image with.

    Parameters
    ----------
    rows : Rows
        What was recorded.
    settings : Settings
        Names the inputs.

    Returns
    -------
    bytes
        A header and at most three rows.
    """
    table = rows.table[list(settings.config.inputs)].head(_SAMPLE_ROWS)
    text: str = table.to_csv(index=False, lineterminator="\n")
    return text.encode()


def _is_numeric(column: list[Any]) -> bool:
    return not column or not isinstance(column[0], str)
