"""A file to an image in a registry: as what the OCI specifications 1.1 call a referrer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mimetypes
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager import registry
from packager.errors import ClaimError, UsageError
from packager.files import canonical_json
from packager.image import INDEX, MANIFEST, Descriptor
from packager.lock.registry import KINDS
from packager.reference import Reference
from packager.registry import Repository
from packager.reporter import Reporter, human_size
from packager.store import Blob, Store

__all__ = ["Attached", "attach"]

_EMPTY = "application/vnd.oci.empty.v1+json"
_TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True, slots=True)
class Attached:
    """What was attached to what.

    Attributes
    ----------
    reference : str
        The image, as it was called.
    subject : str
        The digest that it has there, ``sha256:…``.
    manifest : str
        The digest of what was attached.
    listed : str
        The tag under which it is listed; empty where the registry itself lists referrers.
    """

    reference: str
    subject: str
    manifest: str
    listed: str


def attach(
    name: str,
    file: Path,
    *,
    kind: str | None,
    insecure: bool,
    store: Store,
    reporter: Reporter,
) -> Attached:
    """Attach a file to an image that a registry has.

    Parameters
    ----------
    name : str
        The image, with a tag or ``@sha256:…``.
    file : Path
        What to attach.
    kind : str, optional
        Its media type; by default what its name says.
    insecure : bool
        As for `registry.connect`.
    store : Store
        Keeps a copy of the file.
    reporter : Reporter
        Gets a row.

    Raises
    ------
    ClaimError
        When the registry does not keep what it was given.
    UsageError
        When there is no such file, or the name is none.
    HostError
        When the registry has no such image, refuses something, or stops answering.
    """
    begin = time.monotonic()
    if not file.is_file():
        raise UsageError("there is no such file", where=str(file))
    plain, at, digest = name.partition("@")
    reference = Reference.parse(plain, where="attach")
    if at and not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        raise UsageError(f"{digest!r} is no digest", where="attach")
    repository = registry.connect(reference, actions="pull,push", insecure=insecure)
    subject = _subject(repository, digest or reference.tag)
    media_type = kind or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    blob, empty = _kept(file.read_bytes(), store), _kept(b"{}", store)
    _bring(repository, [empty, blob], reporter)
    title = file.name.encode(errors="replace").decode()
    data = _manifest(subject, blob, empty, media_type, title)
    made = Descriptor(MANIFEST, hashlib.sha256(data).hexdigest(), len(data))
    noted = repository.put(data, MANIFEST, f"sha256:{made.sha256}")
    tag = "" if noted else f"sha256-{subject.sha256}"
    if tag:
        _list(repository, tag, {**made.as_json(), "artifactType": media_type})
    took = f"{time.monotonic() - begin:.1f} s"
    reporter.row("attach", f"{file.name}, {media_type}", human_size(blob.size), took)
    return Attached(name, f"sha256:{subject.sha256}", f"sha256:{made.sha256}", tag)


def _subject(repository: Repository, name: str) -> Descriptor:
    data = repository.manifest(name, KINDS)
    document = _parsed(data, repository, name)
    media_type = document.get("mediaType") or (INDEX if "manifests" in document else MANIFEST)
    return Descriptor(str(media_type), hashlib.sha256(data).hexdigest(), len(data))


def _kept(data: bytes, store: Store) -> Blob:
    return store.add(lambda out: out.write(data))


def _bring(repository: Repository, blobs: list[Blob], reporter: Reporter) -> None:
    total = sum(blob.size for blob in blobs)
    for blob in blobs:
        if not repository.has(blob):
            repository.send(blob, None, lambda amount: reporter.advance("attach", amount, total))


def _manifest(subject: Descriptor, blob: Blob, empty: Blob, kind: str, title: str) -> bytes:
    layer = Descriptor(kind, blob.sha256, blob.size).as_json()
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": Descriptor(_EMPTY, empty.sha256, empty.size).as_json(),
            "layers": [{**layer, "annotations": {_TITLE: title}}],
            "subject": subject.as_json(),
        }
    )


def _list(repository: Repository, tag: str, made: dict[str, Any]) -> None:
    """List a referrer where clients look if a registry does not list them itself."""
    known = repository.listed(tag, INDEX)
    entries = _parsed(known, repository, tag).get("manifests") if known else []
    if not isinstance(entries, list):
        raise ClaimError(f"what it holds as {tag} is no index", where=repository.name)
    if made not in entries:
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*entries, made]}
        repository.put(canonical_json(index), INDEX, tag)


def _parsed(data: bytes, repository: Repository, name: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(document := json.loads(data), dict):
            return document
    raise ClaimError(f"what it holds as {name} is no manifest", where=repository.name)
