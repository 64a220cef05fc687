"""The first prediction: all that a service would import, the model, one row.

python -m peers.first models/model.skops
"""

# ruff: noqa: T201 - printing is what it is for

import sys
from pathlib import Path

import fastapi
import pandas as pd
import skops.io


def load(path: Path) -> object:
    """Load the model."""
    return skops.io.load(path, trusted=["numpy.dtype"])


def main() -> None:
    """Predict, and say what, with what."""
    rows = pd.DataFrame([[1.0] * 10], columns=[f"x{n}" for n in range(10)])
    print(load(Path(sys.argv[1])).predict(rows), "fastapi", fastapi.__version__)


if __name__ == "__main__":
    main()
