"""Which archives this host's own package manager uses: apt's source lists, read.

Formats: sources.list(5), both the one-line style and deb822, and apt-transport-mirror(1)
as far as a list of mirrors is a local file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from debian.deb822 import Deb822

__all__ = ["archives"]

_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)", re.MULTILINE)


def archives(root: Path = Path("/")) -> list[str]:
    """List the archives that apt on this host reads binary packages from.

    Parameters
    ----------
    root : Path, optional
        The root of the file system to look in.

    Returns
    -------
    list of str
        Base addresses (what lies above ``dists/`` and ``pool/``) over HTTP or HTTPS, in
        apt's order, each once, without a trailing slash.  Empty on a host without apt.
    """
    found = (address for uri in _uris(root / "etc/apt") for address in _resolved(uri, root))
    web = (address for address in found if urlsplit(address).scheme in {"http", "https"})
    return list(dict.fromkeys(address.rstrip("/") for address in web))


def _uris(apt: Path) -> Iterator[str]:
    parts = sorted((apt / "sources.list.d").glob("*"))
    for file in (apt / "sources.list", *parts):
        if file.suffix == ".list":
            yield from _ONE_LINE.findall(_text(file))
        elif file.suffix == ".sources":
            yield from _deb822(_text(file).splitlines())


def _deb822(lines: Iterable[str]) -> Iterator[str]:
    for stanza in Deb822.iter_paragraphs(lines):
        enabled = stanza.get("Enabled", "yes").strip().lower() not in {"no", "false", "off", "0"}
        if enabled and "deb" in stanza.get("Types", "").split():
            yield from stanza.get("URIs", "").split()


def _resolved(uri: str, root: Path) -> list[str]:
    # Debian's own cloud images name their mirrors in a file: mirror+file:/etc/apt/mirrors/…
    if not uri.startswith("mirror+file:"):
        return [uri]
    lines = _text(root / urlsplit(uri).path.lstrip("/")).splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
