"""All determinism of archives lives here: a set of entries in, one canonical tar out.

The rules (design.md, decision 7): every parent directory is written, entries are sorted
by path, no path occurs twice, owner and group are 0, the time is always `MTIME`, modes
are 644 or 755 unless the entry says otherwise, and PAX headers appear only where a plain
ustar header cannot hold a value.  Nothing of the machine that writes can reach the bytes.
What is read may be hostile: its limits are here, and docs/limits.md says why they are so.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from packager.errors import ClaimError

__all__ = [
    "DEEPEST_PATH",
    "LONGEST_NAME",
    "LONGEST_PATH",
    "MOST_ENTRIES",
    "MOST_TEXT",
    "MOST_TIMES",
    "MTIME",
    "SPARE",
    "Entry",
    "Slice",
    "chunks",
    "data_entry",
    "members",
    "merge",
    "most_unpacked",
    "read",
    "refuse_unsafe",
    "write",
]


MTIME = 315619200
"""2 January 1980: 0 reads as "missing" to old software, and zip knows nothing earlier."""

MOST_ENTRIES = 200_000
"""Files and folders of one archive."""

MOST_TIMES, SPARE = 100, 64 << 20
"""What an archive may unpack to: so many times its own size, or so many bytes if that is more."""

MOST_TEXT = 16 << 20
"""Bytes of a file of an archive that is read into memory as a whole."""

LONGEST_PATH, LONGEST_NAME, DEEPEST_PATH = 4095, 255, 100
"""Bytes of a path and of a part of it, as Linux has them, and parts of a path."""

_LONGEST_HEADER = 1 << 20
_CHUNK = 1 << 20
_TYPES = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}
# Name, mode, owner, group, size, time, checksum, type, target, magic and version; then zeros.
_USTAR = struct.Struct("100s8s8s8s12s12s8sc100s8s247x")
_CHECKSUM = 148
_PLAIN_SIZE = 8**11
_LEAVING = {"", ".", ".."}
_MERGED_USR = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"}
# Bytes that are not UTF-8 arrive as lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


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
        Hex digest that the content must have, where it could change after it was digested
        or somebody else said it; empty where neither is so.
    promise : str
        Who said it, for messages: ``its RECORD``.
    """

    path: str
    kind: Literal["file", "dir", "symlink", "hardlink"] = "file"
    mode: int = 0o644
    size: int = 0
    target: str = ""
    open: Callable[[], io.BufferedIOBase] | None = field(default=None, compare=False)
    owner: str = ""
    sha256: str = ""
    promise: str = ""


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
        When an entry is unsafe (`refuse_unsafe`), a hard link leads to no file, or a path
        is owned by two entries that disagree; the message names the path and both owners.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        refuse_unsafe(entry)
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
    for entry in found.values():
        if entry.kind == "hardlink" and found.get(entry.target, entry).kind != "file":
            raise ClaimError(
                f"{entry.owner} holds /{entry.path}, a hard link to no file: {entry.target!r}"
            )
        if entry.kind == "hardlink" and _order(entry.target) > _order(entry.path):
            raise ClaimError(
                f"{entry.owner} holds /{entry.path}, a hard link to a file that comes after it: "
                f"{entry.target!r}"
            )
    return sorted(found.values(), key=lambda entry: _order(entry.path))


def _order(path: str) -> str:
    # As if it were split, for no path holds this character, and all others come after it.
    return path.replace("/", "\0")


