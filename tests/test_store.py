"""Claims about the store: nothing is believed, what is damaged heals, what was cut goes on."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from packager import downloads
from packager.errors import ClaimError, HostError
from packager.files import canonical_json, replace_file, replacing
from packager.store import Blob, Store, Wanted

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
        self.cuts: list[int] = []
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.requests: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        ranged = self.headers.get("Range")
        self.server.requests.append((self.path, ranged))
        path = self.path.partition("?")[0]
        if path == "/slow":
            self.send_slowly()
            return
        if path not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[path]
        start = int(re.findall(r"\d+", ranged)[0]) if ranged else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(data)
        self.wfile.write(data[start:end])

    def send_slowly(self) -> None:
        """Send most of it, and the rest when the test says so."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA[: 1 << 20])
        self.wfile.flush()
        self.server.asked.set()
        self.server.go_on.wait()
        with contextlib.suppress(OSError):
            self.wfile.write(DATA[1 << 20 :])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.go_on.set()
        running.shutdown()


def temporaries(store: Store) -> list[Path]:
    """List what is not finished: files of runs, and downloads to be resumed."""
    found = (store.root / "partial").rglob("*")
    return [path for path in found if path.is_file() or not path.name.startswith("run-")]


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond `room` bytes, as a quota would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run code in a process of its own, which can be killed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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
    monkeypatch.setattr("packager.store.SETTLED_NS", -(10**12))  # believe at once
    assert store.get(blob.sha256) is not None
    hashed: list[Path] = []
    monkeypatch.setattr(Store, "_hash", staticmethod(lambda path: hashed.append(path) or "none"))
    assert store.get(blob.sha256) is not None
    assert hashed == []
    flip_a_byte(blob.path)
    assert store.get(blob.sha256) is None
    assert set(hashed) == {blob.path}
    assert len(notes.told) == 1


def test_a_file_of_somebody_elses_is_hashed_again_only_where_it_changed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(DATA)
    hashed: list[Path] = []
    real = Store._hash
    monkeypatch.setattr(Store, "_hash", staticmethod(lambda one: hashed.append(one) or real(one)))
    assert store.digest(model) == store.digest(model) == digest(DATA)
    assert len(hashed) == 2  # so young a file may change and keep its times
    monkeypatch.setattr("packager.store.SETTLED_NS", -(10**12))  # believe at once
    assert store.digest(model) == store.digest(model) == digest(DATA)
    assert len(hashed) == 3
    flip_a_byte(model)
    assert store.digest(model) != digest(DATA)
    other = tmp_path / "other.bin"
    other.write_bytes(b"other")
    assert store.digest(other) == digest(b"other")


def test_where_changing_leaves_no_trace_every_file_is_hashed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = store.add(lambda out: out.write(DATA))
    monkeypatch.setattr("packager.store.SETTLED_NS", -(10**12))  # believe at once
    assert store.get(blob.sha256) is not None
    identity = (store.root / "seen" / blob.sha256).read_bytes()
    flip_a_byte(blob.path)
    monkeypatch.setattr(  # as Windows has it: the change time stays, too
        "packager.store.identity", lambda path: [*json.loads(identity)] if path.exists() else None
    )
    assert store.get(blob.sha256) is not None  # which is why that system is not believed
    monkeypatch.setattr("packager.store.TELLS_CHANGES", False)
    assert store.get(blob.sha256) is None


def test_a_healed_file_is_not_removed_by_who_saw_the_damage_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = store.add(lambda out: out.write(DATA))
    other = Store(store.root)
    flip_a_byte(blob.path)
    hash_file = Store._hash

    def meanwhile_healed(path: Path) -> str:
        found = hash_file(path)
        monkeypatch.setattr(Store, "_hash", staticmethod(hash_file))
        assert other.get(blob.sha256) is None
        other.add(lambda out: out.write(DATA))
        return found

    monkeypatch.setattr(Store, "_hash", staticmethod(meanwhile_healed))
    assert store.get(blob.sha256) is not None
    assert blob.path.read_bytes() == DATA


def test_a_write_that_fails_leaves_nothing(store: Store) -> None:
    def write(out: IO[bytes]) -> None:
        out.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add(write)
    assert not list((store.root / "blobs").iterdir())
    assert temporaries(store) == []


def add_too_much(store: Store) -> None:
    store.add(lambda out: out.write(DATA))


def unpack_too_much(store: Store) -> None:
    with store.scratch() as folder:
        (folder / "unpacked").write_bytes(DATA)


def replace_by_too_much(store: Store) -> None:
    replace_file(store.root / "file", DATA)


