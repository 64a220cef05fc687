"""Claims about `packager serve`: how the server is started, reached, stopped and swept."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Tiny, git, run_packager, write_tiny

from packager.outputs import strays
from packager.outputs.engine import Engine

# Its image has one ID, whichever worker builds it, and containers are counted by that.
pytestmark = pytest.mark.xdist_group("serve")

DYING = """\
import os


class Model:
    def predict(self, inputs):
        if inputs["x"][0] == 99:
            os.write(2, b"last words\\x1b[31m\\n")
            os._exit(7)
        return {"y": [value * 2.5 for value in inputs["x"]]}


def load(path):
    return Model()
"""


@pytest.fixture(scope="module")
def image(
    shared_store: Path, tmp_path_factory: pytest.TempPathFactory, engine: Engine
) -> Iterator[tuple[Tiny, str]]:
    """A project with a server whose image is in the engine."""
    root = tmp_path_factory.mktemp("serve") / "tiny"
    write_tiny(root)
    (root / "src/tiny/predict.py").write_text(DYING)
    tiny = Tiny(root, shared_store)
    tiny.edit("pyproject.toml", "[tool.packager]\n", "[tool.packager]\nserve = true\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Tiny")
    locked = tiny.run("lock")
    assert locked.returncode == 0, locked.stderr
    name = str(tiny.built("-t", f"tiny:serve-{os.getpid()}")["reference"])
    yield tiny, name
    engine.client.images.remove(name, force=True)


class Running:
    """A `packager serve` that has said that it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert process.stdout
        self.greeting = process.stdout.readline() + process.stdout.readline()
        self.greeting += process.stdout.readline()

    def _read(self) -> None:
        assert self.process.stderr
        self.errors.extend(self.process.stderr)

    @property
    def port(self) -> int:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/ is its page", self.greeting)
        assert found, (self.greeting, self.errors)
        return int(found[1])

    def infer(self, x: float) -> Any:
        """Ask as the greeting says."""
        tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [x]}
        path = self.greeting.rpartition(f":{self.port}")[2].strip()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = json.dumps({"inputs": [tensor]})
        connection.request("POST", path, body, {"content-type": "application/json"})
        return json.loads(connection.getresponse().read())

    def end(self) -> tuple[int, str]:
        code = self.process.wait(timeout=60)
        self._reader.join(60)
        return code, "".join(self.errors)


@contextmanager
def serving(image: tuple[Tiny, str], *words: str) -> Iterator[Running]:
    tiny, name = image
    process = subprocess.Popen(
        [sys.executable, "-m", "packager", "serve", name, "--port", "0", *words],
        cwd=tiny.root,
        env={**os.environ, "PACKAGER_CACHE": str(tiny.store), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Running(process)
    try:
        yield running
    finally:
        process.terminate()  # which removes its container, if it has not ended yet
        running.end()


def left(engine: Engine, name: str) -> list[Any]:
    return list(engine.client.containers.list(all=True, filters={"ancestor": name}))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_interrupted(
    image: tuple[Tiny, str], engine: Engine, number: signal.Signals
) -> None:
    with serving(image) as running:
        assert running.infer(2)["outputs"][0]["data"] == [5.0]
        running.process.send_signal(number)
        code, errors = running.end()
    assert code == 0, errors
    events = [json.loads(line)["event"] for line in errors.splitlines() if line.startswith("{")]
    assert events[-2:] == ["stopping", "stopped"]
    assert not left(engine, image[1])


def test_the_container_is_closed_off_but_for_one_port(
    image: tuple[Tiny, str], engine: Engine
) -> None:
    with serving(image, "--memory", "256m") as running:
        (container,) = left(engine, image[1])
        host, user = container.attrs["HostConfig"], container.attrs["Config"]["User"]
        bound = container.attrs["NetworkSettings"]["Ports"]
        port = str(running.port)
    assert bound == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}
    assert (host["ReadonlyRootfs"], host["CapDrop"], user) == (True, ["ALL"], "65532:65532")
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (256 << 20, 256 << 20, 512)
    assert [*host["Tmpfs"]] == ["/tmp"]
    assert not host["Privileged"]
    assert not host["Binds"]


def test_a_server_that_ends_by_itself_is_an_error(image: tuple[Tiny, str], engine: Engine) -> None:
    with serving(image) as running:
        with pytest.raises((http.client.HTTPException, OSError)):
            running.infer(99)
        code, errors = running.end()
    assert code == 1
    assert "ended by itself, with exit code 7" in errors
    assert errors.rstrip().endswith("last words\\x1b[31m")
    assert "\x1b" not in errors
    assert "Traceback" not in errors
    assert not left(engine, image[1])


def test_what_a_killed_run_left_is_swept(image: tuple[Tiny, str], engine: Engine) -> None:
    with serving(image) as running:
        running.process.kill()
        running.end()
        assert len(left(engine, image[1])) == 1
        strays.take(engine._wire, "container").end()
        assert not left(engine, image[1])


def test_what_lives_is_not_swept(image: tuple[Tiny, str], engine: Engine) -> None:
    with serving(image) as running:
        strays.take(engine._wire, "container").end()
        assert running.infer(2)["outputs"][0]["data"] == [5.0]


def test_a_port_that_is_taken_is_named(image: tuple[Tiny, str], engine: Engine) -> None:
    tiny, name = image
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = tiny.run("serve", name, "--port", str(port))
    assert run.returncode == 2
    assert f"cannot listen at port {port}" in run.stderr
    assert not left(engine, name)


def test_an_image_without_a_server_says_how_to_get_one(tiny: Tiny, engine: Engine) -> None:
    name = f"tiny:mute-{os.getpid()}"
    tiny.built("-t", name)
    run = tiny.run("serve", name, "--port", "0")
    engine.client.images.remove(name, force=True)
    assert run.returncode == 1
    assert "exit code 2" in run.stderr
    assert "say serve = true" in run.stderr


def test_an_image_that_is_not_there_is_named(tmp_path: Path, shared_store: Path) -> None:
    run = run_packager(tmp_path, shared_store, "serve", "absent:1")
    assert run.returncode == 2
    assert "has no image absent:1" in run.stderr
