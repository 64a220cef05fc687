"""Claims about `packager build`, each against a real engine, on a project without dependencies."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from datetime import datetime
from pathlib import Path

import docker
import pytest
from conftest import Tiny, copy_store, git, run_packager

from packager import assembling, delivering
from packager.errors import ClaimError, HostError, UsageError
from packager.image import Image
from packager.outputs import containers
from packager.outputs.ahead import Ahead
from packager.outputs.containers import Run
from packager.outputs.engine import Engine
from packager.outputs.images import Loaded
from packager.proof import Limits
from packager.reference import Reference
from packager.reporter import Silent
from packager.store import Store


@pytest.fixture
def docker_client(engine: Engine) -> docker.DockerClient:
    return engine.client


def images_of(client: docker.DockerClient, tag: str) -> list[object]:
    """List every image of a version, tagged or not."""
    version = tag.partition(":")[2]
    return list(
        client.images.list(filters={"label": f"org.opencontainers.image.version={version}"})
    )


def unique(tiny: Tiny, tmp_path: Path) -> str:
    """Give the project a version of its own, so that its tag is this test's alone."""
    version = f"0.1.{abs(hash(tmp_path)) % 10**9}"
    tiny.edit("pyproject.toml", 'version = "0.1.0"', f'version = "{version}"')
    return f"tiny:{version}"


def test_an_image_is_built_tagged_and_predicts_sealed(
    tiny: Tiny, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    tag = unique(tiny, tmp_path)
    result = tiny.built()
    assert result["tag"] == tag
    assert docker_client.images.get(tag).id == result["id"]
    printed = docker_client.containers.run(
        tag,
        ["selftest", "--json"],
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},
        cap_drop=["ALL"],
        user="65532",
        remove=True,
    )
    verdict = json.loads(printed.splitlines()[-1])
    assert (verdict["status"], verdict["examples"]) == ("passed", 3)
    assert verdict["outputs"][0]["largest_difference"] == 0.0


def test_a_person_sees_layers_digest_and_size(tiny: Tiny) -> None:
    run = tiny.run("build")
    assert run.returncode == 0, run.stderr
    for expected in ("base", "53 packages", "model", "code", "passed", "sha256:", "3 data rows"):
        assert expected in run.stdout
    assert "(CC0-1.0)" in run.stdout
    assert "\x1b" not in run.stdout


