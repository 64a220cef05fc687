"""The model's thread: requests that wait are put to the model together, and nobody notices."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from packager.runtime.packager_runtime import worker as workers
from packager.runtime.packager_runtime.facts import InputError, Tensor
from packager.runtime.packager_runtime.protocol import Signature
from packager.runtime.packager_runtime.worker import RowsError, Worker

SIGNATURE = Signature((Tensor("x", "FP64"),), (Tensor("double", "FP64"),))


class Doubler:
    """Waits in its first call until it is told; takes no 13."""

    def __init__(self) -> None:
        self.asked: list[list[float]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def predict(self, inputs: dict[str, list[float]]) -> dict[str, list[float]]:
        self.asked.append(list(inputs["x"]))
        self.begun.set()
        assert self.go_on.wait(30)
        if 13.0 in inputs["x"]:
            raise ValueError("13")
        return {"double": [2 * x for x in inputs["x"]]}


def body(*values: object) -> bytes:
    column = {"name": "x", "datatype": "FP64", "shape": [len(values)], "data": list(values)}
    return json.dumps({"inputs": [column]}).encode()


def answered(model: Doubler, *bodies: bytes) -> list[Any]:
    """Ask while the model is busy with a first request; give answers and errors in order."""
    worker = Worker(
        SimpleNamespace(name="m", version="1"),  # type: ignore[arg-type]
        None,
        30,
        lambda *_, **__: None,  # type: ignore[arg-type]
    )
    worker._predictor, worker.signature = model, SIGNATURE

    async def ask() -> list[Any]:
        tasks = [asyncio.create_task(worker.answer(body(0.5), None))]
        while not model.begun.is_set():
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(worker.answer(one, None)) for one in bodies]
        await asyncio.sleep(0)
        model.go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return [
        one if isinstance(one, BaseException) else json.loads(one.body)["outputs"][0]["data"]
        for one in asyncio.run(ask())
    ]


def test_those_who_wait_are_answered_together_and_get_their_own() -> None:
    model = Doubler()
    got = answered(model, body(1.5), body(2.5, 3.5), body(4.5))
    assert got == [[1.0], [3.0], [5.0, 7.0], [9.0]]
    assert model.asked == [[0.5], [1.5, 2.5, 3.5, 4.5]]


def test_a_wrong_request_does_not_spoil_the_others() -> None:
    model = Doubler()
    first, good, wrong, none, last = answered(model, body(1.5), body("a"), b"{", body(4.5))
    assert (first, good, last) == ([1.0], [3.0], [9.0])
    assert isinstance(wrong, InputError)
    assert isinstance(none, InputError)
    assert model.asked == [[0.5], [1.5, 4.5]]


def test_rows_that_the_model_does_not_take_are_told_to_who_sent_them() -> None:
    model = Doubler()
    first, good, bad, last = answered(model, body(1.5), body(13), body(4.5))
    assert (first, good, last) == ([1.0], [3.0], [9.0])
    assert isinstance(bad, RowsError)
    assert model.asked == [[0.5], [1.5, 13.0, 4.5], [1.5], [13.0], [4.5]]


def test_a_model_that_gives_too_few_rows_is_asked_one_by_one() -> None:
    class Short(Doubler):
        def predict(self, inputs: dict[str, list[float]]) -> dict[str, list[float]]:
            found = super().predict(inputs)
            return {"double": found["double"][:1]}

    model = Short()
    assert answered(model, body(1.5), body(4.5)) == [[1.0], [3.0], [9.0]]
    assert model.asked == [[0.5], [1.5, 4.5], [1.5], [4.5]]


def test_the_model_is_not_asked_too_much_at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MOST_TOGETHER", 2)
    model = Doubler()
    got = answered(model, *(body(x) for x in (1, 2, 3)))
    assert got == [[1.0], [2.0], [4.0], [6.0]]
    assert model.asked == [[0.5], [1.0, 2.0], [3.0]]
