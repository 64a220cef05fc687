"""Pinned and hashed requirements files, as `packager lock` writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from packager.errors import ClaimError

__all__ = ["HEADER", "Pinned", "is_ours", "read_requirements"]

# Packaging's own parser takes longer to import than such a file to read.
_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\[\]]*\]\s*)?"
    r"==\s*(?P<version>[A-Za-z0-9.!+_-]+)\s*(?:;.*)?"
)

_OTHERS = ("#", "--find-links ")  # the folder of the wheels that packager built

HEADER = """\
# Pinned by `packager lock` from {what} for CPython {python} on {platform}.
# Not meant to be edited: change pyproject.toml and run `packager lock` again.
"""


@dataclass(frozen=True, slots=True)
class Pinned:
    """One requirement of a pinned file, with every hash that its line allows."""

    name: str
    version: str
    hashes: frozenset[str]


def is_ours(path: Path) -> bool:
    """Tell whether a requirements file is one that `packager lock` wrote."""
    return path.exists() and path.read_bytes().startswith(HEADER.partition("{")[0].encode())


def read_requirements(data: bytes, file: str) -> list[Pinned]:
    """Read a pinned and hashed requirements file, as `resolve` makes it.

    Parameters
    ----------
    data : bytes
        Its content.
    file : str
        Its name, for messages.

    Raises
    ------
    ClaimError
        When a line is not pinned by ``==`` and hashed.
    """
    joined = re.sub(r"\\\r?\n", " ", data.decode("utf-8", "replace"))
    lines = (line.partition(" #")[0].strip() for line in joined.splitlines())
    return [_pinned(line, file) for line in lines if line and not line.startswith(_OTHERS)]


def _pinned(line: str, file: str) -> Pinned:
    text, *hashes = line.split("--hash=sha256:")
    found = _PIN.fullmatch(text.strip())
    if found is None or not hashes or not _is_version(found["version"]):
        raise ClaimError(
            f"{line[:60]!r} is not pinned and hashed", where=file, hint="Run packager lock again."
        )
    name = canonicalize_name(found["name"])
    return Pinned(name, found["version"], frozenset(one.strip() for one in hashes))


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except ValueError:
        return False
    return True
