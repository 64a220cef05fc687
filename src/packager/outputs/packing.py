"""An image packed as each kind of engine takes it, and the digest by which it is known there.

A classic store takes layers as they are, in a docker archive; podman and containerd's store take
the OCI layout, with the compressed layers that a registry and ``packager build -o`` get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from packager.errors import HostError
from packager.image import Image, manifest_of
from packager.layers import tar
from packager.layers.tar import Entry, data_entry
from packager.outputs import archive
from packager.store import Blob, Store

__all__ = ["Pack", "Packed", "for_classic", "for_containerd", "for_podman"]


@dataclass(frozen=True, slots=True)
class Packed:
    """An image, packed.

    Attributes
    ----------
    id : str
        What the engine will call it, ``sha256:…``.
    layers : sequence of Blob
        The file of each, bottom first.
    documents : sequence of Entry
        The archive's other files.
    checked : bool
        Whether the engine refuses it where a layer is missing, and has nothing of it then.
    """

    image: Image
    id: str
    layers: Sequence[Blob]
    documents: Sequence[Entry]
    checked: bool = True

    def stream(self, skip: int) -> Iterator[bytes]:
        """Yield the archive, the first `skip` layers' files left out."""
        blobs = {blob.sha256: blob for blob in self.layers[skip:]}
        entries = [archive.blob_entry(name, blob) for name, blob in blobs.items()]
        try:
            yield from tar.chunks(tar.merge([*self.documents, *entries]))
        except OSError as error:  # which is not the engine's
            why = error.strerror or error
            raise HostError(f"cannot be read: {why}", where="the store") from None


Pack = Callable[[Image, "Store | None"], Packed]
"""Packs an image; the store, by default the user's, gets layers that are compressed for it."""


def for_classic(image: Image, _: Store | None) -> Packed:
    """Pack an image for Docker's classic store, which knows it by its config."""
    layers = [layer.blob for layer in image.layers]
    files = [f"blobs/sha256/{blob.sha256}" for blob in layers]
    manifest = data_entry("manifest.json", archive.docker_manifest(image, [], files))
    return Packed(image, image.id, layers, [manifest, archive.config_entry(image)])


def for_podman(image: Image, store: Store | None) -> Packed:
    """Pack an image for podman, which knows it by its config, too."""
    manifest = manifest_of(image, store or Store())
    return Packed(image, image.id, manifest.layers, archive.layout(image, manifest, {}))


def for_containerd(image: Image, store: Store | None) -> Packed:
    """Pack an image for Docker with containerd's store, which knows it by its manifest."""
    manifest = manifest_of(image, store or Store())
    digest = f"sha256:{manifest.descriptor.sha256}"
    documents = archive.layout(image, manifest, {})
    return Packed(image, digest, manifest.layers, documents, checked=False)
