"""The self-test over HTTP: the server is started, asked what was recorded, and asked nonsense."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

from . import answers
from .facts import Columns, Image, Recording, Tensor

__all__ = ["FailedError", "Served", "can_serve", "serving"]

_HOST = "127.0.0.1"
_SECONDS = 60.0  # for an answer
_START_SECONDS = 600.0  # the container's own limit comes before
_STOP_SECONDS = 25.0
_PAUSE = 0.02
_ROWS = 1000  # in one request
_LAST_BYTES = 4000
_TOO_LARGE = 10**12


class FailedError(Exception):
    """The server does not do what it should."""


def can_serve() -> bool:
    """Tell whether the image was locked with a server."""
    return importlib.util.find_spec("uvicorn") is not None


@contextlib.contextmanager
def serving(image: Image) -> Iterator[Served]:
    """Run the image's server on loopback, as `serve` does.

    Parameters
    ----------
    image : Image
        The facts of the image.

    Yields
    ------
    Served
        To be asked; perhaps not ready yet.
    """
    with tempfile.TemporaryFile() as log:
        port = _free_port()
        command = [sys.executable, "-P", "-m", "packager_runtime", "serve", "--host", _HOST]
        with subprocess.Popen(
            [*command, "--port", str(port)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        ) as process:
            try:
                yield Served(process, port, image, log)
            finally:
                process.kill()


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


class Served:
    """A running server.

    Parameters
    ----------
    process : Popen
        The server.
    port : int
        Where it listens.
    image : Image
        What it serves.
    log : file
        What it printed.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, image: Image, log: IO[bytes]
    ) -> None:
        self._process, self._port, self._log = process, port, log
        self._infer = f"/v2/models/{image.name}/infer"

    def wait(self) -> None:
        """Wait until it is ready.

        Raises
        ------
        FailedError
            When it ends before; with what it said last.
        """
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise FailedError(f"serve ended with {self._process.returncode}: {self._last()}")
            with contextlib.suppress(OSError):
                if self._ask("GET", "/v2/health/ready")[0] == http.client.OK:
                    return
            time.sleep(_PAUSE)
        raise FailedError(f"serve was not ready within {_START_SECONDS:g} s")

    def predict(self, columns: Columns, inputs: tuple[Tensor, ...]) -> Columns:
        """Ask for predictions of rows.

        Raises
        ------
        FailedError
            When the answer is none.
        """
        found: Columns = {}
        rows = len(next(iter(columns.values())))
        for at in range(0, rows, _ROWS):
            part = {name: values[at : at + _ROWS] for name, values in columns.items()}
            status, told = self._ask(
                "POST", self._infer, answers.dump(answers.request(part, inputs))
            )
            if status != http.client.OK:
                raise FailedError(f"infer answers {status}: {told.get('error')}")
            for output in told["outputs"]:
                values = _rows(output["data"], output["shape"])
                found.setdefault(output["name"], []).extend(values)
        return found

    def refuses(self, examples: Recording) -> int:
        """Ask nonsense, and see each of it refused with a text.

        Returns
        -------
        int
            How many requests.

        Raises
        ------
        FailedError
            When one is answered otherwise; names it.
        """
        first = {name: values[:1] for name, values in examples.given.items()}
        good = answers.request(first, examples.inputs)
        cases = list(_nonsense(good, self._infer))
        for what, (method, path, body, headers) in cases:
            status, told = self._ask(method, path, body, headers)
            refused = http.client.BAD_REQUEST <= status < http.client.INTERNAL_SERVER_ERROR
            if not (refused and isinstance(told.get("error"), str) and told["error"]):
                raise FailedError(f"a request with {what} is answered with {status}: {told}")
        return len(cases)

    def stop(self) -> None:
        """Tell it to stop, and wait until it has.

        Raises
        ------
        FailedError
            When it does not end, or not well.
        """
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise FailedError("serve does not end on SIGTERM") from None
        if code:
            raise FailedError(f"serve ended with {code} on SIGTERM: {self._last()}")

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            data = answer.read()
        try:
            told = json.loads(data)
        except ValueError:
            raise FailedError(f"{method} {path} answers {answer.status} without JSON") from None
        return answer.status, told if isinstance(told, dict) else {}

    def _last(self) -> str:
        """Give the last error of its log, else its last line."""
        self._log.seek(0)
        lines = [b"it said nothing", *self._log.read().splitlines()]
        errors = [line for line in lines if b'"level": "error"' in line]
        return (errors or lines)[-1][-_LAST_BYTES:].decode("utf-8", "replace")


_Request = tuple[str, str, bytes | None, dict[str, str]]


def _nonsense(good: dict[str, Any], infer: str) -> Iterator[tuple[str, _Request]]:
    """List requests that a client may send by mistake, each with what is wrong with it."""
    first, *others = good["inputs"]
    dump = answers.dump

    def post(body: bytes, **headers: str) -> _Request:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return "POST", infer, body, given

    def with_first(**changed: Any) -> _Request:
        return post(dump({"inputs": [{**first, **changed}, *others]}))

    yield "no JSON", post(b"{")
    yield "no body", post(b"")
    yield "JSON of another form", post(b"[1]")
    yield "no inputs", post(b"{}")
    yield "another media type", post(dump(good), content_type="text/csv")
    yield "a missing input", post(dump({"inputs": others}))
    yield "an unknown input", with_first(name=f"{first['name']}?")
    yield "an unknown datatype", with_first(datatype="FP8")
    yield "values of another type", with_first(data=[{}])
    yield "a shape that the values do not have", with_first(shape=[7, *first["shape"][1:]])
    yield "too large a body", post(b"", content_length=str(_TOO_LARGE))
    yield "another method", ("GET", infer, None, {})
    yield "another model", ("POST", f"{infer}/none", dump(good), {})


def _rows(values: list[Any], shape: list[int]) -> list[Any]:
    for size in reversed(shape[1:]):
        values = [values[at : at + size] for at in range(0, len(values), size)]
    return values
