"""The image's proof: repeat the recorded predictions, by themselves and over HTTP, and compare."""

from __future__ import annotations

import time
import traceback
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import over_http
from .compare import compare
from .facts import (
    Image,
    InputError,
    Recording,
    model_digest,
    read_examples,
    read_image,
    signature,
)
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
    report |= {"outputs": [], "seconds": {}, "error": None, "refused": None}
    stage, started = "load", time.perf_counter()
    try:
        image = read_image(folder)
        # It loads the model while this process does the same.
        with over_http.serving(image) if over_http.can_serve() else nullcontext() as server:
            examples, predictor = _loaded(image)
            report["seconds"]["load"] = round(time.perf_counter() - started, 3)
            report["examples"] = examples.rows if examples else 0
            if examples:
                stage, started = "predict", time.perf_counter()
                got = ask(predictor, check(examples.given, examples.inputs))
                report["seconds"]["predict"] = round(time.perf_counter() - started, 3)
                stage = "compare"
                report |= _compared(examples, got)
            if server and report["status"] != "failed":
                stage, started = "serve", time.perf_counter()
                report |= _served(server, examples)
                report["seconds"]["serve"] = round(time.perf_counter() - started, 3)
        if examples is None:
            report["status"] = "no-examples"
    except BaseException as wrong:  # noqa: BLE001 - the project's code may raise, or exit
        report["status"] = "error"
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
    if report["refused"] is not None:
        lines.append(f"  over HTTP the same; {report['refused']} wrong requests refused")
    if error := report["error"]:
        lines.append(f"{error['stage']}: {error['type']}: {error['message']}")
    return "\n".join([*lines, report["status"], ""])


def _served(server: over_http.Served, examples: Recording | None) -> dict[str, Any]:
    """Ask the server what was recorded, nonsense, and once more what was recorded."""
    server.wait()
    if examples is None:
        server.stop()
        return {}
    given = check(examples.given, examples.inputs)
    found = _compared(examples, server.predict(given, examples.inputs))
    refused = server.refuses(examples)
    first = {name: values[:1] for name, values in given.items()}
    server.predict(first, examples.inputs)
    server.stop()
    # What it gave by itself is told where both agree.
    return {"refused": refused} | (found if found["status"] != "passed" else {})


def _loaded(image: Image) -> tuple[Recording | None, Predictor]:
    _refuse_another(image.model_digest, model_digest(image.model), "image.json was written for")
    examples = read_examples(image.examples) if image.examples else None
    if examples:
        _refuse_another(examples.model, image.model_digest, "the examples were recorded with")
    return examples, load(image, *signature(examples))


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
