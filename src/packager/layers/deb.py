"""Debian packages → the entries of a layer, without running any of their scripts.

Format of a package: deb(5).  What its scripts would have made is in `debian_root`.  A
package may be hostile: docs/limits.md says what is refused.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import secrets
import stat
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from debian.arfile import ArError, ArFile, ArMember

from packager.errors import ClaimError
from packager.layers import debian_root, tar
from packager.layers.tar import Entry, Slice
from packager.lock.debian_pins import DebPin

__all__ = ["base_entries", "extra_entries", "image_entries"]

_MERGED_USR = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_LEFT_OUT = (
    "usr/share/bash-completion/",
    "usr/share/doc-base/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
)
_DOC = "usr/share/doc/"
_ABOUT = {"control", "md5sums", "postinst"}
_CHUNK = 1 << 20
_XZ_MEMORY = 128 << 20  # `xz -9` needs 65 MiB
_THREADS = 2  # each holds the window of an xz archive, 8 MiB and more


@dataclass(frozen=True, slots=True)
class _Deb:
    """A package, read: its files, and what describes it."""

    pin: DebPin
    entries: tuple[Entry, ...]
    control: bytes
    md5sums: bytes
    postinst: str


def base_entries(debs: Sequence[tuple[DebPin, Path]], *, python: str, scratch: Path) -> list[Entry]:
    """Make the entries of a base: its packages, and what their scripts would have made.

    Parameters
    ----------
    debs : sequence of (DebPin, Path)
        The packages and where they lie, their digests checked.
    python : str
        The version of the base's CPython, ``3.11``.
    scratch : Path
        A folder for unpacked archives; the entries read from it when they are opened.

    Returns
    -------
    list of Entry
        In no order yet; a function of the packages' bytes and of `python` alone.

    Raises
    ------
    ClaimError
        When a package cannot be read, holds a device, or registers alternatives in a way
        that is not understood.
    """
    base = _read(debs, scratch)
    made = [
        *debian_root.links(_architecture(debs)),
        *debian_root.accounts(),
        *debian_root.configuration(_shipped(base), python),
    ]
    # What is made takes the place of what is shipped: /var/run is a link, not a folder.
    paths = {entry.path for entry in made}
    kept = [entry for entry in _shipped(base) if entry.path not in paths]
    alternatives = debian_root.alternatives(_scripts(base), [*kept, *made])
    everything = [*kept, *made, *alternatives]
    cache = debian_root.linker_cache(everything, _architecture(debs))
    return [*everything, *_records(base), cache]


def extra_entries(
    base_debs: Sequence[tuple[DebPin, Path]],
    extra_debs: Sequence[tuple[DebPin, Path]],
    *,
    scratch: Path,
) -> list[Entry]:
    """Make the entries of the layer that puts a project's own packages on top of the base.

    Parameters
    ----------
    base_debs, extra_debs : sequence of (DebPin, Path)
        As for `base_entries`.
    scratch : Path
        As for `base_entries`.

    Returns
    -------
    list of Entry
        The packages' files, the alternatives that they change, and the linker's cache
        over both layers.

    Raises
    ------
    ClaimError
        As for `base_entries`, and when a package would replace a file of the base.
    """
    base, extra = _read(base_debs, scratch), _read(extra_debs, scratch)
    shipped, added = _shipped(base), _shipped(extra)
    tar.merge([*shipped, *added])
    links = debian_root.links(_architecture(base_debs))
    everything = [*shipped, *added, *links]
    before = debian_root.alternatives(_scripts(base), [*shipped, *links])
    after = debian_root.alternatives(_scripts([*base, *extra]), everything)
    changed = [entry for entry in after if entry not in before]
    cache = debian_root.linker_cache([*everything, *after], _architecture(base_debs))
    return [*added, *changed, *_records(extra), cache]


def image_entries(
    root: Sequence[Entry],
    debs: Sequence[tuple[DebPin, Path]],
    *,
    architecture: str,
    scratch: Path,
) -> list[Entry]:
    """Make the entries of the layer that puts packages on top of a base that is an image.

    Parameters
    ----------
    root : sequence of Entry
        Files and links of the base.
    debs, scratch
        As for `base_entries`.
    architecture : {"amd64", "arm64"}
        Debian's name of the image's machine.

    Returns
    -------
    list of Entry
        The packages' files, the links of alternatives that the base has not, and the linker's
        cache over all.

    Raises
    ------
    ClaimError
        As for `base_entries`.
    """
    extra = _read(debs, scratch)
    added = _shipped(extra)
    everything = [*root, *added]
    there = {entry.path for entry in root}
    links = debian_root.alternatives(_scripts(extra), everything)
    new = [entry for entry in links if entry.path not in there]
    cache = debian_root.linker_cache([*everything, *new], architecture)
    return [*added, *new, *_records(extra), cache]


def _merged(path: str) -> str:
    """Move a path below ``/bin``, ``/lib`` and the like to where merged-/usr has it."""
    return f"usr/{path}" if path.partition("/")[0] in _MERGED_USR else path


def _read(debs: Sequence[tuple[DebPin, Path]], scratch: Path) -> list[_Deb]:
    # The largest first, so that no thread ends up waiting for one that began late.
    largest = sorted(debs, key=lambda deb: deb[1].stat().st_size, reverse=True)
    with ThreadPoolExecutor(_THREADS) as pool:
        read = pool.map(partial(_read_one, scratch), *zip(*largest, strict=True))
        found = {deb.pin: deb for deb in read}
    return [found[pin] for pin, _ in debs]


def _read_one(scratch: Path, pin: DebPin, path: Path) -> _Deb:
    try:
        with _Package(path) as file:
            archive = _index(file)
            most = tar.most_unpacked(path.stat().st_size)
            content = _unpacked(_part(archive, "data.tar"), pin, scratch, most)
            control = _unpacked(_part(archive, "control.tar"), pin, scratch, most)
        about = _about(control, pin.file)
        entries = tuple(_entries(content, f"Debian's {pin.name}"))
        for entry in entries:
            tar.refuse_unsafe(entry)
        return _Deb(
            pin,
            entries,
            about.get("control", b""),
            about.get("md5sums", b""),
            about.get("postinst", b"").decode("utf-8"),
        )
    except (ArError, EOFError, ValueError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise ClaimError(f"this Debian package cannot be read: {error}", where=pin.file) from error


class _Package(io.FileIO):
    """A package's file, in which no member ends before it begins."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_CUR and offset < 0:
            raise ArError("a member of negative size")
        return super().seek(offset, whence)


