"""A base that is an image in no registry: in a file or folder of the repository, or an engine.

What the lock names of it is not how it was packed, but what its layers hold: an image that was
saved again, by another tool, is the same.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

from packager.errors import ClaimError, UsageError
from packager.layers import image_root
from packager.lock import registry
from packager.lock.image_pins import WHERE, ImagePins, LayerPin
from packager.lock.registry import Config
from packager.outputs.opened import Kind, Opened, OpenedLayer, opened_as
from packager.project import Project, transport
from packager.store import Blob, Store

__all__ = ["bring", "find"]

_KINDS: dict[str, Kind] = {
    "docker-archive": "archive",
    "docker-daemon": "engine",
    "oci": "layout",
    "oci-archive": "archive",
}


def find(project: Project, platform: str, store: Store) -> tuple[str, Config, tuple[LayerPin, ...]]:
    """Read a base for a platform, and keep its layers.

    Parameters
    ----------
    project : Project
        Says where it is.
    platform : str
        ``"linux/amd64"`` for example.
    store : Store
        Gets the layers.

    Returns
    -------
    str
        The sha256 (hex) of its manifest; of its config, where it comes without one.
    Config
        What its config says.
    tuple of LayerPin
        Its layers, bottom first.

    Raises
    ------
    ClaimError
        When it is for another platform, or damaged.
    UsageError
        When it is not there, or is no image.
    HostError
        When no engine answers, or a file cannot be read.
    """
    with store.scratch() as scratch:
        image = _opened(project, platform, scratch)
        config = registry.config(project.base, image.config, platform, len(image.layers))
        blobs = [_kept(layer, project.base, store) for layer in image.layers]
    layers = tuple(LayerPin(blob.sha256, blob.size, blob.sha256) for blob in blobs)
    return hashlib.sha256(image.manifest or image.config).hexdigest(), config, layers


def bring(project: Project, platform: str, pins: ImagePins, store: Store) -> None:
    """Bring those layers of a pinned base into the store that it lacks.

    Parameters
    ----------
    project, platform, store
        As for `find`.
    pins : ImagePins
        What the lock says.

    Raises
    ------
    ClaimError
        When another image is there by now.
    PackagerError
        As `find`.
    """
    if all(store.get(layer.diff_id) for layer in pins.layers):
        return
    with store.scratch() as scratch:
        image = _opened(project, platform, scratch)
        if image.diff_ids != [f"sha256:{layer.diff_id}" for layer in pins.layers]:
            raise ClaimError(
                f"{project.base} is another image than the one that the lock names",
                where=WHERE,
                hint="Put that one back, or take this one: packager lock --upgrade.",
            )
        for layer in image.layers:
            _kept(layer, project.base, store)


def _opened(project: Project, platform: str, scratch: Path) -> Opened:
    how, where = transport(project.base)
    kind = _KINDS[how]
    if kind == "engine":
        return opened_as(kind, where, scratch)
    path = project.root / where
    if not (path.is_dir() if kind == "layout" else path.is_file()):
        what = "folder" if kind == "layout" else "file"
        raise UsageError(
            f"there is no {what} {where}",
            where=WHERE,
            hint="What the store does not have of a base is read from there.",
        )
    return opened_as(kind, str(path), scratch, platform)


def _kept(layer: OpenedLayer, base: str, store: Store) -> Blob:
    def write(out: IO[bytes]) -> None:
        with layer.open() as stream:
            image_root.copy(stream, out, layer.size, base)

    return image_root.unpacked(write, layer.diff_id.removeprefix("sha256:"), store, base)
