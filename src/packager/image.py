"""Layers to an image: its config, manifest and identity (OCI image specification 1.1).

The image ID is the digest of the config, which names the layers by their uncompressed
digests; so it needs no compression, and no compressor can change it.  The manifest names
the compressed layers, so its digest is as stable as the compressor, which is pinned.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from packager import formats
from packager.files import canonical_json
from packager.layers.making import Layer
from packager.lock.image_pins import ImagePins
from packager.project import PLATFORMS, Project
from packager.store import Blob, Store

__all__ = [
    "COMPRESSED_BY",
    "CREATED",
    "INDEX",
    "LABEL",
    "LABEL_BARE",
    "LABEL_BASE",
    "LABEL_BASE_DIGEST",
    "LABEL_INPUTS",
    "LABEL_MODEL",
    "LABEL_REPRODUCIBLE",
    "MANIFEST",
    "REVISION",
    "Descriptor",
    "Image",
    "Manifest",
    "assemble",
    "bare",
    "index_of",
    "labels",
    "manifest_of",
]

CREATED = "1980-01-02T00:00:00Z"
"""The time that every layer entry has, too: an image is a function of its inputs."""

LABEL = "org.model-packager"
LABEL_BARE = f"{LABEL}.layers"
"""Of an image that is only the lower part of one, and gone when its maker is."""
REVISION = "org.opencontainers.image.revision"
LABEL_BASE = "org.opencontainers.image.base.name"
LABEL_BASE_DIGEST = "org.opencontainers.image.base.digest"
LABEL_INPUTS = f"{LABEL}.inputs"
LABEL_MODEL = f"{LABEL}.model"
LABEL_REPRODUCIBLE = f"{LABEL}.reproducible"
"""Only where it is false: an image that was built from a Dockerfile."""

COMPRESSED_BY = f"{LABEL}.compressor"

INDEX = "application/vnd.oci.image.index.v1+json"
"""The media type of what names several images."""

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
"""That of what names the parts of one."""

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class Image:
    """An image, complete but for compression.

    Attributes
    ----------
    config : bytes
        Canonical JSON; its sha256 is the image ID.
    annotations : mapping of str to str
        For its manifest.
    """

    name: str
    version: str
    platform: str
    config: bytes
    layers: tuple[Layer, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The image ID, ``sha256:…``."""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"

    @property
    def diff_ids(self) -> list[str]:
        """The uncompressed layers' digests, bottom first."""
        return [f"sha256:{layer.blob.sha256}" for layer in self.layers]

    @property
    def size(self) -> int:
        """Bytes of all layers, uncompressed."""
        return sum(layer.blob.size for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a blob: media type, digest (hex) and size."""

    media_type: str
    sha256: str
    size: int

    def as_json(self) -> dict[str, Any]:
        """Give the OCI form."""
        return {
            "mediaType": self.media_type,
            "digest": f"sha256:{self.sha256}",
            "size": self.size,
        }


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image's manifest and the blobs that it names."""

    data: bytes
    descriptor: Descriptor
    layers: tuple[Blob, ...]


def assemble(
    project: Project,
    platform: str,
    layers: Sequence[Layer],
    added: Mapping[str, str],
    base: ImagePins | None = None,
) -> Image:
    """Put layers together as an image.

    Parameters
    ----------
    project, platform
        Whose image, for where.
    layers : sequence of Layer
        Bottom first.
    added : mapping
        Labels beside the ones that every image has.
    base : ImagePins, optional
        The image below, if the base is one.
    """
    annotations: dict[str, str] = {}
    if base:
        digest = {LABEL_BASE_DIGEST: f"sha256:{base.manifest}"}
        added = {**added, **digest}
        said = {f"{LABEL}.base.{key}": value for key, value in base.labels.items()}
        annotations = {LABEL_BASE: project.base, **digest, **said}
    config = {
        "architecture": PLATFORMS[platform],
        "os": "linux",
        "created": CREATED,
        "config": {
            "User": "65532:65532",
            "Env": _variables(base.env if base else ()),
            "Entrypoint": [
                f"/{project.offered.prefix}/bin/python{project.python}",
                *("-P", "-m", "packager_runtime"),
            ],
            "Cmd": ["info"],
            "WorkingDir": "/tmp",  # noqa: S108 - the one place a sealed image can write to
            "Labels": {**labels(project), **added},
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{layer.blob.sha256}" for layer in layers],
        },
        "history": [
            {"created": CREATED, "created_by": f"packager: {layer.role}: {layer.what}"}
            for layer in layers
        ],
    }
    made = canonical_json(config)
    return Image(project.name, project.version, platform, made, tuple(layers), annotations)


def _variables(given: Iterable[str]) -> list[str]:
    """List the variables of an image: those of its base, and above them ours."""
    ours = (
        "LANG=C.UTF-8",
        "HOME=/tmp",
        "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONHASHSEED=0",
        "PYTHONUNBUFFERED=1",
    )
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return list({one.partition("=")[0]: one for one in (path, *given, *ours)}.values())


def bare(layers: Sequence[Layer], platform: str) -> Image:
    """Make an image of layers alone; no two are one, so each run may remove its own."""
    config = {
        "architecture": PLATFORMS[platform],
        "os": "linux",
        "created": CREATED,
        "config": {"Labels": {LABEL_BARE: secrets.token_hex(8)}},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{layer.blob.sha256}" for layer in layers],
        },
        "history": [
            {"created": CREATED, "created_by": f"packager: {layer.role}"} for layer in layers
        ],
    }
    return Image("layers", "", platform, canonical_json(config), tuple(layers))


