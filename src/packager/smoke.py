"""Start the image sealed off and replay the recorded examples: the proof that it predicts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ValidationError

from packager.errors import ClaimError, HostError, PackagerError, UsageError
from packager.outputs.containers import OPEN_FILES, SHM_MB, TMP_MB, Run
from packager.outputs.engine import Engine
from packager.proof import Limits, Verdict

__all__ = ["ForeignError", "replay"]

_WHERE = "smoke test"
_LAST_LINES = 6
_LINE = 400  # characters of a line that are shown
_END = 1 << 16  # bytes that the last lines are looked for in
_FOREIGN = b"exec format error"  # in the words of runc and crun
_EXIT_CODES = {"passed": 0, "no-examples": 0, "failed": 1, "error": 2}
_FATAL_SIGNALS = {  # Linux's numbers, on whatever host this runs
    4: "SIGILL: its programs use instructions that this processor does not have",
    6: "SIGABRT: a library gave up",
    7: "SIGBUS: memory shared through a file that was cut, or found no room",
    8: "SIGFPE: an arithmetic error in compiled code",
    9: "SIGKILL",
    11: "SIGSEGV: compiled code went out of its memory",
    15: "SIGTERM",
    31: "SIGSYS: a system call that is forbidden",
}


def _plain(text: str) -> str:
    """Take the power over a terminal from a text that the model may have written."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


_Text = Annotated[str, AfterValidator(_plain)]


class _Mismatch(BaseModel):
    row: int
    expected: Any
    got: Any


class _Output(BaseModel):
    name: _Text
    compared: int
    mismatched: int
    largest_difference: float | None
    first_mismatch: _Mismatch | None


class _Seconds(BaseModel):
    load: float = 0.0
    predict: float = 0.0
    serve: float = 0.0


class _Error(BaseModel):
    stage: _Text
    type: _Text
    message: _Text
    errno: int | None = None


class _Report(BaseModel):
    """What the self-test says (`packager_runtime.selftest.run`)."""

    format: Literal[1]
    status: Literal["passed", "no-examples", "failed", "error"]
    examples: int
    outputs: list[_Output]
    seconds: _Seconds
    refused: int | None = None
    error: _Error | None


class ForeignError(HostError):
    """An image for machines of another kind, which the engine does not emulate either."""


def replay(engine: Engine, image: str, limits: Limits | None = None) -> Verdict:
    """Run an image's self-test sealed: no network, read-only, non-root, no capabilities.

    This protects the host from a model, and finds one that does not work.  It does not
    convict one that lies: the self-test and the recorded predictions are within its reach.

    Raises
    ------
    ClaimError
        When a prediction differs from the recorded one by more than the tolerance, or the
        model breaks the seal's limits; says which row, or which limit.
    UsageError
        When there is no such image, or the predictor cannot be imported.
    ForeignError
        When it is for a machine of another kind, and the engine does not execute that.
    HostError
        When the engine cannot start it.
    """
    limits = limits or Limits()
    found = engine.get(image)
    run = engine.run_sealed(
        image,
        ["selftest", "--json"],
        seconds=limits.seconds,
        memory=limits.memory,
        processes=limits.processes,
    )
    report = _report(run)
    if report is None and _FOREIGN in run.stderr and found["Architecture"] != engine.architecture:
        raise _foreign(found, engine)
    if report is None:
        raise _broke_off(run, limits)
    if report.status == "failed":
        raise _mismatch(report)
    if report.error:
        raise _stage_error(report.error, run, limits)
    outputs = [one.model_dump() for one in report.outputs]
    seconds = {"container": run.seconds} | report.seconds.model_dump(exclude_unset=True)
    return Verdict(report.examples, outputs, seconds, report.refused)


def _report(run: Run) -> _Report | None:
    """Read the verdict; one that the exit code does not bear out is none."""
    *_, last = [b"", *run.stdout.splitlines()]
    try:
        report = _Report.model_validate_json(last)
    except ValidationError:
        return None
    stopped_in_trouble = run.exit_code is None and report.status in {"failed", "error"}
    borne_out = _EXIT_CODES[report.status] == run.exit_code or stopped_in_trouble
    explained = report.error is not None or report.status != "error"
    return report if borne_out and explained else None


