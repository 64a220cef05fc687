"""Whether every library that a file of the image needs is in the image, and for its machine.

What a dynamic linker does when a program starts is done here when the image is locked, so
a missing library is an error with a name and not a crash in a colleague's hands.  Search
order and ``$ORIGIN`` are those of ld.so(8).
"""

from __future__ import annotations

import io
import posixpath
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TypeAlias

from packager.errors import ClaimError

__all__ = ["MACHINES", "ElfFacts", "ElfFile", "check", "needed"]

_PROGRAMS = ("usr/bin", "usr/sbin")
MACHINES = {"amd64": "EM_X86_64", "arm64": "EM_AARCH64"}
"""How ELF names the machines that Debian names so."""
# These come from the driver of the host's graphics card; an engine that lends the card to
# a container puts them in when the container starts.
_FROM_DRIVER = frozenset({"libcuda.so.1", "libnvidia-ml.so.1"})
# Numbers of the System V ABI, chapters 4 and 5: machines, segments, tags of the dynamic array.
_NAMES = {3: "EM_386", 21: "EM_PPC64", 22: "EM_S390", 40: "EM_ARM", 62: "EM_X86_64"} | {
    183: "EM_AARCH64",
    243: "EM_RISCV",
}
_LOAD, _DYNAMIC = 1, 2
_END, _NEEDED, _STRINGS, _SONAME, _RPATH, _RUNPATH = 0, 1, 5, 14, 15, 29
# A header may claim anything: of a table or a name, real files have hundreds of bytes.
_LONGEST_READ = 1 << 14

_Stream: TypeAlias = io.BufferedIOBase | IO[bytes]


@dataclass(frozen=True, slots=True)
class _Format:
    """Where the fields that matter stand, for `struct`: other fields are only skipped.

    `header` gives machine, offset, size and number of the segments' descriptions;
    `segment` a segment's type, offset, address and size; `tag` a tag and its value.
    """

    header: str
    segment: str
    tag: str


_FORMATS = {
    1: _Format("18xH8xI10xHH", "III4xI12x", "iI"),  # 32 bits
    2: _Format("18xH12xQ14xHH", "I4xQQ8xQ16x", "qQ"),  # 64 bits
}
_ORDERS = {1: "<", 2: ">"}


@dataclass(frozen=True, slots=True)
class ElfFacts:
    """What the dynamic linker reads in a file.

    Parameters
    ----------
    soname : str
        What others call the library; empty if it has no such name.
    needed : tuple of str
        The libraries that the file needs.
    machine : str
        As ELF names it, ``EM_X86_64``.
    search : tuple of str
        Folders to look in first: RUNPATH, or RPATH where there is none.
    """

    soname: str
    needed: tuple[str, ...]
    machine: str
    search: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ElfFile:
    """An ELF file in its place.

    Parameters
    ----------
    path : str
        Relative to the image's root, where the file itself is and no link to it.
    owner : str
        The wheel or package that it belongs to, for messages.
    facts : ElfFacts
        As `needed` returns them.
    """

    path: str
    owner: str
    facts: ElfFacts


def needed(stream: io.BufferedIOBase | IO[bytes]) -> ElfFacts | None:
    """Read what the dynamic linker would read.

    Parameters
    ----------
    stream : binary file
        Seekable, positioned at its start.

    Returns
    -------
    ElfFacts or None
        None for what is not a shared library or program: another format, an object file,
        a program that is linked statically, a file so damaged that no linker would take it.
    """
    try:
        return _facts(stream)
    except (LookupError, OSError, OverflowError, ValueError, struct.error):
        return None


def check(
    files: Iterable[ElfFile],
    *,
    paths: Iterable[str],
    architecture: str,
    library_dirs: Sequence[str],
    python_dir: str,
) -> None:
    """Resolve what programs, libraries and Python packages need, inside the image.

    A needed library may lie in the file's own search path, in a library folder, or
    anywhere below the folder of Python packages: those load libraries of sister packages
    before they load their own.  A plugin in a private folder of a Debian package may need
    what that package only recommends, and is left to Debian.

    Parameters
    ----------
    files : iterable of ElfFile
        The ELF files of Debian packages and of wheels.
    paths : iterable of str
        Every file and link of the image, relative to its root.
    architecture : {"amd64", "arm64"}
        Debian's name of the image's machine.
    library_dirs : sequence of str
        Where the linker looks by default, relative to the image's root.
    python_dir : str
        The folder that wheels are installed into, relative to the image's root.

    Raises
    ------
    ClaimError
        When a library is missing, or a wheel or package holds files for other machines
        only; the message names file, owner and library, and what may provide it.
    """
    everything = list(files)
    foreign = [file for file in everything if file.facts.machine != MACHINES[architecture]]
    fitting = [file for file in everything if file not in foreign]
    _refuse_foreign(foreign, {file.owner for file in fitting}, architecture)
    present = _names_by_folder({*paths} - {file.path for file in foreign})
    given = _FROM_DRIVER.union(*(present[one] for one in present if _below(one, python_dir)))
    missing = [
        (file, name)
        for file in fitting
        if _below(file.path, python_dir, *_PROGRAMS) or _folder(file) in library_dirs
        for name in file.facts.needed
        if name not in given
        and not any(name in present[folder] for folder in (*_own_search(file), *library_dirs))
    ]
    if missing:
        raise _complaint(missing)


