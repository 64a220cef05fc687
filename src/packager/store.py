"""A content-addressed store of everything that was fetched or made, and the way in by hash.

Nothing in the store is believed: a file counts only if its bytes give its name.  A file
whose identity (inode, size, modification and change time) is what it was when its bytes
were last hashed is not hashed again; changing a byte moves the change time, which no
program can set back.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import platformdirs
import requests
from filelock import FileLock

from packager import net
from packager.errors import ClaimError, HostError
from packager.reporter import Reporter, Silent

__all__ = ["Blob", "Store", "Wanted", "canonical_json", "replace_file"]

_CHUNK = 1 << 16
_CONNECTIONS = 6
_SETTLED_NS = 2_000_000_000


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
    places: Callable[[], Sequence[str]]


def canonical_json(value: object) -> bytes:
    """Serialise to the one form whose digest is taken: sorted keys, no blanks, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old or the new one, never half.

    Raises
    ------
    HostError
        When the folder cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as out:
            out.write(data)
            _settle(out)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        Path(out.name).chmod(mode)
        Path(out.name).replace(path)
    except OSError as error:
        raise HostError(f"cannot be written: {error.strerror}", where=str(path)) from None


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _settle(out: IO[bytes]) -> None:
    out.flush()
    os.fsync(out.fileno())


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
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
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
        """Find bytes by their digest; a damaged file is removed, said once, and not found."""
        path = self.root / "blobs" / sha256
        try:
            now = _identity(path)
        except FileNotFoundError:
            return None
        seen = self.root / "seen" / sha256
        with contextlib.suppress(OSError, ValueError):
            if json.loads(seen.read_bytes()) == now:
                return Blob(sha256, now[1], path)
        if self._hash(path) == sha256:
            self._remember_identity(sha256, now)
            return Blob(sha256, now[1], path)
        self._heal(sha256, path)
        return None

    def distrust(self, blob: Blob) -> None:
        """Remove a blob whose bytes, as they were read just now, did not give its digest."""
        self._heal(blob.sha256, blob.path)

    def add(self, write: Callable[[IO[bytes]], object]) -> Blob:
        """Keep what `write` writes; hashed while it is written, never read again.

        Raises
        ------
        HostError
            When the disk is full or the store cannot be written.
        """
        with self._temporary() as out:
            hashing = _Hashing(out)
            write(hashing)  # type: ignore[arg-type]  # a file as far as writers go
            return self._keep(out, hashing.digest.hexdigest())

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder on the store's own disk, gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self.root / "partial") as folder:
            yield Path(folder)

    def note(self, kind: str, key: str) -> Any | None:
        """Recall what was noted under a key; anything unreadable was never noted."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.root / "notes" / f"{kind}-{key}.json").read_bytes())
        return None

    def write_note(self, kind: str, key: str, value: object) -> None:
        """Note a JSON value under a key."""
        replace_file(self.root / "notes" / f"{kind}-{key}.json", canonical_json(value))

    def fetch(self, wanted: Iterable[Wanted], *, step: str = "fetch") -> dict[str, Blob]:
        """Bring bytes into the store, in parallel, checked by hash.

        A download that was cut goes on where it stopped; the place where bytes were found
        is remembered.

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
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            jobs = [pool.submit(self._fetch, one, step, total) for one in missing]
            try:
                found.update((blob.sha256, blob) for blob in (job.result() for job in jobs))
            finally:
                pool.shutdown(cancel_futures=True)
        return found

    def _fetch(self, wanted: Wanted, step: str, total: int) -> Blob:
        with FileLock(self.root / "locks" / wanted.sha256):
            if blob := self.get(wanted.sha256):
                return blob
            failures: list[PlaceFailed] = []
            for place in self._places(wanted):
                try:
                    blob = self._download(wanted, place, step, total)
                except PlaceFailed as failure:
                    failures.append(failure)
                    continue
                self.write_note("place", wanted.sha256, net.without_credentials(place))
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

    def _download(self, wanted: Wanted, place: str, step: str, total: int) -> Blob:
        partial = self.root / "partial" / wanted.sha256
        try:
            with partial.open("ab") as out:
                have = out.tell()
                with self.session.get(place, stream=True, headers=_resume(have)) as answer:
                    if have and answer.status_code != requests.codes.partial_content:
                        out.truncate(0)
                    if answer.status_code == requests.codes.requested_range_not_satisfiable:
                        raise PlaceFailed(place, "was cut and cannot be resumed; try again")
                    if not answer.ok:
                        raise PlaceFailed(place, f"answers {answer.status_code} {answer.reason}")
                    for chunk in answer.iter_content(_CHUNK):
                        out.write(chunk)
                        self.reporter.advance(step, len(chunk), total)
                        if wanted.size and out.tell() > wanted.size:
                            break
                _settle(out)
        except requests.RequestException as error:
            raise PlaceFailed(place, net.reasons(error)) from None
        except OSError as error:
            raise HostError(f"the store cannot be written: {error}", where=str(partial)) from None
        digest = self._hash(partial)
        if digest != wanted.sha256:
            partial.unlink()
            if have:  # what was left of an earlier download may be the wrong part
                return self._download(wanted, place, step, total)
            raise PlaceFailed(place, f"has other bytes: sha256 {digest}", wrong=True)
        return self._keep_file(partial, digest)

    @property
    def session(self) -> requests.Session:
        """The session that downloads; made when first needed, shared by all threads."""
        with self._lock:
            self._session = self._session or net.session()
            return self._session

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[IO[bytes]]:
        try:
            with tempfile.NamedTemporaryFile(dir=self.root / "partial", delete=False) as out:
                try:
                    yield out
                finally:
                    Path(out.name).unlink(missing_ok=True)
        except OSError as error:
            raise HostError(
                f"the store cannot be written: {error.strerror}", where=str(self.root)
            ) from None

    def _keep(self, out: IO[bytes], sha256: str) -> Blob:
        _settle(out)
        return self._keep_file(Path(out.name), sha256)

    def _keep_file(self, file: Path, sha256: str) -> Blob:
        path = self.root / "blobs" / sha256
        file.chmod(0o444)
        file.replace(path)
        identity = _identity(path)
        self._remember_identity(sha256, identity)
        return Blob(sha256, identity[1], path)

    def _remember_identity(self, sha256: str, identity: list[int]) -> None:
        # A file written to within the clock's own grain keeps its times (git calls this
        # racy); such a young one is hashed again next time.
        if time.time_ns() - identity[3] > _SETTLED_NS:
            replace_file(self.root / "seen" / sha256, canonical_json(identity))

    def _heal(self, sha256: str, path: Path) -> None:
        path.unlink(missing_ok=True)
        (self.root / "seen" / sha256).unlink(missing_ok=True)
        with self._lock:
            if sha256 not in self._told:
                self._told.add(sha256)
                self.reporter.note(f"the store's copy of sha256:{sha256[:12]}… was damaged: healed")

    @staticmethod
    def _hash(path: Path) -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


class PlaceFailed(Exception):  # noqa: N818 - not an error yet: another place may have it
    """One place did not give the bytes; the next may."""

    def __init__(self, place: str, why: str, *, wrong: bool = False) -> None:
        super().__init__(f"{net.without_credentials(place)} {why}")
        self.wrong = wrong


class _Hashing:
    """A file that hashes what is written through it."""

    def __init__(self, out: IO[bytes]) -> None:
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
