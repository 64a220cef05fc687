"""An index on loopback: made-up wheels, and the one of PyTorch, at the speed of the disk."""

from __future__ import annotations

import base64
import hashlib
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import measure

_FILES, _SIZE = 40, 5_000


def names(count: int) -> tuple[str, ...]:
    """Name the first so many made-up packages."""
    return tuple(f"made-up-{number:03}" for number in range(count))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder of indexes, and give its address."""
    folder.mkdir(parents=True, exist_ok=True)
    words: list[str | Path] = [
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        folder,
    ]
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        # Serving HTTP on 127.0.0.1 port 40001 (http://127.0.0.1:40001/) ...
        address = server.stdout.readline().partition("(")[2].partition("/)")[0]
        try:
            yield address
        finally:
            server.terminate()


def make_up(folder: Path, count: int) -> None:
    """Write an index of made-up wheels, each of some modules."""
    for name in names(count):
        module = name.replace("-", "_")
        wheel = folder / name / f"{module}-1.0-py3-none-any.whl"
        if not wheel.exists():
            wheel.parent.mkdir(parents=True, exist_ok=True)
            _write_wheel(wheel, module, name)
            _write_page(wheel)


def fetch(folder: Path, requirement: str) -> None:
    """Write an index that has one package, got from where pip finds it."""
    target = folder / requirement.partition("==")[0]
    if not list(target.glob("*.whl")):
        quiet = ("--quiet", "--no-deps", "--disable-pip-version-check")
        measure.run([sys.executable, "-m", "pip", "download", *quiet, "-d", target, requirement])
    (wheel,) = target.glob("*.whl")
    _write_page(wheel)


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _write_page(wheel: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    link = f'<a href="{wheel.name.replace("+", "%2B")}#sha256={digest}">{wheel.name}</a>'
    (wheel.parent / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")


def _write_wheel(path: Path, module: str, name: str) -> None:
    numbers = random.Random(module)  # noqa: S311 - content that compresses like content
    info = f"{module}-1.0.dist-info"
    members = {f"{module}/__init__.py": b""}
    for count in range(_FILES):
        lines = (f"n{number} = {numbers.random()}\n" for number in range(_SIZE // 28))
        members[f"{module}/module_{count}.py"] = "".join(lines).encode()
    members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    members[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: benchmark\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = f"{info}/RECORD"
    rows = [f"{one},sha256={_digest(data)},{len(data)}" for one, data in members.items()]
    members[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(member), data, zipfile.ZIP_DEFLATED)
