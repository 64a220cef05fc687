"""A base that is an image: found, brought home, and looked into, for the lock."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from packager import local_base
from packager.layers import image_root
from packager.layers.tar import Entry
from packager.lock import places, registry
from packager.lock.image_pins import ImagePins, LayerPin
from packager.lock.registry import Config
from packager.project import PLATFORMS, Project, transport
from packager.store import Store

__all__ = ["contents", "pin"]


def pin(project: Project, platform: str, store: Store) -> ImagePins:
    """Find out what a base is for a platform, byte for byte, and what it offers.

    Parameters
    ----------
    project : Project
        Names the base.
    platform : str
        ``"linux/amd64"`` for example.
    store : Store
        Gets its layers.

    Raises
    ------
    ClaimError
        When nothing can be built on it; says why.
    UsageError
        When it should be in the repository or the engine, and is not.
    HostError
        When the registry does not give it.
    """
    find = local_base.find if transport(project.base)[0] else _in_registry
    manifest, config, layers = find(project, platform, store)
    found = _entries(project, layers, store)
    target = image_root.offered(found, PLATFORMS[platform], project.base)
    return ImagePins(manifest, target, config.env, config.labels, layers)


def _in_registry(
    project: Project, platform: str, store: Store
) -> tuple[str, Config, tuple[LayerPin, ...]]:
    base = project.base
    found = registry.find(base, platform, lambda: store.session)
    wanted = registry.wanted(base, [found.config], lambda: store.session)
    data = store.fetch(wanted)[found.config[0]].path.read_bytes()
    config = registry.config(base, data, platform, len(found.layers))
    layers = tuple(
        LayerPin(sha256, size, diff_id)
        for (sha256, size), diff_id in zip(found.layers, config.diff_ids, strict=True)
    )
    return found.manifest, config, layers


def contents(project: Project, platform: str, pins: ImagePins, store: Store) -> Mapping[str, Entry]:
    """List the files and links of a pinned base, by their paths.

    Parameters
    ----------
    project : Project
        Names the base.
    platform : str
        ``"linux/amd64"`` for example.
    pins : ImagePins
        What it is.
    store : Store
        Has its layers, or gets them.

    Raises
    ------
    PackagerError
        As `pin`.
    """
    if transport(project.base)[0]:
        local_base.bring(project, platform, pins, store)
    return _entries(project, pins.layers, store)


def _entries(project: Project, layers: tuple[LayerPin, ...], store: Store) -> Mapping[str, Entry]:
    base = project.base
    blobs = store.fetch(places.layers(project, layers, store), step="base")
    stack = [
        image_root.unpacked(
            partial(image_root.unpack, blobs[layer.sha256].path, owner=base),
            layer.diff_id,
            store,
            base,
        )
        for layer in layers
    ]
    return image_root.entries([layer.path for layer in stack], base)
