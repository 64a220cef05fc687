"""Claims about the store: nothing is believed, what is damaged heals, what was cut goes on."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import ClaimError, HostError
from packager.store import Store, Wanted, canonical_json, replace_file

DATA = bytes(range(256)) * 20_000


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Notes:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, step: str, what: str) -> None: ...

    def advance(self, step: str, amount: int, total: int) -> None: ...

    def row(self, step: str, what: str, size: str, state: str) -> None: ...

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def store(tmp_path: Path, notes: Notes) -> Store:
    return Store(tmp_path / "store", notes)


class Server(http.server.ThreadingHTTPServer):
    """A server on loopback that can be told to misbehave."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/data": DATA, "/wrong": DATA[:-1] + b"!"}
        self.cut_after: int | None = None
        self.requests: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        ranged = self.headers.get("Range")
        self.server.requests.append((self.path, ranged))
        if self.path not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[self.path]
        start = int(re.findall(r"\d+", ranged)[0]) if ranged else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        cut, self.server.cut_after = self.server.cut_after, None
        self.wfile.write(data[start : start + cut] if cut else data[start:])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def wanted(*places: str, data: bytes = DATA) -> Wanted:
    return Wanted(digest(data), len(data), "culprit.whl", lambda: places)


def flip_a_byte(path: Path) -> None:
    """Change one byte; size and modification time stay."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_what_is_added_is_found_by_its_digest(store: Store) -> None:
    blob = store.add(lambda out: out.write(b"hello"))
    assert (blob.sha256, blob.size) == (digest(b"hello"), 5)
    assert store.get(blob.sha256) == blob
    assert store.get(digest(b"other")) is None


def test_a_flipped_byte_is_found_and_said_once(store: Store, notes: Notes) -> None:
    blob = store.add(lambda out: out.write(DATA))
    assert store.get(blob.sha256) is not None
    flip_a_byte(blob.path)
    assert store.get(blob.sha256) is None
    assert store.get(blob.sha256) is None
    assert len(notes.told) == 1
    assert blob.sha256[:12] in notes.told[0]


def test_a_flipped_byte_is_found_where_the_good_file_was_believed_by_its_identity(
    store: Store, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = store.add(lambda out: out.write(DATA))
    monkeypatch.setattr("packager.store._SETTLED_NS", -(10**12))  # believe at once
    assert store.get(blob.sha256) is not None
    hashed: list[Path] = []
    monkeypatch.setattr(Store, "_hash", staticmethod(lambda path: hashed.append(path) or "none"))
    assert store.get(blob.sha256) is not None
    assert hashed == []
    flip_a_byte(blob.path)
    assert store.get(blob.sha256) is None
    assert hashed == [blob.path]
    assert len(notes.told) == 1


def test_a_write_that_fails_leaves_nothing(store: Store) -> None:
    def write(out: IO[bytes]) -> None:
        out.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add(write)
    assert not list((store.root / "blobs").iterdir())
    assert not list((store.root / "partial").iterdir())


def test_fetch_brings_bytes_home_once_and_remembers_the_place(store: Store, server: Server) -> None:
    url = server.url("/data")
    blob = store.fetch([wanted(url), wanted(url)])[digest(DATA)]
    assert blob.path.read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/data"]
    blob.path.unlink()
    assert store.fetch([wanted()])  # no places given: the remembered one serves
    assert len(server.requests) == 2


def test_fetch_goes_on_where_a_download_was_cut(store: Store, server: Server) -> None:
    server.cut_after = 1 << 20
    with pytest.raises(HostError, match=r"culprit\.whl: could not be fetched"):
        store.fetch([wanted(server.url("/data"))])
    blob = store.fetch([wanted(server.url("/data"))])[digest(DATA)]
    assert blob.path.read_bytes() == DATA
    assert server.requests[-1] == ("/data", "bytes=1048576-")


def test_a_damaged_rest_of_a_download_is_thrown_away(store: Store, server: Server) -> None:
    (store.root / "partial" / digest(DATA)).write_bytes(b"rubbish")
    blob = store.fetch([wanted(server.url("/data"))])[digest(DATA)]
    assert blob.path.read_bytes() == DATA


def test_the_next_place_is_tried(store: Store, server: Server) -> None:
    places = [server.url("/missing"), server.url("/wrong"), server.url("/data")]
    assert store.fetch([wanted(*places)])[digest(DATA)].path.read_bytes() == DATA


def test_a_wrong_hash_everywhere_is_refused_by_name(store: Store, server: Server) -> None:
    with pytest.raises(ClaimError, match=r"culprit\.whl") as caught:
        store.fetch([wanted(server.url("/wrong"))])
    assert digest(DATA) in str(caught.value)
    assert store.get(digest(DATA)) is None
    assert not list((store.root / "partial").iterdir())


def test_bytes_that_are_nowhere_are_an_error_of_the_surroundings(
    store: Store, server: Server
) -> None:
    credentials = server.url("/missing").replace("http://", "http://user:secret@")
    with pytest.raises(HostError, match="404") as caught:
        store.fetch([wanted(credentials)])
    assert "secret" not in str(caught.value)


def test_an_endless_answer_is_cut_off(store: Store, server: Server) -> None:
    server.files["/data"] = DATA * 3
    with pytest.raises(ClaimError):
        store.fetch([wanted(server.url("/data"))])


def test_a_store_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="PACKAGER_CACHE"):
        Store(tmp_path / "file" / "store")


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"one")
    path.chmod(0o640)
    replace_file(path, b"two")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o640)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(HostError, match="nowhere"):
        replace_file(tmp_path / "nowhere" / "file", b"")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_canonical_json_forgets_the_order_of_keys(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(backwards)


def test_canonical_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json([float("nan")])
