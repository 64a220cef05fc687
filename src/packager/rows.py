"""Files of rows: read a batch at a time, and written as predictions come."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import json
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Protocol

from packager.errors import UsageError
from packager.runtime.packager_runtime import tables

__all__ = ["ABSENT", "KINDS", "Batch", "Sink", "batches", "columns_of", "kind_of", "plain", "sink"]

KINDS = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
"""What a file holds, by the end of its name."""

ABSENT = object()
"""Stands where a row does not have a column that others have."""

_CELL = 1 << 17  # characters, of which csv allows no more by default


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file, by column.

    Attributes
    ----------
    first : int
        Number of the first row in the file; the file's first is 1.
    columns : dict of str to list
        In the order of the file.
    size : int
        Bytes of the file that went into them.
    """

    first: int
    columns: dict[str, list[Any]]
    size: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.columns.values()), []))


_Rows = Iterator[tuple[dict[str, Any], int]]
"""Rows, each with how many bytes of the file were read then."""


def kind_of(path: Path) -> str | None:
    """Tell what a file holds by its name."""
    return KINDS.get(path.suffix.lower())


def batches(path: Path, kind: str, size: int) -> Iterator[Batch]:
    """Read a file.

    Parameters
    ----------
    path : Path
        The file.
    kind : {"csv", "json", "jsonl", "parquet"}
        What it holds; cells of a CSV stay text.
    size : int
        How many rows a batch has.

    Yields
    ------
    Batch
        At least one.

    Raises
    ------
    UsageError
        When it cannot be read, with the number of the row; or when it has no rows.
    """
    readers = {"csv": _csv, "json": _json, "jsonl": _lines, "parquet": _parquet}
    first, before = 1, 0
    try:
        rows = readers[kind](path)
        while several := list(itertools.islice(rows, size)):
            done = several[-1][1]
            names = dict.fromkeys(name for row, _ in several for name in row)
            table = {name: [row.get(name, ABSENT) for row, _ in several] for name in names}
            yield Batch(first, table, done - before)
            first, before = first + len(several), done
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except ValueError as error:
        raise UsageError(str(error), where=str(path)) from None
    if first == 1:
        raise UsageError("has no rows", where=str(path))


def _csv(path: Path) -> _Rows:
    with path.open("rb") as file:
        csv.field_size_limit(max(path.stat().st_size, _CELL))
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, strict=True)
        row = 0
        try:
            header = next(filter(None, reader), [])
            if twice := [name for name in header if header.count(name) > 1]:
                raise ValueError(f"the header names {twice[0]!r} twice")
            for row, cells in enumerate(filter(None, reader), 1):
                if len(cells) != len(header):
                    raise ValueError(
                        f"row {row} has {len(cells)} cells, the header has {len(header)}"
                    )
                yield dict(zip(header, cells, strict=True)), file.tell()
        except csv.Error as error:
            raise ValueError(f"row {row + 1}: not CSV: {error}") from None
        except UnicodeDecodeError:
            raise ValueError(f"not UTF-8, after row {row}: save the table as UTF-8") from None


def _lines(path: Path) -> _Rows:
    with path.open("rb") as file:
        row, done = 0, 0
        for line in file:
            done += len(line)
            if line.strip():
                row += 1
                try:
                    found = _parsed(line)
                except ValueError as error:
                    raise ValueError(f"row {row}: not JSON: {error}") from None
                yield _object(found, row), done


def _json(path: Path) -> _Rows:
    data = path.read_bytes()
    try:
        found = _parsed(data)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise ValueError(f"not JSON: {error}") from None
        yield from _lines(path)
        return
    if isinstance(found, dict) and all(isinstance(column, list) for column in found.values()):
        if len({len(column) for column in found.values()}) > 1:
            sizes = ", ".join(f"{name!r} has {len(column)}" for name, column in found.items())
            raise ValueError(f"the columns differ in length: {sizes}")
        found = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    rows = found if isinstance(found, list) else [found]
    for row, value in enumerate(rows, 1):
        yield _object(value, row), len(data) * row // len(rows)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON; null says missing")


