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
import io
import platform
import posixpath
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

from packager.errors import ClaimError
from packager.layers.tar import Entry
from packager.store import Blob

__all__ = ["Elsewhere", "Interpreter", "Run", "Work", "compile_entries", "wants_bytecode"]

Run = Callable[[bytes], bytes]
"""Gives a request to `compile_in_image.py` and its answer back, as far as that came."""

Work = Callable[[Sequence[str], Mapping[str, bytes], str], bytes]
"""Runs a command beside files of these names in ``/tmp``; gives one that it wrote, or nothing."""

Elsewhere = Callable[[Blob, str], AbstractContextManager[Work]]
"""Brings a base layer, of an architecture in Debian's words, to where its programs run."""

_TESTS = {"test", "tests"}
_LIBRARIES = {"amd64": "usr/lib/x86_64-linux-gnu", "arm64": "usr/lib/aarch64-linux-gnu"}
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
    """

    def __init__(self, version: str, architecture: str) -> None:
        self.version, self.architecture = version, architecture

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

        def run(request: bytes) -> bytes:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                for name, data in _files(request).items():
                    Path(place, name).write_bytes(data)
                with contextlib.suppress(OSError):  # an answer that is missing says it all
                    subprocess.run(
                        [*self._linked(folder), *_OPTIONS, *_paths(place)],
                        check=False,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        env={"PYTHONHOME": str(folder / "usr"), "PYTHONHASHSEED": "0"},
                    )
                answer = Path(place, _ANSWER)
                return answer.read_bytes() if answer.exists() else b""

        return _if_it_runs(run)

    def there(self, work: Work) -> Run | None:
        """Run it where `work` does; None where that does not execute it either."""
        command = [f"/usr/bin/python{self.version}", *_OPTIONS, *_paths("/tmp")]  # noqa: S108
        return _if_it_runs(lambda request: work(command, _files(request), _ANSWER))

    def _unpack(self, base: Blob, folder: Path) -> None:
        wanted = (f"usr/bin/python{self.version}", f"usr/lib/python{self.version}/")
        libraries = _LIBRARIES[self.architecture]
        with tarfile.open(base.path) as archive:
            for member in archive:
                library = posixpath.dirname(member.name) == libraries
                if library or member.name.startswith(wanted):
                    _place(archive, member, folder / member.name)

    def _linked(self, folder: Path) -> list[str]:
        libraries = folder / _LIBRARIES[self.architecture]
        linker = libraries / _LINKERS[self.architecture]
        python = folder / f"usr/bin/python{self.version}"
        return [str(linker), "--library-path", str(libraries), str(python)]


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
    compiled = _split(run(_request(modules)))
    made = []
    for module in modules:
        data = next(compiled, None)
        if data is None:
            raise ClaimError(
                f"the image's Python broke off while it compiled /{module.path}",
                where=module.owner,
                hint="bytecode = false in [tool.packager] makes an image without bytecode.",
            )
        if data.size:
            path = _cache_path(module.path, tag)
            made.append(Entry(path, size=data.size, open=data.open, owner=module.owner))
    return made


def _if_it_runs(run: Run) -> Run | None:
    return run if run(b"") else None


def _files(request: bytes) -> dict[str, bytes]:
    script = resources.files("packager.layers") / _SCRIPT
    return {_SCRIPT: script.read_bytes(), _REQUEST: request}


def _paths(folder: str) -> list[str]:
    return [posixpath.join(folder, name) for name in (_SCRIPT, _REQUEST, _ANSWER)]


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        path.symlink_to(member.linkname)
    elif source := archive.extractfile(member):
        with source, path.open("wb") as out:
            shutil.copyfileobj(source, out)
        path.chmod(member.mode)


def _request(modules: Iterable[Entry]) -> bytes:
    framed = io.BytesIO()
    for module in modules:
        assert module.open is not None
        with module.open() as stream:
            source = stream.read()
        path = f"/{module.path}".encode()
        framed.write(_LENGTHS.pack(len(path), len(source)) + path + source)
    return framed.getvalue()


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an answer, which is tens of megabytes and not to be held twice."""

    answer: bytes
    begin: int
    size: int

    def open(self) -> io.BytesIO:
        return io.BytesIO(self.answer[self.begin : self.begin + self.size])


def _split(answer: bytes) -> Iterator[_Part]:
    """Yield what an answer holds whole."""
    at = _MAGIC
    while at + _LENGTH.size <= len(answer):
        begin = at + _LENGTH.size
        at = begin + _LENGTH.unpack_from(answer, at)[0]
        if at <= len(answer):
            yield _Part(answer, begin, at - begin)


def _cache_path(path: str, tag: str) -> str:
    folder, name = posixpath.split(path)
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"
