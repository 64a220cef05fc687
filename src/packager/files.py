"""Bytes to disk so that nobody ever finds half of them, and errors that name the right file."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from packager.errors import HostError

__all__ = ["Out", "blaming", "canonical_json", "replace_file", "replacing", "writing"]


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
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with writing(beside, str(path)) as out:
        yield cast("IO[bytes]", out)
        out.settle()
        with blaming(str(path)):
            if path.exists():
                shutil.copymode(path, beside)
            beside.replace(path)


def replace_file(path: Path, data: bytes) -> None:
    """Write bytes as `replacing` does."""
    with replacing(path) as out:
        out.write(data)


class Out:
    """A file being written: what fails in it is its own, not that of what is being read."""

    def __init__(self, path: Path, mode: str, owner: str) -> None:
        self.path, self._owner = path, owner
        with blaming(owner):
            self._file = cast("IO[bytes]", path.open(mode))

    def write(self, data: bytes) -> int:
        """Write all of it."""
        with blaming(self._owner):
            return self._file.write(data)

    def settle(self) -> None:
        """Bring it to the disk; closed, because Windows moves no open file."""
        with blaming(self._owner):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def restart(self) -> None:
        """Drop what was there."""
        with blaming(self._owner):
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


@contextlib.contextmanager
def writing(file: Path, owner: str) -> Iterator[Out]:
    """Give a new file, gone at the end unless it was moved.

    Parameters
    ----------
    file : Path
        What is made; it must not exist.
    owner : str
        What an error names.

    Raises
    ------
    HostError
        When it cannot be written, or what goes into it cannot be read.
    """
    try:
        with Out(file, "xb", owner) as out:
            yield out
    except OSError as error:  # not the file's, so it is that of something that goes into it
        raise HostError(
            f"cannot be read: {error.strerror or error}", where=str(error.filename or owner)
        ) from error
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def blaming(owner: str) -> Iterator[None]:
    """Turn what the operating system refuses into an error that names `owner`."""
    try:
        yield
    except OSError as error:
        raise HostError(f"cannot be written: {error.strerror or error}", where=owner) from None
