"""Locked bytes to a tagged image: fetch, assemble, write, load, smoke-test, tag."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from packager import __version__, image, smoke
from packager.errors import ClaimError, UsageError
from packager.image import Image
from packager.layers import plan as planning
from packager.layers import tree
from packager.layers.plan import Layer, Recipe
from packager.lock import lockfile, places
from packager.lock.lockfile import Lock
from packager.lock.resolve import read_requirements
from packager.outputs import archive
from packager.outputs.engine import Engine
from packager.project import Project
from packager.reporter import Reporter
from packager.smoke import Limits, Verdict
from packager.store import Store, canonical_json

__all__ = ["Built", "Examples", "assemble", "deliver", "write_archive"]

_FORMATS = {".skops", ".onnx"}
_PICKLES = {".joblib", ".pkl", ".pickle"}


@dataclass(frozen=True, slots=True)
class Examples:
    """The recorded examples of a project, as far as building needs to know them."""

    data: bytes
    rows: int
    license: str
    source: str


@dataclass(frozen=True, slots=True)
class Built:
    """An image that was assembled, and what is worth saying about it."""

    project: Project
    image: Image
    examples: Examples | None
    commit: str
    dirty: bool


def assemble(project: Project, platform: str, store: Store, reporter: Reporter) -> Built:
    """Assemble an image from the lock and the project's files; needs no engine.

    Parameters
    ----------
    project : Project
        What to build.
    platform : str
        One that the lock was made for.
    store : Store
        Where bytes come from and layers go.
    reporter : Reporter
        Gets a row for each kind of layer.

    Raises
    ------
    ClaimError
        When the lock is stale, a byte is not what the lock says, or the model is not the
        one that the examples were recorded with.
    UsageError
        When the model or the predictor is not there.
    HostError
        When something can neither be found in the store nor fetched.
    """
    lock = lockfile.read(project.root)
    lockfile.require_fresh(lock, project, image_only=True)
    _check_requirements_pinned(lock, project)
    if platform not in lock.debian:
        raise UsageError(
            f"the lock is for {', '.join(lock.debian)}, not for {platform}",
            where="pyproject.toml: tool.packager.platforms",
        )
    model = tree.model_digest(project)
    examples = read_examples(project, model)
    code = tree.code_files(project)
    _check_predictor(project, code)
    inputs = _inputs_digest(project, lock, platform, model=model, examples=examples, code=code)
    facts = {"image.json": _facts(project, platform, model, examples, inputs)}
    if examples:
        facts["examples.json"] = examples.data
    reporter.begin("fetch", "what the store does not have")
    blobs = store.fetch(places.wanted(project, lock, platform, store))
    recipes = planning.plan(
        project, lock, platform, blobs, store, model=model, code=code, facts=facts
    )
    layers = _make_layers(recipes, store, reporter)
    labels = {image.LABEL_INPUTS: inputs, f"{image.LABEL}.model": model}
    built = image.assemble(project, platform, layers, labels)
    return Built(project, built, examples, *_commit(project))


def _check_requirements_pinned(lock: Lock, project: Project) -> None:
    """Hold the lock against requirements.txt, where a reader would look for the hashes."""
    pins = {pin.name: pin for pin in read_requirements(project.root / "requirements.txt")}
    for wheel in lock.wheels:
        pin = pins.get(wheel.name)
        if pin is None or wheel.sha256 not in pin.hashes:
            raise ClaimError(
                f"sha256 {wheel.sha256} of {wheel.file} is not among those of requirements.txt",
                where=lockfile.FILE,
                hint="One of the two was edited: restore them, or run packager lock.",
            )


def read_examples(project: Project, model: str) -> Examples | None:
    """Read the recorded examples and hold them against the model.

    Raises
    ------
    UsageError
        When the file is missing or damaged.
    ClaimError
        When they were recorded with another model.
    """
    if project.examples is None:
        return None
    where = str(project.examples)
    path = project.root / project.examples
    try:
        document = json.loads(path.read_bytes())
        columns = document["inputs"].values()
        rows = len(next(iter(columns))) if columns else 0
        recorded, data = document["model"], document["data"]
    except FileNotFoundError:
        raise UsageError(
            f"{where} does not exist",
            where="pyproject.toml: tool.packager.examples",
            hint="Train and export the model first, or correct the path.",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"not a file of recorded examples: {type(error).__name__}: {error}", where=where
        ) from None
    if recorded != model:
        raise ClaimError(
            f"is not the model that the examples were recorded with (recorded {recorded}, "
            f"found {model})",
            where=str(project.model),
            hint=f"Train and export again, or restore {project.model} and {where}.",
        )
    body = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return Examples(f"{body}\n".encode(), rows, data.get("license", ""), data.get("source", ""))


def _check_predictor(project: Project, code: list[tuple[str, bytes]]) -> None:
    """Refuse a predictor that is not there before minutes are spent on its image."""
    if project.predictor is None:
        _check_loader(project)
        return
    module, _, function = project.predictor.partition(":")
    path = module.replace(".", "/")
    for name, data in code:
        if name.endswith((f"/{path}.py", f"/{path}/__init__.py")) or name == f"{path}.py":
            if f"def {function}(".encode() in data or f"{function} =".encode() in data:
                return
            raise UsageError(
                f"{name} defines no {function}", where="pyproject.toml: tool.packager.predictor"
            )
    raise UsageError(
        f"no module {module} in {', '.join(map(str, project.code)) or 'the code'}",
        where="pyproject.toml: tool.packager.predictor",
        hint="It is written module:function.",
    )


def _check_loader(project: Project) -> None:
    """Refuse a model that the runtime has no loader for (`packager_runtime.loaders`)."""
    suffix = project.model.suffix.lower()
    if suffix in _PICKLES and not project.trust_pickle:
        raise UsageError(
            f"{project.model} is a pickle, and reading one runs any code that is in it",
            where="pyproject.toml: tool.packager.trust-pickle",
            hint="Export with skops instead, or say trust-pickle = true.",
        )
    if suffix not in _PICKLES | _FORMATS:
        raise UsageError(
            f"there is no built-in loader for {suffix or 'a folder'}",
            where="pyproject.toml: tool.packager.predictor",
            hint='Name a function of yours that loads it: predictor = "module:function".',
        )


def _inputs_digest(
    project: Project,
    lock: Lock,
    platform: str,
    *,
    model: str,
    examples: Examples | None,
    code: list[tuple[str, bytes]],
) -> str:
    """Digest all that the image is a function of."""
    body = {
        "lock": lockfile.image_digest_inputs(lock, platform),
        "platform": platform,
        "project": [project.name, project.version, project.description, project.license],
        "requires": [project.requires_python, list(project.dependencies), project.source],
        "entry-points": {group: dict(names) for group, names in project.entry_points.items()},
        "predictor": [project.predictor, project.trust_pickle],
        "bytecode": project.bytecode,
        "model": [str(project.model), model],
        "examples": hashlib.sha256(examples.data).hexdigest() if examples else None,
        "code": [[name, hashlib.sha256(data).hexdigest()] for name, data in code],
    }
    return f"sha256:{hashlib.sha256(canonical_json(body)).hexdigest()}"


def _facts(
    project: Project, platform: str, model: str, examples: Examples | None, inputs: str
) -> bytes:
    """Write what the runtime needs to know (`packager_runtime.facts` reads it)."""
    return canonical_json(
        {
            "format": 1,
            "name": project.name,
            "version": project.version,
            "description": project.description,
            "license": project.license,
            "model": {"path": f"model/{project.model.name}", "digest": model},
            "examples": "examples.json" if examples else None,
            "predictor": project.predictor,
            "trust_pickle": project.trust_pickle,
            "base": project.base,
            "platform": platform,
            "python": project.python,
            "inputs_digest": inputs,
            "packager": __version__,
        }
    )


def _make_layers(recipes: list[Recipe], store: Store, reporter: Reporter) -> list[Layer]:
    """Make the layers, and report each kind of them as soon as it is complete."""
    layers = []
    reporter.begin("assemble", f"{len(recipes)} layers")
    for role, made in groupby(planning.make(recipes, store), key=lambda layer: layer.role):
        group = list(made)
        layers += group
        cached = sum(layer.cached for layer in group)
        count = sum(layer.count for layer in group)
        what = f"{count} in {len(group)} layers" if role == "wheels" else group[0].what
        state = f"{len(group) - cached} built, {cached} cached"
        if cached in {0, len(group)}:
            state = "cached" if cached else "built"
        reporter.row(role, what, human_size(sum(layer.blob.size for layer in group)), state)
        reporter.begin("assemble", f"{len(recipes) - len(layers)} more layers")
    return layers


def human_size(size: float) -> str:
    """Say a number of bytes in decimal units, as engines do: ``"63 MB"``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:  # noqa: PLR2004 - the step between decimal units
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _commit(project: Project) -> tuple[str, bool]:
    """Find the commit, and whether an input of the image differs from it."""
    inputs = ["pyproject.toml", "requirements.txt", lockfile.FILE, str(project.model)]
    inputs += [str(project.examples)] if project.examples else []
    inputs += [str(path) for path in project.code]
    commit = _git(project.root, "rev-parse", "HEAD")
    status = _git(project.root, "status", "--porcelain", "--", *inputs) if commit else ""
    return commit, bool(status)


