"""The images of an engine: what it has, what it lacks, and what it is given."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packager.errors import HostError, UsageError
from packager.outputs.begun import Begun
from packager.outputs.chains import Chains
from packager.outputs.wire import RefusedError, Wire, trouble
from packager.store import Store

if TYPE_CHECKING:
    from packager.image import Image
    from packager.leases import Lease
    from packager.outputs.packing import Pack, Packed
    from packager.reference import Reference

__all__ = ["Images", "Loaded"]

_CONTAINERD = ["driver-type", "io.containerd.snapshotter.v1"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading took: how many layers were sent, and whether the image was there before."""

    sent: int
    existed: bool


class Images:
    """An engine, as far as it keeps images.

    Parameters
    ----------
    wire : Wire
        To the engine.
    name : str
        What it is, for messages.
    podman : bool
        Whether it is that, and not Docker.
    store : Store, optional
        Remembers what the engine has, so that it need not be sent again.
    """

    def __init__(self, wire: Wire, name: str, *, podman: bool, store: Store | None = None) -> None:
        self.name = name
        self._wire, self._podman, self._store = wire, podman, store
        self._loading: dict[str, Lease] = {}
        self._begun: list[Begun] = []

    @functools.cached_property
    def _info(self) -> dict[str, Any]:
        with trouble():
            return self._wire.facts("info")

    @property
    def id(self) -> str:
        """What it calls itself, to tell it from others."""
        return str(self._info.get("ID", ""))

    @functools.cached_property
    def _pack(self) -> Pack:
        from packager.outputs import packing

        if self._podman:
            return packing.for_podman
        if _CONTAINERD in (self._info.get("DriverStatus") or []):
            return packing.for_containerd
        return packing.for_classic

    @functools.cached_property
    def _chains(self) -> Chains:
        # podman has another ID each time it is asked, and sees for itself whether it has all.
        return Chains(self.find, self._store, "" if self._podman else self.id)

    def id_of(self, image: Image) -> str:
        """Say what the engine calls an image: by its config, or by its manifest."""
        return self._packed(image).id

    def _packed(self, image: Image) -> Packed:
        return self._pack(image, self._store)

    def get(self, image: str) -> dict[str, Any]:
        """Inspect an image that must be there, by ID or reference.

        Raises
        ------
        UsageError
            When the engine does not have it.
        """
        found = self.find(image)
        if found is None:
            raise UsageError(f"{self.name} has no image {image}", hint="packager build makes one.")
        return found

    def find(self, image: str) -> dict[str, Any] | None:
        """Inspect an image by ID or reference; None if the engine does not have it."""
        with trouble():
            return self._wire.image(image)

    def history(self, image: str) -> list[dict[str, Any]]:
        """List what made each layer of an image, the newest first."""
        with trouble():
            return self._wire.history(image)

    def known(self, image: Image) -> int:
        """Count the layers of an image, from the bottom, that need not be sent."""
        return self._chains.known(self._packed(image))

    def begin_load(self) -> None:
        """Have the engine get ready to take in an archive; `load` or `load_part` sends it."""
        from packager.outputs import packing

        if self._pack is packing.for_classic:  # the others start nothing, and so gain nothing
            self._begun.append(Begun(self._wire))

    def give_up_load(self) -> None:
        """Let the engine off, if nothing was sent after `begin_load`."""
        while self._begun:
            self._begun.pop().give_up()

    def load(
        self,
        image: Image,
        *,
        lasting: bool = True,
        skip: int = 0,
        turn: threading.Event | None = None,
    ) -> Loaded:
        """Bring an image into the engine, untagged, sending only what it lacks.

        Until it is tagged or removed, a lease tells other runs that it has an owner.

        Parameters
        ----------
        image : Image
            What to bring in.
        lasting : bool
            Whether it will stay, so that others may build on its layers.
        skip, turn
            As for `load_part`, of which some may be on their way.

        Raises
        ------
        HostError
            When the engine refuses it, or does not hold it whole afterwards.
        """
        packed = self._packed(image)
        # What a dead run loaded is ours from here on, and no longer anybody's stray.
        self._own(packed.id)
        existed = self._holds(packed)
        sent = 0
        if not existed or not (packed.checked or self._chains.remembers(packed)):
            sent = self._send(packed, skip, turn)
            if not self._holds(packed):
                what = f"{self.name} took the image, but does not hold it"
                raise HostError(what, where=packed.id)
        self._chains.remember(packed, lasting=lasting)
        return Loaded(sent, existed)

    def _send(self, packed: Packed, skip: int, turn: threading.Event | None) -> int:
        """Send what the engine lacks, and say how many layers that was."""
        known = max(skip, self._chains.known(packed))
        with trouble():
            try:
                self._load(_held_back(packed.stream(known), turn))
                whole = packed.checked or not known or self._chains.known(packed) >= known
            except RefusedError:
                if not known:
                    raise
                whole = False
            if not whole:  # what was left out may have been removed meanwhile
                known = 0
                self._wire.load(packed.stream(0))
        return len(packed.layers) - known

    def load_part(self, image: Image, skip: int, turn: threading.Event) -> None:
        """Bring in an image that is the lower part of one, whose first layers may be on their way.

        Parameters
        ----------
        image : Image
            From `packager.image.bare`.
        skip : int
            How many of its layers the engine has, or will have when it is this one's turn.
        turn : Event
            The archive ends only then: the engine begins to take it in when it is complete.

        Raises
        ------
        HostError
            When the engine refuses it.
        """
        packed = self._packed(image)
        self._own(packed.id)
        with trouble():
            self._load(_held_back(packed.stream(skip), turn))
        self._chains.remember(packed, lasting=False)

    def tag(self, image: str, reference: Reference) -> None:
        """Give an image in the engine, by its ID, a name."""
        with trouble():
            self._wire.tag(image, reference.name, reference.tag)
        self.settle(image)

    def untag(self, image: str, reference: Reference) -> None:
        """Take a name away from an image, if it is this image's; one without any name goes."""
        found = self.find(str(reference))
        if found is not None and found["Id"] == image:
            with trouble():
                self._wire.remove_image(str(reference))

    def remove(self, image: str) -> None:
        """Remove an image, by its ID, that nobody named."""
        with trouble():
            self._wire.remove_image(image)
        self.settle(image)

    def settle(self, image: str) -> None:
        """Note that an image (its ID) is named, gone or left as it was: it is nobody's stray."""
        if lease := self._loading.pop(image, None):
            lease.end()

    def _load(self, archive: Iterator[bytes]) -> None:
        try:
            begun = self._begun.pop()
        except IndexError:  # another thread may have been quicker than a look at its length
            self._wire.load(archive)
        else:
            begun.send(archive)

    def _own(self, image: str) -> None:
        from packager.outputs import strays

        self._loading[image] = strays.take(self._wire, f"image-{image.removeprefix('sha256:')}")

    def _holds(self, packed: Packed) -> bool:
        found = self.find(packed.id)
        return found is not None and found["RootFS"].get("Layers") == packed.image.diff_ids


def _held_back(stream: Iterator[bytes], turn: threading.Event | None) -> Iterator[bytes]:
    """Keep the end of an archive back until it is its turn."""
    last = b""
    for chunk in stream:
        yield last
        last = chunk
    if turn:
        turn.wait()
    yield last
