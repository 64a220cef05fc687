"""Which layers an engine has already, and in which order: remembered, and looked at again.

A classic engine looks a layer up by its chain (the digest of it and all below it; OCI image
configuration, "Layer ChainID") before it opens the layer's file.  So whatever chain an engine
knows need not be sent; the other kinds look for the compressed layer itself, so that theirs is a
chain of those.  Engines cannot be asked for chains, only for images, and walking all images takes
minutes where there are thousands: hence a note of which image brought which chain.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from packager.store import Store

if TYPE_CHECKING:
    from packager.outputs.packing import Packed

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
    engine : str
        Its ID, where engines are to be told from each other.
    """

    def __init__(
        self, find: Callable[[str], dict[str, Any] | None], store: Store | None, engine: str = ""
    ) -> None:
        self._find, self._store, self._engine = find, store, engine
        self._images: dict[str, list[str]] = {}

    def known(self, packed: Packed) -> int:
        """Count the layers of an image, from the bottom, that the engine has in the same chain."""
        images = self._holders(packed)
        layers = functools.cache(self._layers)
        diff_ids = packed.image.diff_ids
        for count, chain in reversed([*enumerate(_chain_ids(packed), 1)]):
            for holder in images.get(chain, []):
                if layers(holder)[:count] == diff_ids[:count]:
                    return count
        return 0

    def remembers(self, packed: Packed) -> bool:
        """Tell whether an image was remembered, by this run or another one."""
        return packed.id in self._holders(packed).get(_chain_ids(packed)[-1], [])

    def _holders(self, packed: Packed) -> dict[str, list[str]]:
        return _joined(self._images, self._noted(packed))

    def _layers(self, image: str) -> list[str]:
        found = self._find(image) or {}
        return (found.get("RootFS") or {}).get("Layers") or []

    def remember(self, packed: Packed, *, lasting: bool) -> None:
        """Remember that the engine has an image; for other runs, too, if it will stay."""
        chains = {chain: [packed.id] for chain in _chain_ids(packed)}
        self._images = _joined(chains, self._images)
        if lasting and self._store:
            newest = _joined(chains, self._noted(packed))
            self._store.write_note(_KIND, self._key(packed), [*newest.items()][:_MOST])

    def _noted(self, packed: Packed) -> dict[str, list[str]]:
        noted = self._store.note(_KIND, self._key(packed)) if self._store else None
        return dict(noted or [])

    def _key(self, packed: Packed) -> str:
        return hashlib.sha256(f"{self._engine} {packed.layers[0].sha256}".encode()).hexdigest()


def _joined(newer: dict[str, list[str]], older: dict[str, list[str]]) -> dict[str, list[str]]:
    """Put the holders of each chain together, the newer chains and holders first."""
    joined = {chain: [*newer.get(chain, []), *older.get(chain, [])] for chain in newer | older}
    return {chain: [*dict.fromkeys(holders)][:_HOLDERS] for chain, holders in joined.items()}


def _chain_ids(packed: Packed) -> list[str]:
    digests = [f"sha256:{layer.sha256}" for layer in packed.layers]
    chains = digests[:1]
    for digest in digests[1:]:
        chains.append(f"sha256:{hashlib.sha256(f'{chains[-1]} {digest}'.encode()).hexdigest()}")
    return chains
