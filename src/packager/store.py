"""A content-addressed store of everything that was fetched or made, and the way in by hash.

Nothing in the store is believed: a file counts only if its bytes give its name.  A file
whose identity (inode, size, modification and change time) is what it was when its bytes
were last hashed is not hashed again; changing a byte moves the change time, which no
program can set back.  Windows keeps no such time, so there every file is hashed.

A store that is complete may be read-only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import queue
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import platformdirs
import requests
from filelock import FileLock
from urllib3.exceptions import HTTPError

from packager import net
from packager.errors import ClaimError, HostError
from packager.files import Out, blaming, canonical_json, writing
from packager.leases import Lease, expired
from packager.reporter import Reporter, Silent

__all__ = ["Blob", "Store", "Wanted"]

_CHUNK = 1 << 16
_CONNECTIONS = 6
_MINUTE = 60.0  # in which a server must send at least this many bytes:
_LEAST = 10_000
_CUTS = 10  # as often as this a download is resumed, if every attempt brings something
_SETTLED_NS = 2_000_000_000
_TELLS_CHANGES = os.name != "nt"  # elsewhere st_ctime is when a file was made
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes in the store: their digest (hex), their number, and where they lie."""

    sha256: str
    size: int
    path: Path


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bytes that should be in the store.

    Parameters
    ----------
    sha256 : str
        Hex digest.
    size : int
        Bytes.
    label : str
        What they are, for messages.
    places : callable
        Gives the addresses where they may be found, best first; asked only when needed.
    """

    sha256: str
    size: int
    label: str
    places: Callable[[], Iterable[str]]


class Store:
    """The content-addressed store.

    Parameters
    ----------
    root : Path, optional
        Its folder; by default the user's cache folder (`PACKAGER_CACHE` overrides).
    reporter : Reporter, optional
        Told about downloads, and once about each entry that had to be healed.

    Raises
    ------
    HostError
        When the folder cannot be made or written.
    """

    def __init__(self, root: Path | None = None, reporter: Reporter | None = None) -> None:
        self.root = root or _default_root()
        self.reporter = reporter or Silent()
        self._name = f"the store {self.root}"
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._locks: dict[str, FileLock] = {}
        self._session: requests.Session | None = None
        self._workplace: _Workplace | None = None
        for name in ("blobs", "seen", "notes", "locks", "partial"):
            try:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise HostError(
                    f"the store cannot be made: {error.strerror}",
                    where=str(self.root),
                    hint="Set PACKAGER_CACHE to a folder that can be written.",
                ) from None

    def get(self, sha256: str) -> Blob | None:
        """Find bytes by their digest; a damaged file is removed, said once, and not found.

        Raises
        ------
        HostError
            When the file is there and cannot be read, or is damaged and cannot be removed.
        """
        path = self.root / "blobs" / sha256
        try:
            return self._checked(sha256, path) or self._heal(sha256, path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"cannot be read: {error.strerror}", where=str(path)) from None

    def add(self, write: Callable[[IO[bytes]], object]) -> Blob:
        """Keep what `write` writes; hashed while it is written, never read again.

        Raises
        ------
        HostError
            When the disk is full or the store cannot be written, or when `write` cannot
            read what it writes.
        """
        with self._temporary() as out:
            hashing = _Hashing(out)
            write(cast("IO[bytes]", hashing))
            out.settle()
            return self._keep(out.path, hashing.digest.hexdigest())

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder, gone afterwards, on the store's own disk if that can be written.

        Raises
        ------
        HostError
            When the disk is full, whoever filled it.
        """
        writable = os.access(self.root / "partial", os.W_OK)
        parent = self._work() if writable else None
        try:
            with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
                yield Path(folder)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            where = self._name if writable else tempfile.gettempdir()
            raise HostError(f"cannot be written: {error.strerror}", where=where) from error

    def note(self, kind: str, key: str) -> Any | None:
        """Recall what was noted under a key; anything unreadable was never noted."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.root / "notes" / f"{kind}-{key}.json").read_bytes())
        return None

    def write_note(self, kind: str, key: str, value: object) -> None:
        """Note a JSON value under a key."""
        if self.note(kind, key) != value:
            self._replace(self.root / "notes" / f"{kind}-{key}.json", canonical_json(value))

    def fetch(self, wanted: Iterable[Wanted], *, step: str = "fetch") -> dict[str, Blob]:
        """Bring bytes into the store, in parallel, checked by hash.

        A download that was cut goes on where it stopped; the place where bytes were found
        is remembered, unless its address holds a secret.

        Parameters
        ----------
        wanted : iterable of Wanted
            May name the same bytes twice.
        step : str
            What the reporter calls this.

        Returns
        -------
        dict of str to Blob
            By hex digest, complete.

        Raises
        ------
        ClaimError
            When the only bytes to be had have another hash than the lock says.
        HostError
            When no place has them, or the network or the disk fails.
        """
        unique = {one.sha256: one for one in wanted}
        found = {sha: blob for sha in unique if (blob := self.get(sha))}
        missing = [one for sha, one in unique.items() if sha not in found]
        total = sum(one.size for one in missing)
        given_up = threading.Event()

        def tell(amount: int) -> None:
            if given_up.is_set():
                raise _GivenUpError
            self.reporter.advance(step, amount, total)

        try:
            jobs = _side_by_side(lambda one: self._fetch(one, tell), missing)
            found.update((blob.sha256, blob) for blob in (job.result() for job in jobs))
        finally:
            given_up.set()
        return found

    def _fetch(self, wanted: Wanted, tell: Callable[[int], None]) -> Blob:
        with self._alone(wanted.sha256):
            if blob := self.get(wanted.sha256):
                return blob
            failures: list[PlaceFailed] = []
            for place in self._places(wanted):
                tell(0)
                try:
                    blob = self._download(wanted, place, tell)
                except PlaceFailed as failure:
                    failures.append(failure)
                    continue
                if not net.holds_secret(place):
                    self.write_note("place", wanted.sha256, place)
                return blob
        raise _explain(wanted, failures)

    def _places(self, wanted: Wanted) -> Iterator[str]:
        # A remembered place saves asking the index, which costs a request per package.
        remembered = self.note("place", wanted.sha256)
        if isinstance(remembered, str):
            yield remembered
        for place in wanted.places():
            if place != remembered:
                yield place

    def _download(self, wanted: Wanted, place: str, tell: Callable[[int], None]) -> Blob:
        partial = self.root / "partial" / wanted.sha256
        left_over = _size(partial) > 0
        for cuts in range(_CUTS + 1):
            before = _size(partial)
            try:
                self._stream(wanted, place, partial, tell)
                break
            except (requests.RequestException, HTTPError) as error:
                if cuts == _CUTS or _size(partial) <= before:
                    raise PlaceFailed(place, net.reasons(error)) from None
        digest = self._hash(partial)
        if digest != wanted.sha256:
            partial.unlink()
            if left_over:  # what was left of an earlier run may be the wrong part
                return self._download(wanted, place, tell)
            raise PlaceFailed(place, f"has other bytes: sha256 {digest}", wrong=True)
        return self._keep(partial, digest)

    def _stream(
        self, wanted: Wanted, place: str, partial: Path, tell: Callable[[int], None]
    ) -> None:
        """Append what a place has to what is there."""
        have = _size(partial)
        if wanted.size and have == wanted.size:
            return
        with (
            Out(partial, "ab", self._name) as out,
            self.session.get(place, stream=True, headers=_resume(have)) as answer,
        ):
            if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
                out.restart()  # so what was there is no part of it
                return
            if not answer.ok:
                raise PlaceFailed(place, f"answers {answer.status_code} {answer.reason}")
            if have and answer.status_code != requests.codes.partial_content:
                out.restart()
            for chunk in _arriving(answer, place):
                tell(len(chunk))
                out.write(chunk)
                if wanted.size and out.tell() > wanted.size:
                    break
            out.settle()

    @property
    def session(self) -> requests.Session:
        """The session that downloads; made when first needed, shared by all threads."""
        with self._lock:
            self._session = self._session or net.session()
            return self._session

    @contextlib.contextmanager
    def _alone(self, sha256: str) -> Iterator[None]:
        """Keep all other runs and threads from making or removing the same bytes."""
        lock = self._locks.setdefault(sha256, FileLock(self.root / "locks" / sha256))
        with blaming(self._name):
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _work(self) -> Path:
        """Give the folder of this run's own temporary files."""
        with self._lock, blaming(self._name):
            self._workplace = self._workplace or _Workplace(self.root)
            return self._workplace.folder

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Out]:
        with writing(Out(self._work() / secrets.token_hex(8), "xb", self._name)) as out:
            yield out

    def _replace(self, path: Path, data: bytes) -> None:
        with self._temporary() as out:
            out.write(data)
            out.settle()
            with blaming(self._name):
                out.path.replace(path)

    def _keep(self, file: Path, sha256: str) -> Blob:
        path = self.root / "blobs" / sha256
        with self._alone(sha256), blaming(self._name):
            file.chmod(0o444)
            file.replace(path)
            identity = _identity(path)
        self._remember_identity(sha256, identity)
        return Blob(sha256, identity[1], path)

    def _checked(self, sha256: str, path: Path) -> Blob | None:
        now = _identity(path)
        if _TELLS_CHANGES:
            with contextlib.suppress(OSError, ValueError):
                if json.loads((self.root / "seen" / sha256).read_bytes()) == now:
                    return Blob(sha256, now[1], path)
        if self._hash(path) != sha256:
            return None
        self._remember_identity(sha256, now)
        return Blob(sha256, now[1], path)

    def _remember_identity(self, sha256: str, identity: list[int]) -> None:
        # A file written to within the clock's own grain keeps its times (git calls this
        # racy); such a young one is hashed again next time.
        if _TELLS_CHANGES and time.time_ns() - identity[3] > _SETTLED_NS:
            with contextlib.suppress(HostError):  # it saves time, nothing else
                self._replace(self.root / "seen" / sha256, canonical_json(identity))

    def _heal(self, sha256: str, path: Path) -> Blob | None:
        with self._alone(sha256):
            if blob := self._checked(sha256, path):
                return blob  # another run was quicker
            with blaming(self._name):
                path.unlink()
                (self.root / "seen" / sha256).unlink(missing_ok=True)
        with self._lock:
            if sha256 not in self._told:
                self._told.add(sha256)
                self.reporter.note(f"the store's copy of sha256:{sha256[:12]}… was damaged: healed")
        return None

    @staticmethod
    def _hash(path: Path) -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


