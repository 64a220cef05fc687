"""Claims about bases that are images: pinned from a registry on loopback, and built upon."""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from bases import ENV, LABELS, depend, image_of, tar_blob
from conftest import Tiny, write_tiny
from registries import Certificate, Running, basic, running
from sdists import own_backend, write_sources

from packager import registry
from packager.errors import HostError
from packager.files import canonical_json
from packager.image import manifest_of
from packager.layers import image_root
from packager.outputs import registry as output
from packager.outputs.engine import Engine
from packager.reference import Reference
from packager.registry import Repository
from packager.reporter import Silent
from packager.store import Blob, Store

pytest_plugins = ["base_fixtures", "registry_fixtures"]
pytestmark = pytest.mark.xdist_group("push")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("hub")
    with running(folder / "registry", certificate, basic(folder)) as made:
        made.log_in()
        yield made


def publish(
    hub: Running,
    store: Path,
    name: str,
    layers: Sequence[Blob],
    architecture: str = "amd64",
    diff_ids: Sequence[str] = (),
) -> str:
    """Push an image that packager did not make; give the digest of its manifest."""
    image = image_of(name, layers, architecture, diff_ids)
    kept = Store(store)
    with reaching(hub, name) as repository:
        return output.write(repository, image, manifest_of(image, kept), kept, Silent()).manifest


