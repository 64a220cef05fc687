"""Names that are taken while their owner lives, so that others can tell what a dead one left.

A lease is a file that its owner keeps locked.  The system lets go of the lock however the
owner ends, SIGKILL included; what bears a name whose lock is free belongs to nobody.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

__all__ = ["Lease", "expired", "runtime_folder"]


class Lease:
    """A name that is taken until `end`, or until the owner's end.

    Parameters
    ----------
    path : Path
        The file to be locked; its name is the lease's.
    wait : bool
        Whether to wait until it is free; otherwise it must be.

    Raises
    ------
    OSError
        When the file cannot be made.
    Timeout
        When its owner lives, and it should not be waited for.
    """

    def __init__(self, path: Path, *, wait: bool = True) -> None:
        self.path, self.name = path, path.name
        self._lock = FileLock(path, thread_local=False)
        self._lock.acquire(blocking=wait)

    def end(self) -> None:
        """Give the name back, the file with it."""
        self.let_go()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def let_go(self) -> None:
        """Leave the name to whoever looks for expired ones."""
        self._lock.release()

    def age(self) -> float:
        """Say how many seconds ago the name was taken."""
        return time.time() - self.path.stat().st_mtime


def expired(folder: Path, pattern: str) -> Iterator[Lease]:
    """Take over, one after the other, the leases whose owners are dead.

    Parameters
    ----------
    folder : Path
        Where leases are kept.
    pattern : str
        Names to look at; ``*`` stands for anything.

    Yields
    ------
    Lease
        To be ended, or let go, by the caller.
    """
    for path in sorted(folder.glob(pattern)):
        with contextlib.suppress(Timeout, OSError):
            yield Lease(path, wait=False)


def runtime_folder() -> Path:
    """Make the folder, one for each user of this host, for leases on what is outside the store.

    Raises
    ------
    OSError
        When it cannot be made.
    """
    with warnings.catch_warnings():
        # Where no login set XDG_RUNTIME_DIR a folder among the temporary ones serves as well.
        warnings.simplefilter("ignore")
        folder = platformdirs.user_runtime_path("packager")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it belongs to another user", str(folder))
    return folder
