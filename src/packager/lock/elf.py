"""Whether every library that a file of the image needs is in the image, and for its machine.

What a dynamic linker does when a program starts is done here when the image is locked, so
a missing library is an error with a name and not a crash in a colleague's hands.  Search
order and ``$ORIGIN`` are those of ld.so(8).
"""

from __future__ import annotations

import io
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from packager.errors import ClaimError

__all__ = ["ElfFacts", "ElfFile", "check", "needed"]

_PROGRAMS = ("usr/bin", "usr/sbin")
_MACHINES = {"amd64": "EM_X86_64", "arm64": "EM_AARCH64"}
# These come from the driver of the host's graphics card; an engine that lends the card to
# a container puts them in when the container starts.
_FROM_DRIVER = frozenset({"libcuda.so.1", "libnvidia-ml.so.1"})
# A header may count what is not there, or point in a circle: real files take hundreds of reads.
_MOST_READS, _LONGEST_READ = 200_000, 1 << 20
# What pyelftools raises where a header is not what it expects.
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError),
    *(ELFError, OSError, RecursionError),
)


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
    if stream.read(4) != b"\x7fELF":
        return None
    try:
        elf = ELFFile(cast(IO[bytes], _Metered(stream)))
        segment: Any
        for segment in elf.iter_segments("PT_DYNAMIC"):
            return _facts(segment.iter_tags(), elf["e_machine"])
    except _DAMAGE:
        pass
    return None


class _Metered:
    """A file of which only so much is read."""

    def __init__(self, stream: io.BufferedIOBase | IO[bytes]) -> None:
        self._stream, self._reads = stream, 0
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS or not 0 <= size <= _LONGEST_READ:
            raise ELFError("reads more than a library has to tell")
        return self._stream.read(size)


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
    foreign = [file for file in everything if file.facts.machine != _MACHINES[architecture]]
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


def _facts(tags: Iterable[object], machine: str) -> ElfFacts:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for tag in tags:
        for kind in ("soname", "needed", "runpath", "rpath"):
            if hasattr(tag, kind):
                found[kind].append(getattr(tag, kind))
    search = ":".join(found["runpath"] or found["rpath"])
    return ElfFacts(
        soname="".join(found["soname"][:1]),
        needed=tuple(found["needed"]),
        machine=str(machine),
        search=tuple(folder for folder in search.split(":") if folder),
    )


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
