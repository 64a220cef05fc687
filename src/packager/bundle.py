"""A bundle: the bytes that a lock names, in one file, carried to where there is no network.

An uncompressed tar of blobs, each named by its digest: what it holds is packed already, and the
lock alone says what it is.  Nothing else is in it, so it is a function of the lock.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from packager import local_base
from packager.errors import ClaimError, HostError
from packager.files import replacing
from packager.layers import tar
from packager.layers.tar import Entry, Slice
from packager.lock import lockfile, places
from packager.lock.lockfile import Lock
from packager.project import Project, transport
from packager.reporter import Reporter, human_size
from packager.store import Store, Wanted

__all__ = ["take", "write"]

_FOLDER = "blobs/sha256"


def write(
    project: Project, path: Path, platform: str | None, store: Store, reporter: Reporter
) -> dict[str, Any]:
    """Write a bundle; what the store lacks is fetched.

    Parameters
    ----------
    project : Project
        Whose lock.
    path : Path
        Replaced if it exists.
    platform : str, optional
        The one it is to serve; by default all that the lock was made for.
    store : Store
        Where bytes come from.
    reporter : Reporter
        Gets a row.

    Returns
    -------
    dict
        What was written, ready for JSON.

    Raises
    ------
    PackagerError
        When the lock is stale or not for this platform, when something cannot be fetched, or
        the file not be written.
    """
    lock = lockfile.for_image(project, platform)
    platforms = [platform] if platform else lock.platforms
    named = _named(project, lock, platforms, store)
    with replacing(path) as out:  # before anything is fetched for a place that cannot be written
        if transport(project.base)[0]:
            for one in lock.platforms:
                local_base.bring(project, one, lock.images[one], store)
        blobs = store.fetch(named.values())
        reporter.begin("bundle", str(path))
        entries = [
            Entry(
                f"{_FOLDER}/{sha256}",
                size=blob.size,
                open=partial(Slice.open, blob.path, 0, blob.size),
                owner=named[sha256].label,
                sha256=sha256,
                promise="the lock",
            )
            for sha256, blob in blobs.items()
        ]
        tar.write(tar.merge(entries), out)
    size = path.stat().st_size
    what = f"{len(entries)} files for {', '.join(platforms)}"
    reporter.row("bundle", what, human_size(size), "written")
    return {"bundle": str(path), "files": len(entries), "size": size, "platforms": platforms}


def take(project: Project, path: Path, store: Store, reporter: Reporter) -> None:
    """Take what the lock names, and the store lacks, out of a bundle.

    Parameters
    ----------
    project : Project
        Whose lock.
    path : Path
        The bundle; nothing in it is believed.
    store : Store
        Gets the bytes.
    reporter : Reporter
        Gets a row.

    Raises
    ------
    ClaimError
        When it is damaged, or holds other bytes than the lock names.
    HostError
        When it cannot be read, or the store not be written.
    """
    lock = lockfile.read(project.root)
    named = _named(project, lock, lock.platforms, store)
    reporter.begin("bundle", str(path))
    found, taken = 0, []
    try:
        for member in tar.members(path, str(path)):
            sha256 = member.name.removeprefix(f"{_FOLDER}/")
            found += sha256 in named
            if sha256 not in named or store.get(sha256):
                continue
            with Slice.open(path, member.offset_data, member.size) as stream:
                blob = store.add(partial(shutil.copyfileobj, stream))
            if blob.sha256 != sha256:
                raise ClaimError(
                    f"holds other bytes than the lock names: sha256 {blob.sha256}",
                    where=f"{path}: {named[sha256].label}",
                    hint="It was damaged on its way, or changed; carry it anew.",
                )
            taken.append(blob.size)
    except OSError as error:
        raise HostError(f"cannot be read: {error.strerror}", where=str(path)) from None
    what = f"{found} of the lock's {len(named)} files"
    reporter.row("bundle", what, human_size(sum(taken)), f"{len(taken)} taken")


def _named(
    project: Project, lock: Lock, platforms: Iterable[str], store: Store
) -> dict[str, Wanted]:
    """List what a lock names, by hex digest; platforms share some of it.

    All bases are in it: the Python of the machine's own makes the bytecode of all images.
    """
    wanted = [one for name in platforms for one in places.wanted(project, lock, name, store)]
    bases = [one for name in lock.platforms for one in places.base(project, lock, name, store)]
    return {one.sha256: one for one in [*wanted, *bases]}
