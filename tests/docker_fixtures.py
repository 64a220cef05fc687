"""Shared by the tests of Dockerfiles: a base with pip, made of the Debian base."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

import pytest

from packager import assembling
from packager.files import canonical_json
from packager.image import Image
from packager.layers import tar
from packager.layers.making import Layer
from packager.layers.tar import Entry, data_entry
from packager.outputs.engine import Engine
from packager.project import load
from packager.reference import Reference
from packager.reporter import Silent
from packager.store import Blob, Store

PACKAGES = "usr/local/lib/python3.11/dist-packages"


@pytest.fixture(scope="module")
def base_with_pip(engine: Engine, locked_tiny: Path, shared_store: Path) -> Iterator[str]:
    """The name of an image with Debian's Python and pip: what a registry would have ready."""
    store = Store(shared_store)
    inputs = assembling.gather(load(locked_tiny), "linux/amd64")
    base = assembling.assemble(inputs, store, Silent()).image.layers[0]
    layers = (base, Layer("wheels", "pip", 1, pip_layer(store), cached=False))
    mark = secrets.token_hex(8)  # no other test has, or removes, this image
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "Labels": {"test": mark},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one.blob.sha256}" for one in layers]},
    }
    image = Image("with-pip", "1", "linux/amd64", canonical_json(config), layers)
    reference = Reference.parse(f"with-pip:{mark}")
    engine.load(image)
    engine.tag(image.id, reference)
    yield str(reference)
    # What was built on it inherits the label: stages without a name, kept as a cache, too.
    for one in engine.client.images.list(filters={"label": f"test={mark}"}):
        engine.client.images.remove(one.id, force=True)


def pip_layer(store: Store) -> Blob:
    """Make a layer of this environment's pip, and of the name that images of Python call it by."""
    entries = [
        data_entry(f"{PACKAGES}/{file}", Path(str(file.locate())).read_bytes())
        for file in files("pip") or []
        if not file.is_absolute() and ".." not in file.parts and file.suffix != ".pyc"
    ]
    entries.append(
        Entry("usr/local/bin/python", "symlink", 0o777, target="/usr/bin/python3.11", owner="test")
    )
    return store.add(lambda out: tar.write(tar.merge(entries), out))
