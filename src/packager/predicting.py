"""Predict the rows of a file in a sealed container, and keep what else stands in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ValidationError

from packager import rows
from packager.errors import ClaimError, PackagerError, UsageError
from packager.outputs.containers import EndedError, Run, Talk
from packager.outputs.engine import Engine
from packager.proof import Limits
from packager.reporter import Reporter, printable
from packager.rows import ABSENT, Batch

__all__ = ["Predicted", "Wish", "broke_off", "last_lines", "predict", "wish"]

_STEP = "predict"
_DIGITS = 12
_SUM = 1e-6
_LAST_LINES = 6
_LINE = 400


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be predicted, and how the answer is written.

    Attributes
    ----------
    path : Path
        The file.
    source, target : str
        What it holds, and what the predictions become.
    size : int
        Rows in a batch.
    """

    path: Path
    source: str
    target: str
    size: int


@dataclass(frozen=True, slots=True)
class Predicted:
    """What was done.

    Attributes
    ----------
    rows : int
        How many there were.
    outside : int or None
        How many have an input outside the training range; None if the image does not know it.
    image, model : str
        The image's ID and the model's digest.
    """

    rows: int
    outside: int | None
    image: str
    model: str

    def told(self) -> dict[str, Any]:
        """Give what a script wants to know of it."""
        return asdict(self)

    def text(self) -> str:
        """Say it in one line."""
        told = f"{self.rows} row{'s' * (self.rows != 1)} predicted"
        return f"{told}, {self.outside} outside the training range" if self.outside else told


def wish(
    path: Path, output: Path | None, *, source: str | None, target: str | None, size: int
) -> Wish:
    """Find out what is wanted by the names of the files, where it is not said.

    Parameters
    ----------
    path : Path
        The rows.
    output : Path, optional
        Where the predictions go.
    source, target : str, optional
        What both are.
    size : int
        Rows in a batch.

    Raises
    ------
    UsageError
        When the names do not tell.
    """
    source = source or rows.kind_of(path)
    if source is None:
        raise UsageError(
            "what it holds does not show in its name",
            where=str(path),
            hint="Say --from csv, json, jsonl or parquet.",
        )
    if target is None:
        target = "csv" if output is None else rows.kind_of(output)
    if target is None:
        raise UsageError(
            "what it is to hold does not show in its name",
            where=str(output),
            hint="Say --to csv, jsonl or parquet.",
        )
    return Wish(path, source, "jsonl" if target == "json" else target, size)


class _Tensor(BaseModel):
    name: str
    shape: list[int] = [-1]


class _Model(BaseModel):
    """What the image says of itself first (`packager_runtime.batches`)."""

    model: str
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    ranges: bool


class _Answer(BaseModel):
    """What it says to a batch."""

    outputs: dict[str, list[Any]] = {}
    outside: list[list[str]] = []
    error: str | None = None
    model: bool = False


def predict(
    engine: Engine,
    image: str,
    wished: Wish,
    out: IO[bytes],
    *,
    limits: Limits,
    reporter: Reporter,
) -> Predicted:
    """Predict a file of rows.

    Parameters
    ----------
    engine : Engine
        Has the image.
    image : str
        ID or reference.
    wished : Wish
        The rows, and what becomes of them.
    out : file
        Gets the table.
    limits : Limits
        Of the container; the seconds are for loading the model, and again for each batch.
    reporter : Reporter
        Gets the progress, in bytes of the file.

    Raises
    ------
    UsageError
        When the rows cannot be read, or are not what the model takes: says which.
    ClaimError
        When the model fails.
    HostError
        When the engine cannot start it.
    """
    found = engine.get(image)["Id"]
    path = wished.path
    table = rows.sink(out, wished.target, rows.columns_of(path, wished.source))
    total = path.stat().st_size
    reporter.begin(_STEP, image)
    command = ["batches", "--from", "csv" if wished.source == "csv" else "json"]
    with (
        _blaming(image, limits),
        engine.talk_sealed(
            found, command, memory=limits.memory, processes=limits.processes
        ) as talk,
    ):
        model = _introduced(talk, limits, image)
        shape: _Shape | None = None
        count = outside = 0
        for batch in rows.batches(path, wished.source, wished.size):
            answer = _ask(talk, batch, model, wished, limits)
            shape = shape or _Shape.of(batch, answer, model, wished.target)
            table.add(shape.table(batch, answer))
            count += batch.rows
            outside += sum(map(bool, answer.outside))
            reporter.advance(_STEP, batch.size, total)
    table.end()
    return Predicted(count, outside if model.ranges else None, found, model.model)


