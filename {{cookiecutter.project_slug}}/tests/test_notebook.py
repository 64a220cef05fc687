from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))


def run(notebook, models, folder):
    """Execute a notebook beside the models, as Jupyter would in `notebooks/`."""
    (folder / "models").symlink_to(models.resolve())
    (folder / "notebooks").mkdir()
    NotebookClient(notebook, timeout=600).execute(cwd=str(folder / "notebooks"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path, models, tmp_path):
    run(nbformat.read(path, as_version=4), models, tmp_path)


def test_a_cell_that_raises_would_be_noticed(fresh, tmp_path):
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(broken, fresh, tmp_path)