def _git(root: Path, *command: str) -> str:
    try:
        run = subprocess.run(
            ["git", *command], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def provenance(built: Built) -> dict[str, str]:
    """Say where an image came from; it goes beside the image, never into it."""
    told = {"org.opencontainers.image.revision": built.commit, "builder": f"packager {__version__}"}
    if built.commit:
        told["dirty"] = "true" if built.dirty else "false"
    return {
        key if key.startswith("org.") else f"{image.LABEL}.{key}": value
        for key, value in told.items()
        if value
    }


def write_archive(built: Built, path: Path, reference: str, store: Store) -> str:
    """Write the image as an archive.

    Returns
    -------
    str
        The manifest's digest.
    """
    manifest = image.manifest_of(built.image, store)
    archive.write(path, built.image, manifest, reference, provenance(built))
    return f"sha256:{manifest.descriptor.sha256}"


def deliver(
    built: Built, engine: Engine, reference: str, limits: Limits | None, reporter: Reporter
) -> Verdict | None:
    """Load an image, smoke-test it, and tag it only then.

    Parameters
    ----------
    built : Built
        From `assemble`.
    engine : Engine
        Gets the image once.
    reference : str
        The tag.
    limits : Limits, optional
        Of the smoke test; None leaves the test out.

    Raises
    ------
    PackagerError
        As `smoke.replay`; the image is then removed, unless it was there before.
    """
    begin = time.monotonic()
    reporter.begin("load", f"into {engine.name}")
    loaded = engine.load(built.image)
    total = len(built.image.layers)
    sent = f"{loaded.sent} of {total} layers sent" if loaded.sent else "the engine has it"
    reporter.row("load", sent, f"{time.monotonic() - begin:.1f} s", "")
    verdict = None
    if limits is not None:
        verdict = _prove(built, engine, limits, existed=loaded.existed, reporter=reporter)
    engine.tag(built.image, reference)
    return verdict


def _prove(
    built: Built, engine: Engine, limits: Limits, *, existed: bool, reporter: Reporter
) -> Verdict:
    begin = time.monotonic()
    reporter.begin("smoke", "sealed off, replaying the recorded examples")
    try:
        verdict = smoke.replay(engine, built.image.id, limits)
    except BaseException:
        if not existed:
            engine.remove(built.image)
        raise
    took = f"{time.monotonic() - begin:.1f} s"
    if verdict.examples:
        what = f"{verdict.examples} examples, largest difference {verdict.largest_difference:.2g}"
        reporter.row("smoke", what, took, "passed")
    else:
        reporter.row("smoke", "no recorded examples: only loading was tried", took, "loaded")
    return verdict


def summary(built: Built) -> Mapping[str, Any]:
    """Collect what a script wants to know of an image."""
    return {
        "name": built.image.name,
        "version": built.image.version,
        "platform": built.image.platform,
        "id": built.image.id,
        "size": built.image.size,
        "commit": built.commit,
        "dirty": built.dirty,
        "layers": [
            {
                "role": layer.role,
                "what": layer.what,
                "diff_id": f"sha256:{layer.blob.sha256}",
                "size": layer.blob.size,
                "cached": layer.cached,
            }
            for layer in built.image.layers
        ],
        "examples": asdict(built.examples) | {"data": None} if built.examples else None,
    }
