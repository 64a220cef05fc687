"""The root of an image that is a base: its layers one over the other, and the Python in it."""

from __future__ import annotations

import gzip
import posixpath
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from packaging.utils import canonicalize_name

from packager.errors import ClaimError
from packager.layers import tar
from packager.layers.bytecode import LIBRARIES
from packager.layers.site import Site
from packager.layers.tar import Entry, Slice
from packager.layers.tree import ROOT
from packager.lock import elf
from packager.lock.image_pins import WHERE
from packager.project import PREFIXES, Target, minor
from packager.store import Blob, Store

__all__ = [
    "copy",
    "entries",
    "library_folders",
    "offered",
    "programs",
    "refuse_taken",
    "unpack",
    "unpacked",
]

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PYTHON = re.compile(r"python(3\.\d+)")
_MOST_READ = 64 << 20
_LINKER_SETTINGS = re.compile(r"etc/ld\.so\.conf\.d/[^/]+\.conf")
_LINKS = {"bin", "lib", "lib64", "sbin"}
_LEAST_PYTHON = (3, 11)  # the first with -P, which images are started by


def unpack(packed: Path, out: IO[bytes], owner: str) -> None:
    """Undo the compression of a layer as a registry has it.

    Parameters
    ----------
    packed : Path
        The layer.
    out : binary file
        Gets the tar.
    owner : str
        Whose layer it is, for messages.

    Raises
    ------
    ClaimError
        When it is damaged, unpacks to too much, or is compressed by something else than gzip.
    """
    with packed.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic == _ZSTD:
            raise ClaimError(
                f"{owner} has a layer that is compressed by zstd",
                hint="Layers that are compressed by gzip, or not at all, can be read.",
            )
        if not magic.startswith(_GZIP):
            shutil.copyfileobj(file, out)
            return
        try:
            with gzip.open(file) as stream:
                copy(stream, out, packed.stat().st_size, owner)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ClaimError(f"{owner} has a layer that is damaged: {error}") from None


def copy(stream: IO[bytes] | gzip.GzipFile, out: IO[bytes], packed_size: int, owner: str) -> None:
    """Copy a layer that is being unpacked, of so many packed bytes; not one that is a bomb.

    Raises
    ------
    ClaimError
        When it unpacks to too much.
    """
    most = tar.most_unpacked(packed_size)
    while chunk := stream.read(1 << 20):
        most -= len(chunk)
        if most < 0:
            raise ClaimError(f"{owner} has a layer that unpacks to far too much")
        out.write(chunk)


def unpacked(write: Callable[[IO[bytes]], object], diff_id: str, store: Store, owner: str) -> Blob:
    """Give a layer as it is stacked, from the store or written into it.

    Parameters
    ----------
    write : callable
        Writes its tar; not asked where the store has it.
    diff_id : str
        The digest (hex) that its config gives it.
    store : Store
        Keeps it.
    owner : str
        Whose layer it is, for messages.

    Raises
    ------
    ClaimError
        When it is another tar.
    """
    if known := store.get(diff_id):
        return known
    made = store.add(write)
    if made.sha256 != diff_id:
        raise ClaimError(
            f"{owner} has a layer that unpacks to sha256:{made.sha256}, and its config says "
            f"sha256:{diff_id}"
        )
    return made


def entries(layers: Iterable[Path], owner: str) -> dict[str, Entry]:
    """Lay layers over each other as an engine does; files, and links, by their paths.

    Parameters
    ----------
    layers : iterable of Path
        Tars, bottom first.
    owner : str
        Whose they are, for messages.

    Raises
    ------
    ClaimError
        When one is damaged.
    """
    found: dict[str, Entry] = {}
    for layer in layers:
        over, gone = _read(layer, found, owner)
        found = {path: one for path, one in found.items() if gone.isdisjoint(_upwards(path))} | over
    return found


