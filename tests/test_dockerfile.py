"""Claims about images that the engine builds from a Dockerfile: proved, and honest about it."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from conftest import Tiny, WheelMaker

from packager.errors import ClaimError, UsageError
from packager.outputs.engine import Engine

pytest_plugins = ["docker_fixtures"]
pytestmark = pytest.mark.xdist_group("dockerfile")

DOCKERFILE = """\
ARG BASE=python:3.11.13-slim-bookworm
FROM $BASE
RUN echo a step that no lock can name
# extra
COPY docker models/examples.json /srv/packager/
COPY models/model.txt /srv/packager/model/
COPY src /srv/packager/src
ENV PYTHONPATH=/srv/packager/packager_runtime.zip:/srv/packager/src:/site HOME=/tmp
USER 65532:65532
ENTRYPOINT ["python", "-P", "-m", "packager_runtime"]
CMD ["info"]
"""


@dataclass
class Written:
    """A tiny project with a Dockerfile, and a version of its own."""

    tiny: Tiny
    tag: str
    base: str
    client: docker.DockerClient

    def build(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        base = f"BASE={self.base}"
        words = ["build", "--dockerfile", "--build-arg", base, *arguments]
        return self.tiny.run(*words, **environment)

    def extra(self, *steps: str) -> None:
        self.tiny.edit("Dockerfile", "# extra\n", "".join(f"{step}\n" for step in steps))

    @property
    def images(self) -> list[str]:
        """Every image of this version that the engine holds, tagged or not."""
        version = self.tag.partition(":")[2]
        label = {"label": f"org.opencontainers.image.version={version}"}
        return [str(one.id) for one in self.client.images.list(filters=label)]


@pytest.fixture
def written(tiny: Tiny, base_with_pip: str, engine: Engine) -> Iterator[Written]:
    version = f"0.1.{secrets.randbelow(10**12)}"
    tiny.edit("pyproject.toml", 'version = "0.1.0"', f'version = "{version}"')
    (tiny.root / "Dockerfile").write_text(DOCKERFILE)
    made = Written(tiny, f"tiny:{version}", base_with_pip, engine.client)
    yield made
    for image in made.images:
        engine.client.images.remove(image, force=True)


def record_another_prediction(tiny: Tiny) -> None:
    tiny.edit("models/examples.json", "10.0", "10.5")


def test_the_image_is_built_proved_and_named_and_says_what_it_is_not(written: Written) -> None:
    run = written.build("--json")
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    image = written.client.images.get(written.tag)
    assert told["reproducible"] is False
    assert (told["id"], told["tag"]) == (image.id, written.tag)
    assert told["smoke"]["examples"] == 3
    assert image.labels["org.model-packager.reproducible"] == "false"
    assert "org.model-packager.inputs" not in image.labels
    assert "org.opencontainers.image.base.name" not in image.labels
    printed = written.client.containers.run(written.tag, network_mode="none", remove=True)
    assert b"a Dockerfile, so not reproducible bit for bit\n" in printed


def test_such_an_image_is_described_and_replayed_but_not_verified(written: Written) -> None:
    run = written.build()
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert any(re.fullmatch(r"  Step 3/[0-9]+ : RUN echo a step.*", line) for line in lines)
    assert "  a step that no lock can name" in lines
    assert "not reproducible bit for bit" in run.stdout.partition("passed")[2]
    assert "reproducible false" in " ".join(written.tiny.run("info").stdout.split())
    assert written.tiny.run("smoke").returncode == 0
    verified = written.tiny.run("verify")
    assert verified.returncode == UsageError.exit_code
    assert "was built from a Dockerfile: it cannot be built again bit for bit" in verified.stderr


def test_a_step_that_fails_is_named_with_its_last_words_and_no_tag_is_left(
    written: Written,
) -> None:
    written.extra("RUN echo the last words >&2; exit 7")
    run = written.build()
    assert run.returncode == ClaimError.exit_code
    error = run.stderr
    assert "error: Dockerfile: Step 4/" in error
    assert ": RUN echo the last words >&2; exit 7: " in error
    assert "returned a non-zero code: 7" in error
    assert error.endswith("\n  the last words\n")
    assert not written.images


def test_a_wrong_prediction_leaves_no_image_and_another_its_tag(written: Written) -> None:
    record_another_prediction(written.tiny)
    run = written.build()
    assert run.returncode == ClaimError.exit_code
    assert "the image does not predict what was recorded" in run.stderr
    assert not written.images
    # Nor may it take the name from one that was proved.
    assert written.build("--no-smoke").returncode == 0
    before = written.client.images.get(written.tag).id
    written.tiny.edit("models/examples.json", "10.5", "11.5")
    assert written.build().returncode == ClaimError.exit_code
    assert written.images == [before]
    assert written.client.images.get(written.tag).id == before


@pytest.mark.parametrize("right", [pytest.param(True, marks=pytest.mark.whole), False])
def test_pip_takes_what_has_the_hash_and_nothing_else(
    right: bool, written: Written, make_wheel: WheelMaker
) -> None:
    root = written.tiny.root
    wheel = make_wheel("leaf", files={"leaf.py": b"value = 1\n"}, folder=root / "wheels")
    digest = hashlib.sha256(wheel.read_bytes() if right else b"other bytes").hexdigest()
    (root / "wheels/extra.txt").write_text(f"leaf==1.0 --hash=sha256:{digest}\n")
    written.extra(
        "COPY wheels /wheels/",
        "RUN python -m pip install --no-index --find-links /wheels --require-hashes "
        "--target /site -r /wheels/extra.txt",
    )
    run = written.build()
    if right:
        assert run.returncode == 0, run.stderr
        found = written.client.containers.run(
            written.tag, ["-c", "import leaf; print(leaf.value)"], entrypoint="python", remove=True
        )
        assert found == b"1\n"
    else:
        assert run.returncode == ClaimError.exit_code
        assert "DO NOT MATCH THE HASHES" in run.stderr
        assert not written.images


@pytest.mark.whole
def test_a_proxy_is_an_argument_of_the_build_and_no_part_of_the_image(written: Written) -> None:
    written.extra('RUN test -n "$HTTPS_PROXY" && echo "by way of $HTTPS_PROXY"')
    proxy = {"HTTPS_PROXY": "http://someone:hunter2@proxy.example:3128"}
    run = written.build("--build-arg", "HTTPS_PROXY", **proxy)
    assert run.returncode == 0, run.stderr
    assert "by way of http://proxy.example:3128" in run.stdout
    image = written.client.images.get(written.tag)
    for told in (run.stdout, json.dumps(image.history()), json.dumps(image.attrs)):
        assert "hunter2" not in told
    # Without the argument the step fails, so it was the argument that reached it.
    written.tiny.edit("Dockerfile", "test -n", "test  -n")  # past the engine's cache
    assert written.build(**proxy).returncode == ClaimError.exit_code


def test_what_only_an_assembled_image_can_be_is_refused(written: Written) -> None:
    for words in (["-o", "x.tar"], ["--no-load", "-o", "x.tar"]):
        run = written.build(*words)
        assert run.returncode == UsageError.exit_code
        assert "--dockerfile: builds in the engine and nowhere else" in run.stderr
    assert not (written.tiny.root / "docker").exists()


def test_mistakes_are_told(written: Written) -> None:
    root = written.tiny.root
    (root / "Dockerfile").write_text("FROM scratch\nRAN away\n")
    run = written.build()
    assert run.returncode == UsageError.exit_code
    assert run.stderr.startswith("error: Dockerfile: ")
    assert "unknown instruction: RAN" in run.stderr
    (root / "Dockerfile").unlink()
    run = written.build()
    assert run.returncode == UsageError.exit_code
    assert "--dockerfile: there is no file" in run.stderr
    run = written.tiny.run("build", "--build-arg", "A=1")
    assert run.returncode == UsageError.exit_code
    assert "--build-arg is for --dockerfile" in run.stderr
    run = written.build("--build-arg", "=1")
    assert run.returncode == UsageError.exit_code
    assert "--build-arg: '=1' is no NAME=VALUE" in run.stderr


def test_a_stale_lock_is_refused_here_too(written: Written) -> None:
    written.tiny.edit("pyproject.toml", "dependencies = []", 'dependencies = ["six"]')
    assert written.build().returncode == ClaimError.exit_code


@pytest.mark.whole
def test_another_dockerfile_can_be_named(written: Written, tmp_path: Path) -> None:
    other = tmp_path / "Other"
    shutil.move(written.tiny.root / "Dockerfile", other)
    build = ["build", "--dockerfile", str(other), "--build-arg", f"BASE={written.base}"]
    run = written.tiny.run(*build)
    assert run.returncode == 0, run.stderr


@pytest.mark.whole
def test_docker_alone_builds_it_once_the_folder_is_there_and_a_stale_one_shows(
    written: Written,
) -> None:
    assert written.build().returncode == 0
    root, label = written.tiny.root, {"org.opencontainers.image.version": written.tag[5:]}

    def tested() -> dict[str, object]:
        image, _ = written.client.images.build(
            path=str(root), buildargs={"BASE": written.base}, labels=label, rm=True
        )
        container = written.client.containers.run(
            image.id, ["selftest", "--json"], network_mode="none", detach=True
        )
        container.wait()
        said: dict[str, object] = json.loads(container.logs(stderr=False).splitlines()[-1])
        container.remove()
        return said

    before = {file.name: file.read_bytes() for file in (root / "docker").iterdir()}
    assert set(before) == {"image.json", "packager_runtime.zip"}
    assert tested()["status"] == "passed"
    (root / "models/model.txt").write_text("3.5\n")
    assert "image.json was written for the model" in json.dumps(tested())
