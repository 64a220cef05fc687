"""Which inputs lie outside of what the model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .facts import Columns

__all__ = ["outside"]


def outside(columns: Columns, ranges: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Name, for each row, the inputs whose value the model was not trained on.

    Parameters
    ----------
    columns : dict of str to list
        Checked columns.
    ranges : mapping of str to mapping
        From `Recording.ranges`; an input that has none is never outside.

    Returns
    -------
    list of list of str
        For each row, in the order of the columns.  A missing value is not outside; an array is
        if one of its items is.
    """
    tests = {name: _test(ranges[name]) for name in columns if name in ranges}
    found: list[list[str]] = [[] for _ in next(iter(columns.values()), [])]
    for name, inside in tests.items():
        for names, value in zip(found, columns[name], strict=True):
            if not all(inside(item) for item in _items(value)):
                names.append(name)
    return found


def _test(known: Mapping[str, Any]) -> Callable[[Any], bool]:
    if "values" in known:
        return frozenset(known["values"]).__contains__
    low, high = known["min"], known["max"]
    return lambda value: bool(low <= value <= high)


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _items(item)
    elif value is not None:
        yield value
