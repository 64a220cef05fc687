"""A file system of the benchmark's own, as distributions make them: ext4 with a journal, in a file.

Cases start from empty caches, so thousands of files have just been deleted.  An ext4 without a
journal, as some virtual machines have it, looks at each of them before it makes a new one, for
minutes: loading a small layer took three times as long.  And what others do to the machine's own
file system is not measured.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GB = 90  # that it may grow to


@contextmanager
def own(image: Path, at: Path) -> Iterator[Path]:
    """Mount the file system at a folder while the block runs; its file is made if need be.

    Parameters
    ----------
    image : Path
        The file; kept, so that what was fetched need not be fetched again.
    at : Path
        Where.
    """
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["umount", at], check=False, capture_output=True)  # what a killed run left
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(_GB << 30)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop,discard", image, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)
