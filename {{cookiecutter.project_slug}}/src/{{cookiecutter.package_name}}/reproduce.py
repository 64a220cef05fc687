"""Say whether a model that was trained again is the one that was published."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import export, exported, model
from .predict import load

__all__ = ["Verdict", "compare", "main"]

_SPREADS = 2
"""How many standard deviations over seeds a metric may move where predictions do not compare."""

_ROUNDED = 2e-6
"""How far metrics of one and the same model may be apart: they are rounded to six digits."""


@dataclass(frozen=True)
class Verdict:
    """What the comparison found.

    Attributes
    ----------
    level : str
        ``"identical"``, ``"within tolerance"`` or ``"different"``.
    reasons : tuple of str
        What it rests on, a sentence each.
    """

    level: str
    reasons: tuple[str, ...]


def compare(published: Path, again: Path) -> Verdict:
    """Compare two folders that training wrote.

    Parameters
    ----------
    published : Path
        The folder of the published model.
    again : Path
        The folder of the model that was trained again.

    Returns
    -------
    Verdict
        Identical where the content of both models is; else within tolerance where the recorded
        predictions are, or, for a framework whose training is not repeatable to the last digits,
        where the metric is within the spread over seeds.

    Raises
    ------
    OSError, ValueError
        When a file is missing or is something else.
    """
    name = f"model.{exported.SUFFIX}"
    digests = [export.content_digest((folder / name).read_bytes()) for folder in (published, again)]
    before, now = (_read(folder / "metrics.json") for folder in (published, again))
    for key in ("data", "fitted_with"):
        if before.get(key) != now.get(key):
            said = f"{key} differ: {before.get(key)} was published, {now.get(key)} is used now"
            return Verdict("different", (said,))
    if digests[0] == digests[1]:
        moved = _moved(before, now, dict.fromkeys(before["held_out"], _ROUNDED))
        if moved:
            return Verdict("different", ("the models are one, the published metrics differ", moved))
        return Verdict("identical", (f"the content of both models is {digests[0]}",))
    reasons = [f"the models differ: {digests[0]} was published, {digests[1]} was trained now"]
    if model.RETRAINED:
        agree, reason = _predictions(published, again / name, **model.RETRAINED)
    else:
        agree, reason = _metrics(before, now)
    return Verdict("within tolerance" if agree else "different", (*reasons, reason))


def _predictions(published: Path, path: Path, *, rtol: float, atol: float) -> tuple[bool, str]:
    recorded = json.loads((published / "examples.json").read_text("utf-8"))
    predictor = load(path)
    outputs = predictor.predict(recorded["inputs"])
    target = predictor.config.target
    labels = not predictor.config.classes or outputs[target] == recorded["outputs"][target]
    name = "probability" if predictor.config.classes else target
    before, now = np.array(recorded["outputs"][name]), np.array(outputs[name])
    largest = float(np.abs(before - now).max(initial=0))
    close = np.allclose(now, before, rtol=rtol, atol=atol)
    return labels and close, (
        f"over {len(before)} recorded rows predictions differ by {largest:.3g} at most "
        f"(rtol {rtol:g}, atol {atol:g} are allowed)"
    )


def _metrics(before: dict[str, Any], now: dict[str, Any]) -> tuple[bool, str]:
    spread = before["cross_validation"]["metrics"]
    allowed = {
        name: max(_SPREADS * found["std_over_seeds"], _ROUNDED) for name, found in spread.items()
    }
    moved = _moved(before, now, allowed)
    within = f"{before['optimise']} and the other metrics are within {_SPREADS} times their spread"
    return not moved, moved or f"{within} over seeds"


def _moved(before: dict[str, Any], now: dict[str, Any], allowed: dict[str, float]) -> str:
    """Name the metrics that are further apart than is allowed."""
    apart = {name: abs(before["held_out"][name] - now["held_out"][name]) for name in allowed}
    return "; ".join(
        f"{name} moved by {apart[name]:.3g}, {limit:.3g} is allowed"
        for name, limit in allowed.items()
        if not apart[name] <= limit
    )


def _read(path: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return known


def main(arguments: list[str] | None = None) -> None:
    """Compare as the command line says; exit 1 where the models are different."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("published", type=Path)
    parser.add_argument("again", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        verdict = compare(chosen.published, chosen.again)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print("\n".join([f"Reproduced: {verdict.level}", *verdict.reasons]))
    if verdict.level == "different":
        sys.exit(1)


if __name__ == "__main__":
    main()
