"""`metrics.json`, which training leaves beside the model, and its values as a card shows them."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from packager.errors import UsageError
from packager.markers import EMPTY

__all__ = ["FILE", "SUMMARY", "Unknown", "read", "shown"]

FILE = "metrics.json"

SUMMARY = "table"
"""The path of a table that is put together from several others."""

_MOST = 4 << 20
_DIGITS = 4
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Unknown(Exception):  # noqa: N818 - what a path is, not what failed
    """A path leads to nothing that a card could show; says what to do."""


def read(path: Path, where: str) -> Mapping[str, Any]:
    """Read the file.

    Parameters
    ----------
    path : Path
        The file, which is there.
    where : str
        What to call it.

    Raises
    ------
    UsageError
        When it holds anything but an object of JSON.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no file")
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
        if len(data) > _MOST:
            raise ValueError(f"it has more than {_MOST} bytes")
        found = json.loads(data, parse_constant=_refuse)
        if not isinstance(found, dict):
            raise ValueError("it is no object")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=where) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"is no file of metrics: {error}", where=where, hint="Train again."
        ) from None
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON; write null for what could not be measured")


def shown(metrics: Mapping[str, Any], path: str, *, front: bool) -> str:
    """Write a value as it stands in a card.

    Parameters
    ----------
    metrics : mapping
        From `read`.
    path : str
        Keys with dots between, or `SUMMARY`.
    front : bool
        For the front matter, which is YAML; else Markdown.

    Returns
    -------
    str
        A table with an empty line before and after, or a piece of one line.

    Raises
    ------
    Unknown
        When there is no such value, or none that can stand there.
    """
    if path == SUMMARY:
        rows = _summary(metrics)
    else:
        found = _at(metrics, path.split("."))
        if found is _NOTHING:
            raise Unknown(_instead(metrics, path))
        if not isinstance(found, dict | list):
            return _in_yaml(found) if front else _cell(found)
        rows = _rows(found)
    if front:
        raise Unknown("it is a table, and the front matter takes single values")
    if len(rows) == 1:
        raise Unknown("it is empty")
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


_NOTHING = object()


def _at(value: Any, keys: list[str]) -> Any:
    """Follow a path; a key may itself hold dots."""
    if not keys:
        return value
    if isinstance(value, dict):
        for count in range(1, len(keys) + 1):
            key = ".".join(keys[:count])
            if key in value and (found := _at(value[key], keys[count:])) is not _NOTHING:
                return found
    return _NOTHING


def _instead(metrics: Mapping[str, Any], path: str) -> str:
    known = [SUMMARY, *_paths(metrics)]
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.7)
    if close:
        return f"did you mean {close[0]}?"
    return f"it has {', '.join(known[:12])}{' …' if len(known) > 12 else ''}"  # noqa: PLR2004


def _paths(value: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, inner in value.items():
        yield f"{above}{key}"
        if isinstance(inner, dict):
            yield from _paths(inner, f"{above}{key}.")


def _in_yaml(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(_STEERING.sub(" ", value), ensure_ascii=False)
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value)


def _cell(value: object) -> str:
    match value:
        case None:
            return EMPTY
        case bool():
            return "yes" if value else "no"
        case float():
            return _number(value)
        case int():
            return str(value)
        case str():
            # Markup, and what would end the cell, the marker or the line.
            return re.sub(r"[\\`*\[\]<>|&]", r"\\\g<0>", _STEERING.sub(" ", value)) or EMPTY
    return "…"


def _number(value: float) -> str:
    """Round to what a reader needs; in a form that YAML reads as a number too."""
    rounded = float(f"{value:.{_DIGITS}g}")
    return re.sub(r"^(-?\d)e", r"\1.0e", repr(rounded)) if math.isfinite(rounded) else EMPTY


def _rows(value: dict[str, Any] | list[Any]) -> list[list[str]]:
    """Make a table of whatever is nested: a row for each innermost object."""
    inner = list(_objects(value))
    depth = max((len(names) for names, _ in inner), default=0)
    texts = {key for _, cells in inner for key in cells if isinstance(cells[key], str)}
    # What is measured comes before how much it is.
    columns = sorted(
        dict.fromkeys(key for _, cells in inner for key in cells), key=lambda key: key not in texts
    )
    head = [""] * depth + [_named(key) for key in columns]
    return [
        head,
        *(
            [*(_cell(name) for name in names), *[""] * (depth - len(names))]
            + [_cell(cells[key]) if key in cells else "" for key in columns]
            for names, cells in inner
        ),
    ]


def _objects(
    value: object, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if isinstance(value, list):
        for one in value:
            yield from _objects(one, names)
    elif isinstance(value, dict):
        plain = {key: one for key, one in value.items() if not isinstance(one, dict)}
        if plain:
            yield names, plain
        for key, one in value.items():
            if isinstance(one, dict):
                yield from _objects(one, (*names, key))
    else:
        yield names, {"": value}


def _named(key: str) -> str:
    return _cell(key.replace("_", " "))


def _table(value: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _summary(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Put held-out values, the spread of cross-validation and the baselines side by side."""
    crossed = _table(metrics, "cross_validation", "metrics")
    columns = {
        "held out": _numbers(_table(metrics, "held_out")),
        "cross-validation": {key: _spread(value) for key, value in crossed.items()},
    }
    for name in _table(metrics, "baselines"):
        columns[f"baseline: {_named(name)}"] = _numbers(_table(metrics, "baselines", name))
    columns = {name: cells for name, cells in columns.items() if cells}
    names = list(dict.fromkeys(key for cells in columns.values() for key in cells))
    rows = [[_named(key), *(cells.get(key, "") for cells in columns.values())] for key in names]
    return [["metric", *columns], *rows]


def _numbers(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: _cell(one) for key, one in values.items() if isinstance(one, int | float)}


def _spread(value: object) -> str:
    if not isinstance(value, dict):
        return _cell(value)
    mean, deviation, least, most = (_cell(value.get(key)) for key in ("mean", "std", "min", "max"))
    return f"{mean} ± {deviation} ({least} to {most})"
