"""Locked bytes and the project's files to an image: nothing is resolved, no container runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from packager import foreseen, image
from packager.claims import (
    Examples,
    card_text,
    check_predictor,
    check_sources,
    cite,
    read_examples,
)
from packager.files import canonical_json
from packager.image import Image
from packager.layers import bytecode, making, tree
from packager.layers.making import Layer, Recipe
from packager.layers.plan import Plan
from packager.lock import lockfile
from packager.lock.lockfile import Lock
from packager.project import Project, transport
from packager.reporter import Reporter, Silent, human_size
from packager.runtime.packager_runtime.facts import FORMAT
from packager.store import Blob, Store, Wanted

if TYPE_CHECKING:
    from packager.outputs.ahead import Ahead

__all__ = [
    "Built",
    "Inputs",
    "Work",
    "assemble",
    "carry_out",
    "gather",
    "image_facts",
    "prepare",
]

_CARD = "card.md"
_CITATION = "citation.bib"


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that an image is a function of, read once.

    Attributes
    ----------
    card : bytes or None
        The model card as git stores it, if one is to be in the image.
    citation : bytes or None
        How to cite the model, as BibTeX, if the repository says it.
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
    citation: bytes | None
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
    scratch: tree.Scratch = TemporaryDirectory,
    *,
    model: tree.Model | None = None,
    examples: Path | None = None,
    store: Store | None = None,
    own: Future[tree.Own] | None = None,
) -> Inputs:
    """Read what the image is a function of, and hold each part against the others.

    Parameters
    ----------
    project : Project
        What to build.
    platform : str
        One that the lock was made for.
    scratch : callable, optional
        As for `tree.own_files`.
    model : tree.Model, optional
        In place of the project's own.
    examples : Path, optional
        In place of the project's own.
    store : Store, optional
        Remembers the digest of a model that has not changed.
    own : Future, optional
        The project's own files, where they are being read already.

    Raises
    ------
    ClaimError
        When the lock is stale, or the model is not the one that the examples were recorded
        with.
    UsageError
        When the model, the examples, the card or the predictor are not there.
    """
    lock = lockfile.for_image(project, platform)
    check_sources(project, lock, scratch)
    project = lockfile.settled(project, lock)
    model = model or tree.read_model(project, store.digest if store else None)
    recorded = read_examples(project, model.digest, examples)
    files = own.result() if own else tree.own_files(project, scratch)
    if files.card is not None:
        card_text(files.card, str(project.card))
    citation = None if files.citation is None else cite(files.citation)
    check_predictor(project, files.code)
    digest = _inputs_digest(
        project,
        lock,
        platform,
        model=model.digest,
        examples=recorded,
        code=files.code,
        card=files.card,
        citation=citation,
    )
    return Inputs(
        project, lock, platform, model, recorded, files.card, citation, files.code, digest
    )


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to be made for an image, and what the store has of it.

    Attributes
    ----------
    found : mapping of str to Blob
        Layers and parts of layers, by their recipes' keys.
    root : Recipe or None
        What the base's programs are run from, where that is not its first layer.
    """

    inputs: Inputs
    plan: Plan
    recipes: Sequence[Recipe]
    root: Recipe | None
    found: Mapping[str, Blob]

    @property
    def done(self) -> bool:
        """Whether nothing is left to be made, fetched or looked into."""
        made = all(recipe.key in self.found for recipe in self.recipes)
        return made and not self.plan.reads_wheels(self.inputs.code)


def prepare(inputs: Inputs, store: Store) -> Work:
    """Plan an image, and look up which of its layers the store has."""
    plan = Plan(inputs.project, inputs.lock, inputs.platform, store)
    recipes = plan.recipes(inputs.model, inputs.code, _facts(inputs))
    found = making.find(recipes, store)
    root = plan.root if making.compiles(recipes, found) else None
    if root:
        found |= making.find([root], store)
    return Work(inputs, plan, recipes, root, found)


