"""An image as one file that every engine reads: an OCI layout that is a docker archive too.

Engines before 25 read `manifest.json` (docker image specification 1.2); podman, skopeo,
containerd and newer engines read `index.json` and `oci-layout` (OCI image layout 1.0).
Both point at the same blobs.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from packager.errors import HostError
from packager.image import Image, Manifest
from packager.layers import tar
from packager.layers.tar import Entry, data_entry
from packager.store import Blob, canonical_json

__all__ = ["blob_entry", "docker_manifest", "write"]


def write(
    path: Path, image: Image, manifest: Manifest, reference: str, annotations: Mapping[str, str]
) -> None:
    """Write the archive, whole or not at all.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    image, manifest
        What to write.
    reference : str
        The name that loading gives the image.
    annotations : mapping
        For the index: where the image came from, which is no part of what it is.

    Raises
    ------
    HostError
        When the file cannot be written.
    """
    try:
        with _beside(path) as out:
            tar.write(tar.merge(_entries(image, manifest, reference, annotations)), out)
    except OSError as error:
        raise HostError(f"cannot be written: {error.strerror}", where=str(path)) from None


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[tempfile._TemporaryFileWrapper[bytes]]:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as out:
        try:
            yield out
            out.flush()
            os.fsync(out.fileno())
            Path(out.name).chmod(0o644)
            Path(out.name).replace(path)
        finally:
            Path(out.name).unlink(missing_ok=True)


def _entries(
    image: Image, manifest: Manifest, reference: str, annotations: Mapping[str, str]
) -> list[Entry]:
    tag = reference.rpartition(":")[2]
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                **manifest.descriptor.as_json(),
                "annotations": {
                    "io.containerd.image.name": f"docker.io/library/{reference}",
                    "org.opencontainers.image.ref.name": tag,
                    **annotations,
                },
            }
        ],
    }
    blobs = {blob.sha256: blob_entry(blob.sha256, blob) for blob in manifest.layers}
    config = image.id.removeprefix("sha256:")
    layers = [f"blobs/sha256/{blob.sha256}" for blob in manifest.layers]
    return [
        data_entry("oci-layout", canonical_json({"imageLayoutVersion": "1.0.0"})),
        data_entry("index.json", canonical_json(index)),
        data_entry("manifest.json", docker_manifest(image, [reference], layers)),
        data_entry(f"blobs/sha256/{config}", image.config),
        data_entry(f"blobs/sha256/{manifest.descriptor.sha256}", manifest.data),
        *blobs.values(),
    ]


def blob_entry(name: str, blob: Blob) -> Entry:
    """Make the archive entry of a blob in the store."""
    return Entry(
        f"blobs/sha256/{name}", size=blob.size, open=lambda: blob.path.open("rb"), owner="the store"
    )


def docker_manifest(image: Image, tags: list[str], layers: list[str]) -> bytes:
    """Write `manifest.json`, which names the config and the layers' files in the archive."""
    config = f"blobs/sha256/{image.id.removeprefix('sha256:')}"
    return canonical_json([{"Config": config, "RepoTags": tags or None, "Layers": layers}])
