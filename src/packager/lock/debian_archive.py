"""One suite of Debian's archive, believed only down a verified chain.

InRelease is signed by a key of that very suite (OpenPGP), names the digest of
Packages.xz, and that names the digest of every package.  The format is the Debian
Repository Format; the keys travel with packager (``packager/keys``).
"""

from __future__ import annotations

import hashlib
import lzma
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import resources

import pysequoia
import requests

from packager.errors import ClaimError, HostError, UsageError, without_credentials
from packager.net import reasons

__all__ = ["SNAPSHOT", "Release", "find_release", "packages"]

SNAPSHOT = "https://snapshot.debian.org/archive"
"""Debian's archive of every past state of itself: the one address that packager holds."""

_TIMEOUT = (15, 60)
_MOST_INDEX = 64 << 20  # the largest of Debian's, compressed, is 9 MB
_FIX_MIRROR = (
    "Check `debian-mirror` in [tool.packager], or this host's apt sources; "
    "a stale or tampered mirror is never used."
)


@dataclass(frozen=True, slots=True)
class Release:
    """A suite's verified release file, and the archive that it came from.

    Parameters
    ----------
    archive : str
        Base address, what lies above ``dists/``.
    suite : str
        ``bookworm``, ``bookworm-updates``, ``bookworm-security``.
    date : datetime
        When Debian signed this state of the suite.
    text : str
        The signed text.
    """

    archive: str
    suite: str
    date: datetime
    text: str


def find_release(
    suite: str, archives: Iterable[str], *, chosen: str = "", session: requests.Session
) -> Release:
    """Find the first archive that has a suite of Debian, and verify its release file.

    Parameters
    ----------
    suite : str
        The suite's code name, with ``-updates`` or ``-security`` where it is meant.
    archives : iterable of str
        Base addresses in order of preference.  An archive that is out of reach or has no
        such suite is passed over; one that has it, and is wrong, is refused.
    chosen : str, optional
        The one of them that the user chose: there another distribution is an error too.
    session : requests.Session
        Knows proxies and certificate authorities.

    Returns
    -------
    Release

    Raises
    ------
    ClaimError
        When the signature is not one of the suite's keys, or the file is another suite's.
    UsageError
        When the archive the user chose holds another distribution.
    HostError
        When the release file has expired, or no archive has the suite.
    """
    passed = []
    for archive in archives:
        address = f"{archive}/dists/{suite}/InRelease"
        try:
            inrelease = _get(session, address)
        except HostError as error:
            passed.append(str(error))
            continue
        origin = _field(inrelease.decode("utf-8", "replace"), "Origin")
        if origin == "Debian":
            return _verified(archive, suite, inrelease)
        if archive == chosen:
            raise UsageError(
                f"this is {origin or 'no distribution'}'s archive, not Debian's",
                where=without_credentials(address),
                hint="Let `debian-mirror` in [tool.packager] name a mirror of Debian.",
            )
        passed.append(
            f"{without_credentials(address)}: the archive of {origin or 'nobody'}, not Debian's"
        )
    raise HostError(
        f"no archive in reach has {suite}:\n  " + "\n  ".join(passed),
        hint="Set `debian-mirror` in [tool.packager] to a mirror of Debian that this host reaches.",
    )


def packages(release: Release, architecture: str, *, session: requests.Session) -> bytes:
    """Download a suite's list of packages and check it against the release file.

    Parameters
    ----------
    release : Release
        As `find_release` returns it.
    architecture : str
        Debian's name of it: ``amd64``, ``arm64``.
    session : requests.Session
        Knows proxies and certificate authorities.

    Returns
    -------
    bytes
        The stanzas of component ``main``.

    Raises
    ------
    ClaimError
        When the list's digest is not the one that the release file names.
    HostError
        When the list cannot be had.
    """
    folder = f"main/binary-{architecture}"
    row = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {folder}/Packages\.xz$", release.text, re.MULTILINE)
    if row is None:
        raise HostError(
            f"{release.suite} has no packages for {architecture}",
            where=without_credentials(release.archive),
        )
    base = f"{release.archive}/dists/{release.suite}/{folder}"
    by_hash = _field(release.text, "Acquire-By-Hash") == "yes"
    address = f"{base}/by-hash/SHA256/{row[1]}" if by_hash else f"{base}/Packages.xz"
    listing = _get(session, address)
    if hashlib.sha256(listing).hexdigest() != row[1]:
        raise ClaimError(
            f"the list of packages is not the one that {release.suite}'s release file names "
            f"(sha256 {row[1]})",
            where=without_credentials(address),
            hint=_FIX_MIRROR,
        )
    return lzma.decompress(listing)


def _verified(archive: str, suite: str, inrelease: bytes) -> Release:
    address = f"{archive}/dists/{suite}/InRelease"
    keys = _keys(suite)
    try:
        signed = pysequoia.verify(inrelease, store=lambda _ids: keys)
    except (RuntimeError, ValueError, OSError) as error:
        raise ClaimError(
            f"no key of {suite} signed this release file",
            where=without_credentials(address),
            hint=_FIX_MIRROR,
        ) from error
    # Only what was signed is read from here on: the armour may enclose more than that.
    assert signed.bytes is not None
    text = signed.bytes.decode("utf-8").replace("\r\n", "\n")
    if _field(text, "Codename") != suite:
        raise ClaimError(
            f"this is the release file of {_field(text, 'Codename')}, not of {suite}",
            where=without_credentials(address),
            hint=_FIX_MIRROR,
        )
    until = _field(text, "Valid-Until")
    if until and _moment(until, address) < datetime.now(UTC) and not _is_past(archive):
        raise HostError(
            f"the release file of {suite} expired on {until}",
            where=without_credentials(address),
            hint=_FIX_MIRROR,
        )
    return Release(archive, suite, _moment(_field(text, "Date"), address), text)


def _moment(text: str, address: str) -> datetime:
    try:
        moment = parsedate_to_datetime(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (OverflowError, ValueError):
        raise ClaimError(
            f"{text!a} in its release file is no time", where=without_credentials(address)
        ) from None


def _keys(suite: str) -> list[pysequoia.Cert]:
    name, _, part = suite.partition("-")
    kinds = ["security-automatic"] if part == "security" else ["automatic", "stable"]
    folder = resources.files("packager") / "keys"
    files = [folder / f"debian-archive-{name}-{kind}.gpg" for kind in kinds]
    return [cert for file in files for cert in pysequoia.Cert.split_bytes(file.read_bytes())]


def _is_past(archive: str) -> bool:
    # A past state is expired by nature; what is locked from it was asked for by its time.
    return archive.partition("://")[2].startswith(SNAPSHOT.partition("://")[2])


def _field(release: str, name: str) -> str:
    found = re.search(rf"^{name}:(.*)$", release, re.MULTILINE)
    return found[1].strip() if found else ""


def _get(session: requests.Session, address: str) -> bytes:
    try:
        response = session.get(address, timeout=_TIMEOUT, stream=True)
        data = b"".join(_no_more_than(_MOST_INDEX, response))
    except requests.RequestException as error:
        raise HostError(
            f"out of reach: {reasons(error)}", where=without_credentials(address)
        ) from error
    if response.status_code != requests.codes.ok:
        raise HostError(
            f"answers {response.status_code} {response.reason}", where=without_credentials(address)
        )
    return data


def _no_more_than(most: int, response: requests.Response) -> Iterator[bytes]:
    size = 0
    for chunk in response.iter_content(1 << 20):
        size += len(chunk)
        if size > most:
            raise HostError(
                f"sends more than {most} bytes", where=without_credentials(response.url)
            )
        yield chunk
