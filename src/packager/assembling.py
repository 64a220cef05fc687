"""Locked bytes and the project's files to an image: nothing is resolved, no container runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from packager import image
from packager.claims import Examples, check_predictor, read_card, read_examples
from packager.errors import UsageError
from packager.files import canonical_json
from packager.image import Image
from packager.layers import plan as planning
from packager.layers import tree
from packager.layers.plan import Layer, Recipe
from packager.lock import lockfile, places
from packager.lock.lockfile import Lock
from packager.outputs import engine as engines
from packager.project import Project
from packager.reporter import Reporter, human_size
from packager.runtime.packager_runtime.facts import FORMAT
from packager.store import Store

__all__ = ["Built", "Inputs", "assemble", "gather", "image_facts"]

_CARD = "card.md"


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that an image is a function of, read once.

    Attributes
    ----------
    card : bytes or None
        The model card as git stores it, if one is to be in the image.
    code : list of (str, bytes)
        The project's own files as git stores them, sorted by path.
    digest : str
        ``sha256:…`` over all of it; the image carries it as a label.
    """

    project: Project
    lock: Lock
    platform: str
    model: tree.Model
    examples: Examples | None
    card: bytes | None
    code: list[tuple[str, bytes]]
    digest: str


@dataclass(frozen=True, slots=True)
class Built:
    """An image that was assembled, and what it was made from."""

    inputs: Inputs
    image: Image


def gather(
    project: Project,
    platform: str,
    scratch: Path,
    *,
    model: tree.Model | None = None,
    examples: Path | None = None,
) -> Inputs:
    """Read what the image is a function of, and hold each part against the others.

    Parameters
    ----------
    project : Project
        What to build.
    platform : str
        One that the lock was made for.
    scratch : Path
        A folder for temporary files.
    model : tree.Model, optional
        In place of the project's own.
    examples : Path, optional
        In place of the project's own.

    Raises
    ------
    ClaimError
        When the lock is stale, or the model is not the one that the examples were recorded
        with.
    UsageError
        When the model, the examples, the card or the predictor are not there.
    """
    lock = lockfile.read(project.root)
    lockfile.require_fresh(lock, project, image_only=True)
    if platform not in lock.debian:
        raise UsageError(
            f"the lock is for {', '.join(lock.debian)}, not for {platform}",
            where="pyproject.toml: tool.packager.platforms",
        )
    model = model or tree.read_model(project)
    recorded = read_examples(project, model.digest, examples)
    card = read_card(project, scratch)
    code = tree.code_files(project, scratch)
    check_predictor(project, code)
    digest = _inputs_digest(
        project, lock, platform, model=model.digest, examples=recorded, code=code, card=card
    )
    return Inputs(project, lock, platform, model, recorded, card, code, digest)


def assemble(inputs: Inputs, store: Store, reporter: Reporter) -> Built:
    """Assemble an image from the lock and the project's files.

    An engine is needed only where this host does not execute the image's Python, and
    bytecode is wanted that the store does not have.

    Parameters
    ----------
    inputs : Inputs
        From `gather`.
    store : Store
        Where bytes come from and layers go.
    reporter : Reporter
        Gets a row for each kind of layer.

    Raises
    ------
    ClaimError
        When a byte is not what the lock says, or changed since it was gathered.
    HostError
        When something can neither be found in the store nor fetched.
    """
    project, platform = inputs.project, inputs.platform
    facts = {"image.json": image_facts(inputs)}
    if inputs.examples:
        facts["examples.json"] = inputs.examples.data
    if inputs.card is not None:
        facts[_CARD] = inputs.card
    reporter.begin("fetch", "what the store does not have")
    blobs = store.fetch(places.wanted(project, inputs.lock, platform, store))
    recipes = planning.plan(
        project,
        inputs.lock,
        platform,
        blobs,
        store,
        model=inputs.model,
        code=inputs.code,
        facts=facts,
    )
    layers = _make_layers(recipes, store, reporter)
    labels = {image.LABEL_INPUTS: inputs.digest, image.LABEL_MODEL: inputs.model.digest}
    return Built(inputs, image.assemble(project, platform, layers, labels))


def _inputs_digest(
    project: Project,
    lock: Lock,
    platform: str,
    *,
    model: str,
    examples: Examples | None,
    code: list[tuple[str, bytes]],
    card: bytes | None = None,
) -> str:
    """Digest all that the image is a function of."""
    body: dict[str, object] = {
        "lock": lockfile.image_inputs(lock, platform),
        "platform": platform,
        "project": [project.name, project.version, project.description, project.license],
        "requires": [project.requires_python, list(project.dependencies), project.source],
        "entry-points": {group: dict(names) for group, names in project.entry_points.items()},
        "predictor": [project.predictor, project.trust_pickle],
        "bytecode": project.bytecode,
        "model": [str(project.model), model],
        "examples": hashlib.sha256(examples.data).hexdigest() if examples else None,
        "code": [
            [str(path) for path in project.code],
            [[name, hashlib.sha256(data).hexdigest()] for name, data in code],
        ],
    }
    if card is not None:  # only then, so that images without a card keep their digests
        body["card"] = [str(project.card), hashlib.sha256(card).hexdigest()]
    return f"sha256:{hashlib.sha256(canonical_json(body)).hexdigest()}"


def image_facts(inputs: Inputs) -> bytes:
    """Write what the runtime needs to know (`packager_runtime.facts` reads it)."""
    project = inputs.project
    return canonical_json(
        ({} if inputs.card is None else {"card": _CARD})
        | {
            "format": FORMAT,
            "name": project.name,
            "version": project.version,
            "description": project.description,
            "license": project.license,
            "model": {"path": f"model/{project.model.name}", "digest": inputs.model.digest},
            "examples": "examples.json" if inputs.examples else None,
            "predictor": project.predictor,
            "trust_pickle": project.trust_pickle,
            "base": project.base,
            "platform": inputs.platform,
            "python": project.python,
            "inputs_digest": inputs.digest,
        }
    )


def _make_layers(recipes: list[Recipe], store: Store, reporter: Reporter) -> list[Layer]:
    """Make the layers, and report each kind of them as soon as it is complete."""
    layers = []
    reporter.begin("assemble", f"{len(recipes)} layers")
    making = planning.make(recipes, store, engines.workshop)
    for role, made in groupby(making, key=lambda layer: layer.role):
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
