"""What an image has of Debian: its release, and the packages that it says are installed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from debian.deb822 import Deb822
from debian.debian_support import Version

from packager.errors import ClaimError
from packager.layers.tar import MOST_TEXT, Entry
from packager.lock.debian_index import WHERE, Package
from packager.lock.debian_pins import SUITES

__all__ = ["installed", "suite"]

_RELEASE = ("usr/lib/os-release", "etc/os-release")
_DATABASE = "var/lib/dpkg/status"
_RECORDS = "var/lib/dpkg/status.d/"  # of images that have no dpkg


def suite(found: Mapping[str, Entry], base: str) -> str:
    """Name the release of Debian that a base is made of.

    Parameters
    ----------
    found : mapping of str to Entry
        From `image_root.entries`.
    base : str
        Its name, for messages.

    Raises
    ------
    ClaimError
        When it is no Debian, or a release that packages are not added to.
    """
    text = next((_text(found[path]) for path in _RELEASE if path in found), "")
    said: dict[str, str] = dict(re.findall(r"^(\w+)=[\"']?([^\"'\n]*)", text, re.MULTILINE))
    name = f"{said.get('ID', 'nothing')} {said.get('VERSION_CODENAME', '')}".strip()
    if said.get("ID") == "debian" and said.get("VERSION_CODENAME") in SUITES:
        return said["VERSION_CODENAME"]
    raise ClaimError(
        f"{base} is {name}, by its os-release, and packages can be added to Debian "
        f"{' and '.join(SUITES)}",
        where=WHERE,
        hint="Use an image that has the packages.",
    )


def installed(found: Mapping[str, Entry], base: str) -> dict[str, Package]:
    """List the packages of a base, by their names.

    Parameters
    ----------
    found, base
        As for `suite`.

    Raises
    ------
    ClaimError
        When it does not say, or not in Debian's words.
    """
    try:
        packages = {one["Package"]: one for one in _stanzas(found)}
        made = {
            name: Package(name, Version(fields["Version"]), fields)
            for name, fields in packages.items()
        }
    except (KeyError, ValueError) as error:
        raise ClaimError(
            f"{base} has a list of packages that is damaged: {error}", where=WHERE
        ) from None
    if not made:
        raise ClaimError(f"{base} does not say which packages it has", where=WHERE)
    return made


def _stanzas(found: Mapping[str, Entry]) -> Iterator[Deb822]:
    for path, entry in found.items():
        if path == _DATABASE or (path.startswith(_RECORDS) and not path.endswith(".md5sums")):
            for stanza in Deb822.iter_paragraphs(_text(entry), use_apt_pkg=False):
                # In the records of images without dpkg, there is no status.
                if stanza.get("Status", "ok installed").endswith("ok installed"):
                    yield stanza


def _text(entry: Entry) -> str:
    if entry.open is None:
        return ""
    with entry.open() as stream:
        return stream.read(MOST_TEXT).decode("utf-8", "replace")
