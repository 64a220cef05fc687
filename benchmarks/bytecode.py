"""Measure what bytecode in the image costs and gives: start to first prediction, with and without.

Prints the tables of docs/figures.md.
"""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import penguins

from packager.layers import tar
from packager.layers.bytecode import Interpreter, Run, compile_entries, wants_bytecode
from packager.layers.making import Layer
from packager.layers.tar import Entry
from packager.outputs import engine as engines
from packager.store import Store

ROUNDS = 11
SEALED = ["--network", "none", "--read-only", "--tmpfs", "/tmp"]  # noqa: S108
WITH, WITHOUT = "penguins-with-bytecode:measured", "penguins-without-bytecode:measured"


def main() -> None:
    """Print all tables."""
    with tempfile.TemporaryDirectory() as scratch:
        root = penguins.project(Path(scratch))
        data = b"".join((root / "models" / "sample.csv").read_bytes().splitlines(keepends=True)[:2])
        built = penguins.built(root, Store())
        sizes = {WITH: build(root, WITH)}
        settings = root / "pyproject.toml"
        text = settings.read_text().replace("[tool.packager]", "[tool.packager]\nbytecode = false")
        settings.write_text(text)
        sizes[WITHOUT] = build(root, WITHOUT)
        print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, docker run")
        try:
            print(*starts(data, sizes), sep="\n")
        finally:
            subprocess.run(["docker", "rmi", WITH, WITHOUT], check=False, capture_output=True)
        print("", *making(built.image.layers), sep="\n")


def starts(data: bytes, sizes: dict[str, int]) -> Iterable[str]:
    """Time the starts in turn, so that whatever else the machine does hits all alike."""
    predict = {tag: [tag, "predict"] for tag in (WITH, WITHOUT)}
    commands = {
        **predict,
        "nothing": ["--entrypoint", "/usr/bin/python3.11", WITH, "-c", "print()"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(ROUNDS + 1):
        for name, command in commands.items():
            took = first_line(command, data)
            if number:  # the first round fills the host's page cache
                seconds[name].append(took)
    yield f"| {ROUNDS} starts each, in turn | median | quickest | slowest | image |"
    yield "| --- | --- | --- | --- | --- |"
    words = {WITH: "with bytecode", WITHOUT: "without", "nothing": "Python that does nothing"}
    for name, all_of in seconds.items():
        times = f"{statistics.median(all_of):.2f} s | {min(all_of):.2f} s | {max(all_of):.2f} s"
        size = f"{sizes[name] / 1e6:.0f} MB" if name in sizes else ""
        yield f"| {words[name]} | {times} | {size} |"


def first_line(command: list[str], data: bytes) -> float:
    """Give the seconds from ``docker run`` to the first line of output."""
    begin = time.monotonic()
    with subprocess.Popen(
        ["docker", "run", "--rm", "-i", *SEALED, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(data)
        process.stdin.close()
        line = process.stdout.readline()
        took = time.monotonic() - begin
        process.stdout.read()
    if process.returncode or not line:
        sys.exit(f"docker run {' '.join(command)} gave {process.returncode} and {line!r}")
    return took


def making(layers: Sequence[Layer]) -> Iterable[str]:
    """Compile all modules of base and wheels anew, in both ways."""
    base = next(layer.blob for layer in layers if layer.role == "base")
    sources = [
        [
            one
            for one in tar.read(layer.blob.path, layer.what)
            if wants_bytecode(one) and "lib/python3" in one.path
        ]
        for layer in layers
        if layer.role in {"base", "wheels"}
    ]
    python = Interpreter("3.11", "amd64")
    yield "| how it is made | modules | bytes | seconds |"
    yield "| --- | --- | --- | --- |"
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.monotonic()
        here = python.here(base, Path(scratch) / "python")
        assert here is not None
        yield row("run from the unpacked base", python, here, sources, begin)
    begin = time.monotonic()
    with engines.workshop([base], "amd64") as work, tempfile.TemporaryDirectory() as scratch:
        there = python.there(work, Path(scratch))
        assert there is not None
        yield row("in containers of the engine", python, there, sources, begin)


def row(how: str, python: Interpreter, run: Run, sources: list[list[Entry]], begin: float) -> str:
    """Compile, and lay out what it took."""
    made = [entry for entries in sources for entry in compile_entries(entries, python.tag, run)]
    size = sum(entry.size for entry in made)
    return f"| {how} | {len(made)} | {size / 1e6:.1f} MB | {time.monotonic() - begin:.1f} |"


def build(root: Path, tag: str) -> int:
    """Build, and give the image's size."""
    done = subprocess.run(
        [sys.executable, "-m", "packager", "build", "--json", "--no-smoke", "-t", tag],
        cwd=root,
        check=True,
        stdout=subprocess.PIPE,
    )
    return int(json.loads(done.stdout)["size"])


if __name__ == "__main__":
    main()
