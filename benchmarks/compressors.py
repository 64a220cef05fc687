"""Compare compressors on the penguins image's wheel layers: speed, size, and sameness of bytes.

Prints the tables of docs/figures.md.  What is compared is installed into a folder that is
gone afterwards; seconds are processor time of one thread, which a busy machine disturbs
less than the clock.
"""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import penguins

from packager.store import Store

MIB = 1 << 20
HERE = Path(__file__).resolve().parent
RELEASES = {  # oldest first; the last is the one that is measured
    "deflate": ["0.4.0", "0.5.0", "0.6.1", "0.7.0", "0.8.1", "0.9.0"],
    "zstandard": ["0.19.0", "0.20.0", "0.21.0", "0.22.0", "0.23.0", "0.25.0"],
    "zlib-ng": ["0.3.0", "0.4.3", "0.5.1", "1.0.0", "1.1.0"],
    "isal": ["1.2.0", "1.5.3", "1.6.1", "1.7.2", "1.8.0", "1.9.1"],
}
SPEED = [
    *("libdeflate 6", "libdeflate 1", "libdeflate 9", "libdeflate 12"),
    *("zlib 1", "zlib 6", "zlib 9"),
    *("zlib-ng 1", "zlib-ng 6", "zlib-ng 9"),
    *("isa-l 0", "isa-l 1", "isa-l 3"),
    *("zstd 1", "zstd 3", "zstd 9"),
]
ACROSS = [
    "libdeflate 6",
    "libdeflate 1",
    "libdeflate 12",
    "zlib 6",
    "zlib-ng 6",
    "isa-l 1",
    "zstd 3",
]
CODEC_OF = {
    "deflate": "libdeflate 6",
    "zstandard": "zstd 3",
    "zlib-ng": "zlib-ng 6",
    "isal": "isa-l 1",
}
PROCESSORS = ["Nehalem", "Haswell", "EPYC", "max"]


