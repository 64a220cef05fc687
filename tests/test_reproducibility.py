"""The same project gives the same image and manifest, whatever the circumstances of the build.

The cells are in `perturbations.py`; `make reproducibility` runs them on the real example.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from shutil import copytree

import pytest
from chroots import UnavailableError
from conftest import REPOSITORY, git
from perturbations import CELLS, ORDINARY, Cell, Matrix, Outcome, digests, table

pytestmark = pytest.mark.xdist_group("chroots")

# In the order in which they can be put upon one another.
AT_ONCE = [
    *("git: line ends", "folder's name", "user: mapped", "HOME", "locale: C", "time zone"),
    *("hash seed: 1", "kernel", "processors: one", "file order: Python", "workers: 7", "zlib"),
]


@pytest.fixture(scope="module")
def matrix(
    locked_tiny: Path, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Matrix:
    folder = tmp_path_factory.mktemp("matrix")
    source = folder / "tiny"
    copytree(locked_tiny, source)
    git(source, "init", "-q")
    git(source, "add", "-A")
    git(source, "commit", "-qm", "Tiny")
    return Matrix(source, shared_store, folder)


def test_many_circumstances_at_once_change_nothing(matrix: Matrix) -> None:
    with contextlib.ExitStack() as stack:
        try:
            run = matrix.perturbed(stack, *[CELLS[name] for name in AT_ONCE])
        except UnavailableError as why:
            pytest.skip(str(why))
        done = run.build()
        assert done.returncode == 0, done.stderr
        assert digests(run.out) == (matrix.ordinary.image, matrix.ordinary.manifest)


@pytest.mark.parametrize("name", ["control: a byte", "compressor"])
def test_a_quick_cell_comes_to_what_it_must(name: str, matrix: Matrix) -> None:
    outcome = matrix.outcome(CELLS[name])
    assert outcome.good, outcome
    assert outcome.verdict == CELLS[name].expected


@pytest.mark.whole
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_comes_to_what_it_must(name: str, matrix: Matrix) -> None:
    outcome = matrix.outcome(CELLS[name])
    if outcome.verdict == "not to be had here":
        pytest.skip(outcome.why)
    assert outcome.verdict == CELLS[name].expected, outcome


def test_a_perturbation_that_does_nothing_is_noticed(matrix: Matrix) -> None:
    idle = Cell("idle", "nothing", "os.getpid() > 0", lambda run, _: run)
    with pytest.raises(AssertionError, match="idle"):
        matrix.outcome(idle)


# --- The table -------------------------------------------------------------------------------


def test_the_table_shows_what_is_wrong() -> None:
    one = "sha256:" + 64 * "1"
    outcomes = [
        Outcome(CELLS["zlib"], one, one, 1.0, verdict="same"),
        Outcome(CELLS["zlib"], one, one, 1.0, verdict="differs"),
        Outcome(CELLS["zlib"], why="it broke", verdict="refused"),
        Outcome(CELLS["zlib"], why="no root", verdict="not to be had here"),
        Outcome(CELLS["control: a byte"], one, one, 1.0, verdict="differs"),
        Outcome(CELLS["control: a byte"], one, one, 1.0, verdict="same"),
    ]
    verdicts = [line.split("|")[-2].strip() for line in table(outcomes)][2:]
    assert verdicts == [
        "same",
        "**differs**",
        "**refused: it broke**",
        "not to be had here: no root",
        "differs, as it must",
        "**same**",
    ]
    assert [one.good for one in outcomes] == [True, False, False, True, True, False]


def test_the_docs_table_has_the_cells_of_the_code() -> None:
    text = (REPOSITORY / "docs/reproducibility.md").read_text("utf-8")
    block = text.partition("<!-- table: begin -->")[2].partition("<!-- table: end -->")[0]
    rows = [re.split(r" *\| *", line)[1:3] for line in block.strip().splitlines()[2:]]
    cells = [ORDINARY, *CELLS.values()]
    assert rows == [[cell.name, cell.changed] for cell in cells]
    assert "**" not in block
