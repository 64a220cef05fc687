"""Debian packages → the entries of a layer, without running any of their scripts.

Format of a package: deb(5).  What its scripts would have made is in `debian_root`.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from debian.arfile import ArError
from debian.debfile import DebFile

from packager.errors import ClaimError
from packager.layers import debian_root, tar
from packager.layers.tar import Entry, Slice
from packager.lock.debian import DebPin

__all__ = ["base_entries", "extra_entries"]

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
_OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
_CHUNK = 1 << 20
_THREADS = 4  # each holds the window of an xz archive, 8 MiB and more


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


def _merged(path: str) -> str:
    """Move a path below ``/bin``, ``/lib`` and the like to where merged-/usr has it."""
    return f"usr/{path}" if path.partition("/")[0] in _MERGED_USR else path


def _read(debs: Iterable[tuple[DebPin, Path]], scratch: Path) -> list[_Deb]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_read_one, scratch), *zip(*debs, strict=True)))


def _read_one(scratch: Path, pin: DebPin, path: Path) -> _Deb:
    try:
        with DebFile(path) as deb:
            name = next(name for name in deb.getnames() if name.startswith("data.tar"))
            content = _unpacked(deb.getmember(name), pin, scratch)
            return _Deb(
                pin,
                tuple(_entries(content, f"Debian's {pin.name}")),
                _about(deb, "control"),
                _about(deb, "md5sums"),
                _about(deb, "postinst").decode("utf-8"),
            )
    except (ArError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        raise ClaimError(f"this Debian package cannot be read: {error}", where=pin.file) from error


def _about(deb: DebFile, name: str) -> bytes:
    return (deb.control.get_content(name) or b"") if deb.control.has_file(name) else b""


def _unpacked(member: Any, pin: DebPin, scratch: Path) -> Path:
    # Content is read twice or more, in any order, and xz cannot be sought: so it is
    # unpacked once, to disk, and memory stays small whatever a package holds.
    done = scratch / f"{pin.sha256}.tar"
    if not done.exists():
        suffix = Path(member.name).suffix
        if suffix not in _OPENERS:
            raise ClaimError(
                f"this Debian package is compressed in a way that Debian does not use: {suffix}",
                where=pin.file,
            )
        part = done.with_suffix(".part")
        with _OPENERS[suffix](member) as packed, part.open("wb") as out:
            shutil.copyfileobj(packed, out, _CHUNK)
        part.replace(done)
    return done


def _entries(content: Path, owner: str) -> Iterator[Entry]:
    # Names are read as the layer writes them, not as the host's locale would have it.
    with tarfile.open(content, "r:", encoding="utf-8") as archive:
        members = {member.name.removeprefix("./"): member for member in archive}
    same_file: defaultdict[str, list[str]] = defaultdict(list)
    for name, member in members.items():
        path = _merged(name)
        if _left_out(name, path, member):
            continue
        if member.isreg() or member.islnk():
            same_file[member.linkname.removeprefix("./") or name].append(path)
        else:
            yield _link_or_folder(path, member, owner)
    for name, paths in same_file.items():
        # A tar is read front to back: the content comes under the path that sorts first.
        first, *others = sorted(paths, key=lambda path: path.split("/"))
        yield _file(first, members[name], content, owner)
        for path in others:
            yield Entry(path, "hardlink", _mode(members[name]), target=first, owner=owner)


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
    return next(pin.architecture for pin, _ in debs if pin.architecture != "all")


def _shipped(debs: Iterable[_Deb]) -> list[Entry]:
    return [entry for deb in debs for entry in deb.entries]


def _scripts(debs: Iterable[_Deb]) -> dict[str, str]:
    return {deb.pin.name: deb.postinst for deb in debs}


def _records(debs: Iterable[_Deb]) -> Iterator[Entry]:
    for deb in debs:
        yield from debian_root.record(deb.pin.name, deb.control, deb.md5sums)
