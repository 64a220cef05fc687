"""The log of experiments: a line for each training, failures included; lines are only added."""

from __future__ import annotations

import datetime
import io
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from threadpoolctl import threadpool_info

from . import files
from .settings import ROOT

__all__ = ["LOG", "append", "draw", "main", "read", "surroundings"]

LOG = ROOT / "experiments" / "log.jsonl"

_VARIABLES = (
    *("PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("OPENBLAS_CORETYPE", "CUBLAS_WORKSPACE_CONFIG"),
)


def surroundings() -> dict[str, Any]:
    """Describe what can change a model's last digits without being a setting.

    Returns
    -------
    dict
        The processor, Python, the thread pools of the numerical libraries with their kernels,
        and the variables that steer them.
    """
    pools = [
        {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
        for pool in threadpool_info()
    ]
    return {
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "thread_pools": sorted(pools, key=lambda pool: str(pool["internal_api"])),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def append(line: dict[str, Any], path: Path = LOG) -> None:
    """Add a line.

    Parameters
    ----------
    line : dict
        What was tried, and what came of it; the time and the state of the repository are added.
    path : Path
        The log; made if it is missing.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = {"time": now, "commit": _git("rev-parse", "HEAD"), **line}
    line["dirty"] = bool(_git("status", "--porcelain", "--", "src", "experiment.toml", "data"))
    text = json.dumps(line, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write to a file opened for appending: runs at the same time do not mix their lines.
    with path.open("ab") as log:
        log.write(f"{text}\n".encode())


def read(path: Path = LOG) -> list[dict[str, Any]]:
    """Read the log.

    Parameters
    ----------
    path : Path
        The log.

    Returns
    -------
    list of dict
        Its lines, oldest first; none where there is no log.

    Raises
    ------
    ValueError
        When a line is no JSON; the message has its number.
    """
    lines = []
    text = path.read_text("utf-8") if path.is_file() else ""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return lines


def draw(lines: list[dict[str, Any]]) -> Figure:
    """Draw what each experiment reached.

    Parameters
    ----------
    lines : list of dict
        As `read` returns them.

    Returns
    -------
    matplotlib.figure.Figure
        A point for each; a cross where it failed.
    """
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    # Another metric has another scale: only those of the latest experiments are comparable.
    metric = next((line["optimise"] for line in reversed(lines) if "value" in line), "")
    done = [(n, line) for n, line in enumerate(lines, start=1) if line.get("optimise") == metric]
    axes.plot([n for n, _ in done], [line["value"] for _, line in done], marker="o")
    for number, line in enumerate(lines, start=1):
        if "error" in line:
            axes.axvline(number, color="firebrick", linestyle=":")
    axes.set_xlabel("experiment")
    axes.set_ylabel(metric)
    return figure


def main() -> None:
    """Print the log, and draw it into ``build/report/experiments.svg``."""
    try:
        lines = read()
    except ValueError as error:
        sys.exit(str(error))
    if not lines:
        sys.exit(f"{LOG} has no line yet: run make train first")
    for number, line in enumerate(lines, start=1):
        reached = f"{line['optimise']} {line['value']:g}" if "value" in line else line["error"]
        print(f"{number:4} {line['time']} {line['seconds']:8.1f} s  {reached}")
    picture = io.BytesIO()
    draw(lines).savefig(picture, format="svg", metadata={"Date": None})
    path = ROOT / "build" / "report" / "experiments.svg"
    files.write(path, picture.getvalue())
    print(path)


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    main()
