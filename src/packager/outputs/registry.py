"""An image to a registry: the very bytes that the archive holds, and only those it lacks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from packager.files import canonical_json
from packager.image import Image, Manifest
from packager.registry import Repository
from packager.reporter import Reporter
from packager.store import Blob, Store

__all__ = ["Pushed", "write"]

_UPLOADS = 4
_KIND = "pushed"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of a push.

    Attributes
    ----------
    reference : str
        The name that the image has now.
    manifest : str
        The digest that it has there, ``sha256:…``.
    sent, mounted, there : int
        How many blobs (layers, and the config) went over the wire, were known to another
        repository of the registry, and were there.
    size : int
        Bytes that were sent.
    """

    reference: str
    manifest: str
    sent: int
    mounted: int
    there: int
    size: int


def write(
    repository: Repository,
    image: Image,
    manifest: Manifest,
    store: Store,
    reporter: Reporter,
    *,
    tagged: bool = True,
) -> Pushed:
    """Send what the repository lacks of an image, then its manifest.

    Parameters
    ----------
    repository : Repository
        From `registry.connect`.
    image, manifest
        What to send.
    store : Store
        Remembers which repository has what, so that another can have it from there.
    reporter : Reporter
        Hears of bytes that have gone.
    tagged : bool
        Whether it gets the reference's tag; else only its digest names it.

    Raises
    ------
    ClaimError
        When the registry does not keep what it was given.
    HostError
        When it refuses something, or stops answering.
    """
    config = store.add(lambda out: out.write(image.config))
    blobs = list({blob.sha256: blob for blob in (*manifest.layers, config)}.values())
    with _Uploads(repository, store, reporter) as uploads:
        missing = uploads.missing(blobs)
        sent = uploads.send(missing)
    for blob in blobs:
        store.write_note(_KIND, _key(repository, blob), repository.reference.repository)
    reference, digest = repository.reference, f"sha256:{manifest.descriptor.sha256}"
    name = reference.tag if tagged else digest
    repository.put(manifest.data, manifest.descriptor.media_type, name)
    return Pushed(
        reference=str(reference) if tagged else f"{reference.name}@{digest}",
        manifest=digest,
        sent=len(sent),
        mounted=len(missing) - len(sent),
        there=len(blobs) - len(missing),
        size=sum(blob.size for blob in sent),
    )


class _Uploads:
    """Threads that talk to a registry; given up where the context is left by an error."""

    def __init__(self, repository: Repository, store: Store, reporter: Reporter) -> None:
        self._repository, self._store, self._reporter = repository, store, reporter
        self._pool = ThreadPoolExecutor(_UPLOADS)
        self._given_up = threading.Event()
        self._total = 0

    def __enter__(self) -> _Uploads:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0]:
            self._given_up.set()
        self._pool.shutdown(cancel_futures=True)

    def missing(self, blobs: Sequence[Blob]) -> list[Blob]:
        """List what the repository lacks."""
        there = self._pool.map(self._repository.has, blobs)
        return [blob for blob, has in zip(blobs, there, strict=True) if not has]

    def send(self, blobs: Sequence[Blob]) -> list[Blob]:
        """Bring blobs into the repository, and list those whose bytes that took."""
        self._total = sum(blob.size for blob in blobs)
        return [
            blob
            for blob, sent in zip(blobs, self._pool.map(self._send, blobs), strict=True)
            if sent
        ]

    def _send(self, blob: Blob) -> bool:
        noted = self._store.note(_KIND, _key(self._repository, blob))
        return self._repository.send(blob, noted if isinstance(noted, str) else None, self._tell)

    def _tell(self, amount: int) -> None:
        if self._given_up.is_set():
            raise _GivenUpError
        self._reporter.advance("push", amount, self._total)


class _GivenUpError(Exception):
    """Nobody waits for this upload any more."""


def _key(repository: Repository, blob: Blob) -> str:
    named = [repository.reference.registry, blob.sha256]
    return hashlib.sha256(canonical_json(named)).hexdigest()
