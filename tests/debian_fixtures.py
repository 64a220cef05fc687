"""Shared by the tests of the Debian base: real packages, and a mirror on loopback."""

from __future__ import annotations

import functools
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from packager import net
from packager.lock import debian
from packager.lock.debian import DebianPins, DebPin

Debs = list[tuple[DebPin, Path]]
Fetch = Callable[..., tuple[DebianPins, Debs]]


class Recording(requests.Session):
    """Remembers every body that it got, by the part of the address below the archive."""

    def __init__(self) -> None:
        super().__init__()
        self._real = net.session()
        self.bodies: dict[str, bytes] = {}

    def get(self, url, **options):
        response = self._real.get(url, **options)
        if response.ok:
            self.bodies[url[url.index("/dists/") :]] = response.content
        return response


@pytest.fixture(scope="session")
def session() -> requests.Session:
    return net.session()


@pytest.fixture(scope="session")
def fetch(tmp_path_factory: pytest.TempPathFactory, session: requests.Session) -> Fetch:
    """Resolve and download once per combination, as `packager lock` and `build` would."""
    folder = tmp_path_factory.mktemp("debs")

    @functools.cache
    def get(suite: str, architecture: str, *extra: str) -> tuple[DebianPins, Debs]:
        pins = debian.resolve(suite, architecture, extra, session=session)
        with ThreadPoolExecutor(4) as pool:
            paths = pool.map(lambda pin: _download(pin, pins, folder, session), pins.packages)
            return pins, list(zip(pins.packages, paths, strict=True))

    return get


def _download(pin: DebPin, pins: DebianPins, folder: Path, session: requests.Session) -> Path:
    path = folder / f"{pin.sha256}.deb"
    for place in [] if path.exists() else debian.places(pin, pins):
        response = session.get(place)
        if response.ok and hashlib.sha256(response.content).hexdigest() == pin.sha256:
            assert len(response.content) == pin.size
            path.write_bytes(response.content)
            break
    assert path.exists(), f"{pin.file} is nowhere"
    return path


@pytest.fixture(scope="session")
def recorded() -> Mapping[str, bytes]:
    """The real release files and lists of packages of both suites, as some archive has them."""
    recording = Recording()
    for suite in debian.SUITES:
        debian.resolve(suite, "amd64", [], session=recording)
    return recording.bodies


class Mirror:
    """An archive on loopback: paths to bytes, changed at will."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.asked: list[str] = []
        bodies, asked = self.bodies, self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = urlsplit(self.path).path
                asked.append(path)
                below = re.search("/(dists|pool)/.*", path)
                body = bodies.get(below[0]) if below else None
                self.send_response(200 if body is not None else 404)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_port}"
        self.address = f"{self.root}/debian"

    def tamper(self, end: str, change: Callable[[bytes], bytes]) -> None:
        [path] = [path for path in self.bodies if path.endswith(end)]
        self.bodies[path] = change(self.bodies[path])


@pytest.fixture
def mirror(recorded: Mapping[str, bytes]) -> Iterator[Mirror]:
    made = Mirror()
    made.bodies.update(recorded)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()
