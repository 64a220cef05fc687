"""The image's proof: load the model, repeat the recorded predictions, and compare."""

from __future__ import annotations

import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .compare import compare
from .facts import InputError, Recording, model_digest, read_examples, read_image
from .loaders import Predictor, ask, load, plain
from .tables import check

__all__ = ["EXIT_CODES", "page", "run"]

FORMAT = 1
"""Version of the report."""

_CAUSES = 50  # that code can also chain in a circle

EXIT_CODES = {"passed": 0, "no-examples": 0, "failed": 1, "error": 2}
"""What the program exits with for each status of a report."""


def run(folder: Path) -> dict[str, Any]:
    """Test the image; whatever the project's code does, there is a report.

    Parameters
    ----------
    folder : Path
        Where `image.json` lies.

    Returns
    -------
    dict
        Ready for JSON.  Its `status` is "passed"; "failed"; "no-examples", the model was
        loaded; or "error", and `error` says at which stage.  Times are in seconds.
    """
    report: dict[str, Any] = {"format": FORMAT, "status": "error", "examples": 0}
    report |= {"outputs": [], "seconds": {}, "error": None}
    stage, started = "load", time.perf_counter()
    try:
        examples, predictor = _loaded(folder)
        report["seconds"]["load"] = round(time.perf_counter() - started, 3)
        if examples is None:
            return report | {"status": "no-examples"}
        report["examples"] = examples.rows
        stage, started = "predict", time.perf_counter()
        got = ask(predictor, check(examples.given, examples.inputs))
        report["seconds"]["predict"] = round(time.perf_counter() - started, 3)
        stage = "compare"
        report |= _compared(examples, got)
    except BaseException as wrong:  # noqa: BLE001 - the project's code may raise, or exit
        if not isinstance(wrong, InputError):
            traceback.print_exception(wrong)
        report["error"] = _error(stage, type(wrong).__name__, str(wrong), _errno(wrong))
    return report


def page(report: dict[str, Any]) -> str:
    """Set a report as text for a person.

    Parameters
    ----------
    report : dict
        As `run` returns it.

    Returns
    -------
    str
        Lines, the last one with its end.
    """
    lines = [f"{report['examples']} recorded examples"]
    for output in report["outputs"]:
        agree = output["compared"] - output["mismatched"]
        lines.append(
            f"  {output['name']}: {agree} of {output['compared']} agree, "
            f"largest difference {output['largest_difference']:.2g}"
        )
        if first := output["first_mismatch"]:
            lines.append(f"    row {first['row']} recorded:  {first['expected']!r}")
            lines.append(f"    row {first['row']} predicted: {first['got']!r}")
    lines += [f"  {stage}: {seconds:.2f} s" for stage, seconds in report["seconds"].items()]
    if error := report["error"]:
        lines.append(f"{error['stage']}: {error['type']}: {error['message']}")
    return "\n".join([*lines, report["status"], ""])


def _loaded(folder: Path) -> tuple[Recording | None, Predictor]:
    image = read_image(folder)
    _refuse_another(image.model_digest, model_digest(image.model), "image.json was written for")
    examples = read_examples(image.examples) if image.examples else None
    if examples:
        _refuse_another(examples.model, image.model_digest, "the examples were recorded with")
    return examples, load(image, examples.inputs if examples else ())


def _refuse_another(wanted: str, found: str, what: str) -> None:
    if wanted != found:
        raise InputError(f"{what} the model {wanted}, the model in the image is {found}")


def _compared(examples: Recording, got: dict[str, list[Any]]) -> dict[str, Any]:
    outputs = [
        compare(
            name,
            plain(examples.expected[name]),
            got.get(name, []),
            rtol=examples.rtol,
            atol=examples.atol,
        )
        for name in (tensor.name for tensor in examples.outputs)
    ]
    failed = any(output.mismatched for output in outputs)
    found: dict[str, Any] = {"outputs": [asdict(output) for output in outputs]}
    found["status"] = "failed" if failed else "passed"
    if missing := [name for name in examples.expected if name not in got]:
        message = f"predict gives no {', '.join(missing)}; it gives {', '.join(got) or 'nothing'}"
        found["error"] = _error("compare", "MissingOutput", message)
    return found


def _error(stage: str, kind: str, message: str, errno: int | None = None) -> dict[str, Any]:
    return {"stage": stage, "type": kind, "message": message, "errno": errno}


def _errno(wrong: BaseException) -> int | None:
    """Find what the system said: libraries wrap its errors in their own."""
    inner: BaseException | None = wrong
    for _ in range(_CAUSES):
        if inner is None:
            break
        if isinstance(inner, OSError) and isinstance(inner.errno, int):
            return inner.errno
        inner = inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)
    return None
