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
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from packager.errors import HostError
from packager.files import Out, blaming, canonical_json, writing
from packager.reporter import Reporter, Silent

if TYPE_CHECKING:
    import requests
    from filelock import FileLock
    from requests.auth import AuthBase

    from packager.leases import Lease

__all__ = ["SETTLED_NS", "TELLS_CHANGES", "Blob", "Store", "Wanted", "identity"]

SETTLED_NS = 2_000_000_000
"""How old a file must be for its times to tell: within a clock's grain they do not."""

TELLS_CHANGES = os.name != "nt"
"""Whether `identity` tells that a file was changed; elsewhere ctime is when it was made."""

_NAMED = 5
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
    login : AuthBase, optional
        Sent to those addresses in place of one from the user's netrc.
    beside : Path, optional
        The file of the repository that should hold them; other places count where it does not.
    """

    sha256: str
    size: int
    label: str
    places: Callable[[], Iterable[str]]
    login: AuthBase | None = None
    beside: Path | None = None


class Store:
    """The content-addressed store.

    Parameters
    ----------
    root : Path, optional
        Its folder; by default the user's cache folder (`PACKAGER_CACHE` overrides).
    reporter : Reporter, optional
        Told about downloads, and once about each entry that had to be healed.
    offline : bool
        Whether nobody may be asked for what is not there.

    Raises
    ------
    HostError
        When the folder cannot be made or written.
    """

    def __init__(
        self,
        root: Path | None = None,
        reporter: Reporter | None = None,
        *,
        offline: bool = False,
    ) -> None:
        self.root = root or _default_root()
        self.reporter = reporter or Silent()
        self.offline = offline
        self.name = f"the store {self.root}"
        self._told: set[str] = set()
        self._lock, self._connecting = threading.Lock(), threading.Lock()
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
            return self.keep(out.path, hashing.digest.hexdigest())

    def digest(self, path: Path) -> str:
        """Hash a file of somebody else's; one whose identity is noted is not read again.

        Raises
        ------
        OSError
            When it cannot be read.
        """
        now = identity(path)
        key = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
        match self.note("file", key):
            case [noted, str(sha256)] if noted == now and TELLS_CHANGES:
                return sha256
        sha256 = self._hash(path)
        if time.time_ns() - now[3] > SETTLED_NS and now == identity(path):
            self.write_note("file", key, [now, sha256])
        return sha256

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
            where = self.name if writable else tempfile.gettempdir()
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
        """Bring bytes into the store, and wait for all of them.

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
            When no place has them, the network or the disk fails, or nobody may be asked.
        """
        with self.fetching(wanted, step=step) as arriving:
            return {sha: job.result() for sha, job in arriving.items()}

    @contextlib.contextmanager
    def fetching(
        self, wanted: Iterable[Wanted], *, step: str = "fetch"
    ) -> Iterator[dict[str, Future[Blob]]]:
        """Bring bytes into the store, several at a time and the first first, checked by hash.

        A download that was cut goes on where it stopped; the place where bytes were found
        is remembered, unless its address holds a secret.

        Parameters
        ----------
        wanted, step
            As for `fetch`.

        Yields
        ------
        dict of str to Future
            By hex digest; each fails as `fetch` does.  What has not arrived at the end of the
            context is given up.

        Raises
        ------
        HostError
            When something is missing and nobody may be asked for it.
        """
        unique = {one.sha256: one for one in wanted}
        blobs = ((sha, self.get(sha) or self._beside(one)) for sha, one in unique.items())
        found = {sha: _there(blob) for sha, blob in blobs if blob}
        missing = [one for sha, one in unique.items() if sha not in found]
        if not missing:
            yield found
            return
        if self.offline:
            raise _offline(missing, self.name)
        from packager.downloads import Downloads

        with Downloads(self, missing, step) as arriving:
            yield found | arriving

    def _beside(self, wanted: Wanted) -> Blob | None:
        """Take what lies in the repository, if it is that."""
        if wanted.beside is None or not wanted.beside.is_file():
            return None
        with wanted.beside.open("rb") as stream:
            blob = self.add(partial(shutil.copyfileobj, stream))
        return blob if blob.sha256 == wanted.sha256 else None

    @property
    def session(self) -> requests.Session:
        """The session that downloads; made when first needed, shared by all threads."""
        from packager import net

        with self._connecting:
            self._session = self._session or net.session()
            return self._session

    @contextlib.contextmanager
    def alone(self, sha256: str) -> Iterator[None]:
        """Keep all other runs and threads from making or removing the same bytes."""
        from filelock import FileLock

        lock = self._locks.setdefault(sha256, FileLock(self.root / "locks" / sha256))
        with blaming(self.name):
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _work(self) -> Path:
        """Give the folder of this run's own temporary files."""
        with self._lock, blaming(self.name):
            self._workplace = self._workplace or _Workplace(self.root)
            return self._workplace.folder

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Out]:
        with writing(Out(self._work() / secrets.token_hex(8), "xb", self.name)) as out:
            yield out

    def _replace(self, path: Path, data: bytes) -> None:
        with self._temporary() as out:
            out.write(data)
            out.close()  # a crash may leave it empty, and what cannot be read was never noted
            with blaming(self.name):
                out.path.replace(path)

    def keep(self, file: Path, sha256: str) -> Blob:
        """Take a file of the store's own disk, whose digest is known, for its own."""
        path = self.root / "blobs" / sha256
        with self.alone(sha256), blaming(self.name):
            _protect(file)
            file.replace(path)
            now = identity(path)
        self._remember_identity(sha256, now)  # who else could have written to it yet?
        return Blob(sha256, now[1], path)

    def _checked(self, sha256: str, path: Path) -> Blob | None:
        now = identity(path)
        if TELLS_CHANGES:
            with contextlib.suppress(OSError, ValueError):
                if json.loads((self.root / "seen" / sha256).read_bytes()) == now:
                    return Blob(sha256, now[1], path)
        if self._hash(path) != sha256:
            return None
        # A file written to within the clock's own grain keeps its times (git calls this
        # racy); such a young one is hashed again next time.
        if time.time_ns() - now[3] > SETTLED_NS:
            self._remember_identity(sha256, now)
        return Blob(sha256, now[1], path)

    def _remember_identity(self, sha256: str, now: list[int]) -> None:
        if TELLS_CHANGES:
            with contextlib.suppress(HostError):  # it saves time, nothing else
                self._replace(self.root / "seen" / sha256, canonical_json(now))

    def _heal(self, sha256: str, path: Path) -> Blob | None:
        with self.alone(sha256):
            if blob := self._checked(sha256, path):
                return blob  # another run was quicker
            with blaming(self.name):
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


