"""Where an image's Python looks for packages, and what an installation writes beside them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from packager.project import Target, minor

__all__ = ["Site", "record_file", "record_row", "script"]


@dataclass(frozen=True, slots=True)
class Site:
    """Where Python packages live in an image (the paths of an installation scheme)."""

    python: str
    packages: str
    prefix: str

    @classmethod
    def debian(cls, version: str) -> Site:
        """Where Debian's own Python looks for packages that are not Debian's."""
        return cls(
            f"/usr/bin/python{version}", f"usr/local/lib/python{version}/dist-packages", "usr/local"
        )

    @classmethod
    def of(cls, target: Target) -> Site:
        """Where a base's Python looks: Debian's own, or one that was built into /usr/local."""
        version = minor(target.python)
        if target.prefix == "usr":
            return cls.debian(version)
        folder = f"{target.prefix}/lib/python{version}/site-packages"
        return cls(f"/{target.prefix}/bin/python{version}", folder, target.prefix)

    def folder(self, scheme: str, distribution: str) -> str:
        """Give the folder of one of the schemes that a wheel may use."""
        if scheme == "headers":
            return f"{self.prefix}/include/{posixpath.basename(self.python)}/{distribution}"
        return {
            "purelib": self.packages,
            "platlib": self.packages,
            "scripts": f"{self.prefix}/bin",
            "data": self.prefix,
        }[scheme]


def script(site: Site, module: str, attribute: str) -> bytes:
    """Write the script of an entry point."""
    first = attribute.partition(".")[0]
    return (
        f"#!{site.python}\n"
        f"import sys\n\nfrom {module} import {first}\n\n"
        f'if __name__ == "__main__":\n    sys.exit({attribute}())\n'
    ).encode()


def record_file(rows: Iterable[tuple[str, str, str]]) -> bytes:
    """Write a RECORD (path, hash, size), sorted by path."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(rows))
    return text.getvalue().encode()


def record_row(path: str, data: bytes) -> tuple[str, str, str]:
    """Make the row of RECORD for a file whose bytes are at hand."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return path, f"sha256={digest}", str(len(data))
