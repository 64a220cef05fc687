"""Wheel to entries: where each file of a wheel goes, as a pure function of the wheel's bytes.

The work of installing (PEP 427, 491) is `installer`'s; here are the two ends that it
lets one bring: a source that says sizes without reading, and a destination that is a
list of entries instead of a file system.  What decides bytes (scripts, RECORD) is
written here, so that another version of a library cannot change a layer.  A wheel may be
hostile: every file is held against RECORD, as the binary distribution format asks, and
docs/limits.md says what is refused.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import csv
import hashlib
import io
import itertools
import posixpath
import stat
import struct
import threading
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import deflate
import installer
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import InvalidRecordEntry, RecordEntry, parse_record_file
from installer.sources import WheelContentElement, WheelFile
from installer.utils import Scheme
from packaging.utils import parse_wheel_filename

from packager.errors import ClaimError
from packager.layers.site import Site, record_file, record_row, script
from packager.layers.tar import MOST_ENTRIES, MOST_TEXT, Entry, data_entry, most_unpacked

__all__ = ["wheel_entries"]

_CHUNK = 1 << 20
_AT_ONCE = 8 << 20  # bytes of a file; a larger one is read in parts
# A local header: signature, and the lengths of the name and the extra field that come after it.
_LOCAL = struct.Struct("<4s22xHH")
_USUAL = 0x80E  # flags: deflate's options, sizes after the content, names in UTF-8
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 1
_HASHES = {"sha256", "sha384", "sha512"}
_SIGNATURES = {"RECORD.jws", "RECORD.p7s"}
# What zipfile, installer and what they stand on raise where bytes are not what they expect.
_DAMAGE = (
    *(AssertionError, EOFError, KeyError, NotImplementedError, OverflowError, ValueError),
    *(InstallerError, InvalidRecordEntry, configparser.Error, csv.Error),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


def wheel_entries(path: Path, file: str, site: Site) -> list[Entry]:
    """List what a wheel puts into an image.

    Parameters
    ----------
    path : Path
        The wheel's bytes.
    file : str
        Its name, which says distribution and version.
    site : Site
        Where packages live in the image.

    Returns
    -------
    list of Entry
        Files only, in no particular order; contents are read when opened.

    Raises
    ------
    ClaimError
        When it is no valid wheel, or a hostile one; names it.  What only its contents tell is
        raised when they are read.
    """
    with _damage_told(file):
        wheel = _Wheel(path, file)
        _refuse_hostile(wheel.archive.infolist(), path.stat().st_size, file)
        destination = _Entries(file, site)
        installer.install(_Source(wheel), destination, {"INSTALLER": b"packager\n"})
    return destination.entries


@contextlib.contextmanager
def _damage_told(file: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ClaimError(f"not a valid wheel: {error}", where=file) from None


def _refuse_hostile(infos: list[zipfile.ZipInfo], packed: int, file: str) -> None:
    """Refuse what the table of contents alone shows to be no honest wheel."""
    if len(infos) > MOST_ENTRIES:
        raise ClaimError(f"holds more than {MOST_ENTRIES} files", where=file)
    unpacked = sum(info.file_size for info in infos)
    if unpacked > most_unpacked(packed):
        raise ClaimError(f"a bomb: its {packed} bytes unpack to {unpacked}", where=file)
    names: set[str] = set()
    for info in infos:
        if not info.is_dir() and info.filename.casefold() in names:
            wrong = "and that name twice, if large and small letters are one"
        elif "\\" in info.filename:
            wrong = "which is another path on another system"
        elif not 0 <= info.header_offset < packed:
            wrong = "which would begin outside of the wheel"
        elif stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            wrong = "a link or device, which no wheel may hold"
        elif info.flag_bits & _ENCRYPTED or info.compress_type not in _COMPRESSIONS:
            wrong = "which is encrypted, or compressed by other than deflate"
        else:
            names.add(info.filename.casefold())
            continue
        raise ClaimError(f"holds {info.filename!a}, {wrong}", where=file)
    _refuse_overlap(infos, file)


def _refuse_overlap(infos: list[zipfile.ZipInfo], file: str) -> None:
    in_order = sorted(infos, key=lambda info: info.header_offset)
    for info, following in itertools.pairwise(in_order):
        if info.header_offset + _LOCAL.size + info.compress_size > following.header_offset:
            raise ClaimError(
                f"holds {info.filename!a}, which reaches into {following.filename!a}", where=file
            )


class _Wheel:
    """A wheel, left open: the entries read from it later, in any thread."""

    def __init__(self, path: Path, file: str) -> None:
        self.file = file
        # Whoever reads holds the lock: one file is at one place at a time.
        self._bytes, self._lock = path.open("rb"), threading.Lock()
        weakref.finalize(self, self._bytes.close)
        self.archive = zipfile.ZipFile(self._bytes)

    def open(self, info: zipfile.ZipInfo) -> io.BufferedIOBase:
        small = max(info.file_size, info.compress_size) <= _AT_ONCE
        if small and (data := self._at_once(info)) is not None:
            return io.BytesIO(data)
        with self._lock, _damage_told(self.file):
            stream = cast("zipfile.ZipExtFile", self.archive.open(info))
        return io.BufferedReader(_Content(stream, self._lock, self.file), _CHUNK)

    def _at_once(self, info: zipfile.ZipInfo) -> bytes | bytearray | None:
        """Read a file in one go, for libdeflate inflates it in half of zlib's time.

        Whatever is the least bit odd is left to `zipfile`, to take it or to say what is wrong.
        """
        with self._lock:
            self._bytes.seek(info.header_offset)
            header = self._bytes.read(_LOCAL.size).ljust(_LOCAL.size)
            signature, named, extra = _LOCAL.unpack(header)
            name = self._bytes.read(named + extra)[:named]
            packed = self._bytes.read(info.compress_size)
        usual = signature == b"PK\3\4" and not info.flag_bits & ~_USUAL
        if not usual or name != info.orig_filename.encode():
            return None
        try:
            stored = info.compress_type == zipfile.ZIP_STORED
            data = packed if stored else deflate.deflate_decompress(packed, info.file_size)
        except deflate.DeflateError:
            return None
        return data if (len(data), deflate.crc32(data)) == (info.file_size, info.CRC) else None


class _Member:
    """A file of the wheel that has not been read, handed through `installer` as a stream."""

    def __init__(self, wheel: _Wheel, info: zipfile.ZipInfo, row: tuple[str, str, str]) -> None:
        self.info, self.row, self.file = info, row, wheel.file
        self.open = partial(wheel.open, info)
        self.sha256 = self._held_against_record() if row[1] else ""

    def read(self) -> bytes:
        if self.info.file_size > MOST_TEXT:
            raise self._wrong(f"has {self.info.file_size} bytes, too many for such a file")
        with self.open() as stream:
            data = stream.read()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise self._wrong("is not what its RECORD says")
        return data

    def _held_against_record(self) -> str:
        """Hold the size against RECORD, and give the sha256 that the content must have."""
        algorithm, _, text = self.row[1].partition("=")
        if algorithm not in _HASHES:
            raise self._wrong(f"is listed in its RECORD by {algorithm!a}, which proves nothing")
        if self.row[2] != str(self.info.file_size):
            raise self._wrong(f"has {self.info.file_size} bytes, its RECORD says {self.row[2]!a}")
        promised = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if algorithm == "sha256":
            return promised.hex()
        with self.open() as stream:
            if hashlib.file_digest(stream, algorithm).digest() != promised:
                raise self._wrong("is not what its RECORD says")
        with self.open() as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _wrong(self, what: str) -> ClaimError:
        return ClaimError(f"{self.info.filename!a} {what}", where=self.file)


class _Content(io.RawIOBase):
    """What is in a file of a wheel; its methods are those of `io.RawIOBase`."""

    def __init__(self, stream: zipfile.ZipExtFile, lock: threading.Lock, file: str) -> None:
        self._stream, self._lock, self._file = stream, lock, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._lock, _damage_told(self._file):
            return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Source(WheelFile):
    """A wheel whose name is not its file's name, read only as far as its table of contents."""

    def __init__(self, wheel: _Wheel) -> None:
        self._wheel, self._zipfile, self._file = wheel, wheel.archive, wheel.file
        # As the file spells them: the data folder's name is spelt the same.
        name, version = wheel.file.split("-")[:2]
        super(WheelFile, self).__init__(distribution=name, version=version)

    def read_dist_info(self, filename: str) -> str:
        size = self._zipfile.getinfo(f"{self.dist_info_dir}/{filename}").file_size
        if size > MOST_TEXT:
            raise ClaimError(f"its {filename} has {size} bytes", where=self._file)
        return super().read_dist_info(filename)

    def get_contents(self) -> Iterator[WheelContentElement]:
        rows = {
            row[0]: row for row in parse_record_file(self.read_dist_info("RECORD").splitlines())
        }
        infos = [info for info in self._zipfile.infolist() if not info.is_dir()]
        if gone := sorted({*rows} - {info.filename for info in infos}):
            raise ClaimError(f"does not hold {gone[0]!a}, which its RECORD lists", where=self._file)
        # A signature cannot be in what it signs, nor a list's own hash in the list.
        free = {f"{self.dist_info_dir}/{name}" for name in ("RECORD", *_SIGNATURES)}
        for info in infos:
            row = rows.get(info.filename, (info.filename, "", ""))
            if not row[1] and info.filename not in free:
                raise ClaimError(
                    f"holds {info.filename!a}, which its RECORD lists without a hash or not at all",
                    where=self._file,
                    hint="Such a wheel should not be installed by anyone: pin another release.",
                )
            mode = info.external_attr >> 16
            executable = bool(stat.S_ISREG(mode) and mode & 0o111)
            yield row, cast("BinaryIO", _Member(self._wheel, info, row)), executable


