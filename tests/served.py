"""A server of the runtime in a process of its own, on a free port of this machine."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from test_runtime import PREDICTOR, Sealed

MORE = """

class Picky(Doubler):
    def predict(self, inputs):
        if inputs["sex"][0] == "no memory":
            raise MemoryError("of the machine\\nsecond line")
        if inputs["sex"][0] == "exit":
            sys.exit("leaving")
        if inputs["sex"][0] == "short":
            return {"double": []}
        if inputs["sex"][0] == "other":
            return {"double": ["text"], "label": ["text"]}
        if inputs["sex"][0] == "raise":
            raise ValueError("secret " + inputs["sex"][1] + "\\nsecond line")
        return super().predict(inputs)

class Waiter(Doubler):
    # A named pipe tells the test that the model was asked, and holds it until the test is done.
    def predict(self, inputs):
        if inputs["sex"][0] == "wait":
            with open(os.environ["PACKAGER_ROOT"] + "/gate") as gate:
                gate.read()
        return super().predict(inputs)

class Leaking(Doubler):
    kept = []

    def predict(self, inputs):
        self.kept.extend(os.urandom(20_000) for _ in inputs["sex"])
        return super().predict(inputs)

class Liar(Doubler):
    def predict(self, inputs):
        print('{"time": "now", "level": "error", "event": "forged"}', flush=True)
        os.write(2, b'{"time": "now", "level": "error", "event": "forged"}\\n')
        return super().predict(inputs)

def load_slowly(path):
    with open(os.environ["PACKAGER_ROOT"] + "/gate") as gate:
        gate.read()
    return load(path)
"""

INFER = "/v2/models/penguins/infer"


class Answer:
    """What came back."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running server and its log."""

    def __init__(self, process: subprocess.Popen[bytes], gate: Path) -> None:
        self.process, self.gate = process, gate
        self.lines: list[str] = []
        self.chatter = bytearray()
        self.port = 0
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._readers = [threading.Thread(target=read) for read in (self._read, self._listen)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line.decode())
            if line.startswith(b"{"):
                self._events.put(json.loads(line))
        self._events.put({"event": "end"})

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.chatter += line

    def begin(self) -> None:
        self.port = self.wait_for("listening")["port"]

    def let_go(self) -> None:
        """Wait until the model waits, and let it go on."""
        self.gate.write_bytes(b"")

    def wait_for(self, event: str) -> dict[str, Any]:
        """Wait for an event of the log."""
        while True:
            found = self._events.get(timeout=20)
            if found["event"] == event:
                return found
            assert found["event"] != "end", f"no {event!r} in {''.join(self.lines)}"

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answer:
        """Ask once, over a connection that ends."""
        connection = self.connection()
        try:
            return ask(connection, path, body, method, **headers)
        finally:
            connection.close()

    def send(self, data: bytes) -> socket.socket:
        """Send bytes that need not be HTTP."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        raw.sendall(data)
        return raw

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        code = self.process.wait(timeout=20)
        for reader in self._readers:
            reader.join(60)
        return code


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    body: Any = None,
    method: str | None = None,
    **headers: str,
) -> Answer:
    """Ask over a connection that stays."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, dict | list):
        body = json.dumps(body).encode()
        named = {"content-type": "application/json"} | named
    connection.request(method or ("POST" if body is not None else "GET"), path, body, named)
    return Answer(connection.getresponse())


def rows(*sexes: str, **more: Any) -> dict[str, Any]:
    """A request that the model of test_runtime takes."""
    sizes = [float(at) for at, _ in enumerate(sexes)]
    return {
        "inputs": [
            {"name": "size", "shape": [len(sexes)], "datatype": "FP64", "data": sizes},
            {"name": "sex", "shape": [len(sexes)], "datatype": "BYTES", "data": list(sexes)},
        ]
    } | more


def write_models(sealed: Sealed) -> None:
    """Put the models of this file beside those of test_runtime."""
    (sealed.folder / "doubler.py").write_text(PREDICTOR + MORE)
    if not (sealed.folder / "gate").exists():
        os.mkfifo(sealed.folder / "gate")


@contextmanager
def serving(sealed: Sealed, *words: str, ready: bool = True) -> Iterator[Server]:
    """Serve a sealed folder."""
    write_models(sealed)
    process = sealed.start("serve", "--host", "127.0.0.1", "--port", "0", *words)
    server = Server(process, sealed.folder / "gate")
    try:
        server.begin()
        if ready:
            server.wait_for("ready")
        yield server
    finally:
        process.kill()
        server.end()
        with process:  # closes its streams
            pass
