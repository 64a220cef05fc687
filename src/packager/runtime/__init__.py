"""What runs inside the image, as files: the host side copies them and never runs them."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

__all__ = ["digest", "files"]


@functools.cache
def files() -> tuple[tuple[str, bytes], ...]:
    """Read the modules of `packager_runtime`.

    Returns
    -------
    tuple of (str, bytes)
        Path below the package's folder, with ``/`` between parts, and content; sorted by path.
    """
    folder = Path(__file__).parent / "packager_runtime"
    # A checkout on Windows may have turned line ends around; the image must not notice.
    found = sorted(
        (path.relative_to(folder).as_posix(), path.read_bytes().replace(b"\r\n", b"\n"))
        for path in folder.rglob("*.py")
    )
    return tuple(found)


@functools.cache
def digest() -> str:
    """Name the content of `files`, by the rule that also names a model that is a folder.

    Returns
    -------
    str
        ``sha256:`` and the hash of the lines ``<sha256>  <path>``.
    """
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in files())
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