def main() -> None:
    """Print all tables."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        image = penguins.built(penguins.project(folder), Store()).image
        layers = [layer.blob.path for layer in image.layers if layer.role == "wheels"]
        total = sum(path.stat().st_size for path in layers)
        say(f"{len(layers)} wheel layers of the penguins image, {total / 1e6:.0f} MB; {machine()}")
        measured = [f"{name}=={releases[-1]}" for name, releases in RELEASES.items()]
        libraries = install(folder / "measured", *measured)
        say("", "Speed and size", "", *speed(libraries, layers))
        say("", "Members of a layer (libdeflate 6)", "", *members(libraries, layers))
        small = sample(layers, folder / "sample")
        say("", "The same bytes on other processors?", "", *processors(libraries, small))
        say("", "The same bytes from other releases?", "", *releases(folder / "releases", small))
        say("", "The same bytes from more threads?", "", *threads(libraries, small))


def speed(libraries: Path, layers: Sequence[Path]) -> Iterable[str]:
    """Compare at 4 MiB members, over every third member of the layers."""
    found = run(libraries, layers, SPEED, every=3, rounds=3)
    first = rate(found[SPEED[0]])
    rows = [
        (
            codec,
            f"{rate(one):.0f}",
            f"{rate(one) / first:.2f}",
            f"{one['out'] / one['in']:.4f}",
        )
        for codec, one in found.items()
    ]
    return table(("compressor", "MB/s", f"to {SPEED[0]}", "size left"), rows)


def members(libraries: Path, layers: Sequence[Path]) -> Iterable[str]:
    """Compare sizes of members over whole layers."""
    rows = []
    for size in (1, 4, 16, 0):
        one = run(libraries, layers, ["libdeflate 6"], member=size * MIB)["libdeflate 6"]
        largest = size * MIB or max(path.stat().st_size for path in layers)
        name = f"{size} MiB" if size else "whole layers"
        left = f"{one['out'] / one['in']:.5f}"
        rows.append((name, f"{rate(one):.0f}", left, f"{largest / 1e6:.0f} MB"))
    return table(("members", "MB/s", "size left", "in memory at once"), rows)


def processors(libraries: Path, small: Path) -> Iterable[str]:
    """Compare digests over processors that qemu imitates."""
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None:
        return ["not measured: there is no qemu-x86_64-static"]
    here = run(libraries, [small], ACROSS)
    columns = {
        name: run(libraries, [small], ACROSS, under=[qemu, "-cpu", name]) for name in PROCESSORS
    }
    rows = [
        (codec, *(same(column[codec], here[codec]) for column in columns.values()))
        for codec in ACROSS
    ]
    return table(("compressor", *columns), rows)


def releases(folder: Path, small: Path) -> Iterable[str]:
    """Compare digests over releases: to the newest, and how many kinds of bytes there are."""
    rows = []
    for name, versions in RELEASES.items():
        codec = CODEC_OF[name]
        digests = {
            version: run(
                install(folder / f"{name}-{version}", f"{name}=={version}"), [small], [codec]
            )
            for version in versions
        }
        kinds: dict[str, list[str]] = {}
        for version, found in digests.items():
            kinds.setdefault(found[codec]["digest"], []).append(version)
        rows.append((name, codec, len(kinds), "; ".join(", ".join(one) for one in kinds.values())))
    return table(("package", "compressor", "kinds of bytes", "releases that agree"), rows)


def threads(libraries: Path, small: Path) -> Iterable[str]:
    """Compare digests over the number of threads."""
    codecs = [*ACROSS, "zstd 3 1", "zstd 3 2"]
    one = run(libraries, [small], codecs, member=MIB)
    columns = {
        str(count): run(libraries, [small], codecs, member=MIB, threads=count) for count in (2, 4)
    }
    rows = [
        (codec, *(same(column[codec], one[codec]) for column in columns.values()))
        for codec in ACROSS
    ]
    rows += [
        (f"zstd 3, {count} workers of its own", *[same(one[f"zstd 3 {count}"], one["zstd 3"])] * 2)
        for count in (1, 2)
    ]
    return table(("compressor", *(f"{count} threads" for count in columns)), rows)


def run(
    libraries: Path,
    files: Sequence[Path],
    codecs: Sequence[str],
    *,
    member: int = 4 * MIB,
    every: int = 0,
    rounds: int = 1,
    threads: int = 1,
    under: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Run compress.py in a process of its own."""
    task = {
        "files": [str(path) for path in files],
        "codecs": codecs,
        "member": member,
        "every": every,
        "rounds": rounds,
        "threads": threads,
    }
    done = subprocess.run(
        [*under, sys.executable, str(HERE / "compress.py"), json.dumps(task)],
        env={**os.environ, "PYTHONPATH": str(libraries)},
        check=True,
        stdout=subprocess.PIPE,
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def install(folder: Path, *requirements: str) -> Path:
    """Install wheels where only this benchmark sees them."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary", ":all:", "--target", str(folder)]
    subprocess.run([*pip, *options, *requirements], check=True, stdout=sys.stderr)
    return folder


def sample(layers: Sequence[Path], path: Path) -> Path:
    """Write a little of each layer to a file: an emulated processor is slow."""
    with path.open("wb") as out:
        for layer in layers:
            with layer.open("rb") as stream:
                stream.seek(layer.stat().st_size // 2)
                out.write(stream.read(MIB))
    return path


def rate(found: dict[str, Any]) -> float:
    """Give MB of input per second of one processor."""
    seconds: list[float] = found["seconds"]
    return int(found["in"]) / 1e6 / statistics.median(seconds)


def same(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Compare two digests."""
    return "same" if one["digest"] == other["digest"] else "DIFFERS"


def machine() -> str:
    """Say what this ran on."""
    python = f"CPython {platform.python_version()}, zlib {zlib.ZLIB_RUNTIME_VERSION}"
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, {python}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    """Lay out as Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def say(*lines: str) -> None:
    """Print at once, so that a long run can be watched."""
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
