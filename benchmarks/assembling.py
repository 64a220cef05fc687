"""Measure how wheels become layers, against GNU tar and sha256sum of the same files, unpacked.

Takes the folder of a locked project whose wheels are in the store; without one, the penguins.
"""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

import penguins
from measure import ratio, spread

from packager.layers import tar
from packager.layers.site import Site
from packager.layers.tar import Entry
from packager.layers.wheel import wheel_entries
from packager.lock import lockfile
from packager.store import Store

ROUNDS = 9
PLATFORM = "linux/amd64"
SITE = Site.debian("3.11")
FLOOR, QUICKER = "GNU tar, then sha256sum", "GNU tar, then OpenSSL's SHA-256"

Wheel = tuple[str, Path]


def main() -> None:
    """Print all tables."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheels = list(locked(folder))
        packed = sum(path.stat().st_size for _, path in wheels)
        assemble(wheels, folder, 1)
        tree = unpacked(folder)
        layers = sum(path.stat().st_size for path in folder.glob("*.tar"))
        print(
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, "
            f"CPython {platform.python_version()}: {len(wheels)} wheels of {packed / 1e6:.0f} MB "
            f"make {layers / 1e6:.0f} MB of layers\n"
        )
        print(*compared(wheels, folder, tree), sep="\n")
        print("", *split(wheels, folder), sep="\n")


def locked(scratch: Path) -> Iterator[Wheel]:
    """Find the wheels of the project, largest first, so that two threads end at about one time."""
    if len(sys.argv) > 1:
        root = Path(sys.argv[1])
    else:
        root = penguins.project(scratch)
        penguins.built(root, Store())
    store = Store()
    pins = lockfile.read(root).wheels_for(PLATFORM)
    for pin in sorted(pins, key=lambda pin: -pin.size):
        blob = store.get(pin.sha256)
        if blob is None:
            sys.exit(f"{pin.file} is not in the store: build the project first")
        yield pin.file, blob.path


def compared(wheels: list[Wheel], folder: Path, tree: Path) -> Iterable[str]:
    """Time all ways in turn, so that whatever else the machine does hits all alike."""
    ways: dict[str, Callable[[], object]] = {
        FLOOR: partial(by_hand, tree, sha256sum),
        QUICKER: partial(by_hand, tree, openssl),
        "packager, one thread": partial(assemble, wheels, folder, 1),
        "packager, two threads": partial(assemble, wheels, folder, 2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            os.sync()  # what others left to be written is not this one's to pay
            begin = time.monotonic()
            way()
            seconds[name].append(time.monotonic() - begin)
    yield f"| {ROUNDS} rounds, in turn | median | quickest | slowest | ÷ sha256sum | ÷ OpenSSL |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, taken in seconds.items():
        took = spread(taken)
        times = f"{took.median:.2f} s | {took.least:.2f} s | {took.most:.2f} s"
        ratios = [ratio(taken, seconds[floor]).median for floor in (FLOOR, QUICKER)]
        yield f"| {name} | {times} | {ratios[0]:.2f} | {ratios[1]:.2f} |"


def assemble(wheels: list[Wheel], folder: Path, threads: int) -> None:
    """Make a layer of each wheel."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(partial(layer, folder), wheels))


def layer(folder: Path, wheel: Wheel) -> str:
    """Write one as the store does, hashing what is written; give its digest."""
    digest = hashlib.sha256()
    with (folder / f"{wheel[0]}.tar").open("wb") as out:
        for chunk in tar.chunks(tar.merge(entries(wheel))):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def entries(wheel: Wheel) -> list[Entry]:
    """Read what is in a wheel, but for the contents."""
    file, path = wheel
    return wheel_entries(path, file, SITE)


def unpacked(folder: Path) -> Path:
    """Unpack all layers into one tree; each is read once, so that the page cache holds it."""
    tree = folder / "tree"
    tree.mkdir()
    for path in folder.glob("*.tar"):
        subprocess.run(["tar", "-xf", path, "-C", tree], check=True)
    return tree


def by_hand(tree: Path, digest: Callable[[Path], object]) -> None:
    """Pack the tree and hash what came of it."""
    packed = tree.with_name("by-hand")
    subprocess.run(["tar", "-cf", packed, "-C", tree, "."], check=True)
    digest(packed)


def sha256sum(path: Path) -> None:
    """Hash with coreutils' tool, which uses the processor's own instructions only if built so."""
    subprocess.run(["sha256sum", path], check=True, stdout=subprocess.DEVNULL)


def openssl(path: Path) -> None:
    """Hash with the library that Python and packager use."""
    with path.open("rb") as stream:
        hashlib.file_digest(stream, "sha256")


def split(wheels: list[Wheel], folder: Path) -> Iterable[str]:
    """Say what the processor's time goes to, in one thread."""
    seconds: Counter[str] = Counter()

    @contextlib.contextmanager
    def timed(what: str) -> Iterator[None]:
        begin = time.thread_time()
        yield
        seconds[what] += time.thread_time() - begin

    for wheel in wheels:
        with timed("tables of contents, RECORDs"):
            found = entries(wheel)
        with timed("checking and sorting paths, adding folders"):
            merged = tar.merge(found)
        with timed("reading and inflating"):
            read(merged)
        with (folder / f"{wheel[0]}.tar").open("wb") as out, timed("making the tar"):
            written(merged, out, timed)
    # What making the tar does besides what is listed by itself.
    inner = ("reading and inflating", "hashing the layer", "writing")
    seconds["hashing each file for RECORD, headers"] = seconds.pop("making the tar") - sum(
        seconds[what] for what in inner
    )
    total = seconds.total()
    yield "| what one thread does | seconds of processor | share |"
    yield "| --- | --- | --- |"
    for what, took in seconds.most_common():
        yield f"| {what} | {took:.2f} | {took / total:.0%} |"
    yield f"| all | {total:.2f} | |"


def read(merged: Iterable[Entry]) -> None:
    """Read all contents, and do nothing with them."""
    for entry in merged:
        if entry.open is not None:
            with entry.open() as stream:
                while stream.read(1 << 20):
                    pass


def written(
    merged: Iterable[Entry],
    out: IO[bytes],
    timed: Callable[[str], contextlib.AbstractContextManager[None]],
) -> None:
    """Write a layer, and time what is done to its bytes when they are ready."""
    digest = hashlib.sha256()
    for chunk in tar.chunks(merged):
        with timed("hashing the layer"):
            digest.update(chunk)
        with timed("writing"):
            out.write(chunk)


if __name__ == "__main__":
    main()
