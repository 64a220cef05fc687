"""What the built-in loaders have in common: the model's own signature, and values as arrays."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .facts import InputError, Tensor

__all__ = ["BuiltIn", "filled", "kind", "matrix", "module", "unnamed"]


class BuiltIn:
    """A model of a known format, which may know what it takes.

    Parameters
    ----------
    inputs : sequence of Tensor
        What it takes; empty if the file does not say.
    named : bool
        Whether the names are the model's own, or made up for columns that are told apart by
        their order.
    """

    def __init__(self, inputs: Sequence[Tensor], *, named: bool) -> None:
        self.inputs = tuple(inputs)
        self._named = named

    def predict(self, inputs: Mapping[str, list[Any]]) -> Mapping[str, Any]:
        """Predict from columns to named columns."""
        raise NotImplementedError

    def refuse_other(self, recorded: Sequence[Tensor]) -> None:
        """Compare what the model takes with the recorded signature.

        Parameters
        ----------
        recorded : sequence of Tensor
            The signature's inputs; empty if there is none.

        Raises
        ------
        InputError
            When they differ.
        """
        if not self.inputs or not recorded:
            return
        if self._named:
            self._refuse_other_names({one.name: one for one in recorded})
        elif (width := _width(recorded)) not in {None, len(self.inputs)}:
            raise InputError(
                f"the recorded inputs are {width} columns, the model takes {len(self.inputs)}"
            )

    def _refuse_other_names(self, recorded: Mapping[str, Tensor]) -> None:
        mine = {one.name: one for one in self.inputs}
        for what, names in (
            ("records no", [*mine.keys() - recorded.keys()]),
            ("records what the model does not take:", [*recorded.keys() - mine.keys()]),
        ):
            if names:
                raise InputError(f"the signature {what} {', '.join(map(repr, sorted(names)))}")
        for name, tensor in mine.items():
            other = recorded[name].shape
            if len(other) != len(tensor.shape) or any(
                -1 not in pair and pair[0] != pair[1]
                for pair in zip(tensor.shape, other, strict=True)
            ):
                raise InputError(
                    f"the signature records {name!r} as {list(other)}, the model takes "
                    f"{list(tensor.shape)}"
                )

    def columns(self, inputs: Mapping[str, list[Any]]) -> list[list[Any]]:
        """Put columns into the model's order; without names they come in it."""
        if self._named:
            return [inputs[one.name] for one in self.inputs]
        return list(inputs.values())


def _width(recorded: Sequence[Tensor]) -> int | None:
    sizes = [math.prod(one.shape[1:]) for one in recorded]
    return None if any(-1 in one.shape[1:] for one in recorded) else sum(sizes)


def unnamed(count: int) -> list[str]:
    """Name columns that have no names."""
    return [f"x{at}" for at in range(count)]


def matrix(columns: Iterable[list[Any]]) -> Any:
    """Put columns side by side, an array's items too; NaN stands for a missing value."""
    rows = list(zip(*(filled(column, math.nan) for column in columns), strict=True))
    text = any(isinstance(value, str) for row in rows for value in row)
    array = importlib.import_module("numpy").array(rows, dtype=object if text else None)
    return array.reshape(len(rows), -1)


def filled(value: Any, missing: Any) -> Any:
    """Put something else where a value is missing, in lists too."""
    if isinstance(value, list):
        return [filled(item, missing) for item in value]
    return missing if value is None else value


def module(name: str, path: Path) -> Any:
    """Import what a file needs.

    Parameters
    ----------
    name : str
        Of the module.
    path : Path
        The file.

    Returns
    -------
    module
        It.

    Raises
    ------
    ImportError
        When it is not in the image.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as wrong:
        raise ImportError(
            f"{path.name} needs {wrong.name}, which is not in the image: add the package to "
            "the project's dependencies"
        ) from None


def kind(value: object) -> str:
    """Say what a value is, for messages."""
    return f"a value of type {type(value).__qualname__}"
