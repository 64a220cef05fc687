"""Try packager with every engine that Debian has, by every way to one, and print the table.

With --write the table goes into docs/engines.md as well.  As root on Debian the releases'
engines are unpacked in build/chroots.  Exit 1 when any claim is false.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT / "tests")  # in place of this folder, whose names are others' too

from chroots import UnavailableError  # noqa: E402
from conftest import Tiny, write_tiny  # noqa: E402
from engine_table import COLUMNS, ROWS, Row, Trial  # noqa: E402

DOCS = ROOT / "docs" / "engines.md"
WORK = ROOT / "build" / "engines"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def main() -> int:
    """Print a line for each row as it is known, and judge."""
    project = _project()
    lines = []
    bad = False
    heads = ["engine", "Debian", "reached by", *COLUMNS]
    for cells in (heads, ["---"] * len(heads), *(_cells(row, project) for row in ROWS)):
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
        bad = bad or any(cell.startswith("no: ") for cell in cells)
    if "--write" in sys.argv:
        before, _, rest = DOCS.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        DOCS.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, "utf-8")
    return bad


def _project() -> Tiny:
    """Make a project with a server, and its lock."""
    root = WORK / "tiny"
    shutil.rmtree(root, ignore_errors=True)
    write_tiny(root)
    project = Tiny(root, WORK / "store")
    project.edit("pyproject.toml", "[tool.packager]\n", "[tool.packager]\nserve = true\n")
    locked = project.run("lock")
    if locked.returncode:
        sys.exit(locked.stderr)
    return project


def _cells(row: Row, project: Tiny) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(project.root, Path(folder) / "tiny"))
        try:
            with row.trial(copy, project.store, Path(folder)) as trial:
                said = [_said(ask, trial) for ask in COLUMNS.values()]
        except UnavailableError as error:
            print(error, file=sys.stderr)
            said = ["untried"] * len(COLUMNS)
    return [row.title, row.suite, row.way.__name__, *said]


def _said(ask: Callable[[Trial], str], trial: Trial) -> str:
    try:
        return ask(trial)
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs into the cell
        return f"no: {str(error).strip().splitlines()[0]}"


if __name__ == "__main__":
    sys.exit(main())
