"""Python sources to the bytecode that the image's own interpreter makes of them.

What is compiled depends on nothing but the sources, their paths in the image and the
interpreter: `unchecked-hash` files (PEP 552) hold no time, and a bare, isolated process
compiles them, because what a process has imported shows in the reference counts that
marshal writes down (CPython issue 98819).  The interpreter is run straight from the
unpacked base by the base's own dynamic linker: no container, no chroot, no root.  Where the
host cannot do that, it is run in a container of the base alone.
"""

from __future__ import annotations

import contextlib
import platform
import posixpath
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib import resources
from pathlib import Path, PurePosixPath

from packager.errors import ClaimError
from packager.layers.tar import Entry, Slice
from packager.store import Blob

__all__ = [
    "LIBRARIES",
    "Elsewhere",
    "Interpreter",
    "Run",
    "Work",
    "compile_entries",
    "wants_bytecode",
]

Run = Callable[[Iterable[bytes]], Path]
"""Gives a request, part by part, to `compile_in_image.py`; its answer, as far as it came, is a file
in a folder of the caller's: both are tens of megabytes, too much for memory."""

Work = Callable[[Sequence[str], Mapping[str, Path], Path], None]
"""Runs a command beside copies of files, which get these names in ``/tmp``; brings one back that
it wrote there, to a path of the same name, if it did."""

Elsewhere = Callable[[Blob, str], AbstractContextManager[Work]]
"""Brings a base layer, of an architecture in Debian's words, to where its programs run."""

_TESTS = {"test", "tests"}
LIBRARIES = {"amd64": "usr/lib/x86_64-linux-gnu", "arm64": "usr/lib/aarch64-linux-gnu"}
"""Where Debian's C library is, by architecture."""

