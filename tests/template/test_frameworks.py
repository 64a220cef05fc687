"""Each framework goes from a bake to an image that has passed its sealed smoke test.

PyTorch's wheels without CUDA live on an index of their own, which not every machine reaches: so
the wheel at hand is served from an index on loopback, and only that one offers it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import git
from simple_index import SimpleIndex

from packager.outputs.engine import Engine

from .conftest import Bake, Make, hints, nearer

pytestmark = pytest.mark.whole

LOCKS = ("requirements.txt", "requirements-dev.txt", "packager.lock")
STEPS = ("setup", "train", "cards", "check", "image", "predict")


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
                git(project, "commit", "-qm", "Train")
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
    goes_all_the_way(project, make, engine, *nearer(project, pytorch_index))
    assert any(wheel.startswith("torch-") for wheel in pytorch_index.got)
    for name in LOCKS:
        text = (project / name).read_text("utf-8")
        assert re.search(r"^torch==[\d.]+\+cpu |file = .torch-[\d.]+\+cpu-", text, re.MULTILINE)
        for unwanted in ("127.0.0.1", "http", "nvidia", "file:"):
            assert unwanted not in text
