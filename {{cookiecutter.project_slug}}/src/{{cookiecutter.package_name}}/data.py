"""Read the penguins: check the file, clean it, and set rows aside for testing."""

from __future__ import annotations

import hashlib
import io
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

__all__ = ["FOLDER", "SEED", "DataError", "clean", "load", "registry", "split"]

FOLDER = Path(__file__).parents[2] / "data"
"""Where the data stand in a checkout; the image holds none."""

SEED = 0
"""The one seed: it decides which rows are held out, and nothing else here is random."""

_COLUMNS = {
    "Species": "species",
    "Individual ID": "individual",
    "Culmen Length (mm)": "culmen_length_mm",
    "Culmen Depth (mm)": "culmen_depth_mm",
    "Flipper Length (mm)": "flipper_length_mm",
    "Sex": "sex",
}
_MEASUREMENTS = ["culmen_length_mm", "culmen_depth_mm", "flipper_length_mm"]


class DataError(ValueError):
    """A data file is missing, or is not the file that the registry describes."""


def registry(folder: Path = FOLDER) -> dict[str, Any]:
    """Return what `registry.toml` says about the data file.

    Parameters
    ----------
    folder : Path
        The folder that holds the registry and the data.

    Returns
    -------
    dict
        ``file``, ``sha256``, ``source`` and ``license``.
    """
    entry: dict[str, Any] = tomllib.loads((folder / "registry.toml").read_text("utf-8"))["penguins"]
    return entry


def load(folder: Path = FOLDER) -> pd.DataFrame:
    """Read the data file after checking its digest, and clean it.

    Parameters
    ----------
    folder : Path
        The folder that holds the registry and the data.

    Returns
    -------
    pandas.DataFrame
        As `clean` returns it.

    Raises
    ------
    DataError
        When the file is missing, or its SHA-256 is not the registry's.
    """
    entry = registry(folder)
    path = folder / entry["file"]
    if not path.is_file():
        raise DataError(f"{path} is missing: get it from {entry['source']}")
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if digest != entry["sha256"]:
        raise DataError(
            f"{path} is not the file it should be: its SHA-256 is {digest}, the registry says "
            f"{entry['sha256']}\n  Restore it, or state the new digest in registry.toml."
        )
    return clean(pd.read_csv(io.BytesIO(raw), na_values=["."]))


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Keep what the model uses, under short names.

    Two birds were caught and not measured: their rows go.  A bird whose sex is unknown, or
    noted as ``"."``, stays, its sex None.

    Parameters
    ----------
    raw : pandas.DataFrame
        The columns of the published file, ``"."`` read as missing.

    Returns
    -------
    pandas.DataFrame
        ``species`` (the common name), ``individual`` (unique within a species), three
        measurements in millimetres, and ``sex`` (``"FEMALE"``, ``"MALE"`` or None).
    """
    table = raw[list(_COLUMNS)].rename(columns=_COLUMNS)
    table = table.dropna(subset=_MEASUREMENTS, how="all").reset_index(drop=True)
    table["species"] = table["species"].str.split().str[0].astype(object)
    table[_MEASUREMENTS] = table[_MEASUREMENTS].astype("float64")
    table["sex"] = table["sex"].astype(object).where(table["sex"].isin(["FEMALE", "MALE"]), None)
    return table


def split(table: pd.DataFrame, seed: int = SEED) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set a fifth of the birds aside.

    A bird that was measured in several years is on one side only: otherwise the model would
    be tested on animals it has seen.  Identifiers repeat between species, so a bird is a
    species and an identifier together.

    Parameters
    ----------
    table : pandas.DataFrame
        As `clean` returns it.
    seed : int
        Which birds.

    Returns
    -------
    training, held_out : pandas.DataFrame
        Rows of `table`, numbered afresh.
    """
    birds = table["species"] + " " + table["individual"]
    folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=seed)
    training, held_out = next(folds.split(table, table["species"], birds))
    return table.iloc[training].reset_index(drop=True), table.iloc[held_out].reset_index(drop=True)
