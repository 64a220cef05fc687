"""A distribution that is offered as source alone: the sdist that pip would build, by its hash."""

from __future__ import annotations

import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from packager.errors import HostError, UsageError
from packager.lock.indexes import Found, Indexes
from packager.project import SDIST

__all__ = ["choose", "way_out"]

_SUFFIXES = (".tar.gz", ".zip")
# What pip and uv say of a distribution that has no wheel for the target.
_WITHOUT = re.compile(
    r"(?:No matching distribution found for |Wheels are required for `)([A-Za-z0-9][\w.-]*)"
)


def choose(name: str, wanted: SpecifierSet, python: str, indexes: Indexes) -> Found:
    """Choose the newest sdist of a distribution that fits.

    Parameters
    ----------
    name : str
        Normalised.
    wanted : SpecifierSet
        The versions that the project takes.
    python : str
        The target's, to the last number.
    indexes : Indexes
        Where to look.

    Raises
    ------
    UsageError
        When there is none.
    HostError
        When an index cannot be asked, or does not state the hash.
    """
    files = [file for file in indexes.files(name) if file.file.endswith(_SUFFIXES)]
    versions = {file: version for file in files if (version := _fits(file, wanted, python))}
    if not versions:
        others = f"; there is {files[-1].file}" if files else ""
        raise UsageError(
            f"no sdist of {name}{wanted} for Python {python} is in an index{others}",
            where=f"pyproject.toml: tool.packager.build-from.{name}",
        )
    best = max(wanted.filter(versions.values()))
    found = next(file for file, version in versions.items() if version == best)
    if found.sha256 is None:
        raise HostError(
            "its place states no sha256",
            where=found.file,
            hint="Use an index that states hashes (PEP 503 or 691).",
        )
    return found


def _fits(file: Found, wanted: SpecifierSet, python: str) -> Version | None:
    try:
        version = Version(file.version or "")
        runs = SpecifierSet(file.requires).contains(python, prereleases=True)
    except (InvalidVersion, InvalidSpecifier):
        return None
    fits = runs and not file.yanked and wanted.contains(version, prereleases=True)
    return version if fits else None


def way_out(said: str, indexes: Indexes) -> str:
    """Say how a distribution can be had that a resolver missed a wheel of; nothing, if it cannot.

    Parameters
    ----------
    said : str
        The resolver's last words.
    indexes : Indexes
        Where to look for an sdist.

    Raises
    ------
    HostError
        As for `choose`.
    """
    for name in map(canonicalize_name, _WITHOUT.findall(said)):
        if any(file.file.endswith(_SUFFIXES) for file in indexes.files(name)):
            return (
                f'{name} is offered as source: with {name} = "{SDIST}" in '
                "[tool.packager.build-from], packager lock builds its wheel."
            )
    return ""