def labels(project: Project) -> dict[str, str]:
    """List the labels that every image of a project has."""
    known = {
        "org.opencontainers.image.title": project.name,
        "org.opencontainers.image.version": project.version,
        "org.opencontainers.image.description": project.description,
        "org.opencontainers.image.licenses": project.license,
        "org.opencontainers.image.source": project.source,
        LABEL_BASE: project.base,
    }
    return {key: value for key, value in known.items() if value}


def manifest_of(image: Image, store: Store) -> Manifest:
    """Compress an image's layers, each once, and write its manifest."""
    layers = tuple(_compressed(layer.blob, store) for layer in image.layers)
    config = Descriptor(_CONFIG, hashlib.sha256(image.config).hexdigest(), len(image.config))
    data = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.as_json(),
            "layers": [Descriptor(_LAYER, blob.sha256, blob.size).as_json() for blob in layers],
            "annotations": {**image.annotations, COMPRESSED_BY: formats.COMPRESSOR},
        }
    )
    descriptor = Descriptor(MANIFEST, hashlib.sha256(data).hexdigest(), len(data))
    return Manifest(data, descriptor, layers)


def index_of(manifests: Mapping[str, Descriptor]) -> bytes:
    """Write an index of one image's manifests, each for its platform."""
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [
                {
                    **manifests[platform].as_json(),
                    "platform": {"architecture": PLATFORMS[platform], "os": "linux"},
                }
                for platform in sorted(manifests)
            ],
        }
    )


def _compressed(layer: Blob, store: Store) -> Blob:
    key = hashlib.sha256(canonical_json([layer.sha256, formats.COMPRESSOR])).hexdigest()
    known = store.note("compressed", key)
    if isinstance(known, str) and (blob := store.get(known)):
        return blob
    with layer.path.open("rb") as stream:
        blob = store.add(lambda out: _compress(stream, out))
    store.write_note("compressed", key, blob.sha256)
    return blob


def _compress(stream: IO[bytes], out: IO[bytes]) -> None:
    import deflate

    # A gzip file may have several members (RFC 1952, 2.2).
    while chunk := stream.read(formats.MEMBER):
        out.write(deflate.gzip_compress(chunk, formats.LEVEL))