def _foreign(found: dict[str, Any], engine: Engine) -> ForeignError:
    return ForeignError(
        f"{engine.name} does not execute {found['Os']}/{found['Architecture']}",
        where=_WHERE,
        hint="Install emulation (qemu-user-static, binfmt-support) where the engine runs, or run "
        "packager smoke on such a machine.",
    )


def _broke_off(run: Run, limits: Limits) -> ClaimError:
    if run.exit_code is None:
        what = f"not finished after {limits.seconds:g} s: stopped (--timeout gives it longer)"
    elif run.out_of_memory:
        what = _memory(limits)
    elif signal := _FATAL_SIGNALS.get(run.exit_code - 128):
        what = f"the model's process was ended by {signal}"
    else:
        what = f"the container ended with exit code {run.exit_code} and no verdict"
    return ClaimError(what, where=_WHERE, hint=_tail(run.stderr))


def _stage_error(error: _Error, run: Run, limits: Limits) -> PackagerError:
    what = f"{error.type}: {_short(error.message)}"
    if reason := _limit_met(error, run, limits):
        what = f"{reason}\n  {what}"
    if error.stage == "load" and error.type in {"ImportError", "ModuleNotFoundError"}:
        return UsageError(
            f"does not import inside the image: {what}",
            where="pyproject.toml: tool.packager.predictor",
            hint="It may use only what [project.dependencies] names.",
        )
    doing = {
        "load": "loading the model",
        "predict": "predicting",
        "compare": "comparing",
        "serve": "serving",
    }
    return ClaimError(
        f"{doing.get(error.stage, error.stage)} failed: {what}",
        where=_WHERE,
        hint=_tail(run.stderr),
    )


def _limit_met(error: _Error, run: Run, limits: Limits) -> str:
    """Say which part of the seal stands behind an error, by what the system answered."""
    if run.out_of_memory or error.type == "MemoryError":
        return _memory(limits)
    if error.message == "can't start new thread":
        return _processes(limits)
    return {
        1: "it needs a privilege, and the smoke test gives none",
        11: _processes(limits),
        12: _memory(limits),
        13: "it needs a right that user 65532 does not have; and nothing in /tmp is a program",
        24: f"it needs more than {OPEN_FILES} open files",
        28: f"it needs more room than /tmp ({TMP_MB} MB) or /dev/shm ({SHM_MB} MB) has",
        30: "it writes outside /tmp, where everything is read-only",
        **dict.fromkeys((-3, -2, 99, 101), "it uses the network, and the smoke test has none"),
    }.get(error.errno or 0, "")


def _memory(limits: Limits) -> str:
    return f"it needs more than {limits.memory} of memory (--memory gives it more)"


def _processes(limits: Limits) -> str:
    return f"it needs more than {limits.processes} processes and threads"


def _mismatch(report: _Report) -> ClaimError:
    lines = ["the image does not predict what was recorded"]
    lines += [_short(report.error.message)] if report.error else []
    lines += [
        f"output {one.name!r}: {one.mismatched} of {one.compared} differ, the first in row "
        f"{first.row}: recorded {_short(repr(first.expected))}, "
        f"predicted {_short(repr(first.got))}"
        for one in report.outputs
        if (first := one.first_mismatch)
    ]
    return ClaimError(
        "\n  ".join(lines),
        where=_WHERE,
        hint="Train and export again, or restore the recorded examples.",
    )


def _tail(output: bytes) -> str:
    lines = [_plain(line) for line in output[-_END:].decode("utf-8", "replace").splitlines()]
    return "\n  ".join([_short(line) for line in lines if line.strip()][-_LAST_LINES:])


def _short(text: str) -> str:
    return text if len(text) <= _LINE else f"{text[:_LINE]}…"
