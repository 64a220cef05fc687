"""The name of an image → its manifest for one platform, and the bytes that this names."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from packager.errors import ClaimError
from packager.lock.image_pins import WHERE
from packager.project import PLATFORMS
from packager.reference import Reference
from packager.registry import Repository, reach
from packager.store import Wanted

__all__ = ["KINDS", "Config", "Found", "config", "find", "manifest", "wanted"]

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
KINDS = (*_INDEXES, *_MANIFESTS)
"""The media types of what the name of an image may stand for."""

_DIGEST = re.compile("sha256:([0-9a-f]{64})")
_LARGEST = 1 << 40
_MOST_LAYERS = 60  # an engine takes 125, and ours come on top

Named = tuple[str, int]
"""The sha256 (hex) of bytes, and their number."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image in a registry: the digest of its manifest (hex), and what this names."""

    manifest: str
    config: Named
    layers: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """What an image's config says: what its layers unpack to (hex), variables, and labels."""

    diff_ids: tuple[str, ...]
    env: tuple[str, ...]
    labels: Mapping[str, str]


def find(base: str, platform: str, session: Callable[[], requests.Session]) -> Found:
    """Find an image, by its name.

    Parameters
    ----------
    base : str
        With a tag or ``@sha256:…``.
    platform : str
        Which manifest of an index to take.
    session : callable
        Gives the session to use.

    Raises
    ------
    ClaimError
        When there is none for this platform, or what is there is no image to build on.
    HostError
        When the registry does not give it.
    """
    repository, name = _named(base, session)
    data = repository.manifest(name, KINDS)
    with _reading(base):
        document = json.loads(data)
        many = document.get("manifests")
        digest = _chosen(many, platform, base) if many else ""
    return manifest(base, repository.manifest(digest, _MANIFESTS) if digest else data)


def manifest(base: str, data: bytes) -> Found:
    """Read an image's manifest.

    Raises
    ------
    ClaimError
        When it is damaged, or of no image to build on.
    """
    with _reading(base):
        document = json.loads(data)
        layers = tuple(_blob(layer) for layer in document["layers"])
        return Found(hashlib.sha256(data).hexdigest(), _blob(document["config"]), layers)


def config(base: str, data: bytes, platform: str, layers: int) -> Config:
    """Read an image's config.

    Parameters
    ----------
    base, platform : str
        As for `find`.
    data : bytes
        The config.
    layers : int
        How many its manifest names.

    Raises
    ------
    ClaimError
        When the config is for another platform, or damaged.
    """
    with _reading(base):
        told = json.loads(data)
        if (told["os"], told["architecture"]) != ("linux", PLATFORMS[platform]):
            raise ValueError(f"it is for {told['os']}/{told['architecture']}, not for {platform}")
        if not 0 < layers <= _MOST_LAYERS:
            raise ValueError(f"it has {layers} layers, and may have {_MOST_LAYERS}")
        diff_ids = tuple(_hex(one) for one in told["rootfs"]["diff_ids"])
        if len(diff_ids) != layers:
            raise ValueError("its config and its manifest name other layers")
        inner = told.get("config") or {}
        env = tuple(_text(one) for one in inner.get("Env") or [] if "=" in one)
        labels = {_text(key): _text(value) for key, value in (inner.get("Labels") or {}).items()}
        return Config(diff_ids, env, labels)


def wanted(
    base: str, blobs: Iterable[Named], session: Callable[[], requests.Session]
) -> Iterator[Wanted]:
    """Say where the store finds what an image is made of."""
    repository, _ = _named(base, session)
    for sha256, size in blobs:
        yield repository.wanted(sha256, size)


def _named(base: str, session: Callable[[], requests.Session]) -> tuple[Repository, str]:
    name, _, digest = base.partition("@")
    reference = Reference.parse(name, where=WHERE)
    return reach(reference, session), digest or reference.tag


def _chosen(manifests: list[Mapping[str, Any]], platform: str, base: str) -> str:
    offered = [
        (f"{one['platform']['os']}/{one['platform']['architecture']}", str(one["digest"]))
        for one in manifests
        if "platform" in one
    ]
    for name, digest in offered:
        if name == platform:
            return f"sha256:{_hex(digest)}"
    # What BuildKit attaches is for no platform, and says so.
    names = sorted({name for name, _ in offered} - {"unknown/unknown"})
    raise ClaimError(f"{base} is for {', '.join(names)}, not for {platform}", where=WHERE)


def _blob(descriptor: Mapping[str, Any]) -> Named:
    size = descriptor["size"]
    if type(size) is not int or not 0 <= size < _LARGEST:
        raise ValueError(f"{size!r} is no number of bytes")
    return _hex(descriptor["digest"]), size


def _text(value: object) -> str:
    text = str(value)
    if "\0" in text:
        raise ValueError("it holds text with a NUL")
    text.encode()  # fails for what a lock cannot hold
    return text


def _hex(digest: str) -> str:
    if not (found := _DIGEST.fullmatch(digest)):
        raise ValueError(f"{digest[:80]!r} is no digest")
    return found[1]


@contextlib.contextmanager
def _reading(base: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        why = f"it says nothing of {error}" if isinstance(error, KeyError) else error
        raise ClaimError(f"{base} is no image to build on: {why}", where=WHERE) from None
