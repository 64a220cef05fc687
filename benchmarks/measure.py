"""Run a command and see what it took; put what rounds took into medians and ratios."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TIMED = Path(__file__).with_name("timed.py")


@dataclass(frozen=True)
class Sample:
    """What one run took: seconds (or, in a case about size, megabytes), and the peak of memory."""

    value: float
    peak_mb: float


class FailedError(Exception):
    """A command that was to be measured failed; holds the end of what it said."""


def run(
    command: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Sample:
    """Run a command to its end, quietly.

    The peak is that of the process or of the largest child that it waited for.
    """
    os.sync()  # what others left to be written is not this one's to pay
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch, "result")
        words = [str(word) for word in command]
        done = subprocess.run(
            [sys.executable, "-I", "-S", _TIMED, result, *words],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            end = done.stdout.decode(errors="replace")[-2000:]
            raise FailedError(f"{' '.join(words)} gave {done.returncode}:\n{end}")
        took, peak = map(float, result.read_text().split())
    return Sample(took, peak)


def first_line(command: Sequence[str]) -> Sample:
    """Give the seconds from the start of a command to its first line of output."""
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        took = time.monotonic() - begin
        process.stdout.read()
        said = process.stderr.read().decode(errors="replace")
    if process.returncode or not line:
        raise FailedError(f"{' '.join(command)} gave {process.returncode}:\n{said[-2000:]}")
    return Sample(took, 0.0)


@dataclass(frozen=True)
class Spread:
    """The median of some values, and how far they lie apart."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Sum values up."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Divide round by round, then sum up: what disturbs one round disturbs both sides of it.

    Where one side has fewer rounds (because each gives the same), its last stands for the others.
    """
    rounds = max(len(ours), len(theirs))
    pairs = zip(_filled(ours, rounds), _filled(theirs, rounds), strict=True)
    return spread([mine / other for mine, other in pairs])


def _filled(values: Sequence[float], length: int) -> list[float]:
    return [*values, *[values[-1]] * (length - len(values))]