def _facts(stream: _Stream) -> ElfFacts | None:
    head = stream.read(64)
    if head[:4] != b"\x7fELF":
        return None
    layout, order = _FORMATS[head[4]], _ORDERS[head[5]]
    machine, offset, size, count = struct.unpack_from(order + layout.header, head)
    table = _read(stream, offset, size * count)
    segments = [
        struct.unpack_from(order + layout.segment, table, size * number) for number in range(count)
    ]
    for kind, start, _, length in segments:
        if kind == _DYNAMIC:
            tags = _tags(_read(stream, start, length), order + layout.tag)
            names = _names(stream, tags, segments)
            return ElfFacts(
                soname="".join(names[_SONAME][:1]),
                needed=tuple(names[_NEEDED]),
                machine=_NAMES.get(machine, f"machine {machine}"),
                search=tuple(
                    folder
                    for folder in ":".join(names[_RUNPATH] or names[_RPATH]).split(":")
                    if folder
                ),
            )
    return None


def _read(stream: _Stream, offset: int, size: int) -> bytes:
    if size > _LONGEST_READ:
        raise ValueError("more than a library has to tell")
    stream.seek(offset)
    return stream.read(size)


def _tags(array: bytes, layout: str) -> list[tuple[int, int]]:
    whole = len(array) - len(array) % struct.calcsize(layout)
    tags: list[tuple[int, int]] = list(struct.iter_unpack(layout, array[:whole]))
    return tags[: next((place for place, (tag, _) in enumerate(tags) if tag == _END), None)]


def _names(
    stream: _Stream, tags: Iterable[tuple[int, int]], segments: Iterable[tuple[int, ...]]
) -> defaultdict[int, list[str]]:
    """Look up what tags name in the table of strings, which has an address like all else."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    address = dict(tags).get(_STRINGS, -1)
    for tag, value in tags:
        if tag in {_NEEDED, _SONAME, _RPATH, _RUNPATH}:
            text = _read(stream, _offset(address, segments) + value, _LONGEST_READ)
            found[tag].append(text[: text.index(0)].decode("utf-8", "replace"))
    return found


def _offset(address: int, segments: Iterable[tuple[int, ...]]) -> int:
    for kind, offset, start, length in segments:
        if kind == _LOAD and start <= address < start + length:
            return offset + address - start
    raise ValueError("an address outside of the file")


def _names_by_folder(paths: Iterable[str]) -> defaultdict[str, set[str]]:
    present: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, name = posixpath.split(path)
        present[folder].add(name)
    return present


def _below(path: str, *folders: str) -> bool:
    return f"{path}/".startswith(tuple(f"{folder}/" for folder in folders))


def _folder(file: ElfFile) -> str:
    return posixpath.dirname(file.path)


def _own_search(file: ElfFile) -> Iterator[str]:
    origin = f"/{_folder(file)}"
    for folder in file.facts.search:
        expanded = re.sub(r"\$(ORIGIN\b|\{ORIGIN\})", lambda _: origin, folder)
        yield _merged(posixpath.normpath(expanded).strip("/"))


def _merged(folder: str) -> str:
    return f"usr/{folder}" if re.match(r"(lib|lib64)(/|$)", folder) else folder


def _refuse_foreign(foreign: Iterable[ElfFile], able: set[str], architecture: str) -> None:
    # A wheel may carry a library for several machines and choose when it runs; one with
    # none for this machine cannot work.
    for file in foreign:
        if file.owner not in able:
            raise ClaimError(
                f"{file.owner} holds /{file.path}, which is for {file.facts.machine}, "
                f"and nothing for {architecture}",
                hint="Lock again; if the file is the project's own, build it for the target.",
            )


def _complaint(missing: Sequence[tuple[ElfFile, str]]) -> ClaimError:
    examples = {(file.owner, name): file.path for file, name in reversed(missing)}
    lines = [f"{owner} needs {name} (/{path})" for (owner, name), path in sorted(examples.items())]
    guesses = sorted({guess for _, name in missing if (guess := _debian_name(name))})
    return ClaimError(
        "the image lacks libraries that its files need:\n  " + "\n  ".join(lines),
        where="pyproject.toml, [tool.packager] os-packages",
        hint="Add the Debian packages that hold them"
        + (f", by Debian's naming rule {', '.join(guesses)}." if guesses else "."),
    )


def _debian_name(library: str) -> str:
    """Name the package that holds a library: Debian Policy 8.1, ``libfoo.so.1`` → ``libfoo1``."""
    found = re.fullmatch(r"(.+)\.so\.(\d+(?:\.\d+$)?).*", library)
    if found is None:
        return ""
    name = found[1].lower().replace("_", "-")
    return f"{name}-{found[2]}" if name[-1].isdigit() else f"{name}{found[2]}"