_LINKERS = {"amd64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}
_OPTIONS = ("-S", "-s", "-B", "-P", "-Wignore")
_SCRIPT, _REQUEST, _ANSWER = "compile_in_image.py", "request", "answer"
_LENGTHS = struct.Struct(">II")
_LENGTH = struct.Struct(">I")
_MAGIC = 4


class Interpreter:
    """The base's Python, and the ways to run it.

    Parameters
    ----------
    version : str
        ``"3.11"`` for example.
    architecture : {"amd64", "arm64"}
        The image's, in Debian's words.
    prefix : str
        What it is installed below.
    """

    def __init__(self, version: str, architecture: str, prefix: str = "usr") -> None:
        self.version, self.architecture, self.prefix = version, architecture, prefix

    @property
    def tag(self) -> str:
        """The part of a bytecode file's name that says whose it is (PEP 3147)."""
        return f"cpython-{self.version.replace('.', '')}"

    def here(self, base: Blob, folder: Path) -> Run | None:
        """Unpack as much of a base layer as the interpreter needs, to run it from there.

        Parameters
        ----------
        base : Blob
            The base layer.
        folder : Path
            Where it is unpacked to; nothing is there yet.

        Returns
        -------
        Run or None
            None where this host does not execute it: another system, or another processor
            without an emulator.
        """
        if platform.system() != "Linux":
            return None
        self._unpack(base, folder)

        def compile_in(place: Path) -> None:
            with contextlib.suppress(OSError):  # an answer that is missing says it all
                subprocess.run(
                    [*self._linked(folder), *_OPTIONS, *_paths(str(place))],
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={"PYTHONHOME": str(folder / self.prefix), "PYTHONHASHSEED": "0"},
                )

        return _if_it_runs(partial(_ask, compile_in, folder))

    def there(self, work: Work, folder: Path) -> Run | None:
        """Run it where `work` does; None where that does not execute it either.

        Parameters
        ----------
        work : callable
            Runs a command in the image.
        folder : Path
            Where requests and answers are kept; it exists.
        """
        command = [f"/{self._program}", *_OPTIONS, *_paths("/tmp")]  # noqa: S108

        def compile_in(place: Path) -> None:
            files = {name: place / name for name in (_SCRIPT, _REQUEST)}
            work(command, files, place / _ANSWER)

        return _if_it_runs(partial(_ask, compile_in, folder))

    def _unpack(self, base: Blob, folder: Path) -> None:
        wanted = (self._program, f"{self.prefix}/lib/python{self.version}/")
        folders = self._folders
        with tarfile.open(base.path) as archive:
            for member in archive:
                library = posixpath.dirname(member.name) in folders and not member.isdir()
                if library or member.name.startswith(wanted):
                    _place(archive, member, folder / member.name)

    def _linked(self, folder: Path) -> list[str]:
        linker = folder / LIBRARIES[self.architecture] / _LINKERS[self.architecture]
        libraries = ":".join(str(folder / one) for one in self._folders)
        return [str(linker), "--library-path", libraries, str(folder / self._program)]

    @property
    def _program(self) -> str:
        return f"{self.prefix}/bin/python{self.version}"

    @property
    def _folders(self) -> list[str]:
        return [
            LIBRARIES[self.architecture],
            *([] if self.prefix == "usr" else [f"{self.prefix}/lib"]),
        ]


def wants_bytecode(entry: Entry) -> bool:
    """Tell whether an entry is a module that is worth compiling: Python, and no test."""
    path = PurePosixPath(entry.path)
    return entry.kind == "file" and path.suffix == ".py" and not _TESTS & set(path.parts)


def compile_entries(entries: Iterable[Entry], tag: str, run: Run) -> list[Entry]:
    """Compile modules, all in one bare process, in the order of their paths.

    Parameters
    ----------
    entries : iterable of Entry
        Any; those that `wants_bytecode` picks are compiled.
    tag : str
        `Interpreter.tag`.
    run : callable
        From `Interpreter.here` or `Interpreter.there`.

    Returns
    -------
    list of Entry
        ``__pycache__`` files.  A module that does not compile, such as a template or code
        for another Python, has none, as when pip installs it.

    Raises
    ------
    ClaimError
        When the interpreter breaks off.
    """
    modules = sorted(filter(wants_bytecode, entries), key=lambda entry: entry.path)
    if not modules:
        return []
    answer = run(_request(modules))
    compiled = _split(answer)
    made = []
    for module in modules:
        part = next(compiled, None)
        if part is None:
            raise ClaimError(
                f"the image's Python broke off while it compiled /{module.path}",
                where=module.owner,
                hint="bytecode = false in [tool.packager] makes an image without bytecode.",
            )
        begin, size = part
        if size:
            path, read = _cache_path(module.path, tag), partial(Slice.open, answer, begin, size)
            made.append(Entry(path, size=size, open=read, owner=module.owner))
    return made


def _if_it_runs(run: Run) -> Run | None:
    return run if run([]).stat().st_size else None


def _ask(compile_in: Callable[[Path], None], folder: Path, request: Iterable[bytes]) -> Path:
    """Write a request beside the script, in a folder of their own, and have it answered."""
    place = Path(tempfile.mkdtemp(dir=folder))
    (place / _SCRIPT).write_bytes(_script())
    with (place / _REQUEST).open("wb") as out:
        out.writelines(request)
    compile_in(place)
    (place / _REQUEST).unlink()
    (place / _ANSWER).touch()
    return place / _ANSWER


def _script() -> bytes:
    return (resources.files("packager.layers") / _SCRIPT).read_bytes()


def _paths(folder: str) -> list[str]:
    return [posixpath.join(folder, name) for name in (_SCRIPT, _REQUEST, _ANSWER)]


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """Put a file down, of a link a copy of what it leads to: not every file system has links."""
    try:
        source = archive.extractfile(member)
    except (KeyError, RecursionError):  # it leads to nothing, or to itself
        return
    if source:
        path.parent.mkdir(parents=True, exist_ok=True)
        with source, path.open("wb") as out:
            shutil.copyfileobj(source, out)
        with contextlib.suppress(OSError):  # nor has every one modes
            path.chmod(member.mode)


def _request(modules: Iterable[Entry]) -> Iterator[bytes]:
    for module in modules:
        assert module.open is not None
        with module.open() as stream:
            source = stream.read()
        path = f"/{module.path}".encode()
        yield _LENGTHS.pack(len(path), len(source)) + path + source


def _split(answer: Path) -> Iterator[tuple[int, int]]:
    """Yield where in an answer each part that it holds whole begins, and its size."""
    whole = answer.stat().st_size
    with answer.open("rb") as file:
        at = _MAGIC
        while at + _LENGTH.size <= whole:
            file.seek(at)
            begin, (size,) = at + _LENGTH.size, _LENGTH.unpack(file.read(_LENGTH.size))
            at = begin + size
            if at <= whole:
                yield begin, size


def _cache_path(path: str, tag: str) -> str:
    folder, name = posixpath.split(path)
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"
