"""The one thread that loads the model and asks it, and who may wait for it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import reprlib
import time
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import answers, protocol
from .answers import AnswerError
from .compare import compare
from .facts import Columns, Image, InputError, Recording, signature
from .loaders import Predictor, ask, known_inputs, load, plain
from .log import Log
from .protocol import Question, Signature

__all__ = ["ModelError", "Overloaded", "Reply", "RowsError", "Worker"]

MOST_WAITING = 128
"""Requests in the queue; a client that comes later is told to come again."""

MOST_TOGETHER = 256
"""Rows of several requests that the model is asked at one time: of one or of many, most models
take as long."""

MOST_TEXT = 500
"""Characters of what a model says when it fails."""

_SYSTEM = (MemoryError, OSError, RecursionError)


class ModelError(Exception):
    """The model does not work."""


class RowsError(Exception):
    """The model raised an error on rows that its signature allows."""


class Overloaded(Exception):  # noqa: N818 - nothing is wrong with the request
    """Too many requests are waiting."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the protocol.

    Parameters
    ----------
    body : bytes
        JSON, and binary tensors behind it.
    json_bytes : int or None
        How many bytes are JSON, if not all.
    rows : int
        Number of rows that were predicted.
    """

    body: bytes
    json_bytes: int | None
    rows: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that waits for the thread."""

    body: bytes
    json_bytes: int | None
    reply: Future[Reply]


