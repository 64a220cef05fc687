"""Which layers an image has, in which order, and how each is made or found again.

The order is from stable to volatile, because an engine reuses only a prefix of the chain:
base, OS packages, big wheels one by one, small wheels together, runtime, model, code.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from packager import formats, runtime
from packager.errors import ClaimError
from packager.layers import deb, tar, tree, wheel
from packager.layers.tar import Entry, data_entry
from packager.lock.debian import DebPin
from packager.lock.lockfile import Lock, WheelPin
from packager.project import Project
from packager.store import Blob, Store, canonical_json

__all__ = ["Layer", "Recipe", "make", "plan"]

Role = Literal["base", "os-packages", "wheels", "runtime", "model", "code"]

_BIG = 3_000_000
"""A wheel of this many bytes or more gets a layer of its own, shared by all who use it."""

_MOST_BIG = 32
"""At most so many: an engine takes 125 layers, and is slow with many."""

_WORKERS = 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one layer; equal keys give equal bytes."""

    role: Role
    what: str
    key: str
    count: int
    entries: Callable[[Path], list[Entry]]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is in the store; its blob's digest is its diff ID."""

    role: Role
    what: str
    count: int
    blob: Blob
    cached: bool


def plan(
    project: Project,
    lock: Lock,
    platform: str,
    blobs: Mapping[str, Blob],
    store: Store,
    *,
    model: str,
    code: list[tuple[str, bytes]],
    facts: Mapping[str, bytes],
) -> list[Recipe]:
    """Plan the layers of one platform's image.

    Parameters
    ----------
    project, lock, platform
        What to build, for where.
    blobs : mapping of str to Blob
        Every locked file, by its sha256.
    store : Store
        Remembers which wheels share paths.
    model : str
        The model's digest.
    code : list of (str, bytes)
        The project's files, as `tree.code_files` reads them.
    facts : mapping of str to bytes
        Files for the folder `tree.ROOT`.

    Raises
    ------
    ClaimError
        When two wheels own one path and disagree.
    """
    site = wheel.Site.debian(project.python)
    wheels = lock.wheels_for(platform)
    return [
        *_debian(lock.debian[platform].packages, blobs, project.python),
        *_wheels(wheels, blobs, store, site),
        _runtime(site),
        _recipe("model", str(project.model), [model, str(project.model)], 1)(
            lambda _: tree.model_entries(project)
        ),
        _code(project, code, facts, site),
    ]


def _recipe(
    role: Role, what: str, key: Any, count: int
) -> Callable[[Callable[[Path], list[Entry]]], Recipe]:
    return lambda entries: Recipe(role, what, _key(role, key), count, entries)


def _key(kind: str, value: Any) -> str:
    return hashlib.sha256(canonical_json([formats.LAYERS, kind, value])).hexdigest()


def _debian(pins: Sequence[DebPin], blobs: Mapping[str, Blob], python: str) -> list[Recipe]:
    base = [(pin, blobs[pin.sha256].path) for pin in pins if pin.role == "base"]
    extra = [(pin, blobs[pin.sha256].path) for pin in pins if pin.role == "extra"]
    base_key = [python, [pin.sha256 for pin, _ in base]]
    recipes = [
        _recipe("base", f"{len(base)} packages", base_key, len(base))(
            lambda scratch: deb.base_entries(base, python=python, scratch=scratch)
        )
    ]
    if extra:
        names = ", ".join(pin.name for pin, _ in extra)
        key = [base_key, [pin.sha256 for pin, _ in extra]]
        recipes.append(
            _recipe("os-packages", names, key, len(extra))(
                lambda scratch: deb.extra_entries(base, extra, scratch=scratch)
            )
        )
    return recipes


