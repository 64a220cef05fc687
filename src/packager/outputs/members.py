"""What a layer's tar holds: the facts of each member, and which package it came with.

A tar is read once, front to back; what stays in memory is the list.
"""

from __future__ import annotations

import csv
import hashlib
import io
import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from packager.errors import UsageError
from packager.outputs.opened import OpenedLayer

__all__ = ["Member", "Owners", "content", "files_below", "listed"]

_CHUNK = 1 << 20
_MOST_AT_ONCE = 16 << 20
_TYPES = {
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.LNKTYPE: "hard link",
    tarfile.FIFOTYPE: "fifo",
}
# What tarfile raises on bytes that are no tar.
_BROKEN = (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError)
_DEVICES = {tarfile.CHRTYPE: "character device", tarfile.BLKTYPE: "block device"}
_PLAIN_PAX = {"path", "linkpath", "size", "uid", "gid", "uname", "gname", "mtime", "charset"}
_RECORD = re.compile(r"(?:(.*)/)?([^/]+)-([^/-]+)\.dist-info/RECORD")
_DPKG = re.compile(r"var/lib/dpkg/status\.d/([^/]+?)(\.md5sums)?")
_BYTECODE = re.compile(r"(.*/)?__pycache__/([^/]+)\.[^/.]+\.pyc")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a tar.

    Attributes
    ----------
    path : str
        Without a leading ``./`` or ``/``.
    type : str
        ``file``, ``folder``, ``symbolic link``, …; a device with its numbers.
    owner : str
        ``0:0``, and the names where there are any.
    time : float
        Seconds since 1970.
    target : str
        Of a link.
    size : int
        Bytes of a file.
    sha256 : str
        Of a file, in hex.
    attributes : str
        What PAX headers say beyond all that, extended attributes for example.
    at, content_at : int
        Where its header and its content begin in the tar, in bytes.
    """

    path: str
    type: str
    mode: int
    owner: str
    time: float
    target: str
    size: int
    sha256: str
    attributes: str
    at: int
    content_at: int


class Owners:
    """Knows which wheel or package a path came with, from the records that layers hold."""

    def __init__(self) -> None:
        self._wheels: dict[str, str] = {}
        self._packages: dict[str, str] = {}
        self._versions: dict[str, str] = {}

    def of(self, member: Member) -> str:
        """Name the wheel or the package with its version; empty where no record tells."""
        path = member.path
        if found := _BYTECODE.fullmatch(path):
            path = f"{found[1] or ''}{found[2]}.py"
        folder = posixpath.dirname(path)
        target = posixpath.normpath(posixpath.join(folder, member.target))
        # Links are in no list of checksums; they come with what they point at.
        for one in [path, target] if member.target else [path]:
            # Packages may say /lib where the image has /usr/lib.
            package = self._packages.get(one) or self._packages.get(one.removeprefix("usr/"))
            if package:
                return f"{package} {self._versions.get(package, '')}".rstrip()
            if one in self._wheels:
                return self._wheels[one]
        return ""

    @staticmethod
    def wants(path: str) -> bool:
        """Tell whether a file is such a record."""
        return bool(_RECORD.fullmatch(path) or _DPKG.fullmatch(path))

    def learn(self, path: str, data: bytes) -> None:
        """Read a record: a wheel's RECORD, a package's control file or checksums."""
        text = data.decode("utf-8", "surrogateescape")
        if record := _RECORD.fullmatch(path):
            folder, name, version = record.groups(default="")
            for row in _rows(text):
                where = posixpath.normpath(posixpath.join(folder, row))
                self._wheels[where] = f"{name} {version}"
        elif package := _DPKG.fullmatch(path):
            self._packages[path] = package[1]
            if package[2]:
                for line in text.splitlines():
                    self._packages[line.partition("  ")[2]] = package[1]
            elif said := re.search(r"^Version: (\S+)", text, re.MULTILINE):
                self._versions[package[1]] = said[1]


def _rows(record: str) -> list[str]:
    try:
        return [row[0] for row in csv.reader(record.splitlines()) if row]
    except csv.Error:
        return []  # a record that nobody can read attributes nothing


def listed(layer: OpenedLayer, owners: Owners, image: str) -> list[Member]:
    """List a layer, hashing each file; its records are told to `owners`.

    Parameters
    ----------
    layer : OpenedLayer
        Read whole, and checked against its diff ID.
    owners : Owners
        Of the image that it belongs to.
    image : str
        What an error names.

    Returns
    -------
    list of Member
        In the tar's order.

    Raises
    ------
    UsageError
        When it is no tar, or not the one that its diff ID names.
    """
    where = _where(layer, image)
    with layer.open() as opened:
        stream = _Stream(opened, where)
        try:
            found = [
                _member(info, path, _sha256(archive, info, path, owners))
                for archive, info, path in _infos(stream)
            ]
        except _BROKEN as error:
            raise _no_tar(error, where) from None
        stream.drain()
    if layer.diff_id != f"sha256:{stream.digest.hexdigest()}":
        raise UsageError(
            f"is damaged: its bytes give sha256:{stream.digest.hexdigest()}, "
            f"not its diff ID {layer.diff_id}",
            where=where,
        )
    return found


def files_below(layer: OpenedLayer, above: str, image: str) -> Iterator[tuple[str, IO[bytes], int]]:
    """Yield a layer's regular files below a folder, reading forward only.

    Parameters
    ----------
    layer : OpenedLayer
        Not checked against its diff ID.
    above : str
        What a path has to begin with: ``srv/app/``.
    image : str
        What an error names.

    Yields
    ------
    path : str
        As in `Member`, so without ``..`` below `above`; it may occur more than once.
    stream : binary file
        Its content, until the next file is asked for.
    size : int
        Of the content, in bytes.

    Raises
    ------
    UsageError
        When it is no tar, also while a stream is read.
    """
    where = _where(layer, image)
    with layer.open() as opened:
        try:
            for archive, info, path in _infos(_Stream(opened, where)):
                if info.isreg() and path.startswith(above):
                    reader = archive.extractfile(info)
                    assert reader is not None
                    yield path, io.BufferedReader(_Content(reader, where)), info.size
        except _BROKEN as error:
            raise _no_tar(error, where) from None


def _where(layer: OpenedLayer, image: str) -> str:
    return f"{image}: layer {layer.what or layer.diff_id}"


def _no_tar(error: Exception, where: str) -> UsageError:
    return UsageError(f"is no tar that can be read: {error}", where=where)


def content(layer: OpenedLayer, start: int = 0, size: int | None = None) -> Iterator[bytes]:
    """Yield a part of a layer's tar, 1 MiB at a time, such as a member's content."""
    with layer.open() as stream:
        while start:
            start -= len(stream.read(min(start, _CHUNK)))
        while chunk := stream.read(_CHUNK if size is None else min(size, _CHUNK)):
            if size is not None:
                size -= len(chunk)
            yield chunk


class _Content(io.RawIOBase):
    """A member's content; that the tar ends within it is an error that names the layer."""

    def __init__(self, reader: IO[bytes], where: str) -> None:
        self._reader, self._where = reader, where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._reader.read(len(buffer))
        except _BROKEN as error:
            raise _no_tar(error, self._where) from None
        buffer[: len(data)] = data
        return len(data)


