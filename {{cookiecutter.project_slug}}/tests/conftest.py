import json
import shutil
from pathlib import Path

import pytest

from {{ cookiecutter.package_name }} import train

COMMITTED = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """A folder that was trained into just now."""
    folder = tmp_path_factory.mktemp("models")
    train.train(folder)
    return folder


@pytest.fixture(params=["fresh", "committed"] if COMMITTED.is_dir() else ["fresh"])
def models(request, fresh):
    """Each folder that holds a model: what training gives now, and what is committed."""
    return fresh if request.param == "fresh" else COMMITTED


@pytest.fixture
def recorded(models):
    return json.loads((models / "examples.json").read_text("utf-8"))


@pytest.fixture
def altered_data(tmp_path):
    """The data folder with one digit of one measurement changed."""
    folder = tmp_path / "data"
    shutil.copytree(COMMITTED.parent / "data", folder)
    table = folder / "penguins.csv"
    table.write_bytes(table.read_bytes().replace(b"39.1", b"39.2", 1))
    return folder