@contextmanager
def _blaming(image: str, limits: Limits) -> Iterator[None]:
    try:
        yield
    except EndedError as ended:
        if b"invalid choice: 'batches'" in ended.run.stderr:
            raise UsageError(
                "the image is older than packager predict", where=image, hint="Build it again."
            ) from None
        raise broke_off(ended.run, image, limits) from None


def _introduced(talk: Talk, limits: Limits, image: str) -> _Model:
    try:
        return _Model.model_validate_json(talk.ask(b"", seconds=limits.seconds), strict=True)
    except ValidationError:
        raise UsageError("is no image that packager made", where=image) from None


def _ask(talk: Talk, batch: Batch, model: _Model, wished: Wish, limits: Limits) -> _Answer:
    columns = _wanted(batch, model, wished)
    line = json.dumps({"columns": columns, "first": batch.first}).encode() + b"\n"
    try:
        answer = _Answer.model_validate_json(talk.ask(line, seconds=limits.seconds))
    except ValidationError:
        raise ClaimError("the image's answer cannot be read", where=model.model) from None
    if answer.error is not None:
        kind: type[PackagerError] = ClaimError if answer.model else UsageError
        raise kind(printable(answer.error), where=str(wished.path))
    columns_out = [*answer.outputs.values(), answer.outside]
    if not answer.outputs or any(len(column) != batch.rows for column in columns_out):
        raise ClaimError("the image answered other rows than it was asked for", where=model.model)
    return answer


def _wanted(batch: Batch, model: _Model, wished: Wish) -> dict[str, list[Any]]:
    names = [tensor.name for tensor in model.inputs] or list(batch.columns)
    if missing := [name for name in names if name not in batch.columns]:
        raise UsageError(
            f"has no column {', '.join(map(repr, missing))}, which the model takes",
            where=str(wished.path),
            hint=f"It has {', '.join(map(repr, batch.columns))}.",
        )
    return {name: list(_values(batch, name, wished)) for name in names}