class _Stream:
    """A stream as tarfile wants it, forward only; hashes what passes."""

    def __init__(self, stream: IO[bytes], where: str) -> None:
        self._stream, self._where = stream, where
        self._at, self.digest = 0, hashlib.sha256()
        self.last = b""

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        if position < self._at:
            raise tarfile.StreamError("it leads backwards")
        while self._at < position and self.read(min(position - self._at, _CHUNK)):
            pass

    def read(self, size: int) -> bytes:
        # A few bytes of gzip can claim a name of gigabytes.
        if not 0 <= size <= _MOST_AT_ONCE:
            raise UsageError(f"has a header of {size} bytes", where=self._where)
        self.last = self._stream.read(size)
        self._at += len(self.last)
        self.digest.update(self.last)
        return self.last

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass


def _infos(stream: _Stream) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo, str]]:
    """Yield the members of a tar with their paths; anything that is no tar is one of `_BROKEN`."""
    with tarfile.open(
        fileobj=stream,  # type: ignore[call-overload]
        mode="r:",
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for info in archive:
            path = posixpath.normpath(info.name).lstrip("/")
            if info.issparse():
                raise tarfile.ReadError(f"{path} is a sparse file")
            yield archive, info, path
        # tarfile takes a broken header for the end.
        if any(stream.last):
            raise tarfile.ReadError("broken header")


def _sha256(archive: tarfile.TarFile, info: tarfile.TarInfo, path: str, owners: Owners) -> str:
    if not info.isreg():
        return ""
    reader = archive.extractfile(info)
    assert reader is not None
    if not owners.wants(path) or info.size > _MOST_AT_ONCE:
        return hashlib.file_digest(reader, "sha256").hexdigest()  # type: ignore[arg-type]
    data = reader.read()
    owners.learn(path, data)
    return hashlib.sha256(data).hexdigest()


def _member(info: tarfile.TarInfo, path: str, sha256: str) -> Member:
    kind = _TYPES.get(info.type, "file")
    if info.type in _DEVICES:
        kind = f"{_DEVICES[info.type]} {info.devmajor}:{info.devminor}"
    names = f" ({info.uname}:{info.gname})" if info.uname or info.gname else ""
    further = {key: value for key, value in info.pax_headers.items() if key not in _PLAIN_PAX}
    return Member(
        path=path,
        type=kind,
        mode=info.mode,
        owner=f"{info.uid}:{info.gid}{names}",
        time=info.mtime,
        target=info.linkname if info.issym() or info.islnk() else "",
        size=info.size if info.isreg() else 0,
        sha256=sha256,
        attributes=" ".join(f"{key}={value}" for key, value in sorted(further.items())),
        at=info.offset,
        content_at=info.offset_data,
    )
