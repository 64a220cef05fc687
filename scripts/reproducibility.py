"""Build the baked example in every circumstance that the matrix knows, and print the table.

With --write the table goes into docs/reproducibility.md as well.  As root on Debian
everything needed is installed and three Debian releases are made in build/chroots; what
cannot be had is named in the table.  Exit 1 when any cell is not what it has to be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT / "tests")  # in place of this folder, whose names are others' too

from perturbations import CELLS, Matrix, Outcome, git, table  # noqa: E402

DOCS = ROOT / "docs" / "reproducibility.md"
WORK = ROOT / "build" / "reproducibility"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def main() -> int:
    """Print a line per cell as it is known, and judge."""
    mounts = Path("/proc/self/mounts").read_text()
    bad = 0

    def outcomes(matrix: Matrix) -> Iterator[Outcome]:
        nonlocal bad
        yield matrix.ordinary
        for cell in CELLS.values():
            outcome = matrix.outcome(cell)
            bad += not outcome.good
            yield outcome

    project = _example()
    lines = []
    # Elsewhere, because sources without git must not lie in this repository.
    with tempfile.TemporaryDirectory() as folder:
        matrix = Matrix(project, WORK / "store", Path(folder))
        for line in table(outcomes(matrix)):
            print(line, flush=True)
            lines.append(line)
    if "--write" in sys.argv:
        _write(lines)
    if Path("/proc/self/mounts").read_text() != mounts:
        print("Something is still mounted.", file=sys.stderr)
        bad += 1
    return bool(bad)


def _example() -> Path:
    """Bake, set up and train as a user does, without the user's settings."""
    shutil.rmtree(WORK / "penguins", ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PACKAGER_CACHE": str(WORK / "store")}
    bake = [sys.executable, "-m", "cookiecutter", ".", "--no-input", "--output-dir", str(WORK)]
    subprocess.run(bake, cwd=ROOT, env=environment, check=True)
    project = WORK / "penguins"
    for target in ("setup", "train"):
        _say(f"make {target}")
        subprocess.run(
            ["make", "--no-print-directory", target], cwd=project, env=environment, check=True
        )
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "Train and lock")
    return project


def _write(lines: list[str]) -> None:
    before, _, rest = DOCS.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCS.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, "utf-8")


def _say(what: str) -> None:
    print(f"== {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
