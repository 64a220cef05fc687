"""Where the bytes that a lock names may be found: the half of the story that no lock tells."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from packager.lock import debian
from packager.lock.indexes import Indexes
from packager.lock.lockfile import Lock
from packager.project import Project
from packager.store import Store, Wanted

__all__ = ["wanted"]


def wanted(project: Project, lock: Lock, platform: str, store: Store) -> Iterator[Wanted]:
    """List what a lock names for a platform, each with its places, asked only when needed."""
    indexes = Indexes(lambda: store.session, project.hints)
    for wheel in lock.wheels_for(platform):
        places = partial(indexes.places, wheel.name, wheel.file)
        yield Wanted(wheel.sha256, wheel.size, wheel.file, places)
    pins = lock.debian[platform]
    for pin in pins.packages:
        label = f"{pin.name}_{pin.version}_{pin.architecture}.deb"
        nearby = partial(debian.places, pin, pins, mirror=project.hints.debian_mirror)
        yield Wanted(pin.sha256, pin.size, label, nearby)
