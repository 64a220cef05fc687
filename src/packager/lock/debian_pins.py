"""What a lock says of a Debian base: every package, named by its bytes.

A lock names bytes and never places: an archive's address enters no pin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from packager.project import BASES, minor

__all__ = ["STAMP", "SUITES", "DebPin", "DebianPins"]

SUITES = {base.removeprefix("debian:"): minor(python) for base, python in BASES.items()}
"""The suites that make a base, each with the version of its CPython."""

STAMP = "%Y%m%dT%H%M%SZ"
"""How Debian's snapshot archive spells times, for `strptime`."""


@dataclass(frozen=True, slots=True)
class DebPin:
    """One `.deb`, named by its bytes.

    Parameters
    ----------
    name, version, architecture : str
        As Debian spells them; the architecture is ``all`` for a package without binaries.
    file : str
        The path below the archive's root, ``pool/main/b/bash/bash_5.2.15-2+b7_amd64.deb``.
    size : int
        Bytes.
    sha256 : str
        In hexadecimal.
    role : {"base", "extra"}
        Whether the default base needs it, or only the project's ``os-packages`` do.
    """

    name: str
    version: str
    architecture: str
    file: str
    size: int
    sha256: str
    role: Literal["base", "extra"]


@dataclass(frozen=True, slots=True)
class DebianPins:
    """A Debian base, byte for byte.

    Parameters
    ----------
    suite : str
        A key of `SUITES`.
    architecture : {"amd64", "arm64"}
        Debian's name of the target's machine.
    timestamp : str
        When the newest part of the archive that was read had been signed, as Debian's
        snapshot archive spells times: ``20261120T143000Z``.
    packages : tuple of DebPin
        Sorted by name.
    """

    suite: str
    architecture: str
    timestamp: str
    packages: tuple[DebPin, ...]
