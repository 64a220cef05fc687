"""Bytes to disk so that nobody finds half of them, settings from it, errors that name the file."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import secrets
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from packager.errors import HostError

__all__ = [
    "MOST_TOML",
    "Out",
    "blaming",
    "canonical_json",
    "read_toml",
    "replace_file",
    "replacing",
    "writing",
]

MOST_TOML = 4 << 20
"""Bytes of a lock or a `pyproject.toml`: a lock of 500 wheels has a tenth of that."""


def canonical_json(value: object) -> bytes:
    """Serialise to the one form whose digest is taken: sorted keys, no blanks, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that a reader, or a crash, finds the old or the new one, never half.

    Parameters
    ----------
    path : Path
        What is replaced at the end; it keeps its mode, and a link stays a link.

    Yields
    ------
    file
        Only to be written to, front to back.

    Raises
    ------
    HostError
        When it cannot be written, or what goes into it cannot be read.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():  # a device, which root could replace
        raise HostError("cannot be written: it is no file", where=str(path))
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        with contextlib.suppress(OSError):
            _remove_unlocked(left)
    with writing(_locked_beside(path)) as out:
        yield cast("IO[bytes]", out)
        out.settle()
        with blaming(str(path)):
            if path.exists():
                shutil.copymode(path, out.path)
            out.path.replace(path)


def _locked_beside(path: Path) -> Out:
    """Make the file that will replace another, locked, so that it is not swept."""
    while True:
        out = Out(path.with_name(f".{path.name}.{secrets.token_hex(4)}.part"), "xb", str(path))
        if out.lock():
            return out


if sys.platform == "win32":

    def _lock(_: int) -> int | None:
        """Do nothing: an open file cannot be removed here, which serves the same."""
        return None

    def _remove_unlocked(path: Path) -> None:
        path.unlink()

else:
    import fcntl

    def _lock(file: int) -> int | None:
        """Lock a file, give what keeps it locked when the file itself is closed."""
        kept = os.dup(file)
        with contextlib.suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(kept, fcntl.LOCK_EX)
        return kept

    def _remove_unlocked(path: Path) -> None:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def replace_file(path: Path, data: bytes) -> None:
    """Write bytes as `replacing` does."""
    with replacing(path) as out:
        out.write(data)


class Out:
    """A file being written: what fails in it is its own, not that of what is being read."""

    def __init__(self, path: Path, mode: str, owner: str) -> None:
        self.path, self.owner = path, owner
        with blaming(owner):
            self._file = cast("IO[bytes]", path.open(mode))
        self._locked: int | None = None

    def lock(self) -> bool:
        """Lock it until the end, past `settle`; False if it was swept away before."""
        self._locked = _lock(self._file.fileno())
        if self._locked is None or os.fstat(self._locked).st_nlink:
            return True
        self.__exit__()
        return False

    def write(self, data: bytes) -> int:
        """Write all of it."""
        with blaming(self.owner):
            return self._file.write(data)

    def settle(self) -> None:
        """Bring it to the disk; closed, because Windows moves no open file."""
        with blaming(self.owner):
            self._file.flush()
            os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Hand it to the system, which brings it to the disk when it likes."""
        with blaming(self.owner):
            self._file.close()

    def restart(self) -> None:
        """Drop what was there."""
        with blaming(self.owner):
            self._file.seek(0)
            self._file.truncate()

    def tell(self) -> int:
        """Say how many bytes there are."""
        return self._file.tell()

    def __enter__(self) -> Out:
        return self

    def __exit__(self, *_: object) -> None:
        # Closing tries once more to write what a full disk has just refused.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._locked is not None:
            os.close(self._locked)


@contextlib.contextmanager
def writing(out: Out) -> Iterator[Out]:
    """Give a new file, gone at the end unless it was moved.

    Parameters
    ----------
    out : Out
        The file, just made.

    Raises
    ------
    HostError
        When it cannot be written, or what goes into it cannot be read.
    """
    try:
        with out:
            yield out
    except OSError as error:  # not the file's, so it is that of something that goes into it
        raise HostError(
            f"cannot be read: {error.strerror or error}", where=str(error.filename or out.owner)
        ) from error
    finally:
        with contextlib.suppress(OSError):
            out.path.unlink(missing_ok=True)


@contextlib.contextmanager
def blaming(owner: str) -> Iterator[None]:
    """Turn what the operating system refuses into an error that names `owner`."""
    try:
        yield
    except OSError as error:
        raise HostError(f"cannot be written: {error.strerror or error}", where=owner) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file that may be damaged.

    Raises
    ------
    FileNotFoundError
        When there is none.
    ValueError
        When it cannot be read; says why.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_TOML + 1)
        if len(data) > MOST_TOML:
            raise ValueError(f"it has more than {MOST_TOML} bytes")
        return tomllib.loads(data.decode("utf-8"))
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
