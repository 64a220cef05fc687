"""The second day: data of one's own, a regression, in the files that docs/your-data.md names."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import git

from packager.outputs.engine import Engine

from .conftest import ONE_WORKER, Bake, Make

pytestmark = ONE_WORKER

EXPERIMENT = """
[data]
name = "flats"

[task]
kind = "regression"
target = "rent"

[features]
numeric = ["area"]

[features.categorical]
district = ["north", "south"]

[split]
held_out = 0.25
groups = []
folds = 4
repeats = 2

[evaluation]
optimise = "mean_absolute_error"
by = ["district"]

[evaluation.thresholds]
mean_absolute_error = { max = 60 }

[model]
C = 1000.0
gamma = "scale"

[profiles.quick.split]
repeats = 1
folds = 2
"""
DATASET = '''"""How the raw file of flats is read, and a rule to beat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["clean", "rule"]


def clean(path: Path) -> pd.DataFrame:
    """Read the raw file.

    Parameters
    ----------
    path : Path
        Semicolons, and a decimal comma.

    Returns
    -------
    pandas.DataFrame
        Area, district and rent.
    """
    return pd.read_csv(path, sep=";", decimal=",")


def rule(table: pd.DataFrame) -> np.ndarray:
    """Ask the same for every square metre.

    Parameters
    ----------
    table : pandas.DataFrame
        As `clean` returns it.

    Returns
    -------
    numpy.ndarray
        A rent for each row.
    """
    return np.asarray(table["area"] * 10, dtype=np.float64)
'''
TEST = """def test_every_flat_has_a_rent(table):
    assert table["rent"].notna().all()
    assert len(table) == 200
"""
CHECKS = [
    *("lint", "format-check", "types", "docstrings", "notebooks", "secrets", "large-files"),
    *("lock-check", "docs", "test", "cards-check"),
]


@pytest.fixture(scope="module")
def second_day(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained repository, committed; tools are lent to it, as `setup` takes long."""
    folder = tmp_path_factory.mktemp("second-day") / "flats"
    unwanted = shutil.ignore_patterns(".venv", ".packager", "__pycache__", ".*_cache", "build")
    shutil.copytree(trained.parent, folder, ignore=unwanted)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "The first day")
    for tools in (".venv", ".packager"):
        (folder / tools).symlink_to(trained.parent / tools)
    os.utime(folder / "requirements-dev.txt", (0, 0))
    with (folder / ".git" / "info" / "exclude").open("a") as file:
        file.write(".venv\n.packager\n")  # links, which `.venv/` does not match
    return folder


def flats() -> str:
    draw = random.Random(7)
    lines = ["area;district;rent"]
    for _ in range(200):
        area, district = draw.uniform(20, 120), draw.choice(["north", "south"])
        rent = 12 * area + (150 if district == "south" else 0) + draw.gauss(0, 30)
        lines.append(f"{area:.1f};{district};{rent:.2f}".replace(".", ","))
    return "\n".join([*lines, ""])


def swap(folder: Path) -> None:
    """Put the flats in the place of the penguins, everywhere but in the cards."""
    (folder / "data/raw/penguins.csv").unlink()
    (folder / "data/raw/flats.csv").write_text(flats())
    digest = hashlib.sha256(flats().encode()).hexdigest()
    (folder / "data/registry.toml").write_text(
        f'[flats]\nfile = "raw/flats.csv"\nsha256 = "{digest}"\n'
        'source = "a landlord"\nlicense = "CC0-1.0"\n'
    )
    (folder / "experiment.toml").write_text(f"seed = 3\n{EXPERIMENT}")
    (folder / "src/birds/dataset.py").write_text(DATASET)
    (folder / "tests/test_dataset.py").write_text(TEST)


def answer_cards(folder: Path, blank: Path) -> None:
    """Write the cards anew: the blank ones, with answers for every TODO."""
    digest = hashlib.sha256(flats().encode()).hexdigest()
    for name in ("MODEL_CARD.md", "DATASHEET.md", "docs/record.md"):
        text = (blank / name).read_text("utf-8")
        text = text.replace("about: TODO", f"about: sha256:{digest}")
        text = re.sub(r"TODO[^\n]*", "Rents of made-up flats.", text)
        (folder / name).write_text(text, "utf-8")


def said(folder: Path, make: Make, *words: str, code: int = 0) -> str:
    done = make(folder, *words, f"PYTHONPATH={folder / 'src'}")
    assert done.returncode == code, done.stdout
    return done.stdout


def named_files(folder: Path) -> list[str]:
    text = (folder / "docs/your-data.md").read_text("utf-8")
    return re.findall(r"^\d\. `([^`]+)`", text, re.MULTILINE)


def test_the_page_says_how_many_files_it_names(trained: Path) -> None:
    text = (trained.parent / "docs/your-data.md").read_text("utf-8")
    assert text.startswith("# Your data and your model, in eight files\n")
    assert len(named_files(trained.parent)) == 8


@pytest.fixture(scope="module")
def swapped(second_day: Path, make: Make, bake: Bake) -> Path:
    """The repository with other data, trained; the penguins' cards were refused on the way."""
    swap(second_day)
    said(second_day, make, "train")
    said(second_day, make, "cards", code=2)
    refused = said(second_day, make, "cards-check", code=2)
    assert re.search(r"MODEL_CARD\.md:\d+: .*other data", refused)
    assert re.search(r"DATASHEET\.md:\d+: .*other data", refused)
    answer_cards(second_day, bake(example="blank"))
    said(second_day, make, "cards")
    return second_day


def test_only_the_files_that_the_page_names_were_touched(swapped: Path) -> None:
    done = subprocess.run(
        ["git", "status", "--porcelain", "--no-renames", "--untracked-files=all"],
        cwd=swapped,
        capture_output=True,
        text=True,
        check=True,
    )
    touched = {line[3:] for line in done.stdout.splitlines()}
    made = {path for path in touched if path.startswith(("models/", "experiments/"))}
    named = tuple(named_files(swapped))
    assert touched - made
    assert [path for path in touched - made if not path.startswith(named)] == []


# The slow ones take a minute: `make test-all` waits for them.
@pytest.mark.parametrize(
    "check",
    [pytest.param(one, marks=[pytest.mark.whole] * (one in {"test", "types"})) for one in CHECKS],
)
def test_every_check_follows(swapped: Path, make: Make, check: str) -> None:
    said(swapped, make, check)


def test_these_are_all_the_checks(swapped: Path) -> None:
    (line,) = re.findall(r"^check: ([^#]*)##", (swapped / "Makefile").read_text(), re.MULTILINE)
    assert sorted(line.split()) == sorted(CHECKS)


def test_thresholds_and_image_follow(swapped: Path, make: Make, engine: Engine) -> None:
    assert "mean_absolute_error" in said(swapped, make, "evaluate")
    made = said(swapped, make, "image")
    assert "50 examples" in made
    engine.client.images.remove(re.findall("sha256:[0-9a-f]{64}", made)[-1], force=True)