class _Entries(WheelDestination):
    """Collects entries where others write files."""

    def __init__(self, file: str, site: Site) -> None:
        self.file, self.site = file, site
        self.distribution = str(parse_wheel_filename(file)[0])
        self.entries: list[Entry] = []
        self._rows: list[tuple[str, str, str]] = []

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:
        del section  # graphical or not is a distinction of Windows
        self._add_data("scripts", name, script(self.site, module, attr), executable=True)
        return RecordEntry(name, None, None)

    def write_file(
        self, scheme: Scheme, path: Any, stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        if not isinstance(stream, _Member):
            self._add_data(scheme, path, stream.read(), executable=False)
        elif scheme == "scripts" and (data := _own_shebang(stream, self.site)):
            self._add_data(scheme, path, data, executable=True)
        else:
            mode = 0o755 if is_executable or scheme == "scripts" else 0o644
            where, size = self._path(scheme, path), stream.info.file_size
            self.entries.append(
                Entry(
                    where,
                    mode=mode,
                    size=size,
                    open=stream.open,
                    owner=self.file,
                    sha256=stream.sha256,
                    promise="its RECORD",
                )
            )
            self._rows.append((self._relative(where), *stream.row[1:]))
        return RecordEntry(path, None, None)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        del records
        self._rows.append((record_file_path, "", ""))
        where = self._path(scheme, record_file_path)
        self.entries.append(data_entry(where, record_file(self._rows), owner=self.file))

    def _add_data(self, scheme: str, path: str, data: bytes, *, executable: bool) -> None:
        where = self._path(scheme, path)
        mode = 0o755 if executable else 0o644
        self.entries.append(data_entry(where, data, mode=mode, owner=self.file))
        self._rows.append(record_row(self._relative(where), data))

    def _path(self, scheme: str, path: str) -> str:
        return f"{self.site.folder(scheme, self.distribution)}/{path}"

    def _relative(self, path: str) -> str:
        if path.startswith(f"{self.site.packages}/"):
            return path[len(self.site.packages) + 1 :]
        return posixpath.relpath(path, self.site.packages)


def _own_shebang(member: _Member, site: Site) -> bytes | None:
    """Point a script that says ``#!python`` at the image's Python (PEP 427)."""
    with member.open() as stream:
        if not stream.read(8).startswith(b"#!python"):
            return None
    first, _, rest = member.read().partition(b"\n")
    arguments = first.partition(b" ")[2]
    return b"#!" + site.python.encode() + (b" " + arguments if arguments else b"") + b"\n" + rest
