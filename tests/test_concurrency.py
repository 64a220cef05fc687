"""Claims about builds at the same time: one store serves them all, and asks for nothing twice."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Tiny

from packager.files import canonical_json
from packager.outputs.engine import Engine

BUILDS = 8


class Server(http.server.ThreadingHTTPServer):
    """A mirror on loopback that counts what it is asked for: blobs of a store, by digest."""

    def __init__(self, store: Path) -> None:
        self.store, self.asked = store, Counter[str]()
        super().__init__(("127.0.0.1", 0), Handler)

    def places(self, digests: list[str], store: Path) -> None:
        """Note in another store that the bytes are to be had here."""
        (store / "notes").mkdir(parents=True)
        for sha256 in digests:
            place = f"http://127.0.0.1:{self.server_port}/{sha256}"
            (store / "notes" / f"place-{sha256}.json").write_bytes(canonical_json(place))


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.asked[name] += 1
        data = (self.server.store / "blobs" / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(tiny: Tiny) -> Iterator[Server]:
    with Server(tiny.store) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def packages(tiny: Tiny) -> list[str]:
    """List the digests of all that is locked, and see that the shared store has it."""
    tiny.built("--no-load", "-o", str(tiny.root.parent / "first.tar"))
    named = set(re.findall("[0-9a-f]{64}", (tiny.root / "packager.lock").read_text()))
    return [sha256 for sha256 in sorted(named) if (tiny.store / "blobs" / sha256).exists()]


def build_at_once(tiny: Tiny, store: Path, *arguments: str) -> list[dict[str, object]]:
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "packager", "build", "--json", *arguments],
            cwd=tiny.root,
            env={**os.environ, "PACKAGER_CACHE": str(store)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(BUILDS)
    ]
    results = []
    for run in runs:
        told, errors = run.communicate()
        assert run.returncode == 0, errors
        results.append(json.loads(told))
    return results


def check(
    tiny: Tiny, store: Path, server: Server, engine: Engine, *arguments: str
) -> list[dict[str, object]]:
    """Eight builds of one project into one engine: all give the one image."""
    wanted = tiny.built("--no-load", "-o", str(tiny.root.parent / "alone.tar"))
    server.asked.clear()
    results = build_at_once(tiny, store, *arguments)
    assert {result["id"] for result in results} == {wanted["id"]}
    for tag in {str(result["tag"]) for result in results}:
        assert engine.get(tag)["Id"] == wanted["id"]
    assert {result["manifest"] for result in results} <= {wanted["manifest"], None}
    assert not list((store / "partial").iterdir())
    assert not list((store / "locks").glob("run-*"))
    return results


@pytest.fixture
def image_gone(tiny: Tiny, engine: Engine) -> Iterator[None]:
    """An image that no other test has: the engine gets it here, and loses it afterwards."""
    tiny.edit("pyproject.toml", 'name = "tiny"', 'name = "eight"')
    tiny.edit("pyproject.toml", 'description = "A factor"', f'description = "{tiny.root}"')
    yield
    engine.client.images.remove("eight:0.1.0", force=True)


@pytest.mark.usefixtures("image_gone")
def test_eight_builds_at_once_download_nothing_twice(
    tiny: Tiny, server: Server, engine: Engine, tmp_path: Path
) -> None:
    locked, store = packages(tiny), tmp_path / "store"
    server.places(locked, store)
    results = check(tiny, store, server, engine)
    assert server.asked == dict.fromkeys(locked, 1)
    # Nor is any layer made twice: one run makes it, the others find it.
    made = Counter(
        layer["diff_id"] for one in results for layer in one["layers"] if not layer["cached"]
    )
    assert set(made.values()) == {1}


@pytest.mark.whole
@pytest.mark.usefixtures("image_gone")
def test_eight_builds_at_once_fill_an_empty_store_and_write_one_archive(
    tiny: Tiny, server: Server, engine: Engine, tmp_path: Path
) -> None:
    locked, store, archive = packages(tiny), tmp_path / "store", tmp_path / "image.tar"
    server.places(locked, store)
    check(tiny, store, server, engine, "-o", str(archive))
    assert server.asked == dict.fromkeys(locked, 1)
    assert archive.read_bytes() == (tmp_path / "alone.tar").read_bytes()
    assert not list(tmp_path.glob(".*.part"))