@pytest.mark.parametrize("fill", [add_too_much, unpack_too_much, replace_by_too_much])
def test_a_full_disk_is_said_and_nothing_half_written_stays(
    store: Store, fill: Callable[[Store], None]
) -> None:
    with full_disk(1 << 20), pytest.raises(HostError, match=r"cannot be written: File too large"):
        fill(store)
    assert temporaries(store) == []
    assert not list((store.root / "blobs").iterdir())
    assert not list(store.root.glob("*file*"))
    fill(store)


def test_a_download_that_fills_the_disk_says_so(store: Store, server: Server) -> None:
    with full_disk(1 << 20), pytest.raises(HostError, match=r"the store .*: cannot be written"):
        store.fetch([wanted(server.url("/data"))])
    assert store.fetch([wanted(server.url("/data"))])


def test_an_unreadable_source_is_not_taken_for_a_full_disk(store: Store, tmp_path: Path) -> None:
    missing = tmp_path / "model.skops"
    for write in (store.add, partial(write_beside, store.root / "archive.tar")):
        with pytest.raises(HostError) as caught:
            write(lambda out: out.write(missing.read_bytes()))
        assert "model.skops: cannot be read: No such file" in str(caught.value)
    assert temporaries(store) == []
    assert not (store.root / "archive.tar").exists()