class Worker:
    """A model in a thread of its own.

    Requests that come while the model works are put to it together.

    Reading a body, checking its values and writing the answer are done in that thread, too: of a
    long table they take longer than predicting, and the event loop has health to report.

    Parameters
    ----------
    image : Image
        The facts of the image.
    examples : Recording or None
        The recorded examples.
    seconds : float
        What an answer may take, waiting for others included.
    log : Log
        Told what happens.
    """

    def __init__(self, image: Image, examples: Recording | None, seconds: float, log: Log) -> None:
        self._image, self._examples = image, examples
        self._seconds, self._log = seconds, log
        self._thread = ThreadPoolExecutor(1, "model")
        self._predictor: Predictor | None = None
        self._waiting = 0
        self._queue: deque[_Waiting] = deque()
        self._busy_since: float | None = None
        self._open = False
        self.signature = Signature(examples.inputs, examples.outputs) if examples else None

    @property
    def ready(self) -> bool:
        """Whether the model answers: it is loaded, and not lost in a request that took too long."""
        since = self._busy_since
        return self._open and (since is None or time.monotonic() - since < self._seconds)

    @property
    def loaded(self) -> bool:
        """Whether the model has answered its first example."""
        return self._open

    async def open(self) -> None:
        """Load the model and let it answer its first recorded example.

        Raises
        ------
        ModelError
            When it does not load, or answers something else than was recorded.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        self._open = True

    async def answer(self, body: bytes, json_bytes: int | None) -> Reply:
        """Answer a request.

        Parameters
        ----------
        body : bytes
            As it came.
        json_bytes : int or None
            How many bytes of it are JSON; None for all.

        Returns
        -------
        Reply
            For the client.

        Raises
        ------
        InputError
            When the request is wrong.
        RowsError
            When the model does not take these rows.
        ModelError
            When the model gave no answer, or the machine has not what it needs.
        Overloaded
            When too many are waiting.
        TimeoutError
            When it took too long.  What has begun goes on in the thread.
        """
        if self._waiting >= MOST_WAITING:
            raise Overloaded
        self._waiting += 1
        try:
            waiting = _Waiting(body, json_bytes, Future())
            self._queue.append(waiting)
            self._thread.submit(self._work)
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(waiting.reply)
        finally:
            self._waiting -= 1

    # --- in the thread

    def _load(self) -> None:
        gc.disable()  # to look for garbage among what is imported takes long and finds little
        try:
            self._load_and_try()
        finally:
            gc.freeze()  # what loading made stays until the end
            gc.enable()

    def _load_and_try(self) -> None:
        examples = self._examples
        try:
            with _blaming("the model does not load", self._log):
                self._predictor = load(self._image, *signature(examples))
        except RowsError as wrong:
            raise ModelError(str(wrong)) from None
        if examples:
            self._try(examples)
        else:
            self.signature = Signature(known_inputs(self._predictor), ())

    def _try(self, examples: Recording) -> None:
        first = {name: values[:1] for name, values in examples.given.items()}
        try:
            body = answers.dump(answers.request(first, examples.inputs))
            told = json.loads(self._answer(body, None).body)
            for output in told["outputs"]:
                self._agree(examples, output["name"], output["data"])
        except (AnswerError, InputError, ModelError, RowsError, ValueError) as wrong:
            raise ModelError(f"the first recorded example: {wrong}") from None

    @staticmethod
    def _agree(examples: Recording, name: str, given: list[Any]) -> None:
        _, expected = answers.flat(name, plain(examples.expected[name][:1]))
        result = compare(name, expected, given, rtol=examples.rtol, atol=examples.atol)
        if found := result.first_mismatch:
            raise ModelError(
                f"{name!r} was {reprlib.repr(found['expected'])}, now the model gives "
                f"{reprlib.repr(found['got'])}"
            )

    def _work(self) -> None:
        """Answer what is waiting, if an earlier turn has not done so."""
        self._busy_since = started = time.monotonic()
        try:
            self._answer_all(list(self._taken()))
        finally:
            self._busy_since = None
            took = time.monotonic() - started
            if took > self._seconds:
                self._log("warning", "model free again", seconds=round(took, 3))

    def _taken(self) -> Iterator[tuple[_Waiting, Question]]:
        """Take waiting requests until the model has enough; the wrong ones are told at once."""
        rows = 0
        while self._queue and rows < MOST_TOGETHER:
            waiting = self._queue.popleft()
            if not waiting.reply.set_running_or_notify_cancel():
                continue  # its time was over, or its client is gone
            try:
                asked = self._question(waiting.body, waiting.json_bytes)
            except BaseException as wrong:  # noqa: BLE001 - whoever waits is told
                waiting.reply.set_exception(wrong)
                continue
            rows += _rows(asked.columns)
            yield waiting, asked

    def _answer_all(self, taken: list[tuple[_Waiting, Question]]) -> None:
        together = self._together([asked for _, asked in taken]) if len(taken) > 1 else None
        for at, (waiting, asked) in enumerate(taken):
            try:
                columns = together[at] if together else self._asked(asked.columns)
                waiting.reply.set_result(self._told(asked, columns))
            except BaseException as wrong:  # noqa: BLE001 - whoever waits is told
                waiting.reply.set_exception(wrong)

    def _together(self, questions: list[Question]) -> list[Columns] | None:
        """Ask the model once for all; None where it must be asked for each."""
        names = [*questions[0].columns]
        if any([*asked.columns] != names for asked in questions):
            return None
        merged = {name: [row for one in questions for row in one.columns[name]] for name in names}
        try:
            found = ask(self._model(), merged)
        except BaseException:  # noqa: BLE001 - asked one by one, it tells whose rows are wrong
            return None
        if any(len(values) != _rows(merged) for values in found.values()):
            return None
        ends = list(itertools.accumulate(_rows(one.columns) for one in questions))
        begins = [0, *ends]
        return [
            {name: values[begin:end] for name, values in found.items()}
            for begin, end in zip(begins, ends, strict=False)
        ]

    def _model(self) -> Predictor:
        assert self._predictor is not None
        return self._predictor

    def _answer(self, body: bytes, json_bytes: int | None) -> Reply:
        asked = self._question(body, json_bytes)
        return self._told(asked, self._asked(asked.columns))

    def _question(self, body: bytes, json_bytes: int | None) -> Question:
        assert self.signature is not None
        return protocol.question(body, json_bytes, self.signature)

    def _asked(self, columns: Columns) -> Columns:
        with _blaming("the model failed on these rows", self._log):
            return ask(self._model(), columns)

    def _told(self, asked: Question, columns: Columns) -> Reply:
        assert self.signature is not None
        image = self._image
        try:
            told = answers.answer(asked, columns, image.name, image.version, self.signature)
        except AnswerError as wrong:
            raise ModelError(str(wrong)) from None
        return Reply(*told, _rows(asked.columns))


def _rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))


@contextmanager
def _blaming(what: str, log: Log) -> Iterator[None]:
    """Tell rows that a model does not take from a model that does not work.

    It has answered its examples, so an error that it raises is about the new rows: the same rows
    would fail again, and the client has to change them.  What the machine lacks, an exit, and an
    answer of the wrong form are not the client's.
    """
    try:
        yield
    except InputError as wrong:
        raise ModelError(f"{what}: {wrong}") from None
    except BaseException as wrong:  # noqa: BLE001 - the project's code may raise, or exit
        kind = type(wrong).__name__
        place = traceback.extract_tb(wrong.__traceback__)[-1]
        # Not its text, which may hold values of the rows.
        log("warning", "model raised", type=kind, file=place.filename, line=place.lineno)
        first, *_ = [*str(wrong).strip().splitlines(), ""]
        text = f"{what}: {kind}: {first[:MOST_TEXT]}"
        if isinstance(wrong, _SYSTEM) or not isinstance(wrong, Exception):
            raise ModelError(text) from None
        raise RowsError(text) from None
