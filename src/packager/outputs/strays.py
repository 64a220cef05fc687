"""What killed runs left in an engine: leases tell whose is what, and the next run sweeps up."""

from __future__ import annotations

import contextlib
import secrets
from http.client import HTTPException

from packager.files import blaming
from packager.image import LABEL
from packager.leases import Lease, expired, runtime_folder
from packager.outputs.wire import RefusedError, Wire

__all__ = ["LABEL_SEALED", "LABEL_WORK", "take"]

LABEL_SEALED = f"{LABEL}.smoke"
"""The label of a container that is closed off; its value names the lease."""

LABEL_WORK = f"{LABEL}.bytecode"
"""The same of a container that works for a build."""

_OLD = 600  # seconds; whatever an engine was asked for has come to its end by then


def take(wire: Wire, what: str) -> Lease:
    """Take a lease on what is about to be in the engine, and sweep up after dead runs.

    Parameters
    ----------
    wire : Wire
        To the engine.
    what : str
        ``"container"``, or ``"image-"`` and the hex digits of its ID.

    Raises
    ------
    HostError
        When there is no folder for leases.
    """
    with blaming("the user's folder for what is running"):
        folder = runtime_folder()
        lease = Lease(folder / f"{what}-{secrets.token_hex(8)}")
    for dead in expired(folder, "*-*"):  # containers first: they need their images
        # It may belong to another engine, or this one may still be at work on it.
        if _swept(wire, dead) or dead.age() > _OLD:
            dead.end()
        else:
            dead.let_go()
    return lease


def _swept(wire: Wire, dead: Lease) -> bool:
    """Remove the container or the unnamed image that a killed run left; False: none seen."""
    kind, name, *_ = dead.name.split("-")
    with contextlib.suppress(RefusedError, OSError, HTTPException, ValueError):
        if kind == "image":
            return _remove_image(wire, name, dead)
        labels = [f"{label}={dead.name}" for label in (LABEL_SEALED, LABEL_WORK)]
        found = [one for label in labels for one in wire.containers(label)]
        for one in found:
            wire.remove_container(one)
        return bool(found)
    return False


def _remove_image(wire: Wire, name: str, dead: Lease) -> bool:
    found = wire.image(f"sha256:{name}")
    others = {path.name for path in dead.path.parent.glob(f"image-{name}-*")} - {dead.name}
    if found and not found.get("RepoTags") and not others:
        wire.remove_image(found["Id"])
    return bool(found)
