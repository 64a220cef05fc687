"""Shared by the tests of bases that are images: layers with Debian's Python, in either place."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from bases import tar_blob

from packager import assembling
from packager.project import load
from packager.reporter import Silent
from packager.store import Blob, Store


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
