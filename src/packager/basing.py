"""A base that is an image: found in its registry, brought home, and looked into, for the lock."""

from __future__ import annotations

from collections.abc import Mapping

from packager.layers import image_root
from packager.layers.tar import Entry
from packager.lock import registry
from packager.lock.image_pins import ImagePins, LayerPin
from packager.project import PLATFORMS
from packager.store import Store

__all__ = ["contents", "pin"]


def pin(base: str, platform: str, store: Store) -> ImagePins:
    """Find out what a base is for a platform, byte for byte, and what it offers.

    Parameters
    ----------
    base : str
        Its name in a registry.
    platform : str
        ``"linux/amd64"`` for example.
    store : Store
        Gets its layers.

    Raises
    ------
    ClaimError
        When nothing can be built on it; says why.
    HostError
        When the registry does not give it.
    """
    found = registry.find(base, platform, lambda: store.session)
    wanted = registry.wanted(base, [found.config], lambda: store.session)
    data = store.fetch(wanted)[found.config[0]].path.read_bytes()
    config = registry.config(base, data, platform, len(found.layers))
    layers = tuple(
        LayerPin(sha256, size, diff_id)
        for (sha256, size), diff_id in zip(found.layers, config.diff_ids, strict=True)
    )
    target = image_root.offered(_entries(base, layers, store), PLATFORMS[platform], base)
    return ImagePins(found.manifest, target, config.env, config.labels, layers)


def contents(base: str, pins: ImagePins, store: Store) -> Mapping[str, Entry]:
    """List the files and links of a pinned base, by their paths.

    Parameters
    ----------
    base : str
        Its name.
    pins : ImagePins
        What it is.
    store : Store
        Has its layers, or gets them.

    Raises
    ------
    PackagerError
        As `pin`.
    """
    return _entries(base, pins.layers, store)


def _entries(base: str, layers: tuple[LayerPin, ...], store: Store) -> Mapping[str, Entry]:
    named = [(layer.sha256, layer.size) for layer in layers]
    blobs = store.fetch(registry.wanted(base, named, lambda: store.session), step="base")
    stack = [
        image_root.unpacked(blobs[layer.sha256].path, layer.diff_id, store, base)
        for layer in layers
    ]
    return image_root.entries([layer.path for layer in stack], base)