class PlaceFailed(Exception):  # noqa: N818 - not an error yet: another place may have it
    """One place did not give the bytes; the next may."""

    def __init__(self, place: str, why: str, *, wrong: bool = False) -> None:
        super().__init__(f"{net.without_credentials(place)} {why}")
        self.wrong = wrong


class _GivenUpError(Exception):
    """Nobody waits for this download any more."""


class _Workplace:
    """A folder for what one run has not finished; a lease that dies with the run protects it."""

    def __init__(self, root: Path) -> None:
        for dead in expired(root / "locks", "run-*"):
            _clear(root / "partial" / dead.name, dead)
        lease = Lease(root / "locks" / f"run-{secrets.token_hex(8)}")
        self.folder = root / "partial" / lease.name
        self.folder.mkdir()
        weakref.finalize(self, _clear, self.folder, lease)


def _clear(folder: Path, lease: Lease) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lease.end()


def _side_by_side(work: Callable[[Wanted], Blob], items: Sequence[Wanted]) -> list[Future[Blob]]:
    """Start work in threads that need not be waited for.

    The threads of an executor are joined when the program ends, and nothing interrupts
    one that listens to a silent server.
    """
    waiting: queue.SimpleQueue[tuple[Wanted, Future[Blob]]] = queue.SimpleQueue()
    futures: list[Future[Blob]] = [Future() for _ in items]
    for pair in zip(items, futures, strict=True):
        waiting.put(pair)

    def run() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                item, future = waiting.get_nowait()
                try:
                    future.set_result(work(item))
                except BaseException as error:  # noqa: BLE001 - raised where the result is asked
                    future.set_exception(error)

    for _ in range(min(_CONNECTIONS, len(items))):
        threading.Thread(target=run, daemon=True).start()
    return futures