def write_beside(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    with replacing(path) as out:
        write(out)


KILLED = """
import os, signal, sys
from pathlib import Path
from packager.store import Store
store = Store(Path(sys.argv[1]))
with store.scratch() as folder:
    (folder / "unpacked").write_text("")
    store.add(lambda out: (out.write(b"half"), print("ready", flush=True), signal.pause()))
"""


def test_what_a_killed_run_left_is_swept_and_what_a_live_one_has_stays(store: Store) -> None:
    run = run_python(KILLED, store.root)
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    (store.root / "partial" / digest(DATA)).write_bytes(DATA[:9])  # a download to be resumed
    left = temporaries(store)
    assert len(left) == 4  # the folder and its file, the half blob, the download
    Store(store.root).add(lambda out: out.write(b"other"))
    assert temporaries(store) == left
    run.kill()
    run.communicate()
    Store(store.root).add(lambda out: out.write(b"another"))
    assert temporaries(store) == [store.root / "partial" / digest(DATA)]


def test_a_run_that_ends_leaves_no_trace(store: Store) -> None:
    code = "import sys, pathlib, packager.store as s; "
    code += "s.Store(pathlib.Path(sys.argv[1])).add(lambda out: out.write(b'x'))"
    assert run_python(code, store.root).wait() == 0
    assert not list((store.root / "partial").iterdir())
    assert not list((store.root / "locks").glob("run-*"))


def test_fetch_brings_bytes_home_once_and_remembers_the_place(store: Store, server: Server) -> None:
    url = server.url("/data")
    blob = store.fetch([wanted(url), wanted(url)])[digest(DATA)]
    assert blob.path.read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/data"]
    blob.path.unlink()
    assert store.fetch([wanted()])  # no places given: the remembered one serves
    assert len(server.requests) == 2


@pytest.mark.parametrize("query", ["?signature=canary", ""])
def test_an_address_that_holds_a_secret_is_not_remembered(
    store: Store, server: Server, query: str
) -> None:
    url = server.url(f"/data{query}")
    assert store.fetch([wanted(url)])
    kept = b"".join(path.read_bytes() for path in (store.root / "notes").iterdir())
    assert b"canary" not in kept
    assert (b"/data" in kept) == (not query)


def test_a_download_that_is_cut_goes_on_at_once_while_it_progresses(
    store: Store, server: Server
) -> None:
    server.cuts = [1 << 20, 1 << 20]
    blob = store.fetch([wanted(server.url("/data"))])[digest(DATA)]
    assert blob.path.read_bytes() == DATA
    assert [ranged for _, ranged in server.requests] == [None, "bytes=1048576-", "bytes=2097152-"]


def test_a_download_that_stays_cut_is_given_up_and_the_next_run_goes_on(
    store: Store, server: Server
) -> None:
    server.cuts = [1 << 20, 0]
    with pytest.raises(HostError, match=r"culprit\.whl: could not be fetched"):
        store.fetch([wanted(server.url("/data"))])
    assert len(server.requests) == 2
    blob = Store(store.root).fetch([wanted(server.url("/data"))])[digest(DATA)]
    assert blob.path.read_bytes() == DATA
    assert server.requests[-1] == ("/data", "bytes=1048576-")


def test_a_server_that_cuts_for_ever_is_given_up(store: Store, server: Server) -> None:
    server.cuts = [1 << 17] * 1000
    with pytest.raises(HostError, match="could not be fetched"):
        store.fetch([wanted(server.url("/data"))])
    assert 1 < len(server.requests) < 100


def test_a_download_that_was_whole_before_the_run_died_needs_no_request(
    store: Store, server: Server
) -> None:
    (store.root / "partial" / digest(DATA)).write_bytes(DATA)
    assert store.fetch([wanted(server.url("/data"))])
    assert server.requests == []


def test_a_failure_waits_for_no_other_download_and_ends_it(store: Store, server: Server) -> None:
    missing = wanted(server.url("/missing"), data=b"other")
    waits = Wanted(missing.sha256, 5, "w", lambda: (server.asked.wait(), missing.places())[1])
    with pytest.raises(HostError, match="404"):
        store.fetch([waits, wanted(server.url("/slow"))])
    assert not server.go_on.is_set()  # so the other one is still under way
    server.go_on.set()
    with FileLock(store.root / "locks" / digest(DATA)):  # held until it has stopped
        assert store.get(digest(DATA)) is None


INTERRUPTED = """
import sys
from pathlib import Path
from packager.store import Blob, Store, Wanted
try:
    Store(Path(sys.argv[1])).fetch([Wanted(sys.argv[2], 0, "slow", lambda: [sys.argv[3]])])
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_a_download_from_a_silent_server(store: Store, server: Server) -> None:
    run = run_python(INTERRUPTED, store.root, digest(DATA), server.url("/slow"))
    assert server.asked.wait(60)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert (run.returncode, errors) == (130, "")


READ_ONLY = """
import os, sys
from pathlib import Path
from packager.errors import HostError
from packager import downloads, leases  # while this user may read them
from packager.store import Blob, Store, Wanted
if os.geteuid() == 0:  # whom no mode keeps from writing
    os.setgid(65534), os.setuid(65534)
store, (have, missing) = Store(Path(sys.argv[1])), sys.argv[2:4]
blob = store.fetch([Wanted(have, 0, "have", lambda: [])])[have]
assert blob.path.read_bytes()
assert store.note("kind", "key") == [1]
store.write_note("kind", "key", [1])
with store.scratch() as folder:
    (folder / "file").write_text("")
for refused in (
    lambda: store.fetch([Wanted(missing, 0, "missing", lambda: [])]),
    lambda: store.add(lambda out: out.write(b"new")),
    lambda: store.write_note("kind", "key", [2]),
):
    try:
        refused()
    except HostError as error:
        assert "the store" in str(error) and "cannot be written" in str(error), error
    else:
        sys.exit("a read-only store was written to")
"""


def test_a_complete_store_may_be_read_only(store: Store, tmp_path: Path) -> None:
    blob = store.add(lambda out: out.write(DATA))
    store.write_note("kind", "key", [1])
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("pytest-", "popen-", "test_")):  # pytest's own are private
            folder.chmod(0o755)
    for folder in (store.root, *store.root.iterdir()):
        folder.chmod(0o555)
    run = run_python(READ_ONLY, store.root, blob.sha256, digest(b"missing"))
    _, errors = run.communicate()
    for folder in (store.root, *store.root.iterdir()):
        folder.chmod(0o755)
    assert run.returncode == 0, errors


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
    assert temporaries(store) == []


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
    link = tmp_path / "link"
    link.symlink_to("file")
    replace_file(link, b"three")
    assert (link.is_symlink(), path.read_bytes()) == (True, b"three")
    assert sorted(tmp_path.iterdir()) == [path, link]
    with pytest.raises(ZeroDivisionError), replacing(path) as out:
        out.write(bytes([1 // 0]))
    assert (path.read_bytes(), len(list(tmp_path.iterdir()))) == (b"three", 2)
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


def test_large_files_come_in_turn_and_small_ones_need_not_wait_for_them() -> None:
    sizes = {"L1": 2 << 20, "s1": 5, "L2": 3 << 20, "s2": 1 << 20, "s3": 7}
    wanted = [Wanted(name, size, name, list) for name, size in sizes.items()]
    small_are_here, under_way = threading.Event(), threading.Semaphore(1)
    done: list[str] = []

    def work(one: Wanted) -> Blob:
        if one.label.startswith("L"):
            assert under_way.acquire(blocking=False), "another large one is under way"
            assert small_are_here.wait(10), "small ones wait for large ones"
            under_way.release()
        done.append(one.label)
        if {"s1", "s2", "s3"} <= {*done}:
            small_are_here.set()
        return Blob(one.sha256, one.size, Path(one.label))

    arrived = [job.result(20).sha256 for job in downloads._side_by_side(work, wanted)]
    assert arrived == [*sizes]
    assert done[3:] == ["L1", "L2"]
