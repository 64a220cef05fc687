"""Images that packager did not make, to stand on."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conftest import Tiny

from packager.files import canonical_json
from packager.image import Image
from packager.layers.making import Layer
from packager.store import Blob, Store

ENV = ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C", "PYTHON_VERSION=3.11.2"]
LABELS = {"maintainer": "the tests", "org.opencontainers.image.version": "7"}


def tar_blob(store: Store, members: Sequence[tuple[str, bytes | str, int]]) -> Blob:
    """Keep a tar, with times and owners as others write them; text is where a link leads."""

    def write(out: Any) -> None:
        with tarfile.open(fileobj=out, mode="w|") as archive:
            for name, data, mode in members:
                info = tarfile.TarInfo(f"./{name}")
                info.mode, info.mtime, info.uname = mode, 1_700_000_000, "root"
                if isinstance(data, str):
                    info.type, info.linkname = tarfile.SYMTYPE, data
                    archive.addfile(info)
                else:
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))

    return store.add(write)


def image_of(
    name: str,
    layers: Sequence[Blob],
    architecture: str = "amd64",
    diff_ids: Sequence[str] = (),
    env: Sequence[str] = ENV,
) -> Image:
    """Make an image that packager did not make, of layers."""
    digests = diff_ids or [one.sha256 for one in layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": list(env), "Labels": LABELS, "Cmd": ["python3"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one}" for one in digests]},
    }
    made = tuple(Layer("base", name, 1, one, cached=False) for one in layers)
    return Image(name, "1", f"linux/{architecture}", canonical_json(config), made)


def stand_on(project: Tiny, base: str) -> None:
    """Have a project stand on an image, for tests that are not about bytecode."""
    project.edit("pyproject.toml", '"debian:bookworm"', f'"{base}"\nbytecode = false')


def depend(project: Tiny, wheel: Path) -> None:
    """Have a project require a wheel."""
    name = wheel.name.partition("-")[0]
    project.edit("pyproject.toml", "dependencies = []", f'dependencies = ["{name}"]')
    links = f'[tool.packager]\nfind-links = ["{wheel.parent}"]'
    project.edit("pyproject.toml", "[tool.packager]", links)
