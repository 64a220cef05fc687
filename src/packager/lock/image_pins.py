"""What a lock says of a base that is an image: its layers, named by their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packager.project import Target

__all__ = ["WHERE", "ImagePins", "LayerPin"]

WHERE = "pyproject.toml: tool.packager.base"
"""What names a base, for messages."""


@dataclass(frozen=True, slots=True)
class LayerPin:
    """One layer.

    Parameters
    ----------
    sha256 : str
        Of the bytes that a registry has, in hexadecimal.
    size : int
        Their number.
    diff_id : str
        The sha256 of what they unpack to, which the image's config names.
    """

    sha256: str
    size: int
    diff_id: str


@dataclass(frozen=True, slots=True)
class ImagePins:
    """A base that is an image, for one platform.

    Parameters
    ----------
    manifest : str
        The sha256 of its manifest, in hexadecimal.
    target : Target
        What it offers to Python packages, seen when it was locked.
    env : tuple of str
        Variables that its config sets, ``NAME=VALUE``.
    labels : mapping of str to str
        What its maker said of it.
    layers : tuple of LayerPin
        Bottom first.
    """

    manifest: str
    target: Target
    env: tuple[str, ...]
    labels: Mapping[str, str]
    layers: tuple[LayerPin, ...]
