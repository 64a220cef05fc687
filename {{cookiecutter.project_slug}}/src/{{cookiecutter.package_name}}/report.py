"""Draw what was measured: pictures, and a page that shows them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from . import data, files
from .features import Config, encode
from .predict import Predictor
from .settings import Settings

__all__ = ["calibration", "confusion", "draw", "residuals"]

_BINS = 5
_DARK = 0.5  # above it, a number in a cell has to be white


def draw(
    folder: str | Path,
    predictor: Predictor,
    held_out: pd.DataFrame,
    measured: dict[str, Any],
    settings: Settings,
) -> Path:
    """Write the report.

    Parameters
    ----------
    folder : str or Path
        Where to.
    predictor : Predictor
        The exported model, loaded again.
    held_out : pandas.DataFrame
        The rows that it is measured on.
    measured : dict
        What `evaluate.evaluate` returned, with ``thresholds``.
    settings : Settings
        Name the columns.

    Returns
    -------
    Path
        ``report.md``; the pictures stand beside it.
    """
    config = predictor.config
    truth = data.targets(held_out, settings)
    output = predictor.run(encode(config, data.columns(held_out, settings)))
    if config.classes:
        pictures = {
            "confusion": confusion(config, truth, output),
            "calibration": calibration(config, truth, output),
        }
    else:
        pictures = {"residuals": residuals(config, truth, output)}
    for name, figure in pictures.items():
        picture = io.BytesIO()
        # Neither the day nor a random number: the same picture is the same file.
        with mpl.rc_context({"svg.hashsalt": name}):
            figure.savefig(picture, format="svg", metadata={"Date": None})
        files.write(Path(folder) / f"{name}.svg", picture.getvalue())
    page = Path(folder) / "report.md"
    files.write(page, _page(measured, list(pictures)).encode())
    return page


def confusion(config: Config, truth: np.ndarray, output: np.ndarray) -> Figure:
    """Draw which classes are taken for which.

    Parameters
    ----------
    config : Config
        Names the classes.
    truth : numpy.ndarray
        Positions in `Config.classes`, shape (rows,).
    output : numpy.ndarray
        Probabilities, shape (rows, classes).

    Returns
    -------
    matplotlib.figure.Figure
        A square for each pair of classes, with the number of rows.
    """
    names = config.classes
    counts = confusion_matrix(truth, output.argmax(axis=1), labels=range(len(names)))
    figure = Figure(figsize=(1.5 + len(names), 1 + len(names)), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > _DARK else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(names)), _plain(names), rotation=45, ha="right")
    axes.set_yticks(range(len(names)), _plain(names))
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def calibration(config: Config, truth: np.ndarray, output: np.ndarray) -> Figure:
    """Draw how often the model is right when it says how sure it is.

    Parameters
    ----------
    config : Config
        Names the classes.
    truth : numpy.ndarray
        Positions in `Config.classes`, shape (rows,).
    output : numpy.ndarray
        Probabilities, shape (rows, classes).

    Returns
    -------
    matplotlib.figure.Figure
        A line for each class; on the diagonal, what is said is what happens.
    """
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    for index, name in enumerate(_plain(config.classes)):
        happened, said = calibration_curve(truth == index, output[:, index], n_bins=_BINS)
        axes.plot(said, happened, marker="o", label=name)
    axes.set_xlabel("probability that was predicted")
    axes.set_ylabel("part that was so")
    axes.legend()
    return figure


def residuals(config: Config, truth: np.ndarray, output: np.ndarray) -> Figure:
    """Draw predicted against true values.

    Parameters
    ----------
    config : Config
        Names the target.
    truth, output : numpy.ndarray
        Values, shape (rows,).

    Returns
    -------
    matplotlib.figure.Figure
        A point for each row; on the diagonal, the prediction is right.
    """
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.add_subplot()
    ends = [min(truth.min(), output.min()), max(truth.max(), output.max())]
    axes.plot(ends, ends, color="grey", linestyle=":")
    axes.scatter(truth, output, s=12)
    (name,) = _plain((config.target,))
    axes.set_xlabel(f"true {name}")
    axes.set_ylabel(f"predicted {name}")
    return figure


def _plain(names: tuple[str, ...]) -> list[str]:
    """Keep matplotlib from reading ``$`` as mathematics."""
    return [name.replace("$", r"\$") for name in names]


def _page(measured: dict[str, Any], pictures: list[str]) -> str:
    lines = ["# How good the model is", "", "| metric | held out | folds |", "| --- | --- | --- |"]
    for name, value in measured["held_out"].items():
        spread = measured["cross_validation"]["metrics"][name]
        lines.append(f"| {name} | {value:g} | {spread['mean']:g} ± {spread['std']:g} |")
    lines += ["", "| instead of the model | " + measured["optimise"] + " |", "| --- | --- |"]
    for name, found in measured["baselines"].items():
        lines.append(f"| {name} | {found[measured['optimise']]:g} |")
    for column, groups in measured["groups"].items():
        lines += ["", f"| {column} | rows | {measured['optimise']} |", "| --- | --- | --- |"]
        for value, found in groups.items():
            lines.append(f"| {value} | {found['rows']} | {found[measured['optimise']]:g} |")
    for name in pictures:
        lines += ["", f"![{name}]({name}.svg)"]
    return "\n".join([*lines, ""])
