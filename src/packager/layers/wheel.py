"""Wheel to entries: where each file of a wheel goes, as a pure function of the wheel's bytes.

The work of installing (PEP 427, 491) is `installer`'s; here are the two ends that it
lets one bring: a source that says sizes without reading, and a destination that is a
list of entries instead of a file system.  What decides bytes (scripts, RECORD) is
written here, so that another version of a library cannot change a layer.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import posixpath
import stat
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import installer
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import RecordEntry, parse_record_file
from installer.sources import WheelContentElement, WheelFile
from installer.utils import Scheme
from packaging.utils import parse_wheel_filename

from packager.errors import ClaimError
from packager.layers.tar import Entry, data_entry

__all__ = ["Site", "record_file", "script", "wheel_entries"]


@dataclass(frozen=True, slots=True)
class Site:
    """Where Python packages live in an image (the paths of an installation scheme)."""

    python: str
    packages: str
    prefix: str

    @classmethod
    def debian(cls, version: str) -> Site:
        """Where Debian's own Python looks for packages that are not Debian's."""
        return cls(
            f"/usr/bin/python{version}", f"usr/local/lib/python{version}/dist-packages", "usr/local"
        )

    def folder(self, scheme: str, distribution: str) -> str:
        """Give the folder of one of the schemes that a wheel may use."""
        if scheme == "headers":
            return f"{self.prefix}/include/{posixpath.basename(self.python)}/{distribution}"
        return {
            "purelib": self.packages,
            "platlib": self.packages,
            "scripts": f"{self.prefix}/bin",
            "data": self.prefix,
        }[scheme]


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
        When it is no valid wheel; names it.
    """
    try:
        # Left open: the entries read from it later.
        archive = zipfile.ZipFile(path)
        destination = _Entries(file, site)
        installer.install(_Source(archive, file), destination, {"INSTALLER": b"packager\n"})
    except (InstallerError, zipfile.BadZipFile, KeyError, ValueError, AssertionError) as error:
        raise ClaimError(f"not a valid wheel: {error}", where=file) from None
    return destination.entries


def script(site: Site, module: str, attribute: str) -> bytes:
    """Write the script of an entry point."""
    first = attribute.partition(".")[0]
    return (
        f"#!{site.python}\n"
        f"import sys\n\nfrom {module} import {first}\n\n"
        f'if __name__ == "__main__":\n    sys.exit({attribute}())\n'
    ).encode()


def record_file(rows: Iterable[tuple[str, str, str]]) -> bytes:
    """Write a RECORD (path, hash, size), sorted by path."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(rows))
    return text.getvalue().encode()


def record_row(path: str, data: bytes) -> tuple[str, str, str]:
    """Make the row of RECORD for a file whose bytes are at hand."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return path, f"sha256={digest}", str(len(data))


class _Member:
    """A file of the wheel that has not been read, handed through `installer` as a stream."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, row: tuple[str, str, str]):
        self.archive, self.info, self.row = archive, info, row

    def open(self) -> io.BufferedIOBase:
        return cast("io.BufferedIOBase", self.archive.open(self.info))


class _Source(WheelFile):
    """A wheel whose name is not its file's name, read only as far as its table of contents."""

    def __init__(self, archive: zipfile.ZipFile, file: str) -> None:
        self._zipfile = archive
        # As the file spells them: the data folder's name is spelt the same.
        name, version = file.split("-")[:2]
        super(WheelFile, self).__init__(distribution=name, version=version)

    def get_contents(self) -> Iterator[WheelContentElement]:
        rows = {
            row[0]: row for row in parse_record_file(self.read_dist_info("RECORD").splitlines())
        }
        for info in self._zipfile.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            executable = bool(stat.S_ISREG(mode) and mode & 0o111)
            row = rows.get(info.filename, (info.filename, "", ""))
            yield row, cast("BinaryIO", _Member(self._zipfile, info, row)), executable


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
                Entry(where, mode=mode, size=size, open=stream.open, owner=self.file)
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
        return posixpath.relpath(path, self.site.packages)


def _own_shebang(member: _Member, site: Site) -> bytes | None:
    """Point a script that says ``#!python`` at the image's Python (PEP 427)."""
    with member.open() as stream:
        if not stream.read(8).startswith(b"#!python"):
            return None
        stream.seek(0)
        first, _, rest = stream.read().partition(b"\n")
    arguments = first.partition(b" ")[2]
    return b"#!" + site.python.encode() + (b" " + arguments if arguments else b"") + b"\n" + rest
