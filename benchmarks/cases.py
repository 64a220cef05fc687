"""What is measured: each case says what is there before, what happens, and what counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import index
import registry
from measure import Sample
from peers import Peer
from projects import Project, Variant

OURS, PEER, FLOOR = "packager", "uv", "floor"
OTHERS = ("pip", "mlflow", "bentoml")

_ALL = ("fastapi", "pandas", "scikit-learn", "skops", "uvicorn")
EMPTY = Variant("empty", drop=_ALL)
EMPTY_COMPILED = Variant("empty-compiled", drop=_ALL, bytecode=True)
PLAIN = Variant("plain")
COMPILED = Variant("compiled", bytecode=True)
SECOND = Variant("second", name="second", add=("tabulate==0.9.0",))
BUMPED = Variant("bumped", drop=("fastapi",), add=("fastapi==0.165.0",))
BUMPED_COMPILED = Variant("bumped-compiled", drop=BUMPED.drop, add=BUMPED.add, bytecode=True)
PENGUINS = Variant("penguins", name="penguins")
TORCH = Variant("torch", drop=_ALL, add=("torch==2.13.0+cpu",), model_mb=5, served="torch")
SIZES = {mb: Variant(f"model-{mb}", model_mb=mb) for mb in (10, 100, 1000, 10_000)}
HUGE = SIZES[10_000]
COUNTS = {
    count: Variant(
        f"wheels-{count}",
        drop=_ALL,
        add=tuple(f"{name}==1.0" for name in index.names(count)),
        model_mb=5,
        served="made-up",
    )
    for count in (5, 20, 60, 120)
}

BUILDKIT = "Against BuildKit + uv"
MODELS = "Growth with the model"
WHEELS = "Growth with the number of wheels"
CROWD = "An engine that holds 2,000 images"
PYTORCH = "PyTorch"
FLOORS = "Against the floor"
SMOKE = "The smoke test"
GROUPS = {
    BUILDKIT: "scikit-learn, pandas, skops, fastapi and uvicorn, 28 wheels, a model of 5 MB.  "
    "Seconds are medians, with the least and the most; a ratio is taken round by round.",
    MODELS: "The same project with random bytes in the model's place; each round changes them, and "
    "builds.  The largest is built but once, with nothing to start from: disks are only so large.",
    WHEELS: "Cold, without bytecode; small made-up wheels of 200 kB from an index on loopback.",
    CROWD: "2,000 images of one tiny layer were loaded before.",
    PYTORCH: "Cold, the CPU wheel of 200 MB from an index on loopback, what it needs from the "
    "user's index.",
    FLOORS: "Assembling: all layers but the base, out of wheels that are in the store, against "
    "`tar -cf - TREE | tee FILE | sha256sum` of the same files, unpacked before.  Loading: a build "
    "that has every layer and only loads them, against `docker load` of what `docker save` wrote "
    "of the same image; the engine has the base and nothing else.  Code changed: a build, against "
    "`docker load` of an image that is one layer with one file of nine bytes.  One dependency "
    "bumped: a build, against `docker load` of the layers that the engine lacks.  Cold, with "
    "bytecode: a build, against `python -m compileall -j 2` of the same modules.",
    SMOKE: "`packager smoke` of the penguins image: from the start of the sealed container to the "
    "verdict, the recorded examples being replayed and asked for over HTTP.",
}


def build(peer: Peer, project: Project) -> Sample:
    """Build, each peer in its own way."""
    return peer.build(project)


def first_prediction(peer: Peer, project: Project) -> Sample:
    """Start the image sealed, and wait for the first prediction."""
    return peer.first_prediction(project)


def size(peer: Peer, project: Project) -> Sample:
    """Look how large the image is."""
    return peer.size(project)


def assembling(peer: Peer, project: Project) -> Sample:
    """Make all layers but the base out of what was fetched."""
    return peer.assemble(project)


def loading(peer: Peer, project: Project) -> Sample:
    """Give the engine all layers but the base."""
    return peer.load(project)


def loading_one(peer: Peer, project: Project) -> Sample:
    """Give the engine one small layer."""
    return peer.load_one(project)


def loading_changed(peer: Peer, project: Project) -> Sample:
    """Give the engine those layers that it lacks, another project being there."""
    return peer.load_changed(project)


def compiling(peer: Peer, project: Project) -> Sample:
    """Build with bytecode, with nothing to start from; or only compile."""
    return peer.compile(project)


def smoke(peer: Peer, project: Project) -> Sample:
    """Replay the recorded examples."""
    return peer.smoke(project)


def push(peer: Peer, project: Project) -> Sample:
    """Push a project to a registry that has what was built before it, both built already."""
    with registry.empty() as hub:
        return _push(peer, project, hub)


def push_size(peer: Peer, project: Project) -> Sample:
    """Do that, and look how much came, in MB."""
    with registry.empty() as hub:
        _push(peer, project, hub)
        with registry.empty() as other:
            peer.push(peer.before, other.address)
            return Sample((hub.size - other.size) / 1e6, 0.0)


def _push(peer: Peer, project: Project, hub: registry.Registry) -> Sample:
    peer.push(peer.before, hub.address)
    peer.build(project)
    return peer.push(project, hub.address)


@dataclass(frozen=True)
class Case:
    """One row of the results.

    Attributes
    ----------
    key, title : str
        How it is called by machines and people.
    project : Variant
        What is built.
    after : Variant, optional
        What was built before, so that caches are warm; nothing, and they are empty.
    new : str
        The package that the project brings and `after` does not: it is fetched in each round.
    change : callable, optional
        What is edited before each round.
    measure : callable
        What counts; by default the seconds of a build.
    target : float, optional
        What packager's value divided by the peer's may be.
    limit : float, optional
        What packager's value itself may be.
    rounds : int, optional
        At most so many, where each gives the same or takes long.
    peers : tuple of str
        Who takes part.
    group : str
        Which table it stands in.
    crowd : int
        How many images the engine holds besides.
    """

    key: str
    title: str
    project: Variant
    after: Variant | None = None
    new: str = ""
    change: Callable[[Project], None] | None = None
    measure: Callable[[Peer, Project], Sample] = build
    unit: str = "s"
    target: float | None = None
    limit: float | None = None
    rounds: int | None = None
    peers: tuple[str, ...] = (OURS, PEER)
    group: str = BUILDKIT
    crowd: int = 0


CASES = (
    Case("cold", "cold, without bytecode", PLAIN, target=0.7),
    Case("cold-bytecode", "cold, with bytecode", COMPILED, target=0.5, peers=(OURS, PEER, *OTHERS)),
    Case("second", "second project", SECOND, PLAIN, "tabulate", target=0.5),
    Case("bump", "one dependency bumped", BUMPED, PLAIN, "fastapi", target=0.3),
    Case(
        "bump-bytecode",
        "one dependency bumped, with bytecode",
        BUMPED_COMPILED,
        COMPILED,
        "fastapi",
    ),
    Case(
        "push",
        "push after one dependency was bumped",
        BUMPED,
        PLAIN,
        "fastapi",
        measure=push,
        target=0.5,
    ),
    Case(
        "push-size",
        "what that push sent",
        BUMPED,
        PLAIN,
        "fastapi",
        measure=push_size,
        unit="MB",
        target=0.3,
        rounds=1,
    ),
    Case("code", "code changed", PLAIN, PLAIN, change=Project.change_code, target=2.0),
    Case(
        "model",
        "model changed, 5 MB",
        PLAIN,
        PLAIN,
        change=Project.change_model,
        target=2.0,
        peers=(OURS, PEER, *OTHERS),
    ),
    Case("nothing", "nothing changed", PLAIN, PLAIN, target=2.0, peers=(OURS, PEER, *OTHERS)),
    Case("first", "first prediction, without bytecode", PLAIN, PLAIN, measure=first_prediction),
    Case(
        "first-bytecode",
        "first prediction, with bytecode",
        COMPILED,
        COMPILED,
        measure=first_prediction,
        target=1.0,
    ),
    Case(
        "size",
        "size less base, without bytecode",
        PLAIN,
        PLAIN,
        measure=size,
        unit="MB",
        target=1.0,
    ),
    Case(
        "size-bytecode",
        "size less base, with bytecode",
        COMPILED,
        COMPILED,
        measure=size,
        unit="MB",
        target=1.0,
        peers=(OURS, PEER, *OTHERS),
    ),
    *(
        Case(
            variant.key,
            f"{mb:,} MB{', cold' if variant is HUGE else ''}",
            variant,
            None if variant is HUGE else variant,
            change=Project.change_model,
            rounds=1 if variant is HUGE else 3,
            group=MODELS,
        )
        for mb, variant in SIZES.items()
    ),
    *(
        Case(variant.key, f"{count} wheels", variant, rounds=3, group=WHEELS)
        for count, variant in COUNTS.items()
    ),
    Case("torch", "cold", TORCH, rounds=3, group=PYTORCH),
    Case("torch-nothing", "nothing changed", TORCH, TORCH, rounds=3, group=PYTORCH),
    Case(
        "assembling",
        "assembling",
        PLAIN,
        PLAIN,
        measure=assembling,
        target=1.5,
        peers=(OURS, FLOOR),
        group=FLOORS,
    ),
    Case("loading", "loading", PLAIN, PLAIN, measure=loading, peers=(OURS, FLOOR), group=FLOORS),
    Case(
        "loading-one",
        "code changed",
        PLAIN,
        PLAIN,
        change=Project.change_code,
        measure=loading_one,
        peers=(OURS, FLOOR),
        group=FLOORS,
    ),
    Case(
        "loading-changed",
        "one dependency bumped",
        BUMPED,
        PLAIN,
        "fastapi",
        measure=loading_changed,
        peers=(OURS, FLOOR),
        group=FLOORS,
    ),
    Case(
        "compiling",
        "cold, with bytecode",
        COMPILED,
        COMPILED,
        measure=compiling,
        peers=(OURS, FLOOR),
        group=FLOORS,
    ),
    Case(
        "smoke",
        "container start to verdict",
        PENGUINS,
        PENGUINS,
        measure=smoke,
        limit=3.0,
        peers=(OURS,),
        group=SMOKE,
    ),
    Case("crowd-nothing", "nothing changed", PLAIN, PLAIN, group=CROWD, crowd=2000),
    Case(
        "crowd-code",
        "code changed",
        PLAIN,
        PLAIN,
        change=Project.change_code,
        group=CROWD,
        crowd=2000,
    ),
)
"""In this order: the engine stays crowded."""


def before(case: Case, peer: Peer, projects: dict[Variant, Project]) -> None:
    """Bring a peer to where a case starts."""
    if case.group != BUILDKIT:
        peer.forget_all()  # large models of earlier cases, for example
    if case.after:
        peer.build(projects[case.after])
        peer.remember(projects[case.after])
        peer.before = projects[case.after]


def once(case: Case, peer: Peer, project: Project) -> Sample:
    """Do a round."""
    if case.after is None:
        peer.forget_all()
    elif case.after != case.project:
        peer.forget_since(project, case.new)
    return case.measure(peer, project)
