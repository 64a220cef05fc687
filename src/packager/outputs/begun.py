"""A load that an engine is asked for while it is still unknown what will be sent.

A classic engine starts a program of its own for each archive, as soon as the archive's first
bytes are there.  That takes it half as long as all else it does for a small layer.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator

from packager import aside
from packager.layers import tar
from packager.layers.tar import Entry, data_entry
from packager.outputs.wire import Wire

__all__ = ["Begun"]

_BLOCK = 512  # bytes of a tar header


class Begun:
    """Asks at once; then to be sent an archive, or given up.

    Parameters
    ----------
    wire : Wire
        To a classic engine.

    Attributes
    ----------
    done : Future
        Raises what the engine refuses, once it has taken in what it was sent.
    """

    def __init__(self, wire: Wire) -> None:
        self._given: queue.SimpleQueue[Iterable[bytes]] = queue.SimpleQueue()
        self.done = aside.begin(lambda: wire.load(self._archive()))

    def _archive(self) -> Iterator[bytes]:
        # A folder that every archive has: nothing is wrong with its being there twice.
        whole = b"".join(tar.chunks([Entry("blobs", "dir", mode=0o755)]))
        yield whole[:_BLOCK]
        yield from self._given.get()

    def send(self, archive: Iterable[bytes]) -> None:
        """Send an archive of images, and wait until it is taken in, as `Wire.load` does."""
        self._given.put(archive)
        self.done.result()

    def give_up(self) -> None:
        """Let the engine off with an archive of no image; nobody need wait for that."""
        self._given.put(tar.chunks([data_entry("manifest.json", b"[]")]))
