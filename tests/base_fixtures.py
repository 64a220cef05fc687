"""Shared by the tests of bases that are images: layers with Debian's Python, in either place."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bases import tar_blob
from conftest import Tiny, write_tiny

from packager import assembling
from packager.image import Image, manifest_of
from packager.outputs import archive
from packager.outputs.engine import Engine
from packager.project import load
from packager.reference import Reference
from packager.reporter import Silent
from packager.store import Blob, Store

NAME = Reference.parse("packager-tests-base:1")


@pytest.fixture(scope="session")
def debian(locked_tiny: Path, shared_store: Path) -> Blob:
    """The layer of packager's own base: what an image made of Debian is like."""
    inputs = assembling.gather(load(locked_tiny), "linux/amd64")
    return assembling.assemble(inputs, Store(shared_store), Silent()).image.layers[0].blob


@pytest.fixture(scope="session")
def python(debian: Blob, shared_store: Path) -> Blob:
    """A layer that moves Debian's Python to where images of Python have theirs."""
    members: list[tuple[str, bytes | str, int]] = [
        ("usr/bin/.wh.python3.11", b"", 0o644),
        ("usr/bin/.wh.python3", b"", 0o644),
        ("usr/lib/.wh.python3.11", b"", 0o644),
        ("usr/local/bin/python3", "python3.11", 0o777),
        # Where Debian's Python looks, and others do not.
        ("usr/local/lib/python3.11/dist-packages", "site-packages", 0o777),
    ]
    with tarfile.open(debian.path) as archive:
        for one in archive:
            stream = archive.extractfile(one) if one.isreg() else None
            if stream and one.name == "usr/bin/python3.11":
                members.append(("usr/local/bin/python3.11", stream.read(), 0o755))
            elif stream and one.name.startswith("usr/lib/python3.11/"):
                path = one.name.replace("usr/", "usr/local/", 1)
                members.append((path, stream.read(), 0o644))
    return tar_blob(Store(shared_store), members)


@pytest.fixture
def project(tmp_path: Path, shared_store: Path) -> Tiny:
    write_tiny(tmp_path / "local", "local")
    return Tiny(tmp_path / "local", shared_store)


@pytest.fixture
def place(project: Tiny, engine: Engine) -> Iterator[Callable[[Image, str], str]]:
    """Put an image where it is found in one of the ways; give the base's name."""
    loaded = []

    def put(image: Image, how: str) -> str:
        store, file = Store(project.store), project.root / "base.tar"
        if how.startswith("docker"):
            engine.load(image)
            engine.tag(image.id, NAME)
            loaded.append(image.id)
        if how == "docker-daemon":
            return str(NAME)
        if how == "docker-archive":
            file.write_bytes(b"".join(engine.save(image.id)))
            return "base.tar"
        archive.write(file, image, manifest_of(image, store), NAME, {})
        if how == "oci":
            with tarfile.open(file) as members:
                members.extractall(project.root / "base", filter="data")
            file.unlink()
            return "base"
        return "base.tar"

    yield put
    for one in loaded:
        engine.client.images.remove(one, force=True)
