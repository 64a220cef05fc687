"""Which layers an image has, in which order, and how each is made or found again.

The order is from stable to volatile, because an engine reuses only a prefix of the chain:
base and its bytecode, OS packages, big wheels one by one, small wheels together, the wheels'
bytecode, runtime, model, code.
"""

from __future__ import annotations

import hashlib
import platform as host
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from packager import formats, runtime
from packager.errors import ClaimError, HostError
from packager.files import canonical_json
from packager.layers import deb, tar, tree, wheel
from packager.layers.bytecode import Elsewhere, Interpreter, Run, compile_entries
from packager.layers.tar import Entry, data_entry
from packager.layers.wheel import Site
from packager.lock.lockfile import Lock, WheelPin
from packager.project import PLATFORMS, Project
from packager.store import Blob, Store

__all__ = ["Bench", "Layer", "Recipe", "make", "plan"]

Role = Literal["base", "bytecode", "os-packages", "wheels", "runtime", "model", "code"]

_BIG = 3_000_000
"""A wheel of this many bytes or more gets a layer of its own, shared by all who use it."""

_MOST_BIG = 32
"""At most so many: an engine takes 125 layers, and is slow with many."""

_WORKERS = 2


class Bench:
    """What recipes share while their layers are made.

    Parameters
    ----------
    scratch : Path
        A folder that is gone afterwards.
    base : callable
        Gives the base layer, waiting for it if it is being made.
    elsewhere : callable
        Takes the base to where its programs run, should this host not execute them.
    """

    def __init__(self, scratch: Path, base: Callable[[], Blob], elsewhere: Elsewhere) -> None:
        self.scratch = scratch
        self._base = base
        self._elsewhere = elsewhere
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._opened = ExitStack()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def python(self, interpreter: Interpreter) -> Run:
        """Give a way to run the image's Python, found once for all recipes.

        Raises
        ------
        HostError
            When it runs neither on this host nor in a container.
        """
        with self._lock:
            if self._run is None:
                here = interpreter.here(self._base(), self.scratch / "python")
                self._run = here or self._there(interpreter)
            return self._run

    def _there(self, interpreter: Interpreter) -> Run:
        why = "the engine does not execute it either"
        try:
            work = self._opened.enter_context(
                self._elsewhere(self._base(), interpreter.architecture)
            )
            if run := interpreter.there(work, self.scratch):
                return run
        except HostError as error:
            why = f"{error.where}: {error.what}" if error.where else error.what
        raise HostError(
            f"the image's Python ({interpreter.architecture}) runs neither on "
            f"{host.system()} {host.machine()} nor in a container, so no bytecode can be made",
            hint=f"{why}\n  bytecode = false in [tool.packager] makes an image without it.",
        )

    def base(self) -> list[Entry]:
        """List the files of the base layer."""
        return tar.read(self._base().path, "the base")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one layer; equal keys give equal bytes."""

    role: Role
    what: str
    key: str
    count: int
    entries: Callable[[Bench], list[Entry]]


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
    model: tree.Model,
    code: list[tuple[str, bytes]],
    facts: Mapping[str, bytes],
) -> list[Recipe]:
    """Plan the layers of one platform's image; the first is always the base.

    Parameters
    ----------
    project, lock, platform
        What to build, for where.
    blobs : mapping of str to Blob
        Every locked file, by its sha256.
    store : Store
        Remembers which wheels share paths, and each wheel's bytecode.
    model : tree.Model
        The model, as `tree.read_model` reads it.
    code : list of (str, bytes)
        The project's files, as `tree.code_files` reads them.
    facts : mapping of str to bytes
        Files for the folder `tree.ROOT`.

    Raises
    ------
    ClaimError
        When two wheels own one path and disagree.
    """
    planner = _Planner(project, lock, platform, blobs, store)
    model_key = [model.digest, str(project.model)]
    return [
        *planner.base(),
        *planner.wheels(),
        planner.runtime(),
        Recipe(
            "model",
            str(project.model),
            _key("model", model_key),
            1,
            lambda _: list(model.entries),
        ),
        planner.code(code, facts),
    ]


def _key(kind: str, *values: Any) -> str:
    return hashlib.sha256(canonical_json([formats.LAYERS, kind, *values])).hexdigest()


class _Planner:
    """Makes the recipes of one platform's image."""

    def __init__(
        self,
        project: Project,
        lock: Lock,
        platform: str,
        blobs: Mapping[str, Blob],
        store: Store,
    ) -> None:
        self.project, self.blobs, self.store = project, blobs, store
        self.pins = lock.wheels_for(platform)
        self.debs = [(pin, blobs[pin.sha256].path) for pin in lock.debian[platform].packages]
        self.site = Site.debian(project.python)
        self.interpreter: Interpreter | None = None
        # What bytecode is a function of, besides the sources.
        self.compiler: list[Any] = []
        if project.bytecode:
            self.interpreter = Interpreter(project.python, PLATFORMS[platform])
            minimal = f"python{project.python}-minimal"
            binary = [pin.sha256 for pin, _ in self.debs if pin.name == minimal]
            self.compiler = [formats.BYTECODE, *binary]

    def base(self) -> list[Recipe]:
        python = self.project.python
        base = [(pin, path) for pin, path in self.debs if pin.role == "base"]
        extra = [(pin, path) for pin, path in self.debs if pin.role == "extra"]
        base_key = [python, [[pin.architecture, pin.sha256] for pin, _ in base]]
        recipes = [
            Recipe(
                "base",
                f"{len(base)} packages",
                _key("base", base_key),
                len(base),
                lambda bench: deb.base_entries(base, python=python, scratch=bench.scratch),
            )
        ]
        if interpreter := self.interpreter:
            key = _key("bytecode", self.compiler, base_key)
            recipes.append(
                Recipe(
                    "bytecode",
                    "of the base",
                    key,
                    1,
                    lambda bench: compile_entries(
                        _library(bench.base(), python), interpreter.tag, bench.python(interpreter)
                    ),
                )
            )
        if extra:
            names = ", ".join(pin.name for pin, _ in extra)
            extra_key = _key("os-packages", base_key, [pin.sha256 for pin, _ in extra])
            recipes.append(
                Recipe(
                    "os-packages",
                    names,
                    extra_key,
                    len(extra),
                    lambda bench: deb.extra_entries(base, extra, scratch=bench.scratch),
                )
            )
        return recipes

    def wheels(self) -> list[Recipe]:
        sharing, _ = self._paths()
        candidates = [pin for pin in self.pins if pin.size >= _BIG and pin.file not in sharing]
        biggest = sorted(candidates, key=lambda pin: (-pin.size, pin.file))[:_MOST_BIG]
        # One order for everybody, whatever else a project uses, so that chains share a prefix.
        big = sorted(biggest, key=lambda pin: pin.file)
        small = [pin for pin in self.pins if pin not in big]
        recipes = [self._wheel_layer([pin], f"{pin.name} {pin.version}") for pin in big]
        if small:
            recipes.append(self._wheel_layer(small, f"{len(small)} small wheels"))
        if self.interpreter and self.pins:
            key = _key("bytecode", self.compiler, *self._key_of(self.pins))
            recipes.append(Recipe("bytecode", "of the wheels", key, 1, self._bytecode))
        return recipes

    def _key_of(self, pins: Sequence[WheelPin]) -> list[Any]:
        return [asdict(self.site), [[pin.file, pin.sha256] for pin in pins]]

    def _entries(self, pin: WheelPin) -> list[Entry]:
        return wheel.wheel_entries(self.blobs[pin.sha256].path, pin.file, self.site)

    def _wheel_layer(self, pins: Sequence[WheelPin], what: str) -> Recipe:
        key = _key("wheels", *self._key_of(pins))
        return Recipe(
            "wheels",
            what,
            key,
            len(pins),
            lambda _: [entry for pin in pins for entry in self._entries(pin)],
        )

    def _bytecode(self, bench: Bench) -> list[Entry]:
        """Collect each wheel's bytecode, which is made once per wheel and kept."""
        return [entry for pin in self.pins for entry in self._bytecode_of(pin, bench)]

    def _bytecode_of(self, pin: WheelPin, bench: Bench) -> list[Entry]:
        assert self.interpreter is not None
        key = _key("bytecode of a wheel", self.compiler, *self._key_of([pin]))
        known = self.store.note("bytecode", key)
        blob = self.store.get(known) if isinstance(known, str) else None
        if blob is None:
            run = bench.python(self.interpreter)
            made = tar.merge(compile_entries(self._entries(pin), self.interpreter.tag, run))
            blob = self.store.add(lambda out: tar.write(made, out))
            self.store.write_note("bytecode", key, blob.sha256)
        return tar.read(blob.path, pin.file)

    def _paths(self) -> tuple[set[str], set[str]]:
        """Find the wheels that share a path with another, and all top names of all wheels.

        Which wheels share is known from their tables of contents, read once and noted.
        """
        key = _key("paths", *self._key_of(self.pins))
        if (known := self.store.note("paths", key)) is None:
            owned = {pin.file: [one.path for one in self._entries(pin)] for pin in self.pins}
            owners = Counter(path for paths in owned.values() for path in paths)
            sharing = [file for file, paths in owned.items() if any(owners[p] > 1 for p in paths)]
            known = [sharing, sorted({self._top(path) for path in owners})]
            self.store.write_note("paths", key, known)
        return set(known[0]), set(known[1])

    def _top(self, path: str) -> str:
        return path.removeprefix(f"{self.site.packages}/").partition("/")[0]

    def _refuse_hiding(self, code: list[Entry]) -> None:
        """Refuse code that would replace files of a wheel or of the runtime."""
        ours = {self._top(entry.path) for entry in code if self.site.packages in entry.path}
        owners = [entry for entry in self._runtime_entries() if self._top(entry.path) in ours]
        if ours & self._paths()[1]:
            owners += [entry for pin in self.pins for entry in self._entries(pin)]
        owner_of = {entry.path: entry.owner for entry in owners}
        for entry in code:
            if entry.path in owner_of:
                raise ClaimError(
                    f"would replace /{entry.path} of {owner_of[entry.path]}",
                    where=entry.owner,
                    hint="Give your package another name.",
                )

    def runtime(self) -> Recipe:
        made = self._runtime_entries()
        key = _key("runtime", self.compiler, runtime.digest(), asdict(self.site))
        what = "packager_runtime"
        return Recipe("runtime", what, key, len(made), lambda bench: self._with_own(made, bench))

    def _runtime_entries(self) -> list[Entry]:
        folder = f"{self.site.packages}/packager_runtime"
        return [data_entry(f"{folder}/{name}", data) for name, data in runtime.files()]

    def code(self, files: list[tuple[str, bytes]], facts: Mapping[str, bytes]) -> Recipe:
        made = tree.code_entries(self.project, files, self.site)
        self._refuse_hiding(made)
        made += [data_entry(f"{tree.ROOT}/{name}", data) for name, data in sorted(facts.items())]
        listing = [[entry.path, entry.mode, _sha256_of(entry)] for entry in made]
        key = _key("code", self.compiler, listing)
        what = ", ".join(str(path) for path in self.project.code) or "facts"
        return Recipe("code", what, key, len(files), lambda bench: self._with_own(made, bench))

    def _with_own(self, entries: list[Entry], bench: Bench) -> list[Entry]:
        """Add the bytecode of a layer that changes with its sources anyway."""
        if self.interpreter is None:
            return entries
        run = bench.python(self.interpreter)
        return [*entries, *compile_entries(entries, self.interpreter.tag, run)]