def _object(value: Any, row: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"row {row} is {reprlib.repr(value)}, not an object of columns")
    return value


def _parquet(path: Path) -> _Rows:
    arrow = _arrow()
    size, row = path.stat().st_size, 0
    try:
        with import_module("pyarrow.parquet").ParquetFile(path) as file:
            for several in file.iter_batches():
                for value in several.to_pylist():
                    row += 1
                    yield value, size * row // file.metadata.num_rows
    except arrow.ArrowException as error:
        raise ValueError(f"not Parquet: {error}") from None


def _arrow() -> Any:
    try:
        return import_module("pyarrow")
    except ImportError:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed beside packager",
            hint="pip install 'model-packager[parquet]', or use CSV or JSON lines.",
        ) from None


def columns_of(path: Path, kind: str) -> Any:
    """Give the types that a Parquet file's columns have, for `sink`; None for other kinds.

    Raises
    ------
    UsageError
        When it is none.
    """
    if kind != "parquet":
        return None
    arrow = _arrow()
    try:
        return import_module("pyarrow.parquet").read_schema(path)
    except (OSError, arrow.ArrowException) as error:
        raise UsageError(f"not Parquet: {error}", where=str(path)) from None


def plain(value: Any) -> Any:
    """Turn what stands in a file into what JSON can say.

    Raises
    ------
    ValueError
        When it is an infinite number.
    """
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError(f"{value} is not a finite number; null says missing")
        return None if math.isnan(value) else value
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class Sink(Protocol):
    """Takes a table, some rows at a time."""

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add rows; the columns are the same each time."""

    def end(self) -> None:
        """Write what is not yet written."""


def sink(out: IO[bytes], kind: str, types: Any = None) -> Sink:
    """Write a table.

    Parameters
    ----------
    out : file
        Where to.
    kind : {"csv", "jsonl", "parquet"}
        As what.
    types : pyarrow.Schema, optional
        From `columns_of`: what the columns that Parquet passes on were.
    """
    return _Table(out, types) if kind == "parquet" else _Text(out, kind)


class _Text:
    def __init__(self, out: IO[bytes], kind: str) -> None:
        self._out, self._kind, self._begun = out, kind, False

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        table = {name: [_written(value) for value in column] for name, column in columns.items()}
        lines = tables.write(table, "csv" if self._kind == "csv" else "jsonl")
        if self._kind == "csv" and self._begun:
            next(lines)  # the header
        self._out.write("".join(lines).encode())
        self._begun = True

    def end(self) -> None:
        pass


def _written(value: Any) -> Any:
    if isinstance(value, str):
        return value
    try:
        value = plain(value)
    except ValueError:  # JSON has no infinity
        return None
    return json.dumps(value) if isinstance(value, dict) else value


class _Table:
    """Parquet, whose columns have one type each: known only when all rows are there."""

    def __init__(self, out: IO[bytes], types: Any) -> None:
        self._arrow = _arrow()
        self._out = out
        self._types = {one.name: one.type for one in types or ()}
        self._columns: dict[str, list[Any]] = {}

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        for name, column in columns.items():
            self._columns.setdefault(name, []).extend(column)

    def end(self) -> None:
        arrays = {}
        for name, column in self._columns.items():
            try:
                arrays[name] = self._arrow.array(column, type=self._types.get(name))
            except self._arrow.ArrowException as error:
                raise UsageError(
                    f"the column {name!r} does not fit into Parquet: {error}",
                    hint="Write CSV or JSON lines.",
                ) from None
        whole = io.BytesIO()
        import_module("pyarrow.parquet").write_table(self._arrow.table(arrays), whole)
        self._out.write(whole.getvalue())
