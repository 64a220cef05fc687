"""What takes long to begin with, begun before it is known whether anything must be fetched."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from packager import aside
from packager.errors import HostError
from packager.lock import lockfile
from packager.store import Store

__all__ = ["begin", "note_complete"]

_KIND = "complete"


def begin(root: Path, store: Store) -> None:
    """Get ready to fetch, if one may and the store was not seen to have all that a lock names.

    To find out what is missing takes a while, and so do pip's settings, the network's
    libraries and the certificates that they trust: none of them needs the others.

    Parameters
    ----------
    root : Path
        The repository.
    store : Store
        What was noted in it.
    """
    if not (store.offline or store.note(_KIND, _key(root))):
        from packager import pip

        pip.ask()
        aside.begin(lambda: store.session)


def note_complete(root: Path, store: Store) -> None:
    """Note that the store has all that a repository's lock names."""
    with suppress(HostError):  # it saves time, nothing else
        store.write_note(_KIND, _key(root), value=True)


def _key(root: Path) -> str:
    with suppress(OSError):
        return hashlib.sha256((root / lockfile.FILE).read_bytes()).hexdigest()
    return "none"