class _Workplace:
    """A folder for what one run has not finished; a lease that dies with the run protects it."""

    def __init__(self, root: Path) -> None:
        from packager.leases import Lease, expired

        for dead in expired(root / "locks", "run-*"):
            _clear(root / "partial" / dead.name, dead)
        lease = Lease(root / "locks" / f"run-{secrets.token_hex(8)}")
        self.folder = root / "partial" / lease.name
        self.folder.mkdir()
        weakref.finalize(self, _clear, self.folder, lease)


def _clear(folder: Path, lease: Lease) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lease.end()


def _protect(file: Path) -> None:
    """Let nobody write to a file by mistake, where files have modes."""
    if os.name != "nt":  # which does not let such a file be replaced or removed either
        with contextlib.suppress(OSError):
            file.chmod(0o444)


def _there(blob: Blob) -> Future[Blob]:
    done: Future[Blob] = Future()
    done.set_result(blob)
    return done


def _offline(missing: Sequence[Wanted], store: str) -> HostError:
    names = [one.label for one in missing[:_NAMED]]
    if more := len(missing) - len(names):
        names.append(f"{more} more")
    return HostError(
        f"lacks what the lock names, and offline nobody is asked for it: {', '.join(names)}",
        where=store,
        hint="Where there is a network: packager bundle. Here: packager build --bundle FILE.\n"
        "  A bundle serves the lock, and the platforms, that it was made for.",
    )


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
    if named:
        return Path(named)
    import platformdirs

    return platformdirs.user_cache_path("packager")


def identity(path: Path) -> list[int]:
    """Tell a file from what it was: inode, size, and times of content and of state, in ns."""
    stat = path.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
