"""Which layers an engine has already, and in which order: remembered, and looked at again.

A classic engine looks a layer up by its chain (the digest of it and all below it; OCI image
configuration, "Layer ChainID") before it opens the layer's file.  So whatever chain an engine
knows need not be sent.  Engines cannot be asked for chains, only for images, and walking all
images takes minutes where there are thousands: hence a note of which image brought which chain.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from packager.store import Store

if TYPE_CHECKING:
    from packager.image import Image

__all__ = ["Chains"]

_KIND = "holders"
_MOST = 500  # chains
_HOLDERS = 3  # images for each, the newest first: any may have been removed since


class Chains:
    """Knows which images hold which chains.

    Parameters
    ----------
    find : callable
        Inspects an image of the engine by its ID; None if the engine does not have it.
    store : Store, optional
        Keeps what is known for other runs.
    """

    def __init__(self, find: Callable[[str], dict[str, Any] | None], store: Store | None) -> None:
        self._find, self._store = find, store
        self._images: dict[str, list[str]] = {}

    def known(self, image: Image) -> int:
        """Count the layers of an image, from the bottom, that the engine has in the same chain."""
        images = _joined(self._images, self._noted(image))
        layers = functools.cache(self._layers)
        for count, chain in reversed([*enumerate(_chain_ids(image.diff_ids), 1)]):
            for holder in images.get(chain, []):
                if layers(holder)[:count] == image.diff_ids[:count]:
                    return count
        return 0

    def _layers(self, image: str) -> list[str]:
        found = self._find(image) or {}
        return (found.get("RootFS") or {}).get("Layers") or []

    def remember(self, image: Image, *, lasting: bool) -> None:
        """Remember that the engine has an image; for other runs, too, if it will stay."""
        chains = {chain: [image.id] for chain in _chain_ids(image.diff_ids)}
        self._images = _joined(chains, self._images)
        if lasting and self._store:
            newest = _joined(chains, self._noted(image))
            self._store.write_note(_KIND, _key(image), [*newest.items()][:_MOST])

    def _noted(self, image: Image) -> dict[str, list[str]]:
        noted = self._store.note(_KIND, _key(image)) if self._store else None
        return dict(noted or [])


def _joined(newer: dict[str, list[str]], older: dict[str, list[str]]) -> dict[str, list[str]]:
    """Put the holders of each chain together, the newer chains and holders first."""
    joined = {chain: [*newer.get(chain, []), *older.get(chain, [])] for chain in newer | older}
    return {chain: [*dict.fromkeys(holders)][:_HOLDERS] for chain, holders in joined.items()}


def _key(image: Image) -> str:
    return image.layers[0].blob.sha256


def _chain_ids(diff_ids: Sequence[str]) -> list[str]:
    chains = list(diff_ids[:1])
    for diff_id in diff_ids[1:]:
        chains.append(f"sha256:{hashlib.sha256(f'{chains[-1]} {diff_id}'.encode()).hexdigest()}")
    return chains