def test_info_and_smoke_know_the_image(tiny: Tiny, tmp_path: Path) -> None:
    tag = unique(tiny, tmp_path)
    built = tiny.built("-o", str(tmp_path / "image.tar"))
    told = json.loads(tiny.run("info", "--json").stdout)
    assert told["id"] == built["id"]
    assert told["labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert told["facts"]["version"] in tag
    of_archive = json.loads(tiny.run("info", "--json", str(tmp_path / "image.tar")).stdout)
    assert of_archive["id"] == built["id"]
    assert of_archive["labels"] == told["labels"]
    smoke = tiny.run("smoke", tag)
    assert smoke.returncode == 0
    assert "passed: 3 examples" in smoke.stdout
    unknown = tiny.run("info", "tiny:no-such-tag")
    assert unknown.returncode == UsageError.exit_code
    assert "no-such-tag" in unknown.stderr


def test_the_image_id_is_a_function_of_the_inputs_alone(tiny: Tiny, tmp_path: Path) -> None:
    first = tiny.built("--no-load", "-o", str(tmp_path / "first.tar"))
    git(tiny.root, "checkout", "-qb", "other")
    (tiny.root / "README.md").write_text("# Changed\n")
    git(tiny.root, "commit", "-qam", "Only the README")
    clone = tmp_path / "a clone elsewhere"
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "-q", str(tiny.root), str(clone))
    assert b"\r\n" in (clone / "src/tiny/predict.py").read_bytes()
    script = "import os, sys; os.umask(0o077); os.execvp(sys.argv[1], sys.argv[1:])"
    build = ["build", "--json", "--no-load", "-o", str(tmp_path / "second.tar")]
    run = subprocess.run(
        [sys.executable, "-c", script, sys.executable, "-m", "packager", *build],
        cwd=clone,
        env={
            **os.environ,
            "PACKAGER_CACHE": str(tmp_path / "empty store"),
            "TZ": "Asia/Kathmandu",
            "LC_ALL": "C",
            "PYTHONHASHSEED": "7",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    second = json.loads(run.stdout)
    assert second["id"] == first["id"]
    assert second["manifest"] == first["manifest"]
    assert second["commit"] != first["commit"]
    (tiny.root / "src/tiny/__init__.py").write_text('"""Changed."""\n')
    third = tiny.built("--no-load", "-o", str(tmp_path / "third.tar"))
    assert third["id"] != first["id"]
    assert third["dirty"] is True


def test_a_source_archive_without_git_gives_the_same_image(tiny: Tiny, tmp_path: Path) -> None:
    first = tiny.built("--no-load", "-o", str(tmp_path / "first.tar"))
    git(tiny.root, "archive", "-o", str(tmp_path / "source.tar"), "HEAD")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "source.tar", "-C", unpacked], check=True)
    run = run_packager(
        unpacked, tiny.store, "build", "--json", "--no-load", "-o", str(tmp_path / "second.tar")
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["id"] == first["id"]
    assert json.loads(run.stdout)["commit"] == ""


def test_only_what_the_engine_lacks_is_sent(tiny: Tiny, tmp_path: Path) -> None:
    unique(tiny, tmp_path)
    assert tiny.run("build").returncode == 0
    again = tiny.run("build")
    assert "the engine has it" in again.stdout
    tiny.edit("src/tiny/__init__.py", "Tiny", f"Tiny {tmp_path}")
    changed = tiny.run("build")
    assert changed.returncode == 0, changed.stderr
    assert re.search(r"load +1 of [0-9]+ layers sent", changed.stdout), changed.stdout


def change_prediction(tiny: Tiny) -> None:
    tiny.edit("models/examples.json", "-5.0", "-5.5")


def change_model(tiny: Tiny) -> None:
    tiny.edit("models/model.txt", "2.5", "2.6")


def change_lock(tiny: Tiny) -> None:
    lock = (tiny.root / "packager.lock").read_text()
    start = lock.index("sha256 = ", lock.index('name = "bash"')) + len('sha256 = "')
    (tiny.root / "packager.lock").write_text(lock[:start] + "0" * 64 + lock[start + 64 :])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_prediction, "output 'y': 1 of 3 differ, the first in row 2: recorded -5.5"),
        (change_model, "models/model.txt: is not the model that the examples were recorded with"),
        (change_lock, "bash_5"),
    ],
)
def test_what_does_not_agree_is_named_and_leaves_no_tag(
    change: object, says: str, tiny: Tiny, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    tag = unique(tiny, tmp_path)
    change(tiny)  # type: ignore[operator]
    run = tiny.run("build")
    assert run.returncode == ClaimError.exit_code, run.stderr
    assert says in run.stderr
    assert "Traceback" not in run.stderr
    assert not images_of(docker_client, tag)


def test_a_failed_smoke_test_takes_the_tag_of_an_untested_build_away(
    tiny: Tiny, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    tag = unique(tiny, tmp_path)
    change_prediction(tiny)
    untested = tiny.built("--no-smoke")
    assert docker_client.images.get(tag).id == untested["id"]
    assert tiny.run("build").returncode == ClaimError.exit_code
    assert not images_of(docker_client, tag)


def test_a_failed_smoke_test_leaves_the_tag_of_another_image_alone(
    tiny: Tiny, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    tag = unique(tiny, tmp_path)
    proved = tiny.built()
    change_prediction(tiny)
    assert tiny.run("build").returncode == ClaimError.exit_code
    assert docker_client.images.get(tag).id == proved["id"]
    assert len(images_of(docker_client, tag)) == 1


class Stuck:
    """An engine in which the smoke test fails and nothing can be removed."""

    name = id = "stuck"

    def id_of(self, image: Image) -> str:
        return image.id

    def begin_load(self) -> None:
        """Nothing is begun."""

    def load(self, _: Image, **__: object) -> Loaded:
        return Loaded(sent=1, existed=False)

    def get(self, _: str) -> dict[str, object]:
        return {}

    def find(self, _: str) -> None:
        return None

    def untag(self, _: Image, __: Reference) -> None:
        """Nothing bears that name."""

    def run_sealed(self, *_: object, **__: object) -> Run:
        return Run(exit_code=7, out_of_memory=False, stdout=b"", stderr=b"")

    def remove(self, _: Image) -> None:
        raise HostError("cannot be removed")


def test_trouble_with_removing_does_not_hide_the_verdict(tmp_path: Path) -> None:
    notes = []
    reporter = Silent()
    reporter.note = notes.append  # type: ignore[method-assign]
    image = Image("x", "1", "linux/amd64", b"{}", ())
    built = assembling.Built(None, image)  # type: ignore[arg-type]
    with pytest.raises(ClaimError, match="exit code 7"):
        delivering.deliver(
            built,
            Ahead(Stuck, "linux/amd64"),  # type: ignore[arg-type]
            Reference.of("x", "1"),
            Limits(),
            store=Store(tmp_path),
            reporter=reporter,
        )
    assert notes == ["could not be tidied up: cannot be removed"]


def test_without_examples_loading_alone_is_proved(tiny: Tiny, tmp_path: Path) -> None:
    unique(tiny, tmp_path)
    tiny.edit("pyproject.toml", 'examples = "models/examples.json"\n', "")
    assert "no recorded examples: only loading was tried" in tiny.run("build").stdout
    run = tiny.run("smoke")
    assert run.returncode == 0, run.stderr
    assert "nothing was replayed" in run.stdout
    assert json.loads(tiny.run("smoke", "--json").stdout)["examples"] == 0
    told = tiny.run("info")
    assert told.returncode == 0, told.stderr
    assert f"  {'base':<13}debian:bookworm\n" in told.stdout
    assert "input " not in told.stdout


def test_info_names_labels_inputs_and_outputs(tiny: Tiny, tmp_path: Path) -> None:
    unique(tiny, tmp_path)
    tiny.built()
    told = [line.split() for line in tiny.run("info").stdout.splitlines()]
    for expected in ("name tiny", "licence Apache-2.0", "base debian:bookworm"):
        assert told.count(expected.split()) == 1
    assert ["input", "x:", "FP64", "[-1]"] in told
    assert ["output", "y:", "FP64", "[-1]"] in told


def test_a_sealed_container_bears_a_label_and_is_gone_afterwards(
    tiny: Tiny, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    tag = unique(tiny, tmp_path)
    label = {"label": [f"org.opencontainers.image.version={tag[5:]}", "org.model-packager.smoke"]}
    begin = docker_client.info()["SystemTime"]
    tiny.built()
    end = docker_client.info()["SystemTime"]
    events = docker_client.events(
        since=epoch(begin),
        until=epoch(end) + 1,
        filters={**label, "type": "container"},
        decode=True,
    )
    assert [one["Action"] for one in events if one["Action"] in {"create", "destroy"}] == [
        "create",
        "destroy",
    ]
    assert not docker_client.containers.list(all=True, filters=label)


def epoch(time: str) -> int:
    return int(datetime.fromisoformat(time[:19] + "+00:00").timestamp())


def test_a_container_that_has_just_ended_need_not_be_killed(
    tiny: Tiny, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    tag = unique(tiny, tmp_path)
    tiny.built("--no-smoke")
    container = docker_client.containers.run(tag, "info", detach=True)
    try:
        container.wait()
        with pytest.raises(docker.errors.APIError, match="not running"):
            container.kill()
        containers._kill(container)
    finally:
        container.remove()


def flip(path: Path) -> None:
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("victim", ["deb", "layer"])
def test_a_flipped_byte_in_the_store_is_healed_said_once_and_changes_nothing(
    victim: str, tiny: Tiny, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    tiny.store = copy_store(tiny.store, store)
    first = tiny.built("--no-load", "-o", str(tmp_path / "first.tar"))
    lock = (tiny.root / "packager.lock").read_text()
    start = lock.index("sha256 = ", lock.index('name = "bash"')) + len('sha256 = "')
    layers = first["layers"]
    assert isinstance(layers, list)
    digests = {
        "deb": lock[start : start + 64],
        "layer": str(layers[0]["diff_id"]).removeprefix("sha256:"),
    }
    flip(store / "blobs" / digests[victim])
    if victim == "deb":  # looked at only where the base is to be made
        (store / "blobs" / digests["layer"]).unlink()
    run = tiny.run("build", "--no-load", "-o", str(tmp_path / "second.tar"))
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("damaged: healed") == 1
    assert digests[victim][:12] in run.stdout
    assert (tmp_path / "second.tar").read_bytes() == (tmp_path / "first.tar").read_bytes()
    assert "healed" not in tiny.run("build", "--no-load", "-o", str(tmp_path / "3.tar")).stdout


def test_without_an_engine_an_archive_can_still_be_made(tiny: Tiny, tmp_path: Path) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    refused = tiny.run("build", **nowhere)
    assert refused.returncode == HostError.exit_code
    assert "no container engine answers" in refused.stderr
    made = tiny.run("build", "--no-load", "-o", str(tmp_path / "image.tar"), **nowhere)
    assert made.returncode == 0, made.stderr
    nothing = tiny.run("build", "--no-load")
    assert nothing.returncode == UsageError.exit_code


def test_the_engine_loads_the_archive_under_its_name(
    tiny: Tiny, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    tag = unique(tiny, tmp_path)
    built = tiny.built("--no-load", "-o", str(tmp_path / "image.tar"))
    assert not images_of(docker_client, tag)
    with (tmp_path / "image.tar").open("rb") as archive:
        docker_client.images.load(archive)
    assert docker_client.images.get(tag).id == built["id"]


def test_the_archive_is_an_oci_layout_whose_digests_hold(tiny: Tiny, tmp_path: Path) -> None:
    built = tiny.built("--no-load", "-o", str(tmp_path / "image.tar"))
    with tarfile.open(tmp_path / "image.tar") as archive:
        members = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}  # type: ignore[union-attr]
    for name, data in members.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    described = json.loads(members["index.json"])["manifests"][0]
    assert described["digest"] == built["manifest"]
    assert described["annotations"]["io.containerd.image.name"] == "docker.io/library/tiny:0.1.0"
    assert described["annotations"]["org.opencontainers.image.revision"] == built["commit"]
    manifest = json.loads(members[f"blobs/sha256/{described['digest'][7:]}"])
    assert manifest["config"]["digest"] == built["id"]
    config = json.loads(members[f"blobs/sha256/{manifest['config']['digest'][7:]}"])
    assert config["created"] == "1980-01-02T00:00:00Z"
    layers = built["layers"]
    assert isinstance(layers, list)
    assert config["rootfs"]["diff_ids"] == [layer["diff_id"] for layer in layers]


def test_the_archive_names_the_image_in_full(tiny: Tiny, tmp_path: Path) -> None:
    name = "registry.example:5000/lab/tiny"
    tiny.built("--no-load", "-o", str(tmp_path / "image.tar"), "-t", name)
    with tarfile.open(tmp_path / "image.tar") as archive:
        index, manifest = (
            json.load(archive.extractfile(one))  # type: ignore[arg-type]
            for one in ("index.json", "manifest.json")
        )
    annotations = index["manifests"][0]["annotations"]
    assert annotations["io.containerd.image.name"] == f"{name}:latest"
    assert annotations["org.opencontainers.image.ref.name"] == "latest"
    assert manifest[0]["RepoTags"] == [f"{name}:latest"]


def test_the_engine_gets_the_name_that_was_asked_for(
    tiny: Tiny, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    name = f"localhost:5000/lab/{unique(tiny, tmp_path).replace(':', '-')}"
    built = tiny.built("-t", name)
    assert built["tag"] == f"{name}:latest"
    assert docker_client.images.get(f"{name}:latest").id == built["id"]
    docker_client.images.remove(f"{name}:latest")


def test_entry_points_and_metadata_work_as_after_an_installation(
    tiny: Tiny, tmp_path: Path, engine: Engine, docker_client: docker.DockerClient
) -> None:
    tag = unique(tiny, tmp_path)
    tiny.edit(
        "pyproject.toml",
        "[tool.packager]",
        '[project.scripts]\ntimes = "tiny:main"\n\n[tool.packager]',
    )
    code = "import importlib.metadata\ndef main():\n    print(importlib.metadata.version('tiny'))\n"
    (tiny.root / "src/tiny/__init__.py").write_text(code)
    tiny.built()
    printed = docker_client.containers.run(tag, entrypoint=["times"], remove=True)
    assert printed.decode().strip() == tag.partition(":")[2]
    assert engine.find(tag) is not None


@pytest.mark.parametrize("megabytes", [1, 256, pytest.param(2048, marks=pytest.mark.whole)])
def test_memory_does_not_grow_with_the_model(megabytes: int, tiny: Tiny, tmp_path: Path) -> None:
    with (tiny.root / "models/model.txt").open("wb") as model:
        model.truncate(megabytes << 20)
    tiny.edit("pyproject.toml", 'examples = "models/examples.json"\n', "")
    command = [sys.executable, "-m", "packager", "build", "--no-load", "-o", "image.tar"]
    command += ["--store", str(tmp_path / "store")]
    # A process starts with the peak of the one that forked it, and pytest is a large one.
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    run = subprocess.run(
        [sys.executable, "-c", measure, *command],
        cwd=tiny.root,
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(run.stdout) * 1024 < 200_000_000
