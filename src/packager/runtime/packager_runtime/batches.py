"""Rows in and predictions out, a batch at a time: what `packager predict` talks to.

Both sides write one JSON document per line.  The first says what the model is; each line that
then comes in is answered by one.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TextIO

from . import tables
from .answers import describe
from .facts import Columns, Image, InputError, Recording, Tensor
from .loaders import Predictor, ask
from .ranges import outside

__all__ = ["run"]

_ROW = re.compile(r"^row ([0-9]+)(?=, column)")


class _ModelError(Exception):
    """The model's own code failed."""


def run(
    image: Image,
    examples: Recording | None,
    predictor: Predictor,
    inputs: Sequence[Tensor],
    *,
    source: Literal["csv", "json"],
    lines: Iterable[bytes],
    out: TextIO,
) -> None:
    """Say what the model is, then answer line by line.

    A line is ``{"columns": {...}, "first": ROW}``, where ROW numbers the first row in errors.
    Its answer is ``{"outputs": {...}, "outside": [[NAME, ...], ...]}``, or ``{"error": TEXT,
    "model": BOOL}``, which says whether the model failed or the rows are wrong.

    Parameters
    ----------
    image : Image
        The facts of the image.
    examples : Recording or None
        The recorded examples.
    predictor : Predictor
        The model.
    inputs : sequence of Tensor
        What it takes; empty if nobody knows.
    source : {"csv", "json"}
        Whether values are a CSV's cells, as text, or have types.
    lines : iterable of bytes
        What comes in.
    out : TextIO
        Gets the answers.
    """
    ranges = examples.ranges if examples else {}
    _say(
        out,
        {
            "model": image.model_digest,
            "inputs": [describe(tensor) for tensor in inputs],
            "outputs": [describe(tensor) for tensor in examples.outputs] if examples else [],
            "ranges": bool(ranges),
        },
    )
    for line in lines:
        asked = json.loads(line)
        first = asked["first"]
        try:
            columns = _checked(asked["columns"], inputs, source, first)
            answer = _answers(predictor, columns, first)
            told: dict[str, Any] = {"outputs": answer, "outside": outside(columns, ranges)}
        except (InputError, _ModelError) as wrong:
            told = {"error": str(wrong), "model": isinstance(wrong, _ModelError)}
        _say(out, told)


def _say(out: TextIO, told: object) -> None:
    out.write(json.dumps(told, allow_nan=False) + "\n")
    out.flush()


def _checked(columns: Columns, inputs: Sequence[Tensor], source: str, first: int) -> Columns:
    inputs = inputs or [Tensor(name, "", nullable=True) for name in columns]
    try:
        return tables.check(columns, inputs, tables._cells if source == "csv" else None)
    except InputError as wrong:
        # `tables` counts within the batch.
        told = _ROW.sub(lambda row: f"row {int(row[1]) - 1 + first}", str(wrong))
        raise InputError(told) from None


def _answers(predictor: Predictor, columns: Columns, first: int) -> Columns:
    """Let the model predict; where it fails, look for the row that it fails on."""
    try:
        return ask(predictor, columns)
    except InputError as wrong:
        raise _ModelError(str(wrong)) from None
    except BaseException as wrong:  # noqa: BLE001 - the project's code may raise, or exit
        row, why = _culprit(lambda part: ask(predictor, part), columns, first, wrong)
        raise _ModelError(f"{row}: the model failed: {_told(why)}") from None


def _culprit(
    predict: Callable[[Columns], object], columns: Columns, first: int, why: BaseException
) -> tuple[str, BaseException]:
    """Halve the rows that fail until one is left, or until neither half fails by itself."""
    rows = len(next(iter(columns.values())))
    if rows == 1:
        return f"row {first}", why
    half = rows // 2
    for begin, end in ((0, half), (half, rows)):
        part = {name: values[begin:end] for name, values in columns.items()}
        try:
            predict(part)
        except BaseException as closer:  # noqa: BLE001 - as above
            return _culprit(predict, part, first + begin, closer)
    return f"rows {first} to {first + rows - 1}", why


def _told(wrong: BaseException) -> str:
    place = traceback.extract_tb(wrong.__traceback__)[-1]
    line, *_ = [*str(wrong).strip().splitlines(), ""]
    return f"{type(wrong).__name__}: {line} ({place.filename}, line {place.lineno})"
