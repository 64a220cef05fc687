"""All determinism of archives lives here: a set of entries in, one canonical tar out.

The rules (design.md, decision 7): every parent directory is written, entries are sorted
by path, no path occurs twice, owner and group are 0, the time is always `MTIME`, modes
are 644 or 755 unless the entry says otherwise, and PAX headers appear only where a plain
ustar header cannot hold a value.  Nothing of the machine that writes can reach the bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from packager.errors import ClaimError

__all__ = ["MTIME", "Entry", "Slice", "chunks", "data_entry", "merge", "read", "write"]


MTIME = 315619200
"""2 January 1980: 0 reads as "missing" to old software, and zip knows nothing earlier."""

_CHUNK = 1 << 20
_TYPES = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}
_MERGED_USR = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a layer.

    Parameters
    ----------
    path : str
        Relative to the image's root, no leading slash, ``/`` between parts.
    kind : {"file", "dir", "symlink", "hardlink"}
        A hard link's `target` is a path of the same layer.
    mode : int
        Permission bits.
    size : int
        Bytes that `open` yields; 0 for anything but a file.
    target : str
        What a link points at.
    open : callable, optional
        Opens the content of a file, afresh at each call.
    owner : str
        Whose file it is, for messages: a wheel, a package, the project.
    sha256 : str
        Hex digest that the content must have, where it could change after it was digested;
        empty where it cannot.
    """

    path: str
    kind: Literal["file", "dir", "symlink", "hardlink"] = "file"
    mode: int = 0o644
    size: int = 0
    target: str = ""
    open: Callable[[], io.BufferedIOBase] | None = field(default=None, compare=False)
    owner: str = ""
    sha256: str = ""


def data_entry(path: str, data: bytes, *, mode: int = 0o644, owner: str = "packager") -> Entry:
    """Make a file entry out of bytes that are in memory."""
    return Entry(path, mode=mode, size=len(data), open=lambda: io.BytesIO(data), owner=owner)


def merge(entries: Iterable[Entry]) -> list[Entry]:
    """Sort entries, add every parent directory, and settle paths that occur twice.

    Two owners may share a directory, or a file whose bytes agree; anything else is a
    conflict.

    Parameters
    ----------
    entries : iterable of Entry
        In any order.

    Returns
    -------
    list of Entry
        Sorted by path, parents before children, no path twice.

    Raises
    ------
    ClaimError
        When a path leaves the root, hides a merged-/usr link, or is owned by two entries
        that disagree; the message names the path and both owners.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        _refuse_unsafe(entry)
        known = found.get(entry.path)
        if known is None or not _agree(known, entry):
            if known is not None:
                raise ClaimError(
                    f"{known.owner} and {entry.owner} both own /{entry.path}, and differ",
                    hint="An image can hold only one of them: drop one dependency.",
                )
            found[entry.path] = entry
    for path in list(found):
        _add_parents(found, path)
    return sorted(found.values(), key=lambda entry: entry.path.split("/"))


def chunks(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield entries as one canonical tar, a part at a time.

    Parameters
    ----------
    entries : iterable of Entry
        As `merge` returns them.

    Yields
    ------
    bytes
        At most 1 MiB each.

    Raises
    ------
    ClaimError
        When a file does not yield what its entry says.
    """
    for entry in entries:
        yield _header(entry)
        if entry.kind == "file":
            yield from _content(entry)
    # Two blocks end a tar; filling up to tarfile's records of 10 KiB would serve nobody.
    yield b"\0" * 2 * tarfile.BLOCKSIZE


def write(entries: Iterable[Entry], out: IO[bytes]) -> None:
    """Write entries as one canonical tar; `out` is written front to back, never read or sought."""
    for chunk in chunks(entries):
        out.write(chunk)


def read(path: Path, owner: str) -> list[Entry]:
    """List the files of a tar that `write` wrote; they are read from it when opened."""
    with tarfile.open(path, "r:") as archive:
        return [
            Entry(
                member.name,
                mode=member.mode,
                size=member.size,
                open=partial(Slice.open, path, member.offset_data, member.size),
                owner=owner,
            )
            for member in archive
            if member.isreg()
        ]


class Slice(io.RawIOBase):
    """A part of a file, as a file; its methods are those of `io.RawIOBase`."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    @classmethod
    def open(cls, path: Path, start: int, size: int) -> io.BufferedReader:
        """Open `size` bytes of a file from `start` on."""
        return io.BufferedReader(cls(path.open("rb", buffering=0), start, size))

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:  # noqa: D102
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: D102
        self._file.seek(self._start + self._at)
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        count = self._file.readinto(view) or 0
        self._at += count
        return count

    def close(self) -> None:  # noqa: D102
        self._file.close()
        super().close()


def _refuse_unsafe(entry: Entry) -> None:
    parts = entry.path.split("/")
    if entry.path.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        raise ClaimError(f"{entry.owner} holds a path that leaves the root: {entry.path!r}")
    if parts[-1].startswith(".wh."):
        raise ClaimError(f"{entry.owner} holds a name reserved for whiteouts: {entry.path!r}")
    if parts[0] in _MERGED_USR and (len(parts) > 1 or entry.kind != "symlink"):
        raise ClaimError(
            f"{entry.owner} holds /{entry.path}, which would hide the link /{parts[0]}"
        )


def _agree(one: Entry, other: Entry) -> bool:
    if replace(one, owner="") != replace(other, owner=""):
        return False
    return one.kind != "file" or _digest(one) == _digest(other)


def _digest(entry: Entry) -> bytes:
    assert entry.open is not None
    with entry.open() as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _add_parents(found: dict[str, Entry], path: str) -> None:
    parts = path.split("/")
    for depth in range(1, len(parts)):
        parent = "/".join(parts[:depth])
        known = found.setdefault(parent, Entry(parent, kind="dir", mode=0o755))
        if known.kind != "dir":
            owner = found[path].owner
            raise ClaimError(
                f"{owner} holds /{path}, but /{parent} is a {known.kind} of {known.owner}"
            )


def _header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.mode = entry.mode
    info.size = entry.size if entry.kind == "file" else 0
    info.linkname = entry.target
    info.mtime = MTIME
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(entry: Entry) -> Iterator[bytes]:
    assert entry.open is not None
    found, digest = 0, hashlib.sha256()
    with entry.open() as stream:
        while chunk := stream.read(_CHUNK):
            found += len(chunk)
            if entry.sha256:
                digest.update(chunk)
            yield chunk
    if found != entry.size or entry.sha256 not in {"", digest.hexdigest()}:
        raise ClaimError(f"/{entry.path} changed while it was read", where=entry.owner)
    yield b"\0" * (-found % tarfile.BLOCKSIZE)
