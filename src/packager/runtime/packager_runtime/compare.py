"""Recorded predictions against repeated ones: what agrees, and by how much the rest is off."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import Any

__all__ = ["Comparison", "compare"]

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one output compares.

    Parameters
    ----------
    name : str
        Of the output.
    compared, mismatched : int
        Rows.
    largest_difference : float
        Between any two numbers, agreeing or not.
    first_mismatch : dict or None
        Its `row`, counted from 1, and what was `expected` and `got` there.
    """

    name: str
    compared: int
    mismatched: int
    largest_difference: float
    first_mismatch: dict[str, Any] | None


def compare(
    name: str, expected: list[Any], got: list[Any], *, rtol: float, atol: float
) -> Comparison:
    """Compare one output.

    Text, truth values and whole numbers agree if they are equal, floating-point numbers
    within ``atol + rtol * |expected|``, lists item by item, and None only with None.

    Parameters
    ----------
    name : str
        Of the output.
    expected, got : list
        One plain, finite value or nested list per row.
    rtol, atol : float
        The tolerance, relative and absolute.

    Returns
    -------
    Comparison
        A row too few or too many counts as a mismatch.
    """
    mismatched, largest, first = 0, 0.0, None
    pairs = itertools.zip_longest(expected, got, fillvalue=_ABSENT)
    for row, (one, other) in enumerate(pairs, 1):
        agrees, difference = _agree(one, other, rtol, atol)
        largest = max(largest, difference)
        if not agrees:
            mismatched += 1
            first = first or {"row": row, "expected": _shown(one), "got": _shown(other)}
    return Comparison(name, max(len(expected), len(got)), mismatched, largest, first)


def _agree(expected: Any, got: Any, rtol: float, atol: float) -> tuple[bool, float]:
    if isinstance(expected, list) and isinstance(got, list):
        parts = [_agree(one, other, rtol, atol) for one, other in zip(expected, got, strict=False)]
        same = len(expected) == len(got) and all(agrees for agrees, _ in parts)
        return same, max((difference for _, difference in parts), default=0.0)
    if _is_number(expected) and _is_number(got):
        difference = _difference(expected, got)
        if isinstance(expected, int) and isinstance(got, int):
            return expected == got, difference
        return difference <= atol + rtol * abs(expected), difference
    return type(expected) is type(got) and expected == got, 0.0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _difference(one: float, other: float) -> float:
    # JSON has no infinity, so what overflows is reported as the largest number there is.
    try:
        return min(float(abs(one - other)), sys.float_info.max)
    except OverflowError:
        return sys.float_info.max


def _shown(value: Any) -> Any:
    return None if value is _ABSENT else value