def _values(batch: Batch, name: str, wished: Wish) -> Iterator[Any]:
    for row, value in enumerate(batch.columns[name], batch.first):
        try:
            if value is ABSENT:
                raise ValueError("the row does not have it; null says missing")
            yield rows.plain(value)
        except ValueError as wrong:
            raise UsageError(
                f"row {row}, column {name!r}: {wrong}", where=str(wished.path)
            ) from None


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which columns the table has: decided by the first batch.

    Attributes
    ----------
    passing : tuple of str
        Columns of the file that the model does not take.
    outputs : dict of str to sequence of str
        The names that each output's columns have; one, or one for each item of its lists.
    spread : frozenset of str
        The outputs that are lists with a column for each item.
    probability : str or None
        The output whose maximum is the confidence.
    confidence, outside, model : str
        The names of further columns.
    digest : str
        What stands in the last.
    ranges : bool
        Whether the image knows the training range.
    """

    known: frozenset[str]
    passing: tuple[str, ...]
    outputs: Mapping[str, Sequence[str]]
    spread: frozenset[str]
    probability: str | None
    confidence: str
    outside: str
    model: str
    digest: str
    ranges: bool

    @classmethod
    def of(cls, batch: Batch, answer: _Answer, model: _Model, target: str) -> _Shape:
        fresh = _namer(batch.columns)
        taken = {tensor.name for tensor in model.inputs} or set(batch.columns)
        shapes = {tensor.name: tensor.shape for tensor in model.outputs}
        outputs: dict[str, list[str]] = {}
        widths: dict[str, int] = {}
        for name, values in answer.outputs.items():
            if target == "csv" and (width := _width(values, shapes.get(name))):
                widths[name] = width
                outputs[name] = [fresh(f"{name}_{item}") for item in range(width)]
            else:
                outputs[name] = [fresh(name)]
        chances = [
            name for name, values in answer.outputs.items() if all(map(_is_distribution, values))
        ]
        probability = chances[0] if len(chances) == 1 else None
        return cls(
            known=frozenset(batch.columns),
            passing=tuple(name for name in batch.columns if name not in taken),
            outputs=outputs,
            spread=frozenset(widths),
            probability=probability,
            confidence=fresh("confidence") if probability else "",
            outside=fresh("outside") if model.ranges else "",
            model=fresh("model"),
            digest=model.model.removeprefix("sha256:")[:_DIGITS],
            ranges=model.ranges,
        )

    def table(self, batch: Batch, answer: _Answer) -> dict[str, list[Any]]:
        """Lay a batch and its answer out in columns."""
        if new := batch.columns.keys() - self.known:
            raise UsageError(
                f"the column {min(new)!r} comes only in row {batch.first} or later",
                hint="Give the first row every column; null says missing.",
            )
        if answer.outputs.keys() != self.outputs.keys():
            raise ClaimError(f"from row {batch.first} on the model gives other outputs")
        table = {name: batch.columns.get(name, [None] * batch.rows) for name in self.passing}
        table = {
            name: [None if value is ABSENT else value for value in column]
            for name, column in table.items()
        }
        for name, values in answer.outputs.items():
            table |= self._output(name, values, batch.first)
        if self.probability:
            chances = answer.outputs[self.probability]
            table[self.confidence] = [
                max(row) if _is_distribution(row) else None for row in chances
            ]
        if self.ranges:
            table[self.outside] = [";".join(names) for names in answer.outside]
        table[self.model] = [self.digest] * batch.rows
        return table

    def _output(self, name: str, values: list[Any], first: int) -> dict[str, list[Any]]:
        names = self.outputs[name]
        if name not in self.spread:
            return {names[0]: values}
        blank = [None] * len(names)
        lists = [blank if value is None else value for value in values]
        for row, value in enumerate(lists, first):
            if not isinstance(value, list) or len(value) != len(names):
                raise ClaimError(f"row {row}: the model gives no {len(names)} items as {name!r}")
        return dict(zip(names, map(list, zip(*lists, strict=True)), strict=True))


def _namer(taken: Mapping[str, object]) -> Callable[[str], str]:
    """Make names that the file does not have: a second one ends in ``_2``."""
    names = set(taken)

    def fresh(name: str) -> str:
        found, number = name, 1
        while found in names:
            number += 1
            found = f"{name}_{number}"
        names.add(found)
        return found

    return fresh


def _width(values: list[Any], shape: Sequence[int] | None) -> int:
    """Say how many items the lists of an output have; 0 where that is not one number."""
    if shape is not None:
        return max(shape[1], 0) if len(shape) > 1 else 0
    widths = {len(value) if isinstance(value, list) else 0 for value in values}
    return widths.pop() if len(widths) == 1 else 0


def _is_distribution(row: Any) -> bool:
    return (
        isinstance(row, list)
        and bool(row)
        and all(type(item) in {int, float} and item >= 0 for item in row)
        and abs(sum(row) - 1) <= _SUM
    )


def broke_off(run: Run, image: str, limits: Limits) -> ClaimError:
    """Say why a container ended that should not have.

    Parameters
    ----------
    run : Run
        How it ended.
    image : str
        What it was.
    limits : Limits
        What it was given.
    """
    if run.exit_code is None:
        what = f"no answer after {limits.seconds:g} s: stopped (--timeout gives it longer)"
    elif run.out_of_memory:
        what = f"it needs more than {limits.memory} of memory (--memory gives it more)"
    else:
        what = f"the container ended by itself, with exit code {run.exit_code}"
    return ClaimError(what, where=image, hint="\n  ".join(last_lines(run.stderr)))


def last_lines(output: bytes) -> list[str]:
    """Give the last lines that say something, such that a terminal may see them."""
    lines = [printable(line) for line in output.decode("utf-8", "replace").splitlines()]
    shown = [line for line in lines if line.strip()][-_LAST_LINES:]
    return [line if len(line) <= _LINE else f"{line[:_LINE]}…" for line in shown]
