"""`packager build`: what was ordered, in which order it is done, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager import aside
from packager.errors import UsageError
from packager.layers import tree
from packager.lock import lockfile
from packager.project import Project
from packager.proof import Limits, Verdict
from packager.reference import Reference
from packager.reporter import Reporter
from packager.store import Store

if TYPE_CHECKING:
    from packager.assembling import Built
    from packager.layers.making import Layer
    from packager.outputs.ahead import Ahead
    from packager.outputs.registry import Pushed
    from packager.provenance import Provenance
    from packager.registry import Repository

__all__ = ["Order", "Result", "build", "order", "summary", "title"]


@dataclass(frozen=True, slots=True)
class Order:
    """What a build is to make; `order` checks it.

    Attributes
    ----------
    reference : Reference
        The name that the image gets.
    output : Path or None
        Where an archive is wanted.
    load : bool
        Into the engine.
    limits : Limits or None
        Of the smoke test; None leaves it out.
    push : Reference or None
        The name that it gets in a registry.
    insecure : bool
        Whether that may be one without a good certificate, or without any.
    tagged : bool
        Whether it gets its tag there; not so what an index is to name.
    """

    platform: str
    reference: Reference
    output: Path | None
    load: bool
    limits: Limits | None
    push: Reference | None
    insecure: bool
    tagged: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """What a build made.

    Attributes
    ----------
    verdict : Verdict or None
        Of the smoke test, if there was one.
    manifest : str
        The digest of the manifest; empty where nobody calls the image by it: without an archive,
        a push, and an engine with containerd's store.
    pushed : Pushed or None
        What came of a push.
    """

    order: Order
    provenance: Provenance
    built: Built
    verdict: Verdict | None
    manifest: str
    pushed: Pushed | None


def order(
    project: Project,
    *,
    tag: str | None,
    output: Path | None,
    load: bool,
    platform: str | None,
    limits: Limits | None,
    push: str | None = None,
    insecure: bool = False,
) -> Order:
    """Check what is asked for, before minutes of work.

    Parameters
    ----------
    project : Project
        Gives the defaults.
    tag : str, optional
        The image's name; by default the project's name and version.
    output : Path, optional
        The archive to write.
    load : bool
        Whether an engine is to have the image.
    platform : str, optional
        By default the project's first.
    limits : Limits, optional
        Of the smoke test; None leaves it out.
    push : str, optional
        The name to push it by.
    insecure : bool
        Whether to push over an insecure way.

    Returns
    -------
    Order
        One that `build` can carry out.

    Raises
    ------
    UsageError
        When nothing would be made, or not under that name, or not at that place.
    """
    goal = None if push is None else Reference.parse(push, where="push")
    if not load and output is None and goal is None:
        raise UsageError("--no-load without -o FILE would make nothing", where="command line")
    if output is not None:
        folder = output.absolute().parent
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise UsageError(f"{folder} is no folder that can be written to", where="-o")
    if tag is None:
        reference = Reference.of(project.name, project.version)
    else:
        reference = Reference.parse(tag, where="-t")
    where = platform or project.platforms[0]
    return Order(where, reference, output, load, limits, goal, insecure)


def build(project: Project, wanted: Order, store: Store, reporter: Reporter) -> Result:
    """Carry an order out: assemble, then load, prove and tag, then write the archive, then push.

    Parameters
    ----------
    project : Project
        What to build.
    wanted : Order
        From `order`.
    store : Store
        Where bytes come from and layers go.
    reporter : Reporter
        Gets a row for each step.

    Returns
    -------
    Result
        What was made.

    Raises
    ------
    PackagerError
        As `carry_out`, `deliver`, `write_archive` and `push`.
    """
    repository = _repository(wanted)
    own = aside.begin(partial(tree.own_files, project, store.scratch))
    manifest = ""
    with _way(wanted, store) if wanted.load else nullcontext() as way:
        # The rest of the program is read while git and the engine answer.
        from packager import provenance
        from packager.assembling import carry_out, gather, prepare
        from packager.delivering import deliver, push, write_archive

        source = aside.begin(partial(provenance.of, project))
        inputs = gather(project, wanted.platform, store=store, own=own)
        work = prepare(inputs, store)
        built = carry_out(work, store, reporter, None if work.done else way)
        commit = source.result()  # should git fail, then before anything is named
        if way:
            verdict = deliver(
                built, way, wanted.reference, wanted.limits, store=store, reporter=reporter
            )
            known_as = way.engine.id_of(built.image)
            manifest = known_as if known_as != built.image.id else ""
        else:
            verdict = None
    if wanted.output:
        reporter.begin("archive", str(wanted.output))
        manifest = write_archive(
            built, wanted.output, wanted.reference, store, commit.annotations()
        )
    pushed = None
    if repository:
        pushed = push(built, repository, store, reporter, tagged=wanted.tagged)
        manifest = pushed.manifest
    return Result(wanted, commit, built, verdict, manifest, pushed)


def _repository(wanted: Order) -> Repository | None:
    """Reach the registry, before minutes of work for one that does not let us in."""
    if wanted.push is None:
        return None
    from packager import registry

    return registry.connect(wanted.push, actions="pull,push", insecure=wanted.insecure)


def _way(wanted: Order, store: Store) -> Ahead:
    """Begin to look for the engine that is to have the image."""
    from packager.outputs import engine
    from packager.outputs.ahead import Ahead

    return Ahead(partial(engine.connect, store), wanted.platform)


def summary(result: Result) -> Mapping[str, Any]:
    """Collect what a script wants to know of a build.

    Parameters
    ----------
    result : Result
        From `build`.

    Returns
    -------
    dict
        Ready for JSON; sizes in bytes, digests as ``sha256:…``.
    """
    built, wanted, verdict = result.built, result.order, result.verdict
    examples = built.inputs.examples
    return {
        **title(built.inputs.project, wanted),
        "reference": str(wanted.reference),
        "id": built.image.id,
        "size": built.image.size,
        "reproducible": True,
        "commit": result.provenance.commit,
        "dirty": result.provenance.dirty,
        "layers": [_layer(layer) for layer in built.image.layers],
        "examples": asdict(examples) | {"data": None} if examples else None,
        "tag": str(wanted.reference) if wanted.load else None,
        "archive": str(wanted.output) if wanted.output else None,
        "manifest": result.manifest or None,
        "smoke": verdict and verdict.told(),
        "pushed": result.pushed and asdict(result.pushed),
    }


def title(project: Project, wanted: Order) -> dict[str, str]:
    """Say in a few words what is to be built.

    Raises
    ------
    ClaimError
        When only the lock says which Python that is with, and there is none.
    """
    if project.target is None:
        project = lockfile.settled(project, lockfile.read(project.root))
    return {
        "name": project.name,
        "version": project.version,
        "platform": wanted.platform,
        "python": project.python,
        "base": project.base,
    }


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "role": layer.role,
        "what": layer.what,
        "diff_id": f"sha256:{layer.blob.sha256}",
        "size": layer.blob.size,
        "cached": layer.cached,
    }
