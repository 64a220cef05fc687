"""pip-compile, with the one change that it takes the sha256 an index states for a file.

Unmodified, it downloads every file of a release, for all systems and Pythons, only to
hash it, wherever the index lacks a second, unstandardised interface: minutes instead of
seconds.  pip refuses a file that does not have the stated hash anyway, so nothing is
trusted that was not before.
"""

from __future__ import annotations

import sys

from pip._internal.exceptions import PipError
from pip._internal.models.link import Link
from piptools.repositories.pypi import PyPIRepository
from piptools.scripts.compile import cli

_hash_by_download = PyPIRepository._get_file_hash


def _stated_hash(self: PyPIRepository, link: Link) -> str:
    if link.hash_name == "sha256" and link.hash:
        return f"sha256:{link.hash}"
    return _hash_by_download(self, link)


if __name__ == "__main__":
    PyPIRepository._get_file_hash = _stated_hash  # type: ignore[method-assign]
    try:
        cli()
    except PipError as error:  # what pip would have printed without a traceback
        sys.exit(f"ERROR: {error}")
