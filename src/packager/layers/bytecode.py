"""Python sources to the bytecode that the image's own interpreter makes of them.

What is compiled depends on nothing but the sources, their paths in the image and the
interpreter: `unchecked-hash` files (PEP 552) hold no time, and a bare, isolated process
compiles them, because what a process has imported shows in the reference counts that
marshal writes down (CPython issue 98819).  The interpreter is run straight from the
unpacked base by the base's own dynamic linker: no container, no chroot, no root.
"""

from __future__ import annotations

import contextlib
import platform
import posixpath
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import IO

from packager.errors import ClaimError, HostError
from packager.layers.tar import Entry, data_entry
from packager.store import Blob

__all__ = ["Interpreter", "compile_entries", "wants_bytecode"]

_TESTS = {"test", "tests"}
_LIBRARIES = {"amd64": "usr/lib/x86_64-linux-gnu", "arm64": "usr/lib/aarch64-linux-gnu"}
_LINKERS = {"amd64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}
_LENGTHS = struct.Struct(">II")
_LENGTH = struct.Struct(">I")


class Interpreter:
    """The base's Python, run from a folder.

    Parameters
    ----------
    version : str
        ``"3.11"`` for example.
    architecture : {"amd64", "arm64"}
        The image's, in Debian's words.
    """

    def __init__(self, version: str, architecture: str) -> None:
        self.version, self.architecture = version, architecture

    def unpack(self, base: Blob, folder: Path) -> None:
        """Unpack as much of a base layer as the interpreter needs, and see that it runs.

        Raises
        ------
        HostError
            When this host cannot run it: another system, or another processor without an
            emulator.
        """
        wanted = (f"usr/bin/python{self.version}", f"usr/lib/python{self.version}/")
        libraries = _LIBRARIES[self.architecture]
        with tarfile.open(base.path) as archive:
            for member in archive:
                library = posixpath.dirname(member.name) == libraries
                if library or member.name.startswith(wanted):
                    _place(archive, member, folder / member.name)
        try:
            run = subprocess.run(
                [*self.command(folder), "-c", ""], check=False, env=_environment(folder)
            )
            runs = run.returncode == 0
        except OSError:
            runs = False
        if not runs:
            raise HostError(
                f"the image's Python ({self.architecture}) does not run on "
                f"{platform.system()} {platform.machine()}, so no bytecode can be made",
                hint="Build on such a host, or set bytecode = false in [tool.packager].",
            )

    def command(self, folder: Path) -> list[str]:
        """Give the command line that runs a script, whose path is to be added, in `folder`."""
        libraries = folder / _LIBRARIES[self.architecture]
        return [
            str(libraries / _LINKERS[self.architecture]),
            "--library-path",
            str(libraries),
            str(folder / f"usr/bin/python{self.version}"),
            "-S",
            "-s",
            "-B",
            "-P",
            "-Wignore",
        ]

    @property
    def tag(self) -> str:
        """The part of a bytecode file's name that says whose it is (PEP 3147)."""
        return f"cpython-{self.version.replace('.', '')}"


def wants_bytecode(entry: Entry) -> bool:
    """Tell whether an entry is a module that is worth compiling: Python, and no test."""
    path = PurePosixPath(entry.path)
    return entry.kind == "file" and path.suffix == ".py" and not _TESTS & set(path.parts)


def compile_entries(
    entries: Iterable[Entry], interpreter: Interpreter, folder: Path
) -> list[Entry]:
    """Compile modules, all in one bare process, in the order of their paths.

    Parameters
    ----------
    entries : iterable of Entry
        Any; those that `wants_bytecode` picks are compiled.
    interpreter : Interpreter
        Whose bytecode it will be.
    folder : Path
        Where it was unpacked.

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
    with _compiler(interpreter, folder) as (source, result):
        made = []
        for module in modules:
            _send(source, module)
            if data := _receive(result, module):
                path = _cache_path(module.path, interpreter.tag)
                made.append(data_entry(path, data, owner=module.owner))
        return made


@contextlib.contextmanager
def _compiler(interpreter: Interpreter, folder: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    script = resources.files("packager.layers") / "compile_in_image.py"
    with (
        resources.as_file(script) as path,
        subprocess.Popen(
            [*interpreter.command(folder), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(folder),
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdin, process.stdout
        process.stdin.close()
        process.wait()


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        path.symlink_to(member.linkname)
    elif source := archive.extractfile(member):
        with source, path.open("wb") as out:
            shutil.copyfileobj(source, out)
        path.chmod(member.mode)


def _environment(folder: Path) -> dict[str, str]:
    return {"PYTHONHOME": str(folder / "usr"), "PYTHONHASHSEED": "0"}


def _send(out: IO[bytes], module: Entry) -> None:
    assert module.open is not None
    with module.open() as stream:
        source = stream.read()
    path = f"/{module.path}".encode()
    try:
        out.write(_LENGTHS.pack(len(path), len(source)) + path + source)
        out.flush()
    except BrokenPipeError:
        raise _broke_off(module) from None


def _receive(stream: IO[bytes], module: Entry) -> bytes:
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise _broke_off(module)
    return stream.read(*_LENGTH.unpack(header))


def _broke_off(module: Entry) -> ClaimError:
    return ClaimError(
        f"the image's Python broke off while it compiled /{module.path}", where=module.owner
    )


def _cache_path(path: str, tag: str) -> str:
    folder, name = posixpath.split(path)
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"