@contextlib.contextmanager
def reaching(hub: Running, name: str) -> Iterator[Repository]:
    """Reach a repository as its owner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", hub.environment["DOCKER_CONFIG"])
        reference = Reference.parse(f"{hub.address}/{name}")
        yield registry.connect(reference, actions="pull,push", insecure=True)


@pytest.fixture
def based(tmp_path: Path, shared_store: Path, hub: Running) -> Callable[[str], Tiny]:
    """Make a project on a base of the registry, with an image of its own."""

    def make(base: str, name: str = "based") -> Tiny:
        root = tmp_path / name
        write_tiny(root, name)
        project = Tiny(root, shared_store)
        project.edit("pyproject.toml", '"debian:bookworm"', f'"{hub.address}/{base}"')
        return project

    return make


def locked(project: Tiny, hub: Running, *words: str) -> str:
    run = project.run("lock", *words, **hub.environment)
    assert run.returncode == 0, run.stderr
    return run.stdout


def refused(project: Tiny, hub: Running, *words: str) -> str:
    run = project.run("lock", *words, **hub.environment)
    assert run.returncode in {1, 3}, run.stderr
    assert "Traceback" not in run.stderr
    assert not (project.root / "packager.lock").exists()
    return run.stderr


def test_an_image_is_built_on_a_base_of_a_registry(
    based: Callable[[str], Tiny],
    hub: Running,
    debian: Blob,
    python: Blob,
    engine: Engine,
    make_wheel: Callable[..., Path],
    tmp_path: Path,
) -> None:
    project = based("python:3.11")
    depend(project, make_wheel("extra-dep"))
    project.edit("src/based/predict.py", "from pathlib", "import extra_dep\nfrom pathlib")
    manifest = publish(hub, project.store, "python:3.11", [debian, python])
    locked(project, hub)
    archive = tmp_path / "image.tar"
    built = project.built("-o", str(archive), **hub.environment)
    layers: Any = built["layers"]
    assert [one["diff_id"] for one in layers[:2]] == [
        f"sha256:{debian.sha256}",
        f"sha256:{python.sha256}",
    ]
    assert built["smoke"]["examples"] == 3  # type: ignore[index]
    try:
        inside = engine.get(str(built["id"]))["Config"]
        assert inside["Entrypoint"][0] == "/usr/local/bin/python3.11"
        assert {*ENV} - {*inside["Env"]} == {"LANG=C"}
        assert inside["Labels"]["org.opencontainers.image.base.digest"] == manifest
        assert "maintainer" not in inside["Labels"]
    finally:
        engine.remove(str(built["id"]))
    with tarfile.open(archive) as members:
        stream = members.extractfile(f"blobs/{str(built['manifest']).replace(':', '/')}")
        assert stream
        annotations = json.load(stream)["annotations"]
    assert annotations["org.opencontainers.image.base.digest"] == manifest
    for key, value in LABELS.items():
        assert annotations[f"org.model-packager.base.{key}"] == value


@pytest.mark.whole
def test_what_has_no_wheel_is_built_in_a_base_of_a_registry(
    based: Callable[[str], Tiny], hub: Running, debian: Blob, python: Blob
) -> None:
    project = based("python:3.11")
    publish(hub, project.store, "python:3.11", [debian, python])
    write_sources(project.root / "mine", own_backend("mine", before="os.stat('/usr/local/bin')"))
    project.edit("pyproject.toml", "dependencies = []", 'dependencies = ["mine"]')
    with (project.root / "pyproject.toml").open("a") as file:
        file.write('\n[tool.packager.build-from]\nmine = "mine"\n')
    assert "mine 1.0 of mine" in locked(project, hub)
    assert (project.root / "built-wheels" / "mine-1.0-py3-none-any.whl").exists()
    assert "kept" in locked(project, hub)


@pytest.mark.whole
def test_a_base_stays_until_it_is_upgraded(
    based: Callable[[str], Tiny], hub: Running, debian: Blob, python: Blob
) -> None:
    project = based("moving:1", "moving")
    first = publish(hub, project.store, "moving:1", [debian, python])
    locked(project, hub)
    before = (project.root / "packager.lock").read_bytes()
    more = tar_blob(Store(project.store), [("etc/motd", b"moved\n", 0o644)])
    second = publish(hub, project.store, "moving:1", [debian, python, more])
    locked(project, hub)
    assert (project.root / "packager.lock").read_bytes() == before
    assert f"{first} became {second} (linux/amd64)" in locked(project, hub, "--upgrade")
    assert second.removeprefix("sha256:") in (project.root / "packager.lock").read_text()
    # By its digest, it stays for ever.
    project.edit("pyproject.toml", "moving:1", f"moving@{first}")
    assert f"{second} became {first}" in locked(project, hub)
    assert "became" not in locked(project, hub, "--upgrade")


REFUSALS: dict[str, tuple[list[tuple[str, bytes | str, int]], str]] = {
    "no Python": ([], "there is no CPython in /usr/local/bin or /usr/bin"),
    "an old Python": ([("usr/local/bin/python3.9", b"\x7fELF", 0o755)], "it has Python 3.9"),
    "a script": ([("usr/local/bin/python3.11", b"#!/bin/sh", 0o755)], "no program for amd64"),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if case == "no Python" else pytest.mark.whole)
        for case in REFUSALS
    ],
)
def test_a_base_without_a_fitting_python_is_refused(
    based: Callable[[str], Tiny], hub: Running, shared_store: Path, case: str
) -> None:
    members, why = REFUSALS[case]
    layer = tar_blob(Store(shared_store), [("etc/motd", case.encode(), 0o644), *members])
    publish(hub, shared_store, "wrong:1", [layer])
    said = refused(based("wrong:1"), hub)
    assert why in said
    assert "tool.packager.base" in said


def test_a_base_with_another_c_library_is_refused(
    based: Callable[[str], Tiny], hub: Running, shared_store: Path, python: Blob
) -> None:
    with tarfile.open(python.path) as archive:
        stream = archive.extractfile("./usr/local/bin/python3.11")
        assert stream
        program = stream.read()
    store = Store(shared_store)
    musl = tar_blob(
        store, [("usr/local/bin/python3.11", program.replace(b"libc.so.6", b"musl.so.1"), 0o755)]
    )
    publish(hub, shared_store, "musl:1", [musl])
    assert "its Python needs musl.so.1" in refused(based("musl:1"), hub)
    # The same without any library.
    publish(hub, shared_store, "bare:1", [python])
    assert "there is no GNU C library" in refused(based("bare:1", "bare"), hub)


def test_what_the_project_needs_of_its_base_is_held_against_it(
    based: Callable[[str], Tiny], hub: Running, debian: Blob, python: Blob
) -> None:
    project = based("python:3.11", "needs")
    publish(hub, project.store, "python:3.11", [debian, python])
    project.edit("pyproject.toml", ">=3.11", ">=3.12")
    assert "has Python 3.11.2, which >=3.12 leaves out" in refused(project, hub)
    project.edit("pyproject.toml", ">=3.12", ">=3.11")
    project.edit(
        "pyproject.toml", "[tool.packager]", '[tool.packager]\nplatforms = ["linux/arm64"]'
    )
    assert "it is for linux/amd64, not for linux/arm64" in refused(project, hub)


@pytest.mark.whole
def test_a_distribution_that_the_base_has_is_not_put_over_it(
    based: Callable[[str], Tiny],
    hub: Running,
    debian: Blob,
    python: Blob,
    make_wheel: Callable[..., Path],
) -> None:
    project = based("taken:1", "taken")
    depend(project, make_wheel("Over-Lap", "2.0"))
    info = "usr/local/lib/python3.11/site-packages/over_lap-1.0.dist-info/METADATA"
    has = tar_blob(Store(project.store), [(info, b"Name: over-lap\n", 0o644)])
    publish(hub, project.store, "taken:1", [debian, python, has])
    assert "it has over-lap in /usr/local/lib/python3.11/site-packages" in refused(project, hub)
    publish(hub, project.store, "taken:1", [debian, python])
    locked(project, hub)


def test_layers_that_are_not_what_was_said_are_refused(
    based: Callable[[str], Tiny], hub: Running, shared_store: Path, tmp_path: Path
) -> None:
    layer = tar_blob(Store(shared_store), [("etc/motd", b"as said", 0o644)])
    publish(hub, shared_store, "other:1", [layer], diff_ids=["0" * 64])
    said = refused(based("other:1", "other"), hub)
    assert f"unpacks to sha256:{layer.sha256}, and its config says sha256:{'0' * 64}" in said
    digest = publish(hub, shared_store, "damaged:1", [layer])
    manifest = json.loads(hub.blob(digest.removeprefix("sha256:")).read_bytes())
    packed = hub.blob(manifest["layers"][0]["digest"].removeprefix("sha256:"))
    data = packed.read_bytes()
    packed.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    project = based("damaged:1", "damaged")
    said = refused(Tiny(project.root, tmp_path / "store"), hub)
    assert f"the lock says sha256 {packed.parent.name}" in said
    packed.unlink()
    assert "404" in refused(Tiny(project.root, tmp_path / "another"), hub)


@pytest.mark.whole
def test_who_may_not_read_a_base_is_told_so(
    based: Callable[[str], Tiny], hub: Running, debian: Blob
) -> None:
    project = based("secret:1", "secret")
    publish(hub, project.store, "secret:1", [debian])
    hub.log_in(password="sekret")
    try:
        assert "does not accept the login" in refused(project, hub)
    finally:
        hub.log_in()
    project.edit("pyproject.toml", "secret:1", "nowhere:1")
    assert "MANIFEST_UNKNOWN" in refused(project, hub)


@pytest.mark.whole
def test_debians_own_python_in_an_index_of_platforms_will_do(
    based: Callable[[str], Tiny], hub: Running, debian: Blob, engine: Engine
) -> None:
    project = based("many:1", "many")
    digests = {
        name: publish(hub, project.store, f"many:{name}", [debian], name)
        for name in ("arm64", "amd64")
    }
    entries = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": hub.blob(digest.removeprefix("sha256:")).stat().st_size,
            "platform": {"os": "linux", "architecture": name},
        }
        for name, digest in digests.items()
    ]
    kind = "application/vnd.oci.image.index.v1+json"
    with reaching(hub, "many:1") as repository:
        index = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
        repository.put(canonical_json(index), kind, "1")
    locked(project, hub)
    lock = (project.root / "packager.lock").read_text()
    assert f'manifest = "{digests["amd64"].removeprefix("sha256:")}"' in lock
    assert 'prefix = "usr"' in lock
    engine.remove(str(project.built("-t", "many:tests")["id"]))
    arm = '[tool.packager]\nplatforms = ["linux/arm64"]'
    project.edit("pyproject.toml", "[tool.packager]", arm)
    run = project.run("lock", **hub.environment)
    assert "no program for arm64" in run.stderr  # this one lies of what it holds


@pytest.mark.whole
def test_an_image_on_a_base_is_verified_from_an_empty_store(
    based: Callable[[str], Tiny], hub: Running, debian: Blob, python: Blob, tmp_path: Path
) -> None:
    project = based("verified:1", "verified")
    publish(hub, project.store, "verified:1", [debian, python])
    locked(project, hub)
    archive = tmp_path / "image.tar"
    project.built("--no-load", "-o", str(archive))  # without a registry
    run = project.run("verify", str(archive), "--empty-store", "--json", **hub.environment)
    assert run.returncode == 0, run.stderr
    found = {one["name"]: one["verdict"] for one in json.loads(run.stdout)["levels"]}
    assert (found["image"], found["manifest"]) == ("same", "same")


@pytest.mark.whole
def test_an_image_on_a_base_is_built_from_a_bundle(
    based: Callable[[str], Tiny], hub: Running, debian: Blob, python: Blob, tmp_path: Path
) -> None:
    project = based("carried:1", "carried")
    publish(hub, project.store, "carried:1", [debian, python])
    locked(project, hub)
    built = project.built("--no-load", "-o", str(tmp_path / "image.tar"))
    bundle = str(tmp_path / "stick.tar")
    assert "2 files for linux/amd64" in project.run("bundle", "-o", bundle).stdout
    project.store = tmp_path / "store"
    for source, code in ((["--offline"], HostError.exit_code), (["--bundle", bundle], 0)):
        again = str(tmp_path / "again.tar")
        run = project.run("build", *source, "--json", "--no-load", "-o", again)
        assert run.returncode == code, run.stderr
    assert json.loads(run.stdout)["manifest"] == built["manifest"]


def test_layers_are_laid_over_each_other_as_engines_do(tmp_path: Path) -> None:
    store = Store(tmp_path)
    layers = [
        tar_blob(
            store,
            [
                ("etc/kept", b"1", 0o644),
                ("etc/gone", b"1", 0o644),
                ("etc/changed", b"1", 0o644),
                ("opt/a/b/c", b"1", 0o644),
                ("srv/x", b"1", 0o644),
                ("srv/sub/y", b"1", 0o644),
                ("var/was/folder", b"1", 0o644),
                ("lib", "usr/lib", 0o777),
            ],
        ),
        tar_blob(
            store,
            [
                ("etc/.wh.gone", b"", 0o644),
                ("etc/changed", b"22", 0o644),
                ("opt/.wh.a", b"", 0o644),
                ("srv/.wh..wh..opq", b"", 0o644),
                ("srv/z", b"2", 0o644),
                ("var/was", b"a file", 0o644),
            ],
        ),
    ]
    found = image_root.entries([layer.path for layer in layers], "tests")
    assert {path: one.size for path, one in found.items()} == {
        "etc/kept": 1,
        "etc/changed": 2,
        "srv/z": 1,
        "var/was": 6,
        "lib": 0,
    }
    # What an upper layer hides is there without it.
    lower = image_root.entries([layers[0].path], "tests")
    assert {"etc/gone", "opt/a/b/c", "srv/sub/y"} <= lower.keys()
