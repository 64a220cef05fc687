"""Rows in and rows out: CSV and JSON to checked columns, and columns to CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from .facts import FLOATS, INTEGERS, Columns, InputError, Tensor

__all__ = ["check", "read", "write"]

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_ABSENT = object()


def read(
    data: bytes, inputs: Sequence[Tensor], source: Literal["csv", "json"] | None = None
) -> tuple[Columns, list[str]]:
    """Read a table.

    Parameters
    ----------
    data : bytes
        CSV with a header (a blank cell is a missing value, an array is JSON in its cell),
        or JSON: a list of row objects, row objects one after the other, or one object of
        columns.
    inputs : sequence of Tensor
        The columns that are wanted.  If empty, every column is, and those of a CSV are
        numbers where all their cells are.
    source : {"csv", "json"}, optional
        By default JSON is told by the bracket it begins with.

    Returns
    -------
    columns : dict of str to list
        The wanted columns, in the order of `inputs`.
    ignored : list of str
        Names of columns that nobody asked for.

    Raises
    ------
    InputError
        Naming the row, counted from 1 and without the header, and the column.
    """
    text = _text(data)
    if source is None:
        source = "json" if text.lstrip()[:1] in {"[", "{"} else "csv"
    table = _csv(text) if source == "csv" else _json(text, inputs)
    if not inputs:
        inputs = [Tensor(name, "", nullable=True) for name in table]
    ignored = [name for name in table if name not in {tensor.name for tensor in inputs}]
    return check(table, inputs, _cells if source == "csv" else None), ignored


def check(
    table: Columns,
    inputs: Iterable[Tensor],
    parse: Callable[[list[str], Tensor], Iterator[Any]] | None = None,
) -> Columns:
    """Take the wanted columns out of a table and check every value.

    Parameters
    ----------
    table : dict of str to list
        Columns of one length.
    inputs : iterable of Tensor
        What is wanted.
    parse : callable, optional
        Turns the cells of one column into values.

    Returns
    -------
    dict of str to list
        The wanted columns; integers in a floating column have become floats.

    Raises
    ------
    InputError
        When a column is missing, there is no row, or a value is not of its datatype.
    """
    inputs = list(inputs)
    if not any(table.values()):
        raise InputError("the input has no rows with columns")
    if missing := [tensor.name for tensor in inputs if tensor.name not in table]:
        found = ", ".join(repr(name) for name in table)
        raise InputError(f"missing columns: {', '.join(missing)} (found: {found})")
    return {tensor.name: list(_values(table[tensor.name], tensor, parse)) for tensor in inputs}


def write(columns: Columns, target: Literal["jsonl", "csv"]) -> Iterator[str]:
    """Write a table.

    Parameters
    ----------
    columns : dict of str to list
        Columns of one length, of plain and finite values.
    target : {"jsonl", "csv"}
        One object per row and line, or CSV with a header, where a missing value is a blank
        cell and an array is JSON in its cell.

    Yields
    ------
    str
        Lines, each with its end.
    """
    rows = zip(*columns.values(), strict=True)
    if target == "jsonl":
        for row in rows:
            yield json.dumps(dict(zip(columns, row, strict=True)), **_JSON) + "\n"
        return
    line = io.StringIO(newline="")
    # Python 3.11's csv quotes a lone carriage return only if its own line ends hold one.
    writer = csv.writer(line, lineterminator="\r\n")
    for row in itertools.chain([tuple(columns)], rows):
        writer.writerow([_cell(value) for value in row])
        yield line.getvalue().removesuffix("\r\n") + "\n"
        line.seek(0)
        line.truncate()


_JSON: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False}


def _cell(value: object) -> object:
    return json.dumps(value, **_JSON) if isinstance(value, bool | list) else value


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        raise InputError(
            f"line {line}: byte 0x{data[wrong.start]:02x} is not UTF-8: save the table as UTF-8"
        ) from None
    if not text.strip():
        raise InputError(
            "nothing on standard input; try: cat rows.csv | docker run -i --rm IMAGE predict"
        )
    return text


def _csv(text: str) -> Columns:
    csv.field_size_limit(max(len(text), 1 << 17))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header, *rows = [row for row in reader if row]
    except csv.Error as wrong:
        raise InputError(f"line {reader.line_num}: not CSV: {wrong}") from None
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(f"the header names {twice[0]!r} twice")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(f"row {number} has {len(row)} cells, the header has {len(header)}")
    return {name: [row[at] for row in rows] for at, name in enumerate(header)}


def _json(text: str, inputs: Sequence[Tensor]) -> Columns:
    found = list(_documents(text))
    first = found[0]
    if len(found) == 1 and isinstance(first, dict) and _is_columns(first, inputs):
        return _same_length(first)
    return _rows(first if len(found) == 1 and isinstance(first, list) else found)


def _documents(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_int=_number)
    at = 0
    while (at := _end_of_space(text, at)) < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as wrong:
            raise InputError(
                f"line {wrong.lineno}, character {wrong.colno}: not JSON: {wrong.msg}"
            ) from None
        except RecursionError:
            raise InputError("the JSON is nested too deeply") from None
        yield value


def _end_of_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


def _is_columns(found: dict[str, Any], inputs: Sequence[Tensor]) -> bool:
    # One row of a table of arrays has lists as values too, one level less deep.
    rank = {tensor.name: len(tensor.shape) for tensor in inputs}
    wanted = {name: found[name] for name in rank if name in found} or found
    return all(_depth(value) >= rank.get(name, 1) for name, value in wanted.items())


def _depth(value: object) -> int:
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = next((item for item in value if item is not None), None)
    return depth


def _same_length(columns: dict[str, Any]) -> Columns:
    sizes = {
        name: len(values) if isinstance(values, list) else "no" for name, values in columns.items()
    }
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name!r} has {size} rows" for name, size in sizes.items())
        raise InputError(f"the columns differ in length: {found}")
    return columns


def _rows(rows: list[Any]) -> Columns:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"row {number} is {reprlib.repr(row)}, not an object of columns")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, _ABSENT) for row in rows] for name in names}


def _values(
    column: list[Any], tensor: Tensor, parse: Callable[[list[str], Tensor], Iterator[Any]] | None
) -> Iterator[Any]:
    row = 1
    try:
        for value in parse(column, tensor) if parse else column:
            yield _checked(value, tensor, tensor.shape[1:])
            row += 1
    except ValueError as wrong:
        raise InputError(f"row {row}, column {tensor.name!r}: {wrong}") from None


def _cells(cells: list[str], tensor: Tensor) -> Iterator[Any]:
    convert: Callable[[str], Any] = str
    if len(tensor.shape) > 1:
        convert = _nested
    elif tensor.datatype == "BOOL":
        convert = _truth
    elif tensor.datatype in INTEGERS or tensor.datatype in FLOATS:
        convert = _number
    elif not tensor.datatype and _all_numbers(cells):
        convert = float
    return (convert(cell) if cell.strip() else None for cell in cells)


def _nested(cell: str) -> Any:
    try:
        return json.loads(cell, parse_int=_number)
    except (ValueError, RecursionError):
        raise ValueError(f"{reprlib.repr(cell)} is not a list in JSON") from None


def _truth(cell: str) -> bool:
    if (word := cell.strip().lower()) not in {"true", "false"}:
        raise ValueError(f"{reprlib.repr(cell)} is neither true nor false")
    return word == "true"


def _number(cell: str) -> float:
    if not _NUMBER.fullmatch(cell):
        raise ValueError(f"{reprlib.repr(cell)} is not a number; a blank cell says missing")
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _all_numbers(cells: list[str]) -> bool:
    try:
        return all(math.isfinite(_number(cell)) for cell in cells if cell.strip())
    except ValueError:
        return False


def _checked(value: Any, tensor: Tensor, dimensions: tuple[int, ...]) -> Any:
    if value is _ABSENT:
        raise ValueError("the row does not have it; null says missing")
    if value is None:
        if tensor.nullable:
            return None
        raise ValueError("is missing, and the model takes no missing value here")
    if dimensions:
        size = dimensions[0]
        if not isinstance(value, list) or size not in {-1, len(value)}:
            items = "" if size == -1 else f"{size} "
            raise ValueError(f"{reprlib.repr(value)} is not a list of {items}items")
        return [_checked(item, tensor, dimensions[1:]) for item in value]
    return _scalar(value, tensor.datatype)


def _scalar(value: Any, datatype: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number; null says missing")
    if not datatype:
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if datatype in FLOATS and number:
        if abs(value) > FLOATS[datatype]:
            raise ValueError(f"{reprlib.repr(value)} is too large for {datatype}")
        return float(value)
    if datatype in INTEGERS and number and value == int(value):
        low, high = INTEGERS[datatype]
        if not low <= value <= high:
            raise ValueError(f"{reprlib.repr(value)} is not from {low} to {high} ({datatype})")
        return int(value)
    if isinstance(value, str) and datatype == "BYTES":
        value.encode()  # half a surrogate pair, which JSON can spell, is a ValueError
        return value
    if isinstance(value, bool) and datatype == "BOOL":
        return value
    raise ValueError(f"{reprlib.repr(value)} is not {_WORDS.get(datatype, 'a whole number')}")


_WORDS = {"BOOL": "true or false", "BYTES": "text", "FP32": "a number", "FP64": "a number"}
