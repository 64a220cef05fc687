"""Say how good the exported model is on rows it has not seen, beside simpler ways to answer."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics
from sklearn.dummy import DummyClassifier, DummyRegressor

from . import data, dataset, exported, files, model, predict, registry, report
from .features import Config, encode
from .settings import HIGHER_IS_BETTER, ROOT, Settings, SettingsError, read

__all__ = ["cross_validate", "evaluate", "latency_ms", "main", "scores", "thresholds"]

MODEL = ROOT / "models" / f"model.{exported.SUFFIX}"

_REPEATS_OF_LATENCY = 20


def scores(config: Config, truth: np.ndarray, output: np.ndarray) -> dict[str, float]:
    """Compute every metric of a task.

    Parameters
    ----------
    config : Config
        Says which task it is.
    truth : numpy.ndarray
        As `data.targets` returns it.
    output : numpy.ndarray
        Probabilities, shape (rows, classes), or values, shape (rows,).

    Returns
    -------
    dict
        Fractions between 0 and 1, the log loss in nats, errors in the target's own unit; each
        rounded to six digits after the point, which is where processors agree.
    """
    if config.task == "regression":
        found = {
            "mean_absolute_error": metrics.mean_absolute_error(truth, output),
            "root_mean_squared_error": metrics.root_mean_squared_error(truth, output),
            # Of one row there is no spread to explain.
            "r2": metrics.r2_score(truth, output) if len(truth) > 1 else 0.0,
        }
    else:
        labels = list(range(len(config.classes)))
        best = output.argmax(axis=1)
        recall = metrics.recall_score(truth, best, labels=np.unique(truth), average="macro")
        found = {
            "accuracy": metrics.accuracy_score(truth, best),
            "balanced_accuracy": recall,
            "macro_f1": metrics.f1_score(truth, best, average="macro", zero_division=0),
            "log_loss": metrics.log_loss(truth, output, labels=labels),
        }
    return {name: round(float(value), 6) for name, value in found.items()}


def evaluate(
    predictor: predict.Predictor,
    training: pd.DataFrame,
    held_out: pd.DataFrame,
    settings: Settings,
) -> dict[str, Any]:
    """Measure a model, and what it is compared with.

    Parameters
    ----------
    predictor : Predictor
        The exported model, loaded again.
    training : pandas.DataFrame
        The rows that it was trained on.
    held_out : pandas.DataFrame
        The rows that it is measured on.
    settings : Settings
        Say what is measured.

    Returns
    -------
    dict
        What ``metrics.json`` says besides digests and thresholds.
    """
    config = predictor.config
    truth = data.targets(held_out, settings)
    output = predictor.run(encode(config, data.columns(held_out, settings)))
    reached = scores(config, truth, output)
    return {
        "task": config.task,
        "pipeline_tag": f"tabular-{config.task}",  # what model hubs call it
        "optimise": settings.evaluation.optimise,
        "value": reached[settings.evaluation.optimise],
        "rows": {"training": len(training), "held_out": len(held_out)},
        "held_out": reached,
        "cross_validation": cross_validate(training, settings),
        "baselines": _baselines(training, held_out, settings),
        "groups": {
            column: _by_group(config, held_out[column], truth, output, settings)
            for column in settings.evaluation.by
        },
        "leakage": data.leakage(training, held_out, settings),
    }


def cross_validate(training: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    """Fit and measure again and again, within the training rows.

    Parameters
    ----------
    training : pandas.DataFrame
        The held-out rows are not among them.
    settings : Settings
        How many folds, and how many seeds.

    Returns
    -------
    dict
        ``folds``, ``repeats``, and under ``metrics`` for each of them ``mean``, ``std``, ``min``
        and ``max`` over all fits, and ``std_over_seeds``, of the means of the repetitions.
    """
    config = settings.config
    found = []
    for seed, fitted, measured in data.folds(training, settings):
        inputs = encode(config, data.columns(fitted, settings))
        target = data.targets(fitted, settings)
        together = data.groups(fitted, settings)
        estimator = model.fit(settings.model, seed, config, inputs, target, together)
        output = model.run(estimator, config, encode(config, data.columns(measured, settings)))
        found.append(scores(config, data.targets(measured, settings), output))
    return {
        "folds": settings.split.folds,
        "repeats": settings.split.repeats,
        "metrics": {
            name: _spread([one[name] for one in found], settings.split.folds) for name in found[0]
        },
    }


def thresholds(
    measured: dict[str, Any], latency: float, settings: Settings
) -> list[dict[str, Any]]:
    """Hold what was measured against what has to hold.

    Parameters
    ----------
    measured : dict
        What `evaluate` returned, with ``size_bytes``.
    latency : float
        Milliseconds for one row.
    settings : Settings
        The thresholds.

    Returns
    -------
    list of dict
        ``metric``, ``min`` or ``max``, ``passed``, and ``value``; a time has no value here,
        because it would be another each time.
    """
    values = {
        **measured["held_out"],
        "duplicate_rows": measured["leakage"]["duplicate_rows"],
        "size_mb": round(measured["size_bytes"] / 1e6, 6),
        "latency_ms": latency,
    }
    found = []
    for name, threshold in settings.evaluation.thresholds.items():
        line = {"metric": name, **threshold.model_dump(exclude_none=True)}
        if name != "latency_ms":
            line["value"] = values[name]
        found.append({**line, "passed": threshold.holds(values[name])})
    return found


def latency_ms(predictor: predict.Predictor, row: dict[str, list[Any]]) -> float:
    """Measure how long one row takes.

    Parameters
    ----------
    predictor : Predictor
        The exported model, loaded again.
    row : dict
        A column of one value for each input.

    Returns
    -------
    float
        The median of twenty predictions, in milliseconds.
    """
    taken = []
    for _ in range(_REPEATS_OF_LATENCY):
        begin = time.perf_counter()
        predictor.predict(row)
        taken.append(time.perf_counter() - begin)
    return 1000 * statistics.median(taken)


def _spread(values: list[float], folds: int) -> dict[str, float]:
    array = np.array(values)
    found = {"mean": array.mean(), "std": array.std(), "min": array.min(), "max": array.max()}
    found["std_over_seeds"] = array.reshape(-1, folds).mean(axis=1).std()
    return {name: round(float(value), 6) for name, value in found.items()}


def _baselines(
    training: pd.DataFrame, held_out: pd.DataFrame, settings: Settings
) -> dict[str, dict[str, Any]]:
    config = settings.config
    learned, truth = data.targets(training, settings), data.targets(held_out, settings)
    none = np.zeros((len(training), 1)), np.zeros((len(held_out), 1))
    rule = dataset.rule(held_out)
    unknown = {str(answer) for answer in rule} - set(config.classes) if config.classes else set()
    if unknown:
        names = ", ".join(sorted(unknown))
        raise data.DataError(f"dataset.rule answers {names}, which task.classes does not name")
    found: dict[str, dict[str, Any]] = {}
    if config.classes:
        dummy = DummyClassifier(strategy="prior").fit(none[0], learned)
        prior = np.zeros((len(held_out), len(config.classes)))
        prior[:, dummy.classes_] = dummy.predict_proba(none[1])
        found["most_frequent"] = scores(config, truth, prior)
        sure = np.array([[name == answer for name in config.classes] for answer in rule])
        found["rule"] = scores(config, truth, sure.astype(np.float64))
    else:
        dummy = DummyRegressor(strategy="mean").fit(none[0], learned)
        found["mean"] = scores(config, truth, dummy.predict(none[1]))
        found["rule"] = scores(config, truth, np.asarray(rule, dtype=np.float64))
    for name in ("published", "human"):
        reference = getattr(settings.evaluation, name)
        if reference:
            value = {settings.evaluation.optimise: reference.value}
            found[name] = {**value, "source": reference.source}
    return found


def _by_group(
    config: Config,
    column: pd.Series,
    truth: np.ndarray,
    output: np.ndarray,
    settings: Settings,
) -> dict[str, dict[str, float]]:
    known = column.astype(object).where(column.notna(), "unknown").astype(str)
    name = settings.evaluation.optimise
    return {
        value: {
            "rows": int((known == value).sum()),
            name: scores(config, truth[known == value], output[known == value])[name],
        }
        for value in sorted(known.unique())
    }


def _page(measured: dict[str, Any], latency: float) -> str:
    lines = ["held out  " + "  ".join(f"{k} {v:g}" for k, v in measured["held_out"].items())]
    name = measured["optimise"]
    spread = measured["cross_validation"]["metrics"][name]
    lines.append(f"folds     {name} {spread['mean']:g} ± {spread['std']:g}")
    better = "higher" if HIGHER_IS_BETTER[measured["task"]][name] else "lower"
    lines += [
        f"baseline  {who}: {name} {found[name]:g} ({better} is better)"
        for who, found in measured["baselines"].items()
    ]
    for line in measured["thresholds"]:
        bound = f"≥ {line['min']:g}" if "min" in line else f"≤ {line['max']:g}"
        value = line.get("value", latency)
        verdict = "holds" if line["passed"] else "MISSED"
        lines.append(f"{verdict:9} {line['metric']} {value:.4g}, has to be {bound}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure the exported model again, print it, and draw the report; exit 1 on a miss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", default=str(ROOT / "build" / "report"), metavar="FOLDER")
    chosen = parser.parse_args(arguments)
    if not MODEL.is_file():
        sys.exit(f"{MODEL} is missing: run make train first")
    try:
        settings = read()
        training, held_out = data.split(data.load(settings), settings)
        predictor = predict.load(MODEL)
        if predictor.config != settings.config:
            raise SettingsError("the model has other inputs than experiment.toml: run make train")
        said = json.loads(MODEL.with_name("metrics.json").read_text("utf-8"))
        now = {
            "model": files.digest(MODEL.read_bytes()),
            "data": f"sha256:{registry.entry(settings.data.name).sha256}",
            "fitted_with": settings.fitted_with,
        }
        if {key: said.get(key) for key in now} != now:
            raise SettingsError(
                "the model was trained with other settings or data: rows that are held out now "
                "may be rows that it learned from; run make train"
            )
        measured = evaluate(predictor, training, held_out, settings)
    except (OSError, SettingsError, registry.RegistryError, data.DataError, ValueError) as error:
        sys.exit(str(error))
    first = {name: column[:1] for name, column in data.columns(held_out, settings).items()}
    latency = latency_ms(predictor, first)
    measured["size_bytes"] = MODEL.stat().st_size
    measured["thresholds"] = thresholds(measured, latency, settings)
    print(_page(measured, latency))
    print(f"report    {report.draw(chosen.report, predictor, held_out, measured, settings)}")
    if not all(line["passed"] for line in measured["thresholds"]):
        sys.exit("A threshold of experiment.toml is missed.")


if __name__ == "__main__":
    main()
