"""Tiny images made by hand, right or wrong in any place, as an archive, a layout or both."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MTIME = 315619200


def member(path: str, data: bytes = b"", **facts: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Make a member of a tar; `facts` are those of `tarfile.TarInfo`."""
    info = tarfile.TarInfo(path)
    info.mtime, info.size = MTIME, len(data)
    for name, value in facts.items():
        setattr(info, name, value)
    return info, data


def tar(*members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """Make a tar, as it comes: nothing is sorted, added or refused."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest(data: bytes) -> str:
    """Name bytes by their digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def as_json(value: Any) -> bytes:
    """Write a document; bytes are one already."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@dataclass
class Made:
    """An image out of layers; each document can be replaced by anything.

    Attributes
    ----------
    layers : sequence of (str, bytes)
        What the history says of each, and its tar.
    blobs : list of bytes
        The layers' files, if they are not what gzip makes of the tars.
    """

    layers: Sequence[tuple[str, bytes]]
    labels: Mapping[str, str] = field(default_factory=dict)
    config: Any = None
    manifest: Any = None
    index: Any = None
    blobs: list[bytes] | None = None
    level: int = 6
    annotations: Mapping[str, str] = field(default_factory=dict)

    def config_bytes(self) -> bytes:
        """Give the config."""
        if self.config is not None:
            return as_json(self.config)
        return as_json(
            {
                "os": "linux",
                "architecture": "amd64",
                "config": {"Labels": dict(self.labels)},
                "rootfs": {"type": "layers", "diff_ids": [digest(data) for _, data in self.layers]},
                "history": [{"created_by": f"packager: {what}"} for what, _ in self.layers],
            }
        )

    def blob_list(self) -> list[bytes]:
        """Give the layers' files."""
        if self.blobs is not None:
            return self.blobs
        return [gzip.compress(data, self.level, mtime=0) for _, data in self.layers]

    def manifest_bytes(self) -> bytes:
        """Give the manifest."""
        if self.manifest is not None:
            return as_json(self.manifest)
        config = self.config_bytes()
        return as_json(
            {
                "schemaVersion": 2,
                "config": {"digest": digest(config), "size": len(config)},
                "layers": [{"digest": digest(one), "size": len(one)} for one in self.blob_list()],
                "annotations": dict(self.annotations),
            }
        )

    def layout(self) -> dict[str, bytes]:
        """Give the files of an OCI layout."""
        manifest = self.manifest_bytes()
        entry = {"digest": digest(manifest), "size": len(manifest), "annotations": {"a": "b"}}
        index = {"schemaVersion": 2, "manifests": [entry]} if self.index is None else self.index
        blobs = [self.config_bytes(), manifest, *self.blob_list()]
        return {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": as_json(index),
            **{f"blobs/sha256/{digest(one)[7:]}": one for one in blobs},
        }

    def docker(self) -> dict[str, bytes]:
        """Give the files of a docker archive, as an old engine saves it."""
        config = self.config_bytes()
        name = f"{digest(config)[7:]}.json"
        names = [f"{index}/layer.tar" for index in range(len(self.layers))]
        entry = {"Config": name, "RepoTags": None, "Layers": names}
        layers = {path: data for path, (_, data) in zip(names, self.layers, strict=True)}
        return {name: config, "manifest.json": as_json([entry]), **layers}

    def both(self) -> dict[str, bytes]:
        """Give the files of an archive that is both, as packager writes it."""
        entry = {
            "Config": f"blobs/sha256/{digest(self.config_bytes())[7:]}",
            "Layers": [f"blobs/sha256/{digest(one)[7:]}" for one in self.blob_list()],
        }
        return {**self.layout(), "manifest.json": as_json([entry])}


def write_archive(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write files as a tar."""
    path.write_bytes(tar(*(member(name, data) for name, data in files.items())))
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder."""
    for name, data in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return path
