"""An image as one file that every engine reads: an OCI layout that is a docker archive too.

Engines before 25 read `manifest.json` (docker image specification 1.2); podman, skopeo,
containerd and newer engines read `index.json` and `oci-layout` (OCI image layout 1.0).
Both point at the same blobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from packager.files import canonical_json, replacing
from packager.image import INDEX, Image, Manifest
from packager.layers import tar
from packager.layers.tar import Entry, data_entry
from packager.reference import Reference
from packager.store import Blob

__all__ = ["blob_entry", "config_entry", "docker_manifest", "layout", "write"]


def write(
    path: Path,
    image: Image,
    manifest: Manifest,
    reference: Reference,
    annotations: Mapping[str, str],
) -> None:
    """Write the archive, whole or not at all.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    image, manifest
        What to write.
    reference : Reference
        The name that loading gives the image.
    annotations : mapping
        For the index: where the image came from, which is no part of what it is.

    Raises
    ------
    HostError
        When the file cannot be written.
    """
    with replacing(path) as out:
        tar.write(tar.merge(_entries(image, manifest, reference, annotations)), out)


def _entries(
    image: Image, manifest: Manifest, reference: Reference, annotations: Mapping[str, str]
) -> list[Entry]:
    named = {
        "io.containerd.image.name": reference.full,
        "org.opencontainers.image.ref.name": reference.tag,
        **annotations,
    }
    blobs = {blob.sha256: blob_entry(blob.sha256, blob) for blob in manifest.layers}
    layers = [f"blobs/sha256/{blob.sha256}" for blob in manifest.layers]
    return [
        *layout(image, manifest, named),
        data_entry("manifest.json", docker_manifest(image, [str(reference)], layers)),
        *blobs.values(),
    ]


def layout(image: Image, manifest: Manifest, annotations: Mapping[str, str]) -> list[Entry]:
    """Write the documents of an OCI layout, the index with annotations of the image."""
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{**manifest.descriptor.as_json(), "annotations": dict(annotations)}],
    }
    return [
        data_entry("oci-layout", canonical_json({"imageLayoutVersion": "1.0.0"})),
        data_entry("index.json", canonical_json(index)),
        config_entry(image),
        data_entry(f"blobs/sha256/{manifest.descriptor.sha256}", manifest.data),
    ]


def config_entry(image: Image) -> Entry:
    """Make the archive entry of a config."""
    return data_entry(f"blobs/sha256/{image.id.removeprefix('sha256:')}", image.config)


def blob_entry(name: str, blob: Blob) -> Entry:
    """Make the archive entry of a blob in the store."""
    return Entry(
        f"blobs/sha256/{name}", size=blob.size, open=lambda: blob.path.open("rb"), owner="the store"
    )


def docker_manifest(image: Image, tags: list[str], layers: list[str]) -> bytes:
    """Write `manifest.json`, which names the config and the layers' files in the archive."""
    config = f"blobs/sha256/{image.id.removeprefix('sha256:')}"
    return canonical_json([{"Config": config, "RepoTags": tags or None, "Layers": layers}])
