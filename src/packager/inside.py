"""The inside of two files that differ: the first byte, and what a reader can make of it."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import IO, Literal

__all__ = ["Contents", "Inside", "first_byte", "look"]

Contents = Callable[[], Iterator[bytes]]
"""Opens a content afresh, and yields it in parts of one size, the last perhaps shorter."""

_SECONDS = 60
_MOST_FOR_IT = 64 << 20
_REPORT = 64 << 10
_MOST_TEXT = 64 << 10
_MOST_LINES = 40
_LONGEST_LINE = 200


@dataclass(frozen=True, slots=True)
class Inside:
    """The inside of a file that differs.

    Attributes
    ----------
    first_byte : int
        Where it differs first, from 0.
    tool : {"diffoscope", "unified diff", ""}
        What made the text; empty where there is none.
    """

    path: str
    first_byte: int
    tool: Literal["diffoscope", "unified diff", ""]
    text: str


def first_byte(a: Iterator[bytes], b: Iterator[bytes]) -> int | None:
    """Find where two contents differ first, in bytes from 0; None where they are equal."""
    at = 0
    for one, other in zip_longest(a, b, fillvalue=b""):
        if one != other:
            pairs = enumerate(zip(one, other, strict=False))
            return at + next((i for i, (x, y) in pairs if x != y), min(len(one), len(other)))
        at += len(one)
    return None


def look(path: str, a: Contents, b: Contents) -> Inside:
    """Look into two files that differ: with diffoscope if it is installed, else as at text.

    Parameters
    ----------
    path : str
        Where they are in their images; diffoscope goes by the suffix, too.
    a, b : callable
        What they hold.

    Returns
    -------
    Inside
        Its text is bounded, and so is the time that it takes.
    """
    at = first_byte(a(), b()) or 0
    with contextlib.suppress(OSError):  # it is an extra, and so is the space that it takes
        if (program := shutil.which("diffoscope")) and (report := _report(program, path, a, b)):
            return Inside(path, at, "diffoscope", report)
    text = _unified(a, b)
    return Inside(path, at, "unified diff" if text else "", text)


def _report(program: str, path: str, a: Contents, b: Contents) -> str:
    """Run diffoscope on two small files; empty where it has no answer in time."""
    # The name decides nothing but the suffix, and comes from the image.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", path.rpartition("/")[2])[-100:]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for side, contents in (("a", a), ("b", b)):
            file = Path(folder, side, name)
            file.parent.mkdir()
            if not _extract(contents(), file):
                return ""
        report = Path(folder, "report")
        options = ["--no-progress", "--text-color=never", f"--max-text-report-size={_REPORT}"]
        with report.open("wb") as out:
            command = [program, *options, f"a/{name}", f"b/{name}"]
            if _exit_code(command, folder, out) != 1:  # 1: it found a difference
                return ""
        with report.open("rb") as found:
            return found.read(_REPORT).decode(errors="replace")


def _extract(chunks: Iterator[bytes], file: Path) -> bool:
    """Write a content; False where it is more than anybody would wait for."""
    size = 0
    with file.open("wb") as out:
        for chunk in chunks:
            size += out.write(chunk)
            if size > _MOST_FOR_IT:
                return False
    return True


def _exit_code(command: list[str], folder: str, out: IO[bytes]) -> int | None:
    """Run a program with all that it starts, until its time is over."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()


def _unified(a: Contents, b: Contents) -> str:
    """Give the first lines of a unified diff of two small texts; empty if they are not that."""
    texts: list[list[str]] = []
    for contents in (a, b):
        data = b"".join(islice(contents(), 1))[: _MOST_TEXT + 1]
        try:
            texts.append(data.decode().splitlines())
        except UnicodeDecodeError:
            return ""
        if len(data) > _MOST_TEXT or b"\0" in data:
            return ""
    lines = difflib.unified_diff(texts[0], texts[1], "A", "B", n=1, lineterm="")
    first = list(islice(lines, _MOST_LINES + 1))
    if len(first) > _MOST_LINES:
        first[-1] = "…"
    return "\n".join(line[:_LONGEST_LINE] for line in first)