def _wheels(
    pins: Sequence[WheelPin], blobs: Mapping[str, Blob], store: Store, site: wheel.Site
) -> list[Recipe]:
    sharing = _sharing(pins, blobs, store, site)
    candidates = [pin for pin in pins if pin.size >= _BIG and pin.file not in sharing]
    biggest = sorted(candidates, key=lambda pin: (-pin.size, pin.file))[:_MOST_BIG]
    # One order for everybody, whatever else a project uses, so that chains share a prefix.
    big = sorted(biggest, key=lambda pin: pin.file)
    small = [pin for pin in pins if pin not in big]
    groups = [[pin] for pin in big] + ([small] if small else [])
    return [_wheel_layer(group, blobs, site) for group in groups]


def _wheel_layer(pins: Sequence[WheelPin], blobs: Mapping[str, Blob], site: wheel.Site) -> Recipe:
    what = f"{pins[0].name} {pins[0].version}" if len(pins) == 1 else f"{len(pins)} small wheels"
    key = [asdict(site), [[pin.file, pin.sha256] for pin in pins]]

    def entries(_: Path) -> list[Entry]:
        found = (wheel.wheel_entries(blobs[pin.sha256].path, pin.file, site) for pin in pins)
        return [entry for one in found for entry in one]

    return _recipe("wheels", what, key, len(pins))(entries)


def _sharing(
    pins: Sequence[WheelPin], blobs: Mapping[str, Blob], store: Store, site: wheel.Site
) -> set[str]:
    """Name the wheels that share a path with another: they go into one layer, which settles it."""
    key = _key("sharing", [asdict(site), [[pin.file, pin.sha256] for pin in pins]])
    if (known := store.note("sharing", key)) is not None:
        return set(known)
    owned = {pin.file: wheel.owned_paths(blobs[pin.sha256].path, pin.file, site) for pin in pins}
    owners = Counter(path for paths in owned.values() for path in paths)
    shared = {path for path, count in owners.items() if count > 1}
    found = sorted(file for file, paths in owned.items() if paths & shared)
    store.write_note("sharing", key, found)
    return set(found)


def _runtime(site: wheel.Site) -> Recipe:
    files = runtime.files()
    folder = f"{site.packages}/packager_runtime"
    return _recipe("runtime", "packager_runtime", [runtime.digest(), asdict(site)], len(files))(
        lambda _: [data_entry(f"{folder}/{name}", data) for name, data in files]
    )


def _code(
    project: Project,
    code: list[tuple[str, bytes]],
    facts: Mapping[str, bytes],
    site: wheel.Site,
) -> Recipe:
    made = tree.code_entries(project, code, site)
    made += [data_entry(f"{tree.ROOT}/{name}", data) for name, data in sorted(facts.items())]
    key = [[entry.path, entry.mode, _sha256_of(entry)] for entry in made]
    what = ", ".join(str(path) for path in project.code) or "facts"
    return _recipe("code", what, key, len(code))(lambda _: made)


def _sha256_of(entry: Entry) -> str:
    assert entry.open is not None
    return hashlib.sha256(entry.open().read()).hexdigest()


def make(recipes: Sequence[Recipe], store: Store) -> Iterator[Layer]:
    """Make every layer that the store does not have, in parallel; yield them bottom first.

    Raises
    ------
    ClaimError
        When what goes into a layer contradicts itself.
    """
    with ThreadPoolExecutor(_WORKERS) as pool:
        jobs = [pool.submit(_make, recipe, store) for recipe in recipes]
        try:
            for job in jobs:
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _make(recipe: Recipe, store: Store) -> Layer:
    known = store.note("layer", recipe.key)
    if isinstance(known, str) and (blob := store.get(known)):
        return Layer(recipe.role, recipe.what, recipe.count, blob, cached=True)
    with store.scratch() as scratch:
        entries = tar.merge(recipe.entries(scratch))
        blob = store.add(lambda out: tar.write(entries, out))
    if isinstance(known, str) and known != blob.sha256:
        raise ClaimError(
            f"the layer was sha256:{known} when it was first made, and is sha256:{blob.sha256} now",
            where=recipe.what,
            hint="An input changed while it was read, or this is a bug worth reporting.",
        )
    store.write_note("layer", recipe.key, blob.sha256)
    return Layer(recipe.role, recipe.what, recipe.count, blob, cached=False)
