"""Claims about images for other machines: made here, run where that is emulated, and indexed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chroots import or_skip
from conftest import Tiny, run_packager, write_tiny
from emulation import emulated, not_emulated
from made_images import digest
from registries import PASSWORD, USER, Certificate, Running, basic, running

from packager import image
from packager.image import Descriptor
from packager.outputs.engine import Engine

pytest_plugins = ["registry_fixtures"]
# Whether this kernel runs programs for arm64 is changed here.
pytestmark = pytest.mark.xdist_group("platforms")

ARM = ("--platform", "linux/arm64")


@pytest.fixture(scope="module")
def locked_both(tmp_path_factory: pytest.TempPathFactory, shared_store: Path) -> Path:
    root = tmp_path_factory.mktemp("both")
    write_tiny(root, "both")
    settings = (root / "pyproject.toml").read_text()
    both = '[tool.packager]\nplatforms = ["linux/amd64", "linux/arm64"]'
    (root / "pyproject.toml").write_text(settings.replace("[tool.packager]", both))
    run = run_packager(root, shared_store, "lock")
    assert run.returncode == 0, run.stderr
    return root


@pytest.fixture
def both(locked_both: Path, tmp_path: Path, shared_store: Path, engine: Engine) -> Iterator[Tiny]:
    """A project that is locked for two platforms; nothing of it stays in the engine."""
    root = tmp_path / "both"
    shutil.copytree(locked_both, root)
    yield Tiny(root, shared_store)
    images = engine.client.images
    for one in images.list(all=True, filters={"label": "org.opencontainers.image.title=both"}):
        images.remove(one.id, force=True)


@pytest.fixture
def registry(tmp_path: Path, certificate: Certificate) -> Iterator[Running]:
    with running(tmp_path / "registry", certificate, basic(tmp_path)) as made:
        made.log_in()
        yield made


def test_what_the_engine_does_not_execute_is_not_said_to_have_passed(
    both: Tiny, engine: Engine
) -> None:
    with or_skip(), not_emulated():
        run = both.run("build", *ARM)
        assert run.returncode == 0, run.stderr
        assert f"{engine.name} does not execute linux/arm64" in run.stdout
        assert "not run" in run.stdout
        assert "passed" not in run.stdout
        told = both.built(*ARM)
        assert told["smoke"] is None
        assert engine.get("both:0.1.0")["Id"] == told["id"]
        # Asked for by itself, it is an error.
        run = both.run("smoke", "both:0.1.0")
        assert run.returncode == 3
        assert "does not execute linux/arm64" in run.stderr
        assert "qemu-user-static" in run.stderr


def test_where_it_is_emulated_it_is_tested(both: Tiny, engine: Engine) -> None:
    with or_skip(), emulated():
        told = both.built(*ARM)
        assert told["smoke"]["examples"] == 3  # type: ignore[index]
        assert told["smoke"]["remembered"] is False  # type: ignore[index]
        assert engine.get("both:0.1.0")["Architecture"] == "arm64"
        both.edit("models/examples.json", "-5.0", "-5.1")
        run = both.run("build", *ARM)
        assert run.returncode == 1, run.stderr
        assert "does not predict what was recorded" in run.stderr
        assert engine.get("both:0.1.0")["Id"] == told["id"]  # an earlier one, which passed


@pytest.mark.whole
def test_this_machines_python_makes_the_bytecode_that_the_others_own_makes(
    both: Tiny, tmp_path: Path
) -> None:
    told = both.built("--no-smoke", *ARM)
    both.edit("pyproject.toml", '"linux/amd64", ', "")
    alone = Tiny(both.root, tmp_path / "store")  # which remembers no layer
    with or_skip():
        with not_emulated():
            assert alone.run("lock").returncode == 0
            run = alone.run("build", *ARM)
            assert run.returncode == 3, run.stderr
            assert "runs neither on Linux" in run.stderr
        with emulated():
            emulating = alone.built("--no-smoke")
    assert emulating["id"] == told["id"]
    diff_ids = [[one["diff_id"] for one in made["layers"]] for made in (emulating, told)]  # type: ignore[attr-defined]
    assert diff_ids[0] == diff_ids[1]


def test_a_bundle_for_another_machine_has_the_python_that_makes_its_bytecode(
    both: Tiny, tmp_path: Path
) -> None:
    run = both.run("bundle", *ARM, "-o", str(tmp_path / "bundle.tar"))
    assert run.returncode == 0, run.stderr
    with tarfile.open(tmp_path / "bundle.tar") as members:
        held = {Path(name).name for name in members.getnames()}
    lock = tomllib.loads((both.root / "packager.lock").read_text())
    for base in lock["debian"]:
        assert {pin["sha256"] for pin in base["package"]} <= held


# --- an index of several ------------------------------------------------------------------------


def push(both: Tiny, registry: Running, *words: str) -> dict[str, Any]:
    name = f"{registry.address}/lab/both:1"
    run = both.run("push", name, "--platform", "all", "--json", *words, **registry.environment)
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout)
    return told


def test_a_tag_names_the_images_of_all_platforms(
    both: Tiny, registry: Running, engine: Engine, tmp_path: Path
) -> None:
    told = push(both, registry)
    amd, arm = told["images"]
    assert [one["platform"] for one in (amd, arm)] == ["linux/amd64", "linux/arm64"]
    data = registry.blob(told["index"]["digest"].removeprefix("sha256:")).read_bytes()
    assert told["index"]["digest"] == digest(data)
    listed = {
        one["platform"]["architecture"]: one["digest"] for one in json.loads(data)["manifests"]
    }
    assert listed == {"amd64": amd["manifest"], "arm64": arm["manifest"]}
    tags = [path.name for path in (registry.folder / "data").rglob("_manifests/tags/*")]
    assert tags == ["1"]  # each platform's manifest has its digest alone
    # In the engine the first platform has the name, and was tested.
    assert engine.get("both:0.1.0")["Id"] == amd["id"]
    assert engine.get("both:0.1.0-arm64")["Id"] == arm["id"]
    assert amd["smoke"]["examples"] == 3
    # Twice the same, and nothing sent.
    again = push(both, registry)
    assert again["index"] == told["index"]
    assert [one["pushed"]["sent"] for one in again["images"]] == [0, 0]
    # Each machine gets its own.
    images, repository = engine.client.images, f"{registry.address}/lab/both"
    login = {"username": USER, "password": PASSWORD}
    for one, platform in ((amd, None), (arm, "linux/arm64")):
        images.remove(one["id"], force=True)
        pulled = images.pull(repository, "1", auth_config=login, platform=platform)
        assert pulled.id == one["id"]
    if shutil.which("skopeo"):
        assert copied(registry, tmp_path, "arm64") == arm["manifest"]
        assert copied(registry, tmp_path, "amd64") == amd["manifest"]


def copied(registry: Running, folder: Path, architecture: str) -> str:
    """Have skopeo copy what a machine gets; give its manifest's digest."""
    source = f"docker://{registry.address}/lab/both:1"
    login = ("--src-creds", f"{USER}:{PASSWORD}", "--src-tls-verify=false")
    command = ["skopeo", "--insecure-policy", "--override-arch", architecture]
    copy = folder / architecture
    subprocess.run(
        [*command, "copy", "--preserve-digests", *login, source, f"dir:{copy}"],
        check=True,
        capture_output=True,
    )
    return digest((copy / "manifest.json").read_bytes())


def test_an_image_that_fails_its_test_keeps_the_index_from_its_tag(
    both: Tiny, registry: Running
) -> None:
    both.edit("models/examples.json", "-5.0", "-5.1")
    name = f"{registry.address}/lab/both:1"
    run = both.run("push", name, "--platform", "all", **registry.environment)
    assert run.returncode == 1, run.stderr
    assert not list((registry.folder / "data").rglob("tags/*"))


def test_an_index_does_not_depend_on_the_order_of_platforms() -> None:
    parts = {
        f"linux/{name}": Descriptor("application/vnd.oci.image.manifest.v1+json", name * 8, 7)
        for name in ("amd64", "arm64")
    }
    data = image.index_of(parts)
    assert data == image.index_of(dict(reversed(parts.items())))
    assert image.index_of({**parts, "linux/arm64": parts["linux/amd64"]}) != data
    assert json.loads(data)["manifests"][0]["platform"] == {"architecture": "amd64", "os": "linux"}
