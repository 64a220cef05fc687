"""`packager build --dockerfile`: an image of steps that no lock can name, proved like the others.

It is built by the engine, from a Dockerfile, in the repository as it lies there; so it is not
reproducible bit for bit, and its labels say so.  What it has in common with the images that
packager assembles is what runs in it, and the sealed smoke test before it gets its name.
"""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager import assembling, image, runtime
from packager.build import Order
from packager.delivering import prove_and_tag
from packager.errors import UsageError, without_credentials
from packager.files import canonical_json, replace_file
from packager.outputs import engine as engines
from packager.project import Project
from packager.proof import Verdict
from packager.reference import Reference
from packager.reporter import Reporter, human_size
from packager.store import Store

__all__ = ["FOLDER", "Result", "arguments", "build", "render", "summary"]

FOLDER = "docker"
"""Where the repository keeps what a Dockerfile needs of packager."""

_WHERE = "--dockerfile"
_STEP = "docker"
_ZIP_TIME = (1980, 1, 2, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Result:
    """What was built: its name, ID and size, and what came of the smoke test, if there was one."""

    project: Project
    reference: Reference
    id: str
    size: int
    verdict: Verdict | None


def arguments(given: Sequence[str]) -> dict[str, str]:
    """Read build arguments as docker does: ``NAME=VALUE``, or ``NAME`` for the environment's.

    Raises
    ------
    UsageError
        When one has no name.
    """
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name:
            raise UsageError(f"{one!r} is no NAME=VALUE", where="--build-arg")
        if equals or name in os.environ:
            found[name] = value if equals else os.environ[name]
    return found


def build(
    project: Project,
    wanted: Order,
    file: Path,
    store: Store,
    reporter: Reporter,
    *,
    arguments: Mapping[str, str],
) -> Result:
    """Write `FOLDER`, let the engine build, prove the image, and tag it only then.

    Parameters
    ----------
    project : Project
        Its repository is the build's context, less what ``.dockerignore`` names.
    wanted : Order
        From `packager.build.order`; it must be for the engine alone.
    file : Path
        The Dockerfile.
    store : Store
        Has room for temporary files.
    reporter : Reporter
        Gets the engine's log, line by line, and a row for each step.
    arguments : mapping
        Build arguments.

    Raises
    ------
    UsageError
        When the order is for something else, or the Dockerfile cannot be read or understood.
    ClaimError
        When the lock is stale, a step of the Dockerfile fails, or the image does not predict
        what was recorded.
    HostError
        When no engine answers.
    """
    if wanted.output or not wanted.load:
        raise UsageError(
            "builds in the engine and nowhere else",
            where=_WHERE,
            hint="Leave -o and --no-load out; docker save writes an archive of what was built.",
        )
    if not file.is_file():
        raise UsageError(f"there is no file {file}", where=_WHERE)
    engine = engines.connect()
    inputs = assembling.gather(project, wanted.platform, store.scratch)
    _write_folder(inputs)
    begin = time.monotonic()
    reporter.begin(_STEP, f"{file} by {engine.name}")
    built = engine.build(
        project.root,
        file.resolve(),
        labels=_labels(inputs),
        arguments=arguments,
        platform=wanted.platform,
        tell=lambda line: reporter.note(without_credentials(line)),
    )
    found = engine.get(built)
    reporter.row(_STEP, str(file), f"{time.monotonic() - begin:.1f} s", "not reproducible")
    verdict = prove_and_tag(
        built,
        engine,
        wanted.reference,
        wanted.limits,
        existed=bool(found.get("RepoTags")),
        store=store,
        reporter=reporter,
    )
    return Result(project, wanted.reference, built, found["Size"], verdict)


def _write_folder(inputs: assembling.Inputs) -> None:
    """Write what the image needs of packager, so that plain ``docker build .`` finds it, too."""
    facts = json.loads(assembling.image_facts(inputs)) | {
        "base": "what its Dockerfile names",
        "inputs_digest": "a Dockerfile, so not reproducible bit for bit",
    }
    folder = inputs.project.root / FOLDER
    folder.mkdir(exist_ok=True)
    for name, data in {
        "image.json": canonical_json(facts),
        "packager_runtime.zip": _zipped_runtime(),
    }.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:  # else docker's cache would miss it
            replace_file(path, data)


def _zipped_runtime() -> bytes:
    """Pack the runtime into a file that Python imports from, the same on every host."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in runtime.files():
            member = zipfile.ZipInfo(f"packager_runtime/{name}", _ZIP_TIME)
            member.create_system = 3  # else it would tell Windows from the others
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return packed.getvalue()


def _labels(inputs: assembling.Inputs) -> dict[str, str]:
    labels = image.labels(inputs.project)
    labels.pop(image.LABEL_BASE)  # the Dockerfile's is another, and only the Dockerfile knows
    return labels | {image.LABEL_MODEL: inputs.model.digest, image.LABEL_REPRODUCIBLE: "false"}


def summary(result: Result) -> Mapping[str, Any]:
    """Collect what a script wants to know, under the names that `packager.build.summary` has."""
    verdict = result.verdict
    return {
        "name": result.project.name,
        "version": result.project.version,
        "id": result.id,
        "size": result.size,
        "reproducible": False,
        "tag": str(result.reference),
        "smoke": verdict and {"examples": verdict.examples, "outputs": verdict.outputs},
    }


def render(result: Result) -> str:
    """Say what was built, and what it is not."""
    return (
        f"\nimage     {result.reference}  {result.id}  {human_size(result.size)}\n"
        "  built from a Dockerfile: not reproducible bit for bit, so nobody can verify it;\n"
        "  packager build, without --dockerfile, makes one that can be"
    )
