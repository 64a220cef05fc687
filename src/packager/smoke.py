"""Start the image sealed off and replay the recorded examples: the proof that it predicts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from packager.errors import ClaimError, HostError, PackagerError, UsageError
from packager.outputs.engine import Engine, Run

__all__ = ["Limits", "Verdict", "replay"]

_LAST_LINES = 6
_FOREIGN = b"exec format error"  # in the words of runc and crun


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sealed container may use: seconds, memory, and processes with their threads."""

    seconds: float = 300
    memory: str = "4g"
    processes: int = 512


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was replayed, and how far off it was.

    Attributes
    ----------
    examples : int
        Rows; 0 when the project recorded none and only loading was proved.
    outputs : list of dict
        For each output `name`, `compared`, `mismatched`, `largest_difference`.
    seconds : dict
        For `load`, and for `predict` where there were examples.
    """

    examples: int
    outputs: list[dict[str, Any]]
    seconds: dict[str, float]

    @property
    def largest_difference(self) -> float:
        """The largest absolute difference over all outputs."""
        return max((one["largest_difference"] or 0.0 for one in self.outputs), default=0.0)


def replay(engine: Engine, image: str, limits: Limits | None = None) -> Verdict:
    """Run an image's self-test sealed: no network, read-only, non-root, no capabilities.

    Raises
    ------
    ClaimError
        When a prediction differs from the recorded one by more than the tolerance, or the
        model breaks the seal's limits; says which row, or which limit.
    UsageError
        When there is no such image, or the predictor cannot be imported.
    HostError
        When the engine cannot start it, or it is for a machine of another kind.
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
    if report is None and _FOREIGN in run.stderr:
        raise _foreign(found, engine)
    if report is None:
        raise _broke_off(run, limits)
    if report["status"] == "error":
        raise _stage_error(report["error"], run)
    if report["status"] == "failed":
        raise _mismatch(report)
    return Verdict(report["examples"], report["outputs"], report["seconds"])


def _report(run: Run) -> dict[str, Any] | None:
    for line in reversed(run.stdout.splitlines()):
        try:
            report = json.loads(line)
        except ValueError:
            continue
        if isinstance(report, dict) and "status" in report:
            return report
    return None


def _foreign(found: dict[str, Any], engine: Engine) -> HostError:
    return HostError(
        f"{engine.name} cannot execute an image for {found['Os']}/{found['Architecture']}",
        where="smoke test",
        hint="--no-smoke builds it unproved; or install emulation (qemu-user-static, "
        "binfmt-support), or run packager smoke on such a machine.",
    )


def _broke_off(run: Run, limits: Limits) -> ClaimError:
    where = "smoke test"
    if run.exit_code is None:
        return ClaimError(
            f"no verdict after {limits.seconds:g} s: stopped",
            where=where,
            hint="--timeout gives it longer.",
        )
    if run.out_of_memory:
        return ClaimError(
            f"the model needs more than {limits.memory} of memory: stopped",
            where=where,
            hint="--memory gives it more.",
        )
    return ClaimError(
        f"the container ended with exit code {run.exit_code} and no verdict",
        where=where,
        hint=_tail(run.stderr),
    )


def _stage_error(error: dict[str, str], run: Run) -> PackagerError:
    what = f"{error['type']}: {error['message']}"
    if error["stage"] == "load" and error["type"] in {"ImportError", "ModuleNotFoundError"}:
        return UsageError(
            f"does not import inside the image: {what}",
            where="pyproject.toml: tool.packager.predictor",
            hint="It may use only what [project.dependencies] names.",
        )
    doing = {"load": "loading the model", "predict": "predicting", "compare": "comparing"}
    return ClaimError(
        f"{doing.get(error['stage'], error['stage'])} failed: {what}",
        where="smoke test",
        hint=_tail(run.stderr),
    )


def _mismatch(report: dict[str, Any]) -> ClaimError:
    wrong = [one for one in report["outputs"] if one["mismatched"]]
    lines = [report["error"]["message"]] if report["error"] else []
    for one in wrong:
        first = one["first_mismatch"]
        lines.append(
            f"output {one['name']!r}: {one['mismatched']} of {one['compared']} differ, the first "
            f"in row {first['row']}: recorded {first['expected']!r}, predicted {first['got']!r}"
        )
    return ClaimError(
        "\n  ".join(["the image does not predict what was recorded", *lines]),
        where="smoke test",
        hint="Train and export again, or restore the recorded examples.",
    )


def _tail(output: bytes) -> str:
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return "\n  ".join(lines[-_LAST_LINES:])
