"""The self-test over HTTP: a server that does otherwise than it should fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from test_runtime import PREDICTOR, SIGNATURE, Sealed, sealed

from packager.runtime.packager_runtime.facts import Recording, Tensor
from packager.runtime.packager_runtime.over_http import FailedError, Served

__all__ = ["sealed"]

# The server is a process of its own, which knows itself by its command line.
TWO_FACED = """

import os, pathlib

class TwoFaced(Doubler):
    def __init__(self, factor):
        super().__init__(factor)
        self.serves = "serve" in sys.argv

class LaterRows(TwoFaced):
    def predict(self, inputs):
        found = super().predict(inputs)
        if self.serves:
            found["double"][2:] = [0.5 for _ in found["double"][2:]]
        return found

class FirstRow(TwoFaced):
    def predict(self, inputs):
        found = super().predict(inputs)
        return {**found, "double": [0.5 for _ in found["double"]]} if self.serves else found

class Slow(TwoFaced):
    def predict(self, inputs):
        if self.serves and len(inputs["size"]) > 1:
            os._exit(9)
        return super().predict(inputs)
"""


def report_of(sealed: Sealed, kind: str) -> tuple[int, dict[str, Any]]:
    (sealed.folder / "doubler.py").write_text(PREDICTOR + TWO_FACED)
    sealed.write(kind=kind)
    return sealed.selftest()


def test_the_same_model_passes_over_http(sealed: Sealed) -> None:
    code, report = report_of(sealed, "TwoFaced")
    assert (code, report["status"], report["refused"]) == (0, "passed", 13)


def test_other_predictions_over_http_fail(sealed: Sealed) -> None:
    code, report = report_of(sealed, "LaterRows")
    assert (code, report["status"]) == (1, "failed")
    assert report["outputs"][0]["first_mismatch"] == {"row": 3, "expected": 6.0, "got": 0.5}


def test_a_server_that_does_not_get_ready_fails(sealed: Sealed) -> None:
    code, report = report_of(sealed, "FirstRow")
    assert (code, report["status"], report["error"]["stage"]) == (2, "error", "serve")
    assert "the first recorded example" in report["error"]["message"]


def test_a_server_that_breaks_off_fails(sealed: Sealed) -> None:
    code, report = report_of(sealed, "Slow")
    assert (code, report["status"], report["error"]["stage"]) == (2, "error", "serve")


def test_without_examples_the_server_is_started_all_the_same(sealed: Sealed) -> None:
    sealed.examples = None
    code, report = report_of(sealed, "TwoFaced")
    assert (code, report["status"], report["refused"]) == (0, "no-examples", None)
    assert "serve" in report["seconds"]


# --- Servers that are not ours --------------------------------------------------------------


RECORDING = Recording(
    model="sha256:1",
    inputs=tuple(Tensor(one["name"], one["datatype"]) for one in SIGNATURE["inputs"]),
    outputs=(),
    rtol=0.0,
    atol=0.0,
    rows=1,
    source="",
    license="",
    given={"size": [1.5], "sex": ["m"]},
    expected={},
)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[Served]:
    """A server that has one answer for everything."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        do_GET = do_POST = answer  # noqa: N815 - the names that its base calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        image: Any = SimpleNamespace(name="penguins")
        process: Any = SimpleNamespace(poll=lambda: None)
        yield Served(process, server.server_address[1], image, BytesIO())
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"{}"),
        (500, b'{"error": "at a loss"}'),
        (400, b"{}"),
        (400, b'{"error": ""}'),
        (400, b"[]"),
        (400, b"no JSON"),
    ],
)
def test_nonsense_must_be_refused_with_a_text(status: int, body: bytes) -> None:
    with answering(status, body) as served, pytest.raises(FailedError):
        served.refuses(RECORDING)


def test_nonsense_that_is_refused_is_counted() -> None:
    with answering(400, b'{"error": "no"}') as served:
        assert served.refuses(RECORDING) == 13


def test_an_answer_that_is_none_is_told() -> None:
    with (
        answering(503, json.dumps({"error": "busy"}).encode()) as served,
        pytest.raises(FailedError, match="503: busy"),
    ):
        served.predict(RECORDING.given, RECORDING.inputs)
