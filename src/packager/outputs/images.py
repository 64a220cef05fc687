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
    from packager.reference import Reference

__all__ = ["Images", "Loaded"]


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
    takes_parts : bool
        Whether an archive may leave out layers that the engine has; podman refuses such.
    store : Store, optional
        Remembers what the engine has, so that it need not be sent again.
    """

    def __init__(
        self, wire: Wire, name: str, *, takes_parts: bool, store: Store | None = None
    ) -> None:
        self.name, self.takes_parts = name, takes_parts
        self._wire = wire
        self._chains = Chains(self.find, store)
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

    def check_loads(self) -> None:
        """Refuse, before any work is done, an engine that `load` cannot fill.

        Raises
        ------
        HostError
            When images live in containerd's store: there an image is known by the digest of
            its manifest, and `load` looks for that of its config.
        """
        status = self._info.get("DriverStatus") or []
        if ["driver-type", "io.containerd.snapshotter.v1"] in status:
            raise HostError(
                f"{self.name} keeps its images in containerd's store, which packager build "
                "cannot load into yet",
                hint="Write a file and load it yourself: packager build -o image.tar --no-load, "
                "then docker load -i image.tar, then packager smoke.",
            )

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
        return self._chains.known(image) if self.takes_parts else 0

    def begin_load(self) -> None:
        """Have the engine get ready to take in an archive; `load` or `load_part` sends it."""
        if self.takes_parts:
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
        # What a dead run loaded is ours from here on, and no longer anybody's stray.
        self._own(image.id)
        if self._holds(image):
            self._chains.remember(image, lasting=lasting)
            return Loaded(sent=0, existed=True)
        known = max(skip, self.known(image))
        with trouble():
            try:
                self._send(_held_back(_stream(image, known), turn))
            except RefusedError:
                if not known:
                    raise
                known = 0  # the prefix may have been removed meanwhile
                self._wire.load(_stream(image, 0))
        if not self._holds(image):
            raise HostError(f"{self.name} took the image, but does not hold it", where=image.id)
        self._chains.remember(image, lasting=lasting)
        return Loaded(sent=len(image.layers) - known, existed=False)

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
        self._own(image.id)
        with trouble():
            self._send(_held_back(_stream(image, skip), turn))
        self._chains.remember(image, lasting=False)

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

    def _send(self, archive: Iterator[bytes]) -> None:
        if self._begun:
            self._begun.pop().send(archive)
        else:
            self._wire.load(archive)

    def _own(self, image: str) -> None:
        from packager.outputs import strays

        self._loading[image] = strays.take(self._wire, f"image-{image.removeprefix('sha256:')}")

    def _holds(self, image: Image) -> bool:
        found = self.find(image.id)
        return found is not None and found["RootFS"].get("Layers") == image.diff_ids


def _stream(image: Image, skip: int) -> Iterator[bytes]:
    """Yield a docker archive, the first `skip` layers' files left out."""
    from packager.layers import tar
    from packager.outputs import archive

    config = image.id.removeprefix("sha256:")
    names = [layer.blob.sha256 for layer in image.layers]
    manifest = archive.docker_manifest(image, [], [f"blobs/sha256/{name}" for name in names])
    blobs = {layer.blob.sha256: layer.blob for layer in image.layers[skip:]}
    entries = [
        tar.data_entry("manifest.json", manifest),
        tar.data_entry(f"blobs/sha256/{config}", image.config),
        *(archive.blob_entry(name, blob) for name, blob in blobs.items()),
    ]
    try:
        yield from tar.chunks(tar.merge(entries))
    except OSError as error:  # which is not the engine's
        raise HostError(f"cannot be read: {error.strerror or error}", where="the store") from None


def _held_back(stream: Iterator[bytes], turn: threading.Event | None) -> Iterator[bytes]:
    """Keep the end of an archive back until it is its turn."""
    last = b""
    for chunk in stream:
        yield last
        last = chunk
    if turn:
        turn.wait()
    yield last
