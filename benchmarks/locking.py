"""Measure what `packager lock` takes, with either resolver: prints the table of docs/locking.md.

About ten minutes; the resolvers take turns, so that whatever else the machine does hits both.
"""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROUNDS = 3
RESOLVERS = ("pip-tools", "uv")
PYPROJECT = """\
[project]
name = "locked"
version = "1.0"
requires-python = ">=3.11"
license = "MIT"
dependencies = ["scikit-learn", "pandas", "skops", "fastapi", "uvicorn"{more}]

[project.optional-dependencies]
dev = ["pytest", "ruff"]

[tool.packager]
model = "model.bin"
base = "debian:bookworm"
resolver = "{resolver}"
"""
MORE = ', "httpx"'
LOCKS = ("requirements.txt", "requirements-dev.txt", "packager.lock")
CASES = (
    "first, nothing fetched yet",
    "first, every file in the store",
    "again, nothing changed",
    "a dependency added",
    "--upgrade",
    "--check",
)

Times = tuple[float, float]


def main() -> None:
    """Print the table: seconds on the clock, and of processor time."""
    taken: defaultdict[tuple[str, str], list[Times]] = defaultdict(list)
    for number in range(ROUNDS):
        for resolver in RESOLVERS:
            print(f"round {number + 1} of {ROUNDS}, {resolver}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as scratch:
                for case, times in cases(Path(scratch), resolver):
                    print(f"  {case}: {cell([times])}", file=sys.stderr)
                    taken[case, resolver].append(times)
    print(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, "
        f"CPython {platform.python_version()}; medians of {ROUNDS}, "
        "seconds on the clock (of processor time)\n"
    )
    print(f"| case | {' | '.join(RESOLVERS)} |\n| --- | --- | --- |")
    for case in CASES:
        print(f"| {case} | {' | '.join(cell(taken[case, one]) for one in RESOLVERS)} |")


def cases(scratch: Path, resolver: str) -> Iterator[tuple[str, Times]]:
    """Run all cases with a store and caches of their own."""
    root = scratch / "project"
    root.mkdir()
    (root / "model.bin").write_bytes(b"a model")
    pyproject = root / "pyproject.toml"
    pyproject.write_text(PYPROJECT.format(resolver=resolver, more=""))
    names = ("PACKAGER_CACHE", "PIP_CACHE_DIR", "PIP_TOOLS_CACHE_DIR", "UV_CACHE_DIR")
    caches = {name: str(scratch / name) for name in names}

    def lock(case: str, *flags: str) -> tuple[str, Times]:
        return case, run(root, caches, "lock", *flags)

    yield lock(CASES[0])
    for name in LOCKS:
        (root / name).unlink()
    yield lock(CASES[1])
    yield lock(CASES[2])
    pyproject.write_text(PYPROJECT.format(resolver=resolver, more=MORE))
    yield lock(CASES[3])
    yield lock(CASES[4], "--upgrade")
    yield lock(CASES[5], "--check")


def run(root: Path, caches: dict[str, str], *arguments: str) -> Times:
    """Run the command, and say what it and its children took."""
    command = [sys.executable, "-m", "packager", *arguments]
    begin = time.monotonic()
    process = subprocess.Popen(
        command, cwd=root, env={**os.environ, **caches}, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed in {root}")
    return took, usage.ru_utime + usage.ru_stime


def cell(times: list[Times]) -> str:
    """Write the medians."""
    clock, processor = (statistics.median(one) for one in zip(*times, strict=True))
    return f"{clock:.1f} ({processor:.1f})"


if __name__ == "__main__":
    main()