def _index(file: _Package) -> ArFile:
    try:
        return ArFile(fileobj=file)
    except OSError as error:  # its word for a header that is cut or none
        raise ArError(str(error)) from None


def _part(archive: ArFile, stem: str) -> ArMember:
    found = [member for member in archive.getmembers() if member.name.startswith(stem)]
    if len(found) != 1:
        raise ArError(f"it holds {len(found)} members {stem}, not one")
    return found[0]


def _about(control: Path, file: str) -> dict[str, bytes]:
    found = {}
    for member in tar.members(control, file):
        name = member.name.removeprefix("./")
        if name not in _ABOUT or not member.isreg():
            continue
        if member.size > tar.MOST_TEXT:
            raise ClaimError(f"its {name} has {member.size} bytes", where=file)
        with Slice.open(control, member.offset_data, member.size) as stream:
            found[name] = stream.read()
    return found


def _unpacked(member: ArMember, pin: DebPin, scratch: Path, most: int) -> Path:
    # Content is read twice or more, in any order, and xz cannot be sought: so it is
    # unpacked once, to disk, and memory stays small whatever a package holds.
    name = Path(member.name)
    done, suffix = scratch / f"{pin.sha256}.{name.stem}", name.suffix
    if not done.exists():
        if suffix not in _READERS:
            raise ClaimError(
                f"this Debian package is compressed in a way that Debian does not use: {suffix}",
                where=pin.file,
            )
        # Two layers may be made of one package at a time.
        part = done.with_name(f"{done.name}.{secrets.token_hex(4)}")
        size = 0
        with part.open("wb") as out:
            for chunk in _READERS[suffix](member):
                size += len(chunk)
                if size > most:
                    raise ClaimError(
                        f"a bomb: its {member.name} unpacks to more than {most} bytes",
                        where=pin.file,
                    )
                out.write(chunk)
        part.replace(done)
    return done


