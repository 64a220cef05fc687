"""The versions of everything that decides an image's bytes; they go into locks and cache keys.

The rules themselves are in docs/image-format.md.
"""

from __future__ import annotations

import deflate

__all__ = ["BYTECODE", "COMPRESSOR", "LAYERS", "LEVEL", "LOCK", "MEMBER"]

LAYERS = 3
"""How locked bytes and a project's files become layers, config and manifest, and what the
digest of the inputs is taken over: all of an image but for the numbers below."""

BYTECODE = 2
"""How modules become bytecode (`packager.layers.bytecode`)."""

LOCK = 1
"""The layout of `packager.lock`."""

LEVEL = 6
"""How hard layers are compressed."""

MEMBER = 4 << 20
"""Bytes of a layer that become one member of its gzip file; memory stays at one of them."""

COMPRESSOR = (
    f"gzip by libdeflate of deflate {deflate.__version__}, "
    f"level {LEVEL}, {MEMBER >> 20} MiB members"
)
"""How layers are compressed: what a manifest's digest depends on, and an image ID does not."""