def chunks(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield entries as one canonical tar, a part at a time.

    Parameters
    ----------
    entries : iterable of Entry
        As `merge` returns them.

    Yields
    ------
    bytes
        1 to 2 MiB each but for the last, so that writing and hashing pay for few calls.

    Raises
    ------
    ClaimError
        When a file does not yield what its entry says.
    """
    joined: list[bytes] = []
    size = 0
    for part in _parts(entries):
        joined.append(part)
        size += len(part)
        if size >= _CHUNK:
            yield b"".join(joined)
            joined, size = [], 0
    if joined:
        yield b"".join(joined)


def _parts(entries: Iterable[Entry]) -> Iterator[bytes]:
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
    return [
        Entry(
            member.name,
            mode=member.mode,
            size=member.size,
            open=partial(Slice.open, path, member.offset_data, member.size),
            owner=owner,
        )
        for member in members(path, owner)
        if member.isreg()
    ]


def members(path: Path, owner: str) -> list[tarfile.TarInfo]:
    """List the members of a tar that anybody may have written, which is not compressed.

    Parameters
    ----------
    path : Path
        The tar.
    owner : str
        Whose it is, for messages.

    Returns
    -------
    list of TarInfo
        In the tar's order; names are read as UTF-8 whatever the host's locale.

    Raises
    ------
    ClaimError
        When it is damaged or cut, holds a sparse file, or has more than `MOST_ENTRIES`.
    """
    found: list[tarfile.TarInfo] = []
    with path.open("rb") as file:
        cautious: Any = _Cautious(file)
        try:
            with tarfile.open(fileobj=cautious, mode="r:", encoding="utf-8") as archive:
                for member in archive:
                    found.append(member)
                    if member.issparse() or len(found) > MOST_ENTRIES:
                        break
                ended = cautious.block(archive.offset) == b"\0" * tarfile.BLOCKSIZE
        except (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError) as error:
            raise ClaimError(f"{owner} holds a tar that is damaged: {error}") from None
    if len(found) > MOST_ENTRIES:
        raise ClaimError(f"{owner} holds more than {MOST_ENTRIES} files and folders")
    if found and found[-1].issparse():
        raise ClaimError(f"{owner} holds /{found[-1].name}, a sparse file")
    # tarfile takes a header that it cannot read for the end, and says nothing.
    if not ended:
        raise ClaimError(f"{owner} holds a tar that is damaged: it ends without an end")
    return found


def most_unpacked(packed: int) -> int:
    """Say how many bytes an archive of `packed` bytes may unpack to."""
    return max(MOST_TIMES * packed, SPARE)


class _Cautious:
    """A tar as `tarfile` reads it, which believes any length and any place a header names."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, position: int) -> int:
        # It steps back by one byte at most, to see whether the last one is there.
        if not self._file.tell() - 1 <= position <= self._size:
            raise tarfile.ReadError("a file that ends outside of it")
        return self._file.seek(position)

    def block(self, position: int) -> bytes:
        if not 0 <= position <= self._size:
            return b""
        self._file.seek(position)
        return self._file.read(tarfile.BLOCKSIZE)


class Slice(io.RawIOBase):
    """A part of a file, as a file; its methods are those of `io.RawIOBase`."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    @classmethod
    def open(cls, path: Path, start: int, size: int) -> io.BufferedReader:
        """Open `size` bytes of a file from `start` on; few of them are read at once."""
        if size <= _CHUNK:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                return io.BufferedReader(io.BytesIO(file.read(size)))
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


def refuse_unsafe(entry: Entry) -> None:
    """Refuse an entry that would do harm when a layer is unpacked, or its name when printed.

    Raises
    ------
    ClaimError
        When its path leaves the root, hides a merged-/usr link, is reserved, too long or not
        one line of UTF-8, or its link leads out of the root.
    """
    parts = entry.path.split("/")
    if not _LEAVING.isdisjoint(parts):
        raise ClaimError(f"{entry.owner} holds a path that leaves the root: {entry.path!a}")
    _refuse_name(entry.owner, entry.path, parts)
    if "/.wh." in f"/{entry.path}":
        raise ClaimError(f"{entry.owner} holds a name reserved for whiteouts: {entry.path!a}")
    if parts[0] in _MERGED_USR and (len(parts) > 1 or entry.kind != "symlink"):
        raise ClaimError(
            f"{entry.owner} holds /{entry.path}, which would hide the link /{parts[0]}"
        )
    if entry.kind == "symlink":
        _refuse_name(entry.owner, entry.target, entry.target.split("/"))
        _refuse_way_out(entry, parts[:-1])


def _refuse_name(owner: str, path: str, parts: list[str]) -> None:
    if _UNPRINTABLE.search(path):
        raise ClaimError(f"{owner} holds a name that is not one line of UTF-8: {path!a}")
    encoded = path.encode()
    longest = max(map(len, encoded.split(b"/")))
    if len(encoded) > LONGEST_PATH or longest > LONGEST_NAME or len(parts) > DEEPEST_PATH:
        raise ClaimError(f"{owner} holds a path that is too long or too deep: {path[:80]!a}…")


def _refuse_way_out(link: Entry, folder: list[str]) -> None:
    depth = 0 if link.target.startswith("/") else len(folder)
    for part in link.target.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            raise ClaimError(
                f"{link.owner} holds /{link.path}, a link that leaves the root: {link.target!r}"
            )


def _agree(one: Entry, other: Entry) -> bool:
    if any(getattr(one, key) != getattr(other, key) for key in ("kind", "mode", "size", "target")):
        return False
    return one.kind != "file" or _digest(one) == _digest(other)


def _digest(entry: Entry) -> bytes:
    assert entry.open is not None
    with entry.open() as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _add_parents(found: dict[str, Entry], path: str) -> None:
    parent = path.rpartition("/")[0]
    while parent and parent not in found:
        found[parent] = Entry(parent, kind="dir", mode=0o755)
        parent = parent.rpartition("/")[0]
    # The parents of one that was there before are there, or come in their own turn.
    if parent and (known := found[parent]).kind != "dir":
        owner = found[path].owner
        raise ClaimError(f"{owner} holds /{path}, but /{parent} is a {known.kind} of {known.owner}")


def _header(entry: Entry) -> bytes:
    """Write what `tarfile` writes, without its detours where a plain header holds everything."""
    name = f"{entry.path}/" if entry.kind == "dir" else entry.path
    size = entry.size if entry.kind == "file" else 0
    if not _fits(name) or not _fits(entry.target) or size >= _PLAIN_SIZE:
        return _pax_header(entry, size)
    header = _USTAR.pack(
        name.encode(),
        b"%07o" % (entry.mode & 0o7777),
        b"0000000",  # owner
        b"0000000",  # group
        b"%011o" % size,
        b"%011o" % MTIME,
        b" " * 8,  # the checksum, while it is computed
        _TYPES[entry.kind],
        entry.target.encode(),
        tarfile.POSIX_MAGIC,
    )
    return header[:_CHECKSUM] + b"%06o\0" % sum(header) + header[_CHECKSUM + 7 :]


def _fits(name: str) -> bool:
    return len(name) <= tarfile.LENGTH_NAME and name.isascii()


def _pax_header(entry: Entry, size: int) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.mode = entry.mode
    info.size = size
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
        wrong = (
            f"is not what {entry.promise} says" if entry.promise else "changed while it was read"
        )
        raise ClaimError(f"/{entry.path} {wrong}", where=entry.owner)
    yield b"\0" * (-found % tarfile.BLOCKSIZE)
