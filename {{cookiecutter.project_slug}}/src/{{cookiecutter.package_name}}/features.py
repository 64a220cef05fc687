"""Which columns the model takes, and how they become the numbers it computes with.

The image needs this module: nothing here may import what `[project.dependencies]` does not list.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Config", "encode", "signature"]


@dataclass(frozen=True)
class Config:
    """What a model needs to know besides its weights; it travels inside the exported file.

    Attributes
    ----------
    task : str
        ``"classification"`` or ``"regression"``.
    target : str
        The column that is predicted.
    classes : tuple of str
        The values it can have, in the order of the probabilities; empty for a regression.
    numeric : tuple of str
        Input columns that hold numbers.
    categorical : mapping
        Input columns that hold one of a few words, and these words.
    """

    task: str
    target: str
    classes: tuple[str, ...]
    numeric: tuple[str, ...]
    categorical: Mapping[str, tuple[str, ...]]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the input columns, in the order in which they are encoded.

        Returns
        -------
        tuple of str
            Numbers first.
        """
        return (*self.numeric, *self.categorical)

    @property
    def width(self) -> int:
        """How many numbers a row is encoded into.

        Returns
        -------
        int
            One for each number, and one for each word that a category can have.
        """
        return len(self.numeric) + sum(map(len, self.categorical.values()))

    def to_json(self) -> str:
        """Write the configuration as JSON.

        Returns
        -------
        str
            The same each time.
        """
        # Keys are not sorted: the order of the columns is part of what is said.
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Read what `to_json` wrote.

        Parameters
        ----------
        text : str
            JSON.

        Returns
        -------
        Config
            Equal to the one that was written.

        Raises
        ------
        ValueError
            When the text is something else.
        """
        try:
            known = json.loads(text)
            return cls(
                task=known["task"],
                target=known["target"],
                classes=tuple(known["classes"]),
                numeric=tuple(known["numeric"]),
                categorical={name: tuple(words) for name, words in known["categorical"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the configuration of a model: {error!r}") from None


def encode(config: Config, inputs: Mapping[str, Iterable[Any]]) -> np.ndarray:
    """Turn columns into the matrix that the model is trained on and predicts from.

    Parameters
    ----------
    config : Config
        Which columns.
    inputs : mapping
        A column for each of them; None and NaN are missing values.  Other columns are left out.

    Returns
    -------
    numpy.ndarray
        float64, shape (rows, `Config.width`).  A missing number is NaN; of a word's columns one
        is 1, and none where it is missing.

    Raises
    ------
    ValueError
        When a column is missing, columns differ in length, or a value is of the wrong kind.
    """
    missing = [name for name in config.inputs if name not in inputs]
    if missing:
        raise ValueError(f"inputs lack {', '.join(missing)}; needed are {', '.join(config.inputs)}")
    columns = {name: list(inputs[name]) for name in config.inputs}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns differ in length: {lengths}")
    blocks = [_numbers(name, columns[name]) for name in config.numeric]
    blocks += [
        _indicators(name, words, columns[name]) for name, words in config.categorical.items()
    ]
    return np.hstack(blocks)


def signature(config: Config) -> dict[str, list[dict[str, Any]]]:
    """Describe inputs and outputs in the terms of the Open Inference Protocol v2.

    Parameters
    ----------
    config : Config
        The model's.

    Returns
    -------
    dict
        ``inputs`` and ``outputs``; -1 in a shape is the number of rows.
    """
    numbers = {"datatype": "FP64", "shape": [-1]}
    words = {"datatype": "BYTES", "shape": [-1]}
    outputs = [{"name": config.target, **(words if config.classes else numbers)}]
    if config.classes:
        shape = [-1, len(config.classes)]
        outputs.append({"name": "probability", "datatype": "FP64", "shape": shape})
    return {
        "inputs": [
            *({"name": name, **numbers, "nullable": True} for name in config.numeric),
            *({"name": name, **words, "nullable": True} for name in config.categorical),
        ],
        "outputs": outputs,
    }


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _numbers(name: str, values: list[Any]) -> np.ndarray:
    try:
        column = [np.nan if _is_missing(value) else float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds something that is no number: {error}") from None
    return np.array(column, dtype=np.float64).reshape(-1, 1)


def _indicators(name: str, words: tuple[str, ...], values: list[Any]) -> np.ndarray:
    block = np.zeros((len(values), len(words)))
    for row, value in enumerate(values):
        if _is_missing(value):
            continue
        if value not in words:
            raise ValueError(f"{name} is {value!r}; it can be {', '.join(words)}, or missing")
        block[row, words.index(value)] = 1
    return block