class _Hashing:
    """A file that hashes what is written through it."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._out.write(data)


def _default_root() -> Path:
    named = os.environ.get("PACKAGER_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("packager")


def _identity(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _arriving(answer: requests.Response, place: str) -> Iterator[bytes]:
    """Yield bytes as they arrive; a server that all but stalls is given up.

    `iter_content` would wait for as many bytes as it was asked for, however long it takes,
    and undo a compression that a server only thinks is one of the way.
    """
    begin, brought = time.monotonic(), 0
    while data := answer.raw.read1(_CHUNK):
        yield data
        brought += len(data)
        if time.monotonic() - begin > _MINUTE:
            if brought < _LEAST:
                raise PlaceFailed(place, f"sent {brought} bytes in {_MINUTE:.0f} seconds")
            begin, brought = time.monotonic(), 0


def _resume(have: int) -> dict[str, str]:
    # Without this, a server that compresses on the fly would answer with other bytes.
    return {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}


def _explain(wanted: Wanted, failures: list[PlaceFailed]) -> ClaimError | HostError:
    tried = "\n  ".join(str(failure) for failure in failures)
    if any(failure.wrong for failure in failures):
        return ClaimError(
            f"the lock says sha256 {wanted.sha256}, and no place has such bytes",
            where=f"packager.lock: {wanted.label}",
            hint=tried,
        )
    return HostError(
        "could not be fetched",
        where=wanted.label,
        hint=tried or "No index, mirror or folder that is configured has it.",
    )
