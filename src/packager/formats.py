"""The versions of everything that decides an image's bytes; they go into locks and cache keys."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["BYTECODE", "COMPRESSOR", "LAYERS", "LOCK"]

LAYERS = 1
"""The rules by which bytes become layers (`packager.layers`)."""

BYTECODE = 1
"""How modules become bytecode (`packager.layers.bytecode`)."""

LOCK = 1
"""The layout of `packager.lock`."""

COMPRESSOR = f"gzip by libdeflate of deflate {version('deflate')}, level 6, 4 MiB members"
"""How layers are compressed: what a manifest's digest depends on, and an image ID does not."""
