"""The baked Dockerfile, for real: readers who have only Docker, and packager build --dockerfile."""

from __future__ import annotations

import json
import secrets
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from typing import Any

import pytest

from packager.errors import ClaimError
from packager.outputs.engine import Engine

from .conftest import ONE_WORKER

pytest_plugins = ["docker_fixtures"]
pytestmark = [ONE_WORKER, pytest.mark.whole]

WHEEL = "threadpoolctl"


class Penguins:
    """A copy of the trained repository, its wheels beside the Dockerfile: no network is needed."""

    def __init__(self, root: Path, packager: Path, environment: dict[str, str], base: str) -> None:
        self.root, self.packager, self.environment = root, packager, environment
        values = (f"BASE={base}", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/build")
        self.arguments = [word for value in values for word in ("--build-arg", value)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.packager, *words],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def build(self) -> subprocess.CompletedProcess[str]:
        return self.run("build", "--dockerfile", "--json", *self.arguments)

    def take_wheels(self, store: Path) -> None:
        (self.root / "wheels").mkdir()
        for pin in tomllib.loads((self.root / "packager.lock").read_text("utf-8"))["wheel"]:
            copy(store / "blobs" / pin["sha256"], self.root / "wheels" / pin["file"])


@pytest.fixture
def penguins(
    trained: Path,
    clean_environment: dict[str, str],
    base_with_pip: str,
    engine: Engine,
    tmp_path: Path,
) -> Iterator[Penguins]:
    project, root, version = trained.parent, tmp_path / "copy", f"0.1.{secrets.randbelow(10**12)}"
    copytree(project, root, ignore=ignore_patterns(".venv", ".packager", ".*_cache", "build"))
    pyproject = root / "pyproject.toml"
    text = pyproject.read_text("utf-8")
    assert 'version = "0.1.0"' in text
    pyproject.write_text(text.replace('version = "0.1.0"', f'version = "{version}"'), "utf-8")
    packager = project / ".packager/bin/packager"
    made = Penguins(root, packager, clean_environment, base_with_pip)
    made.take_wheels(Path(clean_environment["HOME"], ".cache/packager"))
    yield made
    label = {"label": f"org.opencontainers.image.version={version}"}
    for image in engine.client.images.list(filters=label):
        engine.client.images.remove(image.id, force=True)


def test_the_baked_dockerfile_gives_an_image_that_predicts_what_was_recorded(
    penguins: Penguins, engine: Engine
) -> None:
    done = penguins.build()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    recorded = json.loads((penguins.root / "models/examples.json").read_bytes())
    assert told["smoke"]["examples"] == recorded["data"]["rows"] > 0
    image = engine.client.images.get(told["tag"])
    assert image.attrs["Config"]["User"] == "65532:65532"
    assert "PIP_NO_INDEX" not in json.dumps(image.history())

    def said(*command: str, **how: Any) -> str:
        return engine.client.containers.run(
            image.id, list(command), network_mode="none", remove=True, **how
        ).decode()

    assert said("info", "--card") == (penguins.root / "MODEL_CARD.md").read_text("utf-8")
    listed = "import importlib.metadata as m; print(*(one.name for one in m.distributions()))"
    names = said("-c", listed, entrypoint="python").split()
    assert WHEEL in names
    assert "pytest" not in names
    # The same command proves it where there is no packager.
    assert said("selftest").endswith("passed\n")


def test_the_baked_dockerfile_refuses_a_wheel_with_other_bytes(penguins: Penguins) -> None:
    [wheel] = (penguins.root / "wheels").glob(f"{WHEEL}-*.whl")
    wheel.chmod(0o644)
    with wheel.open("ab") as file:
        file.write(b"\0")
    done = penguins.build()
    assert done.returncode == ClaimError.exit_code
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert WHEEL in done.stderr
