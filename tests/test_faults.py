"""Claims about what may break around us: a clear message and the right exit code, or it heals.

| fault | where the claim is |
| --- | --- |
| full disk, the store's | `test_a_full_disk_is_said_and_room_heals_it` |
| full disk, amid any writing | `test_store.py`: `..._full_disk_...`, `..._fills_the_disk_...` |
| unwritable store | `test_a_store_that_cannot_be_written_is_said` |
| unwritable store that has everything | `test_store.py`: `test_a_complete_store_may_be_read_only` |
| engine stopped in the middle of loading | `test_an_engine_that_dies_while_it_loads_...` |
| download cut once, for good, for ever | `test_store.py`: `test_a_download_that_...cut_...` |
| download slow: silent, stalling, trickling | `test_a_download_fails_clearly_...` |
| download truncated, 429, 500, redirects, wrong bytes | `test_a_download_fails_clearly_...` |
| 429, 503 for a while, Retry-After | `test_a_server_that_is_busy_...` |
| wrong bytes, as a user sees it | `test_wrong_bytes_are_refused_and_nothing_is_tagged` |
| corrupt entry, size and mtime unchanged, said once | `test_store.py`: `test_a_flipped_byte_...` |
| corrupt entry, as a user sees it | `test_build.py`: `test_a_flipped_byte_in_the_store_...` |
| damaged rest of a download, endless answer | `test_store.py` |
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
from conftest import Tiny, WheelMaker, run_packager

from packager.errors import ClaimError, HostError
from packager.files import canonical_json
from packager.outputs.engine import Engine
from packager.store import Store, Wanted

DATA = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()

# --- Downloads -----------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """A server on loopback with one fault for each path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.over = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        fault, _, detail = self.path[1:].partition("/")
        with contextlib.suppress(OSError):  # whoever asked has given up
            getattr(self, fault)(detail)

    def answer(self, status: int, data: bytes, **headers: object) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def good(self, _: str) -> None:
        self.answer(200, DATA)

    def silent(self, _: str) -> None:
        self.server.over.wait()

    def stalls(self, _: str) -> None:
        self.answer(200, DATA[:1000], Content_Length=len(DATA))
        self.server.over.wait()

    def trickles(self, _: str) -> None:
        self.answer(200, b"", Content_Length=len(DATA))
        while not self.server.over.wait(0.05):
            self.wfile.write(b"x")

    def truncated(self, _: str) -> None:
        self.answer(200, DATA[:-1])

    def wrong(self, _: str) -> None:
        self.answer(200, DATA[:-1] + b"?")

    def loop(self, _: str) -> None:
        self.answer(302, b"", Location="/loop/")

    def status(self, detail: str) -> None:
        self.answer(int(detail), b"", Retry_After=3600)

    def busy(self, detail: str) -> None:
        """Answer so the first two times."""
        if self.server.asked.count(self.path) > 2:
            self.answer(200, DATA)
        else:
            self.answer(int(detail), b"", **({"Retry_After": 7} if detail == "429" else {}))

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.over.set()
        running.shutdown()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Wait for no answer for long, and between two attempts not at all, but remember it."""
    waited: list[float] = []
    clock = SimpleNamespace(sleep=waited.append, time=lambda: 0.0)
    monkeypatch.setattr("urllib3.util.retry.time", clock)
    monkeypatch.setattr("packager.net._TIMEOUT", 0.5)
    monkeypatch.setattr("packager.downloads._MINUTE", 0.5)
    return waited


def fetch(store: Store, *places: str) -> None:
    store.fetch([Wanted(SHA256, len(DATA), "culprit.whl", lambda: places)])


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("/silent/", HostError, "Read timed out"),
        ("/stalls/", HostError, "Read timed out"),
        ("/trickles/", HostError, r"sent \d+ bytes in 0 seconds"),
        ("/truncated/", ClaimError, "has other bytes: sha256 [0-9a-f]{64}"),
        ("/wrong/", ClaimError, "has other bytes: sha256 [0-9a-f]{64}"),
        ("/loop/", HostError, "Exceeded 30 redirects"),
        ("/status/429", HostError, "too many 429 error responses"),
        ("/status/500", HostError, "too many 500 error responses"),
        ("/status/403", HostError, "answers 403 Forbidden"),
    ],
)
@pytest.mark.usefixtures("waits")
def test_a_download_fails_clearly_and_another_place_heals_it(
    fault: str, error: type[ClaimError | HostError], said: str, server: Server, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(error, match=said) as caught:
        fetch(store, server.url(fault))
    assert caught.value.exit_code == (1 if error is ClaimError else 3)
    assert "culprit.whl" in str(caught.value)
    assert server.url(fault) in str(caught.value)
    assert store.get(SHA256) is None
    fetch(store, server.url(fault), server.url("/good/"))
    assert store.get(SHA256)


@pytest.mark.parametrize(("status", "expected"), [("429", [7, 7]), ("503", [1.0])])
def test_a_server_that_is_busy_is_asked_again_when_it_says(
    status: str, expected: list[float], server: Server, waits: list[float], tmp_path: Path
) -> None:
    fetch(Store(tmp_path / "store"), server.url(f"/busy/{status}"))
    assert waits == expected  # urllib3 asks a second time at once
    assert len(server.asked) == 3


def test_a_server_that_is_busy_for_an_hour_is_not_waited_for(
    server: Server, waits: list[float], tmp_path: Path
) -> None:
    with pytest.raises(HostError, match="429"):
        fetch(Store(tmp_path / "store"), server.url("/status/429"))
    assert waits == [30.0] * 4


# --- As a user sees it ---------------------------------------------------------------------


def place_all(tiny: Tiny, store: Path) -> None:
    """Note in a store that the shared one has what is locked, so that no network is needed."""
    tiny.built("--no-load", "-o", str(tiny.root.parent / "first.tar"))
    (store / "notes").mkdir(parents=True, exist_ok=True)
    for sha256 in re.findall("[0-9a-f]{64}", (tiny.root / "packager.lock").read_text()):
        blob = tiny.store / "blobs" / sha256
        if blob.exists():
            note = store / "notes" / f"place-{sha256}.json"
            note.write_bytes(canonical_json(blob.as_uri()))


@pytest.fixture
def named(tiny: Tiny, engine: Engine) -> Iterator[str]:
    """The name of an image that no other test makes; nothing bears it afterwards."""
    name = f"faulty-{secrets.token_hex(8)}"
    tiny.edit("pyproject.toml", 'name = "tiny"', f'name = "{name}"')
    tiny.edit("pyproject.toml", 'description = "A factor"', f'description = "{tiny.root}"')
    yield f"{name}:0.1.0"
    with contextlib.suppress(docker.errors.ImageNotFound):
        engine.client.images.remove(f"{name}:0.1.0", force=True)


def test_wrong_bytes_are_refused_and_nothing_is_tagged(
    tiny: Tiny, named: str, engine: Engine, make_wheel: WheelMaker
) -> None:
    wheel = make_wheel("culprit", folder=tiny.root / "wheels")
    tiny.edit("pyproject.toml", "dependencies = []", 'dependencies = ["culprit"]')
    tiny.edit("pyproject.toml", "[tool.packager]", '[tool.packager]\nfind-links = ["wheels"]')
    alone = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    locked = tiny.run("lock", **alone)
    assert locked.returncode == 0, locked.stderr
    good = wheel.read_bytes()
    (tiny.store / "blobs" / hashlib.sha256(good).hexdigest()).unlink()
    wheel.write_bytes(good[:-1] + b"?")
    run = tiny.run("build", **alone)
    assert run.returncode == 1
    assert f"packager.lock: {wheel.name}" in run.stderr
    assert "has other bytes" in run.stderr
    assert engine.find(named) is None
    wheel.write_bytes(good)
    assert tiny.built(**alone)["id"] == engine.get(named)["Id"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for the packages, but not for what is made of them."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not permitted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_a_full_disk_is_said_and_room_heals_it(
    tiny: Tiny, named: str, engine: Engine, small_disk: Path
) -> None:
    store = small_disk / "store"
    tiny.edit("pyproject.toml", "[tool.packager]", "[tool.packager]\nbytecode = false")  # quicker
    place_all(tiny, store)
    run = run_packager(tiny.root, store, "build")
    assert run.returncode == 3
    assert f"the store {store}: cannot be written: No space left on device" in run.stderr
    assert engine.find(named) is None
    assert not list((store / "partial").glob("run-*"))
    remount(small_disk, "size=1g")
    run = run_packager(tiny.root, store, "build", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["id"] == tiny.built()["id"]


def test_a_store_that_cannot_be_written_is_said(tiny: Tiny, small_disk: Path) -> None:
    store = small_disk / "store"
    place_all(tiny, store)
    remount(small_disk, "ro")
    run = run_packager(tiny.root, store, "build", "--no-load", "-o", str(tiny.root / "x.tar"))
    assert run.returncode == 3
    assert f"{store}: the store cannot be made: Read-only file system" in run.stderr
    assert "PACKAGER_CACHE" in run.stderr
    remount(small_disk, "rw")
    Store(store)
    remount(small_disk, "ro")
    run = run_packager(tiny.root, store, "build", "--no-load", "-o", str(tiny.root / "x.tar"))
    assert run.returncode == 3
    assert f"the store {store}: cannot be written: Read-only file system" in run.stderr
    assert not (tiny.root / "x.tar").exists()


# --- The engine ----------------------------------------------------------------------------


class PrivateEngine:
    """An engine of this test's own, which may be killed, and the way to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "engine.sock"
        self.start()

    def start(self) -> None:
        state = tempfile.mkdtemp(dir=self.folder)  # nothing that a dead one left confuses it
        self.log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [
                # Without a network of its own it would take away the bridge of the host's engine.
                *("unshare", "--net", "dockerd"),
                *("--data-root", str(self.folder / "data"), "--exec-root", state),
                *("--pidfile", f"{state}/pid", "-H", f"unix://{self.socket}"),
                *("--bridge=none", "--iptables=false"),
            ],
            stdout=self.log,
            stderr=self.log,
        )
        while not self.answers():
            if self.process.poll() is not None:
                pytest.fail((self.folder / "log").read_text()[-3000:])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)

    def answers(self) -> bool:
        with contextlib.suppress(docker.errors.DockerException, OSError):
            client = docker.DockerClient(base_url=f"unix://{self.socket}")
            with contextlib.closing(client):
                return bool(client.ping())
        return False

    def die(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()
        # An engine mounts its data onto itself, and one that was killed leaves it so.
        while not subprocess.run(
            ["umount", "--lazy", str(self.folder / "data")], check=False, capture_output=True
        ).returncode:
            pass


@pytest.fixture
def private_engine() -> Iterator[PrivateEngine]:
    if os.geteuid() or not shutil.which("dockerd"):
        pytest.skip("an engine of one's own takes dockerd, and root")
    # pytest's own folders are too deep for the path of a socket.
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        running = PrivateEngine(Path(folder))
        yield running
        running.stop()


class Wire:
    """A socket before an engine's; the engine dies when so much of an image has passed."""

    def __init__(self, engine: PrivateEngine, after: int) -> None:
        self.engine, self.left = engine, after
        self.dying = threading.Lock()
        self.path = engine.folder / "wire.sock"
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self.listening.accept()
                far = socket.socket(socket.AF_UNIX)
                try:
                    far.connect(str(self.engine.socket))
                except OSError:  # it is dead, and that is what the one who asks is to see
                    near.close()
                    continue
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self.pump, args=ends, daemon=True).start()

    def pump(self, source: socket.socket, target: socket.socket) -> None:
        loading = False
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                loading = loading or b"/images/load" in data
                target.sendall(data)
                if loading:
                    self.passed(len(data))
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def passed(self, amount: int) -> None:
        with self.dying:
            before, self.left = self.left, self.left - amount
            if before > 0 >= self.left:
                self.engine.die()


def test_an_engine_that_dies_while_it_loads_is_said_and_the_next_build_is_right(
    tiny: Tiny, named: str, private_engine: PrivateEngine
) -> None:
    wire = Wire(private_engine, after=30 << 20)
    address = f"unix://{wire.path}"
    run = tiny.run("build", DOCKER_HOST=address)
    assert private_engine.process.returncode == -signal.SIGKILL
    assert run.returncode == 3
    assert "the engine stopped answering" in run.stderr
    assert "Traceback" not in run.stderr
    private_engine.start()
    client = docker.DockerClient(base_url=address)
    with contextlib.closing(client):
        assert client.images.list(all=True) == []
        built = tiny.built(DOCKER_HOST=address)
        assert [image.id for image in client.images.list(all=True)] == [built["id"]]
        assert client.images.get(named).id == built["id"]
    wire.listening.close()
