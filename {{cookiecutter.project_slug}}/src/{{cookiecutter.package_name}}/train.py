"""Train the model, and write it with its metrics and its recorded examples."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import data, evaluate, examples, export, exported, files, log, model, registry, seeds
from .features import encode
from .predict import load
from .settings import ROOT, Settings, SettingsError, read

__all__ = ["TrainingError", "main", "train"]


class TrainingError(ValueError):
    """The model cannot be fitted to these data, or not be exported."""


_MISTAKES = (SettingsError, registry.RegistryError, data.DataError, TrainingError)


def train(settings: Settings, output: Path) -> dict[str, Any]:
    """Train, export, measure and record.

    What is recorded and measured is the exported file, loaded again, not the object in memory.

    Parameters
    ----------
    settings : Settings
        Every choice.
    output : Path
        The folder for the model, ``metrics.json``, ``examples.json`` and ``sample.csv``.

    Returns
    -------
    dict
        The content of ``metrics.json``.

    Raises
    ------
    RegistryError, DataError
        When the data are not what registry and settings say.
    TrainingError
        When the model cannot be fitted to them, or not be exported.
    """
    seeds.set_all(settings.seed)
    entry = registry.entry(settings.data.name)
    training, held_out = data.split(data.load(settings), settings)
    if data.leakage(training, held_out, settings)["shared_groups"]:
        raise data.DataError("a group of split.groups has rows on both sides of the split")
    rows = examples.chosen(held_out, entry, settings)
    inputs = encode(settings.config, data.columns(training, settings))
    target = data.targets(training, settings)
    content = _fit_and_export(settings, inputs, target, data.groups(training, settings))
    # Into its place only with all that is said about it: what fails before leaves the old model.
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"model.{exported.SUFFIX}"
        path.write_bytes(content)
        predictor = load(path)
    first = {name: column[:1] for name, column in data.columns(held_out, settings).items()}
    metrics = evaluate.evaluate(predictor, training, held_out, settings)
    metrics |= {"model": files.digest(content), "content": export.content_digest(content)}
    metrics |= {"data": f"sha256:{entry.sha256}", "settings": settings.digest}
    metrics |= {"fitted_with": settings.fitted_with}
    metrics |= {"size_bytes": len(content), "framework": model.FRAMEWORK}
    latency = evaluate.latency_ms(predictor, first)
    metrics["thresholds"] = evaluate.thresholds(metrics, latency, settings)
    recorded = examples.record(predictor, rows, settings, model=metrics["model"], training=training)
    files.write(output / path.name, content)
    files.write(output / "metrics.json", files.json_bytes(metrics))
    files.write(output / "sample.csv", examples.sample(rows, settings))
    files.write(output / "examples.json", files.json_bytes(recorded))
    return metrics


def _fit_and_export(
    settings: Settings, inputs: np.ndarray, target: np.ndarray, groups: np.ndarray | None
) -> bytes:
    try:
        fitted = model.fit(settings.model, settings.seed, settings.config, inputs, target, groups)
        return export.to_bytes(fitted, settings.config, inputs)
    except ValueError as error:
        raise TrainingError(f"the model cannot be fitted and exported: {error}") from error


def main(arguments: list[str] | None = None) -> None:
    """Train as the command line says, and add a line to the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "models", metavar="FOLDER")
    parser.add_argument("--profile", default="", help="a table of [profiles] in experiment.toml")
    parser.add_argument("--note", default="", help="what is tried here, for the log")
    parser.add_argument(
        "--log", type=Path, default=log.LOG, metavar="FILE", help="where the line goes"
    )
    chosen = parser.parse_args(arguments)
    begin = time.monotonic()
    line: dict[str, Any] = {"note": chosen.note, "profile": chosen.profile}
    try:
        settings = read(chosen.profile)
        line |= {"settings": settings.model_dump(mode="json"), **log.surroundings()}
        metrics = train(settings, chosen.output)
    except BaseException as error:
        # What failed is part of the record too.
        seconds = round(time.monotonic() - begin, 1)
        said = str(error).replace(f"{ROOT}/", "").split("\n")[0]  # no path of this machine
        failed = f"{type(error).__name__}: {said}"
        log.append({**line, "seconds": seconds, "error": failed}, chosen.log)
        if isinstance(error, _MISTAKES):
            sys.exit(str(error))
        raise
    seconds = round(time.monotonic() - begin, 1)
    name = metrics["optimise"]
    reached = {"optimise": name, "value": metrics["held_out"][name]}
    reached |= {key: metrics[key] for key in ("model", "data")}
    log.append({**line, "seconds": seconds, **reached}, chosen.log)
    print(f"{name} {reached['value']:g} on {metrics['rows']['held_out']} held-out rows")
    missed = [each["metric"] for each in metrics["thresholds"] if not each["passed"]]
    if missed:
        print(f"missed: {', '.join(missed)}; make evaluate shows by how much")
    print(f"Wrote the model, metrics.json, examples.json and sample.csv to {chosen.output}")


if __name__ == "__main__":
    main()
