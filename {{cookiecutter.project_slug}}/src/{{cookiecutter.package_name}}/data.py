"""From the registered file to what is trained on and what is held out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from . import dataset, files, registry
from .features import encode
from .settings import ROOT, Settings, SettingsError, read

__all__ = ["DataError", "columns", "folds", "groups", "leakage", "load", "main", "split", "targets"]


class DataError(ValueError):
    """The data cannot be what the settings say of them."""


def load(settings: Settings, folder: Path = ROOT / "data") -> pd.DataFrame:
    """Read the data after checking the file's digest, and clean them.

    Parameters
    ----------
    settings : Settings
        Names the data, and the columns that are used.
    folder : Path
        Holds the registry and the data.

    Returns
    -------
    pandas.DataFrame
        As `dataset.clean` returns it.

    Raises
    ------
    RegistryError
        When the file is missing, or its SHA-256 is not the registry's.
    DataError
        When a column is missing, or the target has a value that it should not have.
    """
    table = dataset.clean(registry.fetch(registry.entry(settings.data.name, folder)))
    wanted = [
        *settings.config.inputs,
        settings.task.target,
        *settings.split.groups,
        *settings.evaluation.by,
    ]
    missing = sorted(set(wanted) - set(table))
    if missing:
        raise DataError(
            f"experiment.toml names {', '.join(missing)}; dataset.clean gives {', '.join(table)}"
        )
    target = table[settings.task.target]
    if settings.task.classes:
        unknown = set(target.unique()) - set(settings.task.classes)
        if unknown:
            names = ", ".join(map(repr, unknown))
            raise DataError(
                f"{target.name} holds {names}, which task.classes in experiment.toml does not name"
            )
    elif not (pd.api.types.is_numeric_dtype(target) and np.isfinite(target).all()):
        raise DataError(f"{target.name} holds something that is no finite number")
    absent = set(settings.task.classes) - set(target.unique())
    if absent:
        raise DataError(f"no row is {', '.join(sorted(absent))}, which task.classes names")
    try:
        encode(settings.config, columns(table, settings))
    except ValueError as error:
        raise DataError(f"the data do not fit [features] in experiment.toml: {error}") from None
    return table


def split(table: pd.DataFrame, settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set a part of the rows aside, before anything is learned from them.

    Parameters
    ----------
    table : pandas.DataFrame
        As `load` returns it.
    settings : Settings
        How large a part, which rows belong together, and the seed.

    Returns
    -------
    training, held_out : pandas.DataFrame
        Rows of `table`, numbered afresh.
    """
    parts = round(1 / settings.split.held_out)
    training, held_out = next(_parts(table, settings, parts, settings.seed))
    return training, held_out


def folds(
    training: pd.DataFrame, settings: Settings
) -> Iterator[tuple[int, pd.DataFrame, pd.DataFrame]]:
    """Split the training rows again and again, for cross-validation.

    Parameters
    ----------
    training : pandas.DataFrame
        The first part of `split`.
    settings : Settings
        How many folds, and how often with another seed.

    Yields
    ------
    seed : int
        The repetition's.
    fitted, measured : pandas.DataFrame
        The rows to learn from, and the others.
    """
    for repeat in range(settings.split.repeats):
        seed = settings.seed + repeat
        for fitted, measured in _parts(training, settings, settings.split.folds, seed):
            yield seed, fitted, measured


def groups(table: pd.DataFrame, settings: Settings) -> np.ndarray | None:
    """Say which rows belong together.

    Parameters
    ----------
    table : pandas.DataFrame
        As `load` returns it.
    settings : Settings
        Names the columns that make a group.

    Returns
    -------
    numpy.ndarray or None
        Shape (rows,), a text for each row; None where each row stands for itself.
    """
    if not settings.split.groups:
        return None
    rows = table[list(settings.split.groups)].itertuples(index=False, name=None)
    return np.array(["\0".join(map(str, row)) for row in rows], dtype=object)


def leakage(training: pd.DataFrame, held_out: pd.DataFrame, settings: Settings) -> dict[str, int]:
    """Count what the model could have seen before it is tested on it.

    Parameters
    ----------
    training, held_out : pandas.DataFrame
        The parts of `split`.
    settings : Settings
        Which columns are inputs and target, and which rows belong together.

    Returns
    -------
    dict
        ``shared_groups``: groups with rows in both parts; ``duplicate_rows``: held-out rows whose
        inputs and target stand in the training part too.
    """
    parts = [groups(part, settings) for part in (training, held_out)]
    shared = len(set.intersection(*(set() if part is None else set(part) for part in parts)))
    used = [*settings.config.inputs, settings.task.target]
    known = set(training[used].astype(str).itertuples(index=False, name=None))
    rows = held_out[used].astype(str).itertuples(index=False, name=None)
    return {"shared_groups": shared, "duplicate_rows": sum(row in known for row in rows)}


def columns(table: pd.DataFrame, settings: Settings) -> dict[str, list[Any]]:
    """Take the model's inputs out of a table.

    Parameters
    ----------
    table : pandas.DataFrame
        Holds a column for each input.
    settings : Settings
        Names them.

    Returns
    -------
    dict
        Plain Python values; None where one is missing.
    """
    return {
        name: [None if pd.isna(value) else value for value in table[name].tolist()]
        for name in settings.config.inputs
    }


def targets(table: pd.DataFrame, settings: Settings) -> np.ndarray:
    """Take the target out of a table, as the model learns it.

    Parameters
    ----------
    table : pandas.DataFrame
        Holds the target.
    settings : Settings
        Names it.

    Returns
    -------
    numpy.ndarray
        Shape (rows,): int64 positions in ``task.classes``, or float64 values.
    """
    target = table[settings.task.target]
    if settings.task.classes:
        return np.array([settings.task.classes.index(name) for name in target], dtype=np.int64)
    return np.asarray(target, dtype=np.float64)


def _parts(
    table: pd.DataFrame, settings: Settings, number: int, seed: int
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    kinds: dict[tuple[bool, bool], Any] = {
        (True, True): StratifiedGroupKFold,
        (True, False): StratifiedKFold,
        (False, True): GroupKFold,
        (False, False): KFold,
    }
    kind = kinds[bool(settings.task.classes), bool(settings.split.groups)]
    splitter = kind(n_splits=number, shuffle=True, random_state=seed)
    target = table[settings.task.target]
    try:
        parts = list(splitter.split(table, target, groups(table, settings)))
    except ValueError as error:
        raise DataError(f"{len(table)} rows cannot be split into {number} parts: {error}") from None
    for fitted, measured in parts:
        absent = set(settings.task.classes) - set(target.iloc[fitted])
        if absent:
            raise DataError(
                f"{', '.join(sorted(absent))} is so rare that none is left to learn from where "
                f"{len(table)} rows are split into {number} parts"
            )
        yield tuple(table.iloc[rows].reset_index(drop=True) for rows in (fitted, measured))


def main() -> None:
    """Write the cleaned table to ``data/interim``, and both parts to ``data/processed``."""
    try:
        settings = read()
        table = load(settings)
        training, held_out = split(table, settings)
    except (SettingsError, registry.RegistryError, DataError) as error:
        sys.exit(str(error))
    for part, name in [
        (table, f"interim/{settings.data.name}"),
        (training, "processed/training"),
        (held_out, "processed/held_out"),
    ]:
        path = ROOT / "data" / f"{name}.csv"
        files.write(path, part.to_csv(index=False, lineterminator="\n").encode())
        print(f"{path}: {len(part)} rows")


if __name__ == "__main__":
    main()
