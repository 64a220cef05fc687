"""Claims about bases that are images in no registry: in files, in folders, in an engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bases import image_of, stand_on, tar_blob
from conftest import Tiny
from made_images import Made, member, tar, write_folder

from packager.errors import UsageError
from packager.image import Image, manifest_of
from packager.outputs.engine import Engine
from packager.outputs.opened import opened_as
from packager.project import TRANSPORTS
from packager.store import Blob, Store

pytest_plugins = ["base_fixtures"]
pytestmark = pytest.mark.xdist_group("push")  # the base's layers are made once


def locked(project: Tiny, *words: str) -> str:
    run = project.run("lock", *words)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=[] if how == "docker-daemon" else pytest.mark.whole)
        for how in TRANSPORTS
    ],
)
def test_it_does_not_matter_how_a_base_is_packed(
    project: Tiny,
    place: Callable[[Image, str], str],
    debian: Blob,
    python: Blob,
    how: str,
    tmp_path: Path,
) -> None:
    stand_on(project, f"{how}:{place(image_of('base', [debian, python]), how)}")
    alone = Tiny(project.root, tmp_path / "store")  # which has no layer of it
    locked(alone)
    lock = (project.root / "packager.lock").read_text()
    for layer in (debian, python):
        assert f'sha256 = "{layer.sha256}"\nsize = {layer.size}' in lock
    assert 'prefix = "usr/local"' in lock
    assert (tmp_path / "store" / "blobs" / python.sha256).is_file()


def test_an_image_is_built_on_an_archive_and_does_not_need_it_again(
    project: Tiny,
    place: Callable[[Image, str], str],
    debian: Blob,
    engine: Engine,
    tmp_path: Path,
) -> None:
    base = image_of("base", [debian])
    stand_on(project, f"oci-archive:{place(base, 'oci-archive')}")
    locked(project)
    file = project.root / "base.tar"
    file.unlink()
    told = project.built()
    assert told["smoke"]["examples"] == 3  # type: ignore[index]
    try:
        labels = engine.get(str(told["id"]))["Config"]["Labels"]
        manifest = manifest_of(base, Store(project.store)).descriptor.sha256
        assert labels["org.opencontainers.image.base.digest"] == f"sha256:{manifest}"
        assert labels["org.opencontainers.image.base.name"] == "oci-archive:base.tar"
    finally:
        engine.remove(str(told["id"]))
    # Where its bytes are not kept, it has to be there,
    alone = Tiny(project.root, tmp_path / "store")
    words = ("build", "--no-load", "-o", str(tmp_path / "image.tar"), "--json")
    run = alone.run(*words)
    assert run.returncode == 2, run.stderr
    assert "there is no file base.tar" in run.stderr
    # and the same:
    more = tar_blob(Store(project.store), [("etc/motd", b"moved\n", 0o644)])
    place(image_of("base", [debian, more]), "oci-archive")
    run = alone.run(*words)
    assert run.returncode == 1, run.stderr
    assert "another image than the one that the lock names" in run.stderr
    place(base, "docker-archive")  # by another tool, in another form
    assert alone.run("bundle").returncode == 0  # which reads it, too
    run = alone.run(*words)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["id"] == told["id"]


@pytest.mark.whole
def test_an_upgrade_says_what_moved(
    project: Tiny, place: Callable[[Image, str], str], debian: Blob, python: Blob
) -> None:
    stand_on(project, f"oci-archive:{place(image_of('base', [debian, python]), 'oci-archive')}")
    locked(project)
    lock = (project.root / "packager.lock").read_bytes()
    more = tar_blob(Store(project.store), [("etc/motd", b"moved\n", 0o644)])
    new = image_of("base", [debian, python, more])
    place(new, "oci-archive")
    locked(project)
    assert (project.root / "packager.lock").read_bytes() == lock
    manifest = manifest_of(new, Store(project.store)).descriptor.sha256
    assert f"became sha256:{manifest} (linux/amd64)" in locked(project, "--upgrade")


def test_a_base_that_is_not_there_or_damaged_is_refused(project: Tiny) -> None:
    made = Made([("base", tar(member("etc/motd", b"one")))])
    stand_on(project, "oci:base")
    run = project.run("lock")
    assert run.returncode == 2
    assert "tool.packager.base: there is no folder base" in run.stderr
    write_folder(project.root / "base", made.layout())
    run = project.run("lock")
    assert run.returncode == 1
    assert "there is no CPython" in run.stderr
    other = Made([("base", tar(member("etc/motd", b"two")))], blobs=made.blob_list())
    write_folder(project.root / "base", other.layout())
    run = project.run("lock")
    assert run.returncode == 1
    assert "oci:base has a layer that unpacks to sha256:" in run.stderr
    assert "and its config says sha256:" in run.stderr
    assert not (project.root / "packager.lock").exists()


def test_of_several_platforms_the_one_that_is_wanted_is_read(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    entries = []
    for machine in ("amd64", "arm64"):
        made = Made([("base", tar(member("etc/motd", machine.encode())))])
        files |= made.layout()
        (entry,) = json.loads(made.layout()["index.json"])["manifests"]
        entries.append(entry | {"platform": {"os": "linux", "architecture": machine}})
    index = {"schemaVersion": 2, "manifests": entries}
    folder = write_folder(tmp_path / "base", {**files, "index.json": json.dumps(index).encode()})
    for machine in ("amd64", "arm64"):
        image = opened_as("layout", str(folder), tmp_path, f"linux/{machine}")
        with image.layers[0].open() as stream:
            assert machine.encode() in stream.read()
    for platform in ("", "linux/riscv64"):
        with pytest.raises(UsageError, match=r"it holds [02] images"):
            opened_as("layout", str(folder), tmp_path, platform)