def _library(entries: list[Entry], python: str) -> list[Entry]:
    folders = (f"usr/lib/python{python}/", "usr/lib/python3/")
    return [entry for entry in entries if entry.path.startswith(folders)]


def _sha256_of(entry: Entry) -> str:
    assert entry.open is not None
    return hashlib.sha256(entry.open().read()).hexdigest()


def make(recipes: Sequence[Recipe], store: Store, elsewhere: Elsewhere) -> Iterator[Layer]:
    """Make every layer that the store does not have, in parallel; yield them bottom first.

    Parameters
    ----------
    recipes : sequence of Recipe
        As `plan` returns them, the base first: others may wait for it.
    store : Store
        Where layers are found and go.
    elsewhere : callable
        Takes a base to where its programs run; asked only where this host does not.

    Raises
    ------
    ClaimError
        When what goes into a layer contradicts itself.
    HostError
        When bytecode is wanted and the image's Python runs neither here nor there.
    """
    with (
        store.scratch() as scratch,
        Bench(scratch, lambda: base.result().blob, elsewhere) as bench,
        ThreadPoolExecutor(_WORKERS) as pool,
    ):
        base = pool.submit(_make, recipes[0], store, bench)
        jobs = [base, *(pool.submit(_make, recipe, store, bench) for recipe in recipes[1:])]
        try:
            for job in jobs:
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _make(recipe: Recipe, store: Store, bench: Bench) -> Layer:
    known = store.note("layer", recipe.key)
    if isinstance(known, str) and (blob := store.get(known)):
        return Layer(recipe.role, recipe.what, recipe.count, blob, cached=True)
    entries = tar.merge(recipe.entries(bench))
    blob = store.add(lambda out: tar.write(entries, out))
    if isinstance(known, str) and known != blob.sha256:
        raise ClaimError(
            f"the layer was sha256:{known} when it was first made, and is sha256:{blob.sha256} now",
            where=recipe.what,
            hint="An input changed while it was read, or this is a bug worth reporting.",
        )
    store.write_note("layer", recipe.key, blob.sha256)
    return Layer(recipe.role, recipe.what, recipe.count, blob, cached=False)