def _read(layer: Path, below: Mapping[str, Entry], owner: str) -> tuple[dict[str, Entry], set[str]]:
    """List what a layer holds, and under which paths nothing of those below it is left."""
    over: dict[str, Entry] = {}
    gone: set[str] = set()
    for member in tar.members(layer, owner):
        path = _inside(member.name)
        if not path.isprintable():  # neither a library nor a package, and no note can hold it
            continue
        folder, name = posixpath.split(path)
        target = _inside(member.linkname) if member.islnk() else member.linkname
        if name == _OPAQUE:
            gone.add(folder)
        elif name.startswith(_WHITEOUT):
            gone.add(posixpath.join(folder, name.removeprefix(_WHITEOUT)))
        elif member.isreg():
            read = partial(Slice.open, layer, member.offset_data, member.size)
            over[path] = Entry(path, "file", member.mode, member.size, open=read, owner=owner)
        elif member.issym():
            over[path] = Entry(path, "symlink", target=target, owner=owner)
        elif member.islnk() and (linked := over.get(target) or below.get(target)):
            over[path] = replace(linked, path=path)
        elif path in below:  # a folder, where there was something else
            gone.add(path)
    return over, gone | over.keys()


def _inside(path: str) -> str:
    return posixpath.normpath(f"/{path}").lstrip("/")


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def offered(found: Mapping[str, Entry], architecture: str, base: str) -> Target:
    """See what a base offers to Python packages.

    Parameters
    ----------
    found : mapping of str to Entry
        From `entries`.
    architecture : {"amd64", "arm64"}
        Debian's name of the machine that it is to be for.
    base : str
        Its name, for messages.

    Raises
    ------
    ClaimError
        When it has no CPython that images can be started by, or not the GNU C library that
        wheels are built for; says what it has instead.
    """
    prefix, version = _python(found, base)
    program = found[f"{prefix}/bin/python{version}"]
    facts = _elf(program)
    if facts is None or facts.machine != elf.MACHINES[architecture]:
        raise _refusal(base, f"its /{program.path} is no program for {architecture}")
    if musl := [name for name in facts.needed if "musl" in name]:
        raise _refusal(
            base,
            f"its Python needs {musl[0]}, and wheels are built for the GNU C library",
            hint="Images made of Debian have that; those made of Alpine have not.",
        )
    full = _search(
        [found.get(f"{prefix}/lib/libpython{version}.so.1.0"), program],
        rb"\0(%s\.\d+)\0" % re.escape(version).encode(),
    )
    glibc = _search(
        [_follow(found, f"{LIBRARIES[architecture]}/libc.so.6")],
        rb"GNU C Library [^\0]*? version 2\.(\d+)",
    )
    if not glibc:
        raise _refusal(base, f"there is no GNU C library in /{LIBRARIES[architecture]}")
    if not full:
        raise _refusal(base, f"its /{program.path} does not say which Python it is")
    return Target(full, int(glibc), prefix)


def _python(found: Mapping[str, Entry], base: str) -> tuple[str, str]:
    """Find the prefix and the minor version of the Python that `python3` means."""
    for prefix in PREFIXES:
        folder = f"{prefix}/bin"
        named = _follow(found, f"{folder}/python3")
        there = [path for path in found if posixpath.dirname(path) == folder]
        names = [named.path] if named else sorted(there, reverse=True)
        versions = [
            match[1]
            for path in names
            if (match := _PYTHON.fullmatch(posixpath.basename(path))) and found[path].kind == "file"
        ]
        if versions:
            _refuse_python(found, prefix, versions[0], base)
            return prefix, versions[0]
    raise _refusal(base, "there is no CPython in /usr/local/bin or /usr/bin")