def _gunzip(packed: ArMember) -> Iterator[bytes]:
    with gzip.open(packed) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _unxz(packed: ArMember) -> Iterator[bytes]:
    # Not lzma.open: there a header decides how much memory it takes.
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    while not stream.eof:
        data = packed.read(_CHUNK) if stream.needs_input else b""
        if stream.needs_input and not data:
            raise EOFError("it ends in the middle")
        yield stream.decompress(data, _CHUNK)


_READERS: dict[str, Callable[[ArMember], Iterator[bytes]]] = {".gz": _gunzip, ".xz": _unxz}


def _entries(content: Path, owner: str) -> Iterator[Entry]:
    members = _by_name(content, owner)
    same_file: defaultdict[str, list[str]] = defaultdict(list)
    for name, member in members.items():
        path = _merged(name)
        if _left_out(name, path, member):
            continue
        if member.isreg():
            same_file[name].append(path)
        elif member.islnk():
            same_file[_target(members, member, owner)].append(path)
        else:
            yield _link_or_folder(path, member, owner)
    for name, paths in same_file.items():
        # A tar is read front to back: the content comes under the path that sorts first.
        first, *others = sorted(paths, key=lambda path: path.split("/"))
        yield _file(first, members[name], content, owner)
        for path in others:
            yield Entry(path, "hardlink", _mode(members[name]), target=first, owner=owner)


def _by_name(content: Path, owner: str) -> dict[str, tarfile.TarInfo]:
    found: dict[str, tarfile.TarInfo] = {}
    for member in tar.members(content, owner):
        name = member.name.removeprefix("./")
        if name in found:
            raise ClaimError(f"{owner} holds /{name} twice")
        found[name] = member
    return found


def _target(members: dict[str, tarfile.TarInfo], link: tarfile.TarInfo, owner: str) -> str:
    name = link.linkname.removeprefix("./")
    if name not in members or not members[name].isreg():
        raise ClaimError(f"{owner} holds {link.name!a}, a hard link to no file of its: {name!a}")
    return name


def _left_out(name: str, path: str, member: tarfile.TarInfo) -> bool:
    if name == "." or (name in _MERGED_USR and member.issym()):
        return True
    if path.startswith(_DOC):
        # Licences stay, and so do links from one package's documentation to another's.
        parts = path.removeprefix(_DOC).split("/")
        return not (parts[1:] == ["copyright"] or (len(parts) == 1 and member.issym()))
    return f"{path}/".startswith(_LEFT_OUT)


def _link_or_folder(path: str, member: tarfile.TarInfo, owner: str) -> Entry:
    if member.issym():
        return Entry(path, "symlink", 0o777, target=member.linkname, owner=owner)
    if member.isdir():
        return Entry(path, "dir", _mode(member), owner=owner)
    raise ClaimError(f"{owner} holds a device or pipe: /{path}", hint="An image has no use for it.")


def _file(path: str, member: tarfile.TarInfo, content: Path, owner: str) -> Entry:
    opener = partial(Slice.open, content, member.offset_data, member.size)
    return Entry(path, "file", _mode(member), member.size, open=opener, owner=owner)


def _mode(member: tarfile.TarInfo) -> int:
    # As Debian ships it, less what lets others write, and less setuid and setgid: nothing in
    # a sealed image may gain rights that the container was denied. /tmp alone is sticky.
    sticky = member.isdir() and member.mode & stat.S_ISVTX
    return 0o1777 if sticky else member.mode & 0o755


def _architecture(debs: Sequence[tuple[DebPin, Path]]) -> str:
    named = [pin.architecture for pin, _ in debs if pin.architecture in debian_root.MACHINES]
    if not named:
        raise ClaimError(f"no package of the base is for {' or '.join(debian_root.MACHINES)}")
    return named[0]


def _shipped(debs: Iterable[_Deb]) -> list[Entry]:
    return [entry for deb in debs for entry in deb.entries]


def _scripts(debs: Iterable[_Deb]) -> dict[str, str]:
    return {deb.pin.name: deb.postinst for deb in debs}


def _records(debs: Iterable[_Deb]) -> Iterator[Entry]:
    for deb in debs:
        yield from debian_root.record(deb.pin.name, deb.control, deb.md5sums)
