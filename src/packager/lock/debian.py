"""Names of Debian packages → the exact `.deb` files that make a base, and where they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import requests

from packager.errors import UsageError
from packager.lock import apt_sources
from packager.lock.debian_archive import SNAPSHOT, find_release, packages
from packager.lock.debian_index import Index, Package, closure, refuse_conflicts, refuse_unmet
from packager.lock.debian_pins import STAMP, SUITES, DebianPins, DebPin

__all__ = ["places", "resolve"]

_ARCHITECTURES = ("amd64", "arm64")


def resolve(
    suite: str,
    architecture: str,
    os_packages: Sequence[str],
    *,
    session: requests.Session,
    mirror: str = "",
    timestamp: str = "",
    installed: Mapping[str, Package] | None = None,
) -> DebianPins:
    """Find the newest packages that make a base, or go on top of one, down a verified chain.

    The suite, its ``-updates`` and its ``-security`` are read from the first place that has
    them: `mirror`, what apt on this host uses, Debian's snapshot archive.

    Parameters
    ----------
    suite : str
        A key of `SUITES`.
    architecture : {"amd64", "arm64"}
        Debian's name of the target's machine.
    os_packages : sequence of str
        Packages that the project wants beside the default ones.
    session : requests.Session
        Knows proxies and certificate authorities.
    mirror : str, optional
        A mirror's address, what lies above ``dists/``; the security archive is sought
        beside it, as ``debian-security`` beside ``debian``.
    timestamp : str, optional
        A moment, spelt as in `DebianPins`: then only the snapshot archive is read, as it
        was at that moment.
    installed : mapping of str to Package, optional
        What a base has that is an image; then only what is missing is found.

    Returns
    -------
    DebianPins

    Raises
    ------
    UsageError
        When a name is unknown, packages exclude each other, an installed one is too old or too
        new, or `mirror` is not Debian's.
    ClaimError
        When a signature or a digest is wrong.
    HostError
        When no archive is in reach, or one has expired.
    """
    if suite not in SUITES or architecture not in _ARCHITECTURES:
        raise UsageError(
            f"no base is made of debian:{suite} for {architecture}",
            where="pyproject.toml, [tool.packager] base",
            hint=f"Known are {', '.join(f'debian:{name}' for name in SUITES)} "
            f"for {' and '.join(_ARCHITECTURES)}.",
        )
    releases = []
    for part in ("", "-updates", "-security"):
        security = part == "-security"
        near = _near(mirror, security=security)
        past = _snapshot(timestamp or datetime.now(UTC).strftime(STAMP), security=security)
        releases.append(
            find_release(
                suite + part,
                [past] if timestamp else [*near, past],
                chosen=_beside(mirror, security=security),
                session=session,
            )
        )
    index = Index(packages(release, architecture, session=session) for release in releases)
    base = closure(index, _default(SUITES[suite]), {}) if installed is None else installed
    found = closure(index, os_packages, base)
    refuse_conflicts(found)
    if installed is not None:
        found = {name: found[name] for name in found if name not in installed}
        refuse_unmet(found, installed)
    return DebianPins(
        suite,
        architecture,
        max(release.date for release in releases).strftime(STAMP),
        tuple(_pin(found[name], "base" if name in base else "extra") for name in sorted(found)),
    )


def places(pin: DebPin, pins: DebianPins, *, mirror: str = "") -> list[str]:
    """List the addresses at which a package may be found, best first.

    Parameters
    ----------
    pin : DebPin
        The package.
    pins : DebianPins
        What it is a part of.
    mirror : str, optional
        As for `resolve`.

    Returns
    -------
    list of str
        Addresses on `mirror`, on the archives that apt on this host uses, and on Debian's
        snapshot archive at the locked time.
    """
    security = pin.file.startswith("pool/updates/")
    # The snapshot archive records a state some hours after it was signed, and Debian's pool
    # keeps what was superseded for more than a day: so a day later everything is there.
    signed = datetime.strptime(pins.timestamp, STAMP).replace(tzinfo=UTC)
    past = _snapshot((signed + timedelta(days=1)).strftime(STAMP), security=security)
    return [f"{archive}/{pin.file}" for archive in (*_near(mirror, security=security), past)]


def _near(mirror: str, *, security: bool) -> list[str]:
    # An archive that apt uses may hold either part; the likelier ones are asked first.  Where
    # a host lists no security archive, its mirror often has one beside the main one.
    apt = sorted(apt_sources.archives(), key=lambda archive: ("security" in archive) != security)
    beside = [_beside(archive, security=security) for archive in apt]
    return [
        place
        for place in dict.fromkeys([_beside(mirror, security=security), *apt, *beside])
        if place
    ]


def _beside(mirror: str, *, security: bool) -> str:
    mirror = mirror.rstrip("/")
    if not security:
        return mirror
    beside, found = re.subn(r"/debian(?=/|$)", "/debian-security", mirror)
    return beside if found else ""


def _snapshot(moment: str, *, security: bool) -> str:
    return f"{SNAPSHOT}/{'debian-security' if security else 'debian'}/{moment}"


def _default(python: str) -> list[str]:
    """Name the packages of the default base; their dependencies follow from them."""
    return [
        "python3-minimal",
        f"libpython{python}-stdlib",
        "python3",
        "ca-certificates",
        "base-files",
        "netbase",
        "tzdata",
        "bash",
        "coreutils",
        "libstdc++6",
        # A shell, and what `ctypes.util.find_library` and the locale C.UTF-8 are made of.
        "dash",
        "libc-bin",
        "sed",
        "grep",
    ]


def _pin(package: Package, role: Literal["base", "extra"]) -> DebPin:
    fields = package.fields
    return DebPin(
        package.name,
        str(package.version),
        fields["Architecture"],
        fields["Filename"],
        int(fields["Size"]),
        fields["SHA256"],
        role,
    )