def _refuse_python(found: Mapping[str, Entry], prefix: str, version: str, base: str) -> None:
    if tuple(map(int, version.split("."))) < _LEAST_PYTHON:
        raise _refusal(base, f"it has Python {version}, and images are started by 3.11 or newer")
    release = found.get("usr/lib/os-release") or found.get("etc/os-release")
    text = _content(release) if release else b""
    if prefix == "usr" and not re.search(rb"^ID(_LIKE)?=.*(debian|ubuntu)", text, re.MULTILINE):
        raise _refusal(base, "its Python is in /usr and not Debian's, which looks in /usr/local")


def _follow(found: Mapping[str, Entry], path: str) -> Entry | None:
    """Find the file that a link to a neighbour leads to."""
    for _ in range(4):
        entry = found.get(path)
        if entry is None or entry.kind == "file":
            return entry
        path = _inside(posixpath.join(posixpath.dirname(path), entry.target))
    return None


def _search(files: Iterable[Entry | None], pattern: bytes) -> str:
    texts = (_content(file) for file in files if file)
    return next((match[1].decode() for text in texts if (match := re.search(pattern, text))), "")


def _content(entry: Entry) -> bytes:
    if entry.open is None:
        return b""
    with entry.open() as stream:
        return stream.read(_MOST_READ)


def _elf(entry: Entry) -> elf.ElfFacts | None:
    assert entry.open is not None
    with entry.open() as stream:
        return elf.needed(stream)


def _refusal(base: str, why: str, hint: str = "") -> ClaimError:
    return ClaimError(f"{base} is no base for an image: {why}", where=WHERE, hint=hint)


def refuse_taken(paths: Collection[str], site: Site, names: Iterable[str], base: str) -> None:
    """Refuse a base that has what is put on top of it, or links where that goes.

    Parameters
    ----------
    paths : collection of str
        Its files and links, from `entries`.
    site : Site
        Where packages go.
    names : iterable of str
        Distributions that are to be installed.
    base : str
        Its name, for messages.

    Raises
    ------
    ClaimError
        Names the distribution, or the link.
    """
    for path in (f"{site.packages}/_", f"{site.prefix}/bin/_", f"{ROOT}/_"):
        for folder in _upwards(posixpath.dirname(path)):
            if folder in paths:
                raise _refusal(base, f"its /{folder} is no folder, and packages go there")
    there = {
        canonicalize_name(match[1])
        for path in paths
        if (match := re.match(rf"{re.escape(site.packages)}/([^/]+?)-[^/-]+\.dist-info/", path))
    }
    if both := sorted(there.intersection(map(canonicalize_name, names))):
        raise _refusal(
            base,
            f"it has {', '.join(both)} in /{site.packages}, and so has the lock",
            hint="Files of two versions of one distribution would mix.",
        )


def library_folders(found: Mapping[str, Entry]) -> list[str]:
    """List where a base's dynamic linker was told to look besides (ldconfig(8)).

    Parameters
    ----------
    found : mapping of str to Entry
        From `entries`.
    """
    texts = [_content(one) for path, one in found.items() if _LINKER_SETTINGS.fullmatch(path)]
    words = [word for text in texts for word in text.decode("utf-8", "replace").split()]
    return [_inside(word) for word in words if word.startswith("/")]


def programs(found: Mapping[str, Entry], target: Target, architecture: str) -> list[Entry]:
    """Choose what it takes to run a base's Python: the program, its library, the C libraries.

    Parameters
    ----------
    found : mapping of str to Entry
        From `entries`.
    target : Target
        From `offered`.
    architecture : {"amd64", "arm64"}
        Debian's name of the machine.
    """
    version = minor(target.python)
    library = f"{target.prefix}/lib/python{version}/"
    whole = (f"{target.prefix}/bin/python{version}", library)
    folders = (LIBRARIES[architecture], "usr/lib64", f"{target.prefix}/lib")
    return [
        replace(one, mode=0o755 if one.mode & 0o111 else 0o644)
        for path, one in found.items()
        if path in {*_LINKS, "etc/ld.so.cache"}
        or (path.startswith(whole) and "/site-packages/" not in path)
        or (posixpath.dirname(path) in folders and ".so" in path)
    ]