def assemble(inputs: Inputs, store: Store, reporter: Reporter) -> Built:
    """Assemble an image from the lock and the project's files.

    Only what is missing is fetched, and layers are made while the rest is still coming.  An
    engine is needed only where this host does not execute the image's Python, and bytecode is
    wanted that the store does not have.

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
    return carry_out(prepare(inputs, store), store, reporter)


def carry_out(work: Work, store: Store, reporter: Reporter, ahead: Ahead | None = None) -> Built:
    """Do what `assemble` does, once `prepare` is done.

    Parameters
    ----------
    work : Work
        From `prepare`.
    store, reporter
        As for `assemble`.
    ahead : Ahead, optional
        Gets layers as they get ready, bottom first: the image's own, but for the rare case that
        wheels turn out to share paths.

    Raises
    ------
    PackagerError
        As `assemble`, or when `ahead` finds no engine: then before anything is made.
    """
    inputs, plan = work.inputs, work.plan
    with store.fetching(_wanted(work, store)) as arriving:

        def path(sha256: str) -> Path:
            return arriving[sha256].result().path

        # While the first bytes are coming.
        ready = ahead.add if ahead and ahead.engine else None
        layers = _make_layers(work, arriving, store, reporter, ready)
        if plan.settle(path):
            work = prepare(inputs, store)
            layers = _make_layers(work, arriving, store, Silent(), None)
        plan.check(inputs.code, path)
    foreseen.note_complete(inputs.project.root, store)
    labels = {image.LABEL_INPUTS: inputs.digest, image.LABEL_MODEL: inputs.model.digest}
    base = inputs.lock.images.get(inputs.platform)
    made = image.assemble(inputs.project, inputs.platform, layers, labels, base)
    return Built(inputs, made)


def _facts(inputs: Inputs) -> dict[str, bytes]:
    facts = {"image.json": image_facts(inputs)}
    if inputs.examples:
        facts["examples.json"] = inputs.examples.data
    if inputs.card is not None:
        facts[_CARD] = inputs.card
    if inputs.citation is not None:
        facts[_CITATION] = inputs.citation
    return facts


def _wanted(work: Work, store: Store) -> Iterable[Wanted]:
    """List what is to be fetched, what lies lowest in the image first."""
    inputs, plan = work.inputs, work.plan
    needed = making.needs([*work.recipes, *([work.root] if work.root else [])], work.found)
    if plan.reads_wheels(inputs.code):
        needed |= {pin.sha256 for pin in plan.pins}
    if not needed:
        return ()
    if not store.offline:
        from packager import pip

        pip.ask()  # while this program reads the network's libraries
    from packager.lock import places

    project, lock = inputs.project, inputs.lock
    if transport(project.base)[0]:
        _bring_base(work, needed, store)
    named = [
        *places.wanted(project, lock, inputs.platform, store),
        *places.base(project, lock, plan.compiles_on, store),
    ]
    found = {one.sha256: one for one in named}
    return [found[sha256] for sha256 in plan.order if sha256 in needed]


def _bring_base(work: Work, needed: set[str], store: Store) -> None:
    """Bring what is needed of a base that is in no registry from where it is."""
    from packager import local_base

    project, images = work.inputs.project, work.inputs.lock.images
    for platform in {work.inputs.platform, work.plan.compiles_on}:
        if needed.intersection(layer.sha256 for layer in images[platform].layers):
            local_base.bring(project, platform, images[platform], store)


def _inputs_digest(
    project: Project,
    lock: Lock,
    platform: str,
    *,
    model: str,
    examples: Examples | None,
    code: list[tuple[str, bytes]],
    card: bytes | None = None,
    citation: bytes | None = None,
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
    if citation is not None:
        body["citation"] = hashlib.sha256(citation).hexdigest()
    return f"sha256:{hashlib.sha256(canonical_json(body)).hexdigest()}"


def image_facts(inputs: Inputs) -> bytes:
    """Write what the runtime needs to know (`packager_runtime.facts` reads it)."""
    project = inputs.project
    return canonical_json(
        ({} if inputs.card is None else {"card": _CARD})
        | ({} if inputs.citation is None else {"citation": _CITATION})
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


def _make_layers(
    work: Work,
    arriving: Mapping[str, Future[Blob]],
    store: Store,
    reporter: Reporter,
    ready: Callable[[Layer], None] | None,
) -> list[Layer]:
    """Make the layers, and report each kind of them as soon as it is complete."""
    layers: list[Layer] = []
    recipes = work.recipes
    reporter.begin("assemble", f"{len(recipes)} layers")
    workshop = partial(_workshop, store)
    made = making.make(recipes, work.found, arriving, store, workshop, ready=ready, root=work.root)
    for role, group in groupby(made, key=_row_of):
        kind = list(group)
        layers += kind
        cached = sum(layer.cached for layer in kind)
        what = _wheels_of(kind) if role == "wheels" else kind[0].what
        if role in {"wheels", "base"} and len(kind) > 1:
            what += f" in {len(kind)} layers"
        state = f"{len(kind) - cached} built, {cached} cached"
        if cached in {0, len(kind)}:
            state = "cached" if cached else "built"
        reporter.row(role, what, human_size(sum(layer.blob.size for layer in kind)), state)
        reporter.begin("assemble", f"{len(recipes) - len(layers)} more layers")
    return layers


def _row_of(layer: Layer) -> str:
    """Say which row a layer is reported in: wheels and their bytecode share one."""
    of_wheels = layer.role == "bytecode" and layer.what.endswith("wheels")
    return "wheels" if of_wheels else layer.role


def _wheels_of(layers: Sequence[Layer]) -> str:
    count = sum(layer.count for layer in layers if layer.role == "wheels")
    compiled = any(layer.role == "bytecode" for layer in layers)
    return f"{count} and their bytecode" if compiled else str(count)


@contextmanager
def _workshop(store: Store, base: Blob, architecture: str) -> Iterator[bytecode.Work]:
    from packager.outputs import engine

    with engine.connect(store).workshop([base], architecture) as work:
        yield work
