"""Where the bytes that a lock names may be found: the half of the story that no lock tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from packager.lock.debian_pins import DebianPins
from packager.lock.image_pins import LayerPin
from packager.lock.indexes import Indexes
from packager.lock.lockfile import BUILT, Lock, WheelPin
from packager.project import Project, transport
from packager.store import Store, Wanted

__all__ = ["base", "layers", "packages", "wanted", "wheels"]


def wanted(project: Project, lock: Lock, platform: str, store: Store) -> Iterator[Wanted]:
    """List what a lock names for a platform, each with its places, asked only when needed."""
    indexes = Indexes(lambda: store.session, project.hints)
    yield from wheels(lock.wheels_for(platform), indexes, project.root / BUILT)
    yield from base(project, lock, platform, store)


def base(project: Project, lock: Lock, platform: str, store: Store) -> Iterator[Wanted]:
    """List what the base of a platform is made of, as `wanted` does."""
    if image := lock.images.get(platform):
        yield from layers(project, image.layers, store)
    if pins := lock.debian.get(platform):
        yield from packages(pins, project.hints.debian_mirror)


def layers(project: Project, pins: Iterable[LayerPin], store: Store) -> Iterator[Wanted]:
    """List a base's layers, each with its place; those in no registry are in the store, or lost."""
    from packager.lock import registry

    if transport(project.base)[0]:
        for pin in pins:
            yield Wanted(pin.sha256, pin.size, f"{project.base}: sha256:{pin.sha256}", list)
    else:
        named = [(pin.sha256, pin.size) for pin in pins]
        yield from registry.wanted(project.base, named, lambda: store.session)


def wheels(pins: Iterable[WheelPin], indexes: Indexes, folder: Path) -> Iterator[Wanted]:
    """List wheels, each with its place: the folder of those that were built, or the indexes'."""
    for pin in pins:
        places = partial(indexes.places, pin.name, pin.file)
        yield Wanted(pin.sha256, pin.size, pin.file, places, beside=folder / pin.file)


def packages(pins: DebianPins, mirror: str) -> Iterator[Wanted]:
    """List a base's packages, each with its places on Debian's archives."""
    from packager.lock import debian

    for pin in pins.packages:
        label = f"{pin.name}_{pin.version}_{pin.architecture}.deb"
        yield Wanted(pin.sha256, pin.size, label, partial(debian.places, pin, pins, mirror=mirror))
