"""Each framework goes from a bake to an image that has passed its sealed smoke test.

PyTorch's wheels without CUDA live on an index of their own, which not every machine reaches: so
the wheel at hand is served from an index on loopback, and only that one offers it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simple_index import SimpleIndex, served

from packager import net
from packager.outputs.engine import Engine

from .conftest import Bake, Make, git

pytestmark = pytest.mark.whole

LOCKS = ("requirements.txt", "requirements-dev.txt", "packager.lock")
STEPS = ("setup", "train", "cards", "check", "image", "predict")


def surroundings() -> list[str]:
    """Pip's settings as words for make, without the folders where it looks for wheels besides."""
    first, *others = net.pip_settings().index_urls
    return [
        "PIP_CONFIG_FILE=/dev/null",
        f"PIP_INDEX_URL={first}",
        f"PIP_EXTRA_INDEX_URL={' '.join(others)}",
    ]


def pyproject(project: Path) -> dict[str, Any]:
    return tomllib.loads((project / "pyproject.toml").read_text("utf-8"))


def hints(project: Path) -> list[str]:
    urls: list[str] = pyproject(project)["tool"]["packager"].get("extra-index-urls", [])
    return urls


def goes_all_the_way(project: Path, make: Make, engine: Engine, *words: str) -> None:
    """Type what the README says, and look at what the image is and predicts."""
    image = f"{project.name}:0.1.0"
    try:
        said = {}
        for step in STEPS:
            done = make(project, step, *words)
            assert done.returncode == 0, done.stdout
            said[step] = done.stdout
            if step == "cards":
                git(project, "add", "-A")
                git(project, "-c", "user.name=A", "-c", "user.email=", "commit", "-qm", "Train")
        assert re.search(r"smoke +\d+ examples.* passed", said["image"])
        assert '"species"' in said["predict"]
        assert git(project, "status", "--porcelain") == ""
        assert engine.client.images.get(image).id in said["image"]
    finally:
        if engine.client.images.list(image):
            engine.client.images.remove(image, force=True)


@pytest.mark.parametrize(
    ("framework", "export_format"),
    [("scikit-learn", "onnx"), ("xgboost", "skops"), ("lightgbm", "skops")],
)
def test_a_framework_goes_from_bake_to_smoke_tested_image(
    framework: str,
    export_format: str,
    bake: Bake,
    make: Make,
    git_user: dict[str, str],
    engine: Engine,
) -> None:
    project = bake(
        environment=git_user,
        framework=framework,
        export_format=export_format,
        project_slug=f"whole-{framework}",
    )
    assert hints(project) == []
    goes_all_the_way(project, make, engine)


@pytest.fixture(scope="module")
def pytorch_index(
    bake: Bake, git_user: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleIndex]:
    """Serve the wheel that pip finds, on the template's own index or nearer."""
    project = bake(environment=git_user, framework="pytorch")
    (hint,) = hints(project)
    needed = pyproject(project)["project"]["dependencies"]
    (torch,) = (one for one in needed if one.startswith("torch"))
    folder = tmp_path_factory.mktemp("torch")
    quickly = ("--quiet", "--no-deps", "--retries=0", f"--extra-index-url={hint}")
    download = [sys.executable, "-m", "pip", "download", *quickly, f"--dest={folder}", torch]
    subprocess.run(download, check=True)
    (wheel,) = folder.iterdir()
    with served(tmp_path_factory.mktemp("index"), wheel) as index:
        yield index


@pytest.mark.parametrize("export_format", ["safetensors", "torch.export"])
def test_pytorch_goes_from_bake_to_smoke_tested_image_through_its_own_index(
    export_format: str,
    bake: Bake,
    make: Make,
    git_user: dict[str, str],
    engine: Engine,
    pytorch_index: SimpleIndex,
) -> None:
    project = bake(
        environment=git_user,
        framework="pytorch",
        export_format=export_format,
        project_slug=f"whole-{export_format}",
    )
    path = project / "pyproject.toml"
    (hint,) = hints(project)
    path.write_text(path.read_text("utf-8").replace(hint, pytorch_index.address), "utf-8")
    goes_all_the_way(project, make, engine, *surroundings())
    assert any(wheel.startswith("torch-") for wheel in pytorch_index.got)
    for name in LOCKS:
        text = (project / name).read_text("utf-8")
        assert re.search(r"^torch==[\d.]+\+cpu |file = .torch-[\d.]+\+cpu-", text, re.MULTILINE)
        for unwanted in ("127.0.0.1", "http", "nvidia", "file:"):
            assert unwanted not in text
