"""What others need to run an image: a definition for Apptainer, manifests for Kubernetes, KServe.

Each form is a text beside this module, in `exports/`; a line that holds only ``$part`` stands for
the file ``part.part``, at its place.  What is filled in has been checked to be of a few plain
characters, or is quoted as JSON, which YAML reads as it is.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import dataclass
from importlib import resources
from string import Template
from textwrap import indent

from packaging.utils import canonicalize_name

from packager import build as building
from packager import image, memory
from packager.assembling import Built
from packager.errors import UsageError
from packager.outputs import engine as engines
from packager.outputs.containers import PORT, TMP_MB
from packager.project import PLATFORMS, Project
from packager.proof import Limits
from packager.reference import Reference
from packager.reporter import Reporter
from packager.store import Store

__all__ = ["Wish", "export", "wish"]

_LOCAL = "apptainer"
_SERVERS = {"kubernetes", "kserve"}
_MIB = 1 << 20
_STEP = 16  # MiB
_PERIOD = 2  # seconds between looks at a server that starts
_LONGEST_NAME = 40  # others make names from it, and those may have 63 characters
_PART = re.compile(r"^( *)\$(\w+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be written; `wish` checks it.

    Attributes
    ----------
    form : str
        Its name, as `packager export` takes it.
    goal : Reference or None
        The image's name in a registry.
    order : build.Order
        What is built, to know its digest, and proved, where it is to be measured.
    limits : Limits
        Of the smoke test; the seconds are for a server to become ready, too.
    shards : int
        In how many pieces a job finds its table.
    """

    form: str
    goal: Reference | None
    order: building.Order
    limits: Limits
    shards: int


def wish(
    project: Project,
    form: str,
    ref: str | None,
    *,
    platform: str | None,
    limits: Limits,
    shards: int,
) -> Wish:
    """Check what is asked for, before minutes of work.

    Parameters
    ----------
    project : Project
        Whose image.
    form : str
        Its name.
    ref : str, optional
        The image's name in a registry; Apptainer can do without one.
    platform : str, optional
        By default the project's first.
    limits, shards
        As in `Wish`.

    Raises
    ------
    UsageError
        When there is no such name, or the image has no server and the form is for one.
    """
    goal = None if ref is None else Reference.parse(ref, where="export")
    if goal is None and form != _LOCAL:
        raise UsageError(
            "it takes the image's name in a registry",
            where=f"export {form}",
            hint=f"packager export {form} REGISTRY/NAME:TAG; packager push sends it there.",
        )
    if form in _SERVERS and not project.serve:
        raise UsageError(
            f"an image without a server is nothing for {form}",
            where="pyproject.toml: tool.packager.serve",
            hint="Say serve = true, lock and build; or packager export kubernetes-job.",
        )
    order = building.Order(
        platform=platform or project.platforms[0],
        reference=Reference.of(project.name, project.version),
        output=None,
        load=form != _LOCAL,
        limits=limits if form != _LOCAL else None,
        push=None,
        insecure=False,
    )
    return Wish(form, goal, order, limits, shards)


def export(project: Project, wished: Wish, store: Store, reporter: Reporter) -> str:
    """Write a form for a project's image.

    Where it names an image in a registry, that is by the digest that `packager push` gives it.
    Where it says how much memory is needed, the image is proved and measured in the engine.

    Parameters
    ----------
    project : Project
        Whose image.
    wished : Wish
        From `wish`.
    store : Store
        Where bytes come from and layers go.
    reporter : Reporter
        Gets a row for each step.

    Raises
    ------
    PackagerError
        As `build.build` and `memory.measure`.
    """
    built = building.build(project, wished.order, store, reporter).built
    values = _facts(built, wished) | _place(built, wished, store)
    if wished.order.load:
        engine = engines.connect(store)
        peak = memory.measure(built.image, engine, wished.limits, store=store, reporter=reporter)
        values |= _memory(peak)
    ending = "def" if wished.form == _LOCAL else "yaml"
    return Template(_text(f"{wished.form}.{ending}")).substitute(values)


def _facts(built: Built, wished: Wish) -> dict[str, object]:
    """Say what the image is, and how it is run."""
    project = built.inputs.project
    return {
        "name": _name(project.name),
        "version": wished.order.reference.tag,
        "quoted_version": json.dumps(project.version),
        "image": built.image.id,
        "model": built.inputs.model.digest,
        "architecture": PLATFORMS[wished.order.platform],
        "program": shlex.join(json.loads(built.image.config)["config"]["Entrypoint"]),
        "port": PORT,
        "tmp": TMP_MB,
        "period": _PERIOD,
        "tries": math.ceil(wished.limits.seconds / _PERIOD),
        "shards": wished.shards,
    }


def _name(project: str) -> str:
    """Make a name that a Service may have: a letter, then letters, digits and single hyphens."""
    name: str = canonicalize_name(project)
    if not name[0].isalpha():
        name = f"model-{name}"
    return name[:_LONGEST_NAME].rstrip("-")


def _place(built: Built, wished: Wish, store: Store) -> dict[str, str]:
    """Say where the image is found: in a registry, pinned, or in an archive."""
    goal = wished.goal
    if goal is None:
        archive = f"{_name(built.image.name)}-{wished.order.reference.tag}.tar"
        made = f"#\n#   packager build -o {archive} --no-load"
        return {"bootstrap": "docker-archive", "source": archive, "first": made}
    digest = image.manifest_of(built.image, store).descriptor.sha256
    pinned = f"{goal.registry}/{goal.repository}@sha256:{digest}"
    return {"bootstrap": "docker", "source": pinned, "pinned": pinned, "first": "#"}


def _memory(peak: int) -> dict[str, int]:
    """Say what to ask for, by what was measured."""
    used = math.ceil(peak / _MIB)
    request = math.ceil(used / _STEP) * _STEP
    return {"peak": used, "step": _STEP, "request": request, "limit": 2 * request}


def _text(file: str) -> str:
    """Read a form, with its parts in their places."""
    text = (resources.files("packager") / "exports" / file).read_text("utf-8")
    return _PART.sub(lambda found: indent(_text(f"{found[2]}.part"), found[1]), text)
