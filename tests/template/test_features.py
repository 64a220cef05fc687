"""The table of features names files in our column: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import ROOT, Bake, files

TABLE = ROOT / "docs" / "features.md"


def claims(text: str) -> list[str]:
    """The column "here" of each table that has one, cell by cell."""
    cells = []
    here = False
    for line in text.splitlines():
        columns = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(columns) < 2:
            here = False
        elif columns[1] == "here":
            here = True
        elif here and not columns[0].startswith("---"):
            cells.append(columns[1])
    return cells


def named(cell: str) -> list[str]:
    """What looks like a file in a cell: with a dot or a slash, or the Makefile."""
    return [name for name in re.findall(r"`([^` ]+)`", cell) if re.search(r"[./]|^Makefile$", name)]


def missing(text: str, baked: Path) -> list[str]:
    there = set(files(baked))
    return [
        f"{name or 'no file'} in {cell!r}"
        for cell in claims(text)
        for name in named(cell) or [""]
        if name not in there and not (name and (ROOT / name).is_file())
    ]


@pytest.fixture(scope="module")
def baked(bake: Bake) -> Path:
    return bake()


def test_every_claim_names_a_file_that_exists(baked: Path) -> None:
    text = TABLE.read_text("utf-8")
    assert len(claims(text)) > 25
    assert missing(text, baked) == []


@pytest.mark.parametrize("cell", ["yes: `src/penguins/magic.py`", "yes, trust us"])
def test_a_claim_without_a_file_is_found(baked: Path, cell: str) -> None:
    text = TABLE.read_text("utf-8").replace("yes: `experiment.toml`", cell)
    (found,) = missing(text, baked)
    assert cell in found
