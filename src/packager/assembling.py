"""Locked bytes and the project's files to an image: nothing is resolved, no container runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import groupby

from packager import git, image
from packager.claims import Examples, check_predictor, read_examples
from packager.errors import UsageError
from packager.files import canonical_json
from packager.image import Image
from packager.layers import plan as planning
from packager.layers import tree
from packager.layers.plan import Layer, Recipe
from packager.lock import lockfile, places
from packager.lock.lockfile import Lock
from packager.project import Project
from packager.reporter import Reporter, human_size
from packager.store import Store

__all__ = ["Built", "assemble"]


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
    if platform not in lock.debian:
        raise UsageError(
            f"the lock is for {', '.join(lock.debian)}, not for {platform}",
            where="pyproject.toml: tool.packager.platforms",
        )
    files = tree.read_model(project)
    model = files.digest
    examples = read_examples(project, model)
    code = tree.code_files(project)
    check_predictor(project, code)
    inputs = _inputs_digest(project, lock, platform, model=model, examples=examples, code=code)
    facts = {"image.json": _facts(project, platform, model, examples, inputs)}
    if examples:
        facts["examples.json"] = examples.data
    reporter.begin("fetch", "what the store does not have")
    blobs = store.fetch(places.wanted(project, lock, platform, store))
    recipes = planning.plan(
        project, lock, platform, blobs, store, model=files, code=code, facts=facts
    )
    layers = _make_layers(recipes, store, reporter)
    labels = {image.LABEL_INPUTS: inputs, f"{image.LABEL}.model": model}
    built = image.assemble(project, platform, layers, labels)
    return Built(project, built, examples, *_commit(project))


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
        "lock": lockfile.image_inputs(lock, platform),
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


def _commit(project: Project) -> tuple[str, bool]:
    """Find the commit, and whether an input of the image differs from it."""
    inputs = ["pyproject.toml", "requirements.txt", lockfile.FILE, str(project.model)]
    inputs += [str(project.examples)] if project.examples else []
    inputs += [str(path) for path in project.code]
    if not git.is_repository(project.root):
        return "", False
    status = ("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    lines = git.run(project.root, *status, "--", *inputs).decode("utf-8", "replace").splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
    commit = heads["branch.oid"]
    if commit == "(initial)":
        return "", False
    changed = any(not line.startswith("# ") for line in lines)
    return commit, changed or bool(git.run(project.root, "ls-files", *git.UNTRACKED, "--", *inputs))
