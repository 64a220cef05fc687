"""Recipes to layers: each is made as soon as what it needs is there, or found again by its key."""

from __future__ import annotations

import contextlib
import itertools
import platform as host
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from packager.errors import ClaimError, HostError
from packager.layers import tar
from packager.layers.bytecode import Elsewhere, Interpreter, Run
from packager.layers.tar import Entry
from packager.store import Blob, Store

__all__ = ["Bench", "Layer", "Recipe", "compiles", "find", "make", "needs"]

Role = Literal["base", "bytecode", "os-packages", "wheels", "runtime", "model", "code"]

_WORKERS = 2
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one layer; equal keys give equal bytes.

    Attributes
    ----------
    entries : callable
        Gives what is in it.
    needs : tuple of str
        Digests of the locked files that `entries` reads.
    parts : tuple of Recipe
        Other recipes whose layers `entries` reads; not all of them are layers of the image.
    compiles : bool
        Whether `entries` asks for the image's Python, and so for the base.
    unpacks : str
        The digest of a layer that comes as it is: the one file that it needs, unpacked.
    """

    role: Role
    what: str
    key: str
    count: int
    entries: Callable[[Bench], list[Entry]]
    needs: tuple[str, ...] = ()
    parts: tuple[Recipe, ...] = ()
    compiles: bool = False
    unpacks: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is in the store; its blob's digest is its diff ID."""

    role: Role
    what: str
    count: int
    blob: Blob
    cached: bool


class Bench:
    """What recipes share while their layers are made.

    Parameters
    ----------
    scratch : Path
        A folder that is gone afterwards.
    base : callable
        Gives the layer that programs are run from, waiting for it if it is being made.
    elsewhere : callable
        Takes the base to where its programs run, should this host not execute them.
    arriving : mapping of str to Future
        The locked files that recipes need; those of a recipe's own `needs` are there.
    made : dict of str to Blob
        What recipes made, by their keys; those of a recipe's own `parts` are there.
    """

    def __init__(
        self,
        scratch: Path,
        base: Callable[[], Blob],
        elsewhere: Elsewhere,
        arriving: Mapping[str, Future[Blob]],
        made: dict[str, Blob],
    ) -> None:
        self.scratch, self.made = scratch, made
        self._base = base
        self._elsewhere = elsewhere
        self._arriving = arriving
        self._lock = threading.Lock()
        self._run: Run | HostError | None = None
        self._opened = ExitStack()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def path(self, sha256: str) -> Path:
        """Say where a locked file lies."""
        return self._arriving[sha256].result().path

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
            if isinstance(self._run, HostError):
                raise self._run
            return self._run

    def _there(self, interpreter: Interpreter) -> Run | HostError:
        why = "the engine does not execute it either"
        try:
            work = self._opened.enter_context(
                self._elsewhere(self._base(), interpreter.architecture)
            )
            if run := interpreter.there(work, self.scratch):
                return run
        except HostError as error:
            why = f"{error.where}: {error.what}" if error.where else error.what
        return HostError(
            f"the image's Python ({interpreter.architecture}) runs neither on "
            f"{host.system()} {host.machine()} nor in a container, so no bytecode can be made",
            hint=f"{why}\n  With this machine's own platform in [tool.packager] platforms, too, "
            "the lock has a\n  Python that makes it; bytecode = false makes an image without.",
        )


def find(recipes: Iterable[Recipe], store: Store) -> dict[str, Blob]:
    """Find, by key, what recipes made before, and the parts of what is to be made again."""
    found: dict[str, Blob] = {}
    for recipe in recipes:
        if blob := _known(recipe, store):
            found[recipe.key] = blob
        else:
            found |= find(recipe.parts, store)
    return found


def compiles(recipes: Iterable[Recipe], found: Mapping[str, Blob]) -> bool:
    """Tell whether the image's Python is needed to make what was not found."""
    missing = [recipe for recipe in recipes if recipe.key not in found]
    return any(recipe.compiles or compiles(recipe.parts, found) for recipe in missing)


def needs(recipes: Iterable[Recipe], found: Mapping[str, Blob]) -> set[str]:
    """List the digests of the locked files that it takes to make what was not found."""
    missing = [recipe for recipe in recipes if recipe.key not in found]
    own = {sha for recipe in missing for sha in recipe.needs}
    return own.union(*(needs(recipe.parts, found) for recipe in missing))


def make(
    recipes: Sequence[Recipe],
    found: Mapping[str, Blob],
    arriving: Mapping[str, Future[Blob]],
    store: Store,
    elsewhere: Elsewhere,
    *,
    ready: Callable[[Layer], None] | None = None,
    root: Recipe | None = None,
) -> Iterator[Layer]:
    """Make every layer that was not found, in parallel; yield all of them bottom first.

    Parameters
    ----------
    recipes : sequence of Recipe
        As `plan` gives them, the base first: others may wait for it.
    found : mapping of str to Blob
        From `find`.
    arriving : mapping of str to Future
        The locked files, from `Store.fetching`: at least those that `needs` lists.
    store : Store
        Where layers go.
    elsewhere : callable
        Takes a base to where its programs run; asked only where this host does not.
    ready : callable, optional
        Gets the layers, bottom first, while there are others that are not made yet.
    root : Recipe, optional
        What the base's programs are run from, where that is not its first layer.

    Raises
    ------
    ClaimError
        When what goes into a layer contradicts itself.
    HostError
        When bytecode is wanted and the image's Python runs neither here nor there, or a locked
        file does not arrive.
    """
    if all(recipe.key in found for recipe in recipes):
        yield from (_layer(recipe, found[recipe.key], cached=True) for recipe in recipes)
        return
    with (
        store.scratch() as scratch,
        Bench(scratch, lambda: base.result().blob, elsewhere, arriving, dict(found)) as bench,
        contextlib.closing(_Workers()) as workers,
    ):
        kitchen = _Kitchen(found, arriving, bench, store, workers)
        base = kitchen.begin(root or recipes[0], 0, None)
        jobs = [kitchen.begin(recipe, rank, base) for rank, recipe in enumerate(recipes)]
        for job in jobs:
            layer = job.result()
            if ready and not all(other.done() for other in jobs):
                ready(layer)
            yield layer


class _Workers:
    """Threads that do first what lies lowest in the image: an engine takes it in first, too."""

    def __init__(self) -> None:
        self._waiting: queue.PriorityQueue[tuple[int, int, Callable[[], None] | None]]
        self._waiting, self._turn = queue.PriorityQueue(), itertools.count()
        self._threads = [threading.Thread(target=self._run) for _ in range(_WORKERS)]
        for thread in self._threads:
            thread.start()

    def submit(self, rank: int, work: Callable[[], None] | None) -> None:
        self._waiting.put((rank, next(self._turn), work))

    def close(self) -> None:
        """Begin with nothing more, and wait for what has begun."""
        for _ in self._threads:
            self.submit(-1, None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while work := self._waiting.get()[2]:
            work()


@dataclass(frozen=True, slots=True)
class _Kitchen:
    """What it takes to begin with a recipe."""

    found: Mapping[str, Blob]
    arriving: Mapping[str, Future[Blob]]
    bench: Bench
    store: Store
    workers: _Workers
    begun: dict[str, Future[Layer]] = field(default_factory=dict)

    def begin(self, recipe: Recipe, rank: int, base: Future[Layer] | None) -> Future[Layer]:
        """Have a layer made, once, when all that it is made of is there."""
        if recipe.key not in self.begun:
            self.begun[recipe.key] = self._begin(recipe, rank, base)
        return self.begun[recipe.key]

    def _begin(self, recipe: Recipe, rank: int, base: Future[Layer] | None) -> Future[Layer]:
        if blob := self.found.get(recipe.key):
            done: Future[Layer] = Future()
            done.set_result(_layer(recipe, blob, cached=True))
            return done
        awaited: list[Future[Any]] = [self.arriving[sha256] for sha256 in recipe.needs]
        awaited += [self.begin(part, rank, base) for part in recipe.parts]
        if recipe.compiles and base is not None:
            awaited.append(base)
        work = partial(_make, recipe, self.bench, self.store)
        return _after(awaited, work, partial(self.workers.submit, rank))


def _after(
    awaited: Sequence[Future[Any]],
    work: Callable[[], _T],
    submit: Callable[[Callable[[], None]], None],
) -> Future[_T]:
    """Submit work once all that it waits for has succeeded; nothing sits and waits meanwhile."""
    result: Future[_T] = Future()
    left, lock = len(awaited) + 1, threading.Lock()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked
            result.set_exception(error)

    def one_less(arrived: Future[Any] | None) -> None:
        nonlocal left
        with lock:  # the last two may arrive at one time, and only one of them is the last
            left -= 1
            failed = arrived.exception() if arrived else None
            if failed and not result.done():
                result.set_exception(failed)
            begins = not left and not result.done()
        if begins:
            submit(run)

    for one in awaited:
        one.add_done_callback(one_less)
    one_less(None)
    return result


def _layer(recipe: Recipe, blob: Blob, *, cached: bool) -> Layer:
    return Layer(recipe.role, recipe.what, recipe.count, blob, cached)


def _known(recipe: Recipe, store: Store) -> Blob | None:
    noted = recipe.unpacks or store.note("layer", recipe.key)
    return store.get(noted) if isinstance(noted, str) else None


def _make(recipe: Recipe, bench: Bench, store: Store) -> Layer:
    with store.alone(recipe.key):
        if blob := _known(recipe, store):  # another run was at it, too, and quicker
            bench.made[recipe.key] = blob
            return _layer(recipe, blob, cached=True)
        if recipe.unpacks:
            from packager.layers import image_root

            unpack = partial(image_root.unpack, bench.path(recipe.needs[0]), owner=recipe.what)
            blob = image_root.unpacked(unpack, recipe.unpacks, store, recipe.what)
            bench.made[recipe.key] = blob
            return _layer(recipe, blob, cached=False)
        entries = tar.merge(recipe.entries(bench))
        blob = store.add(lambda out: tar.write(entries, out))
        noted = store.note("layer", recipe.key)
        if isinstance(noted, str) and noted != blob.sha256:
            raise ClaimError(
                f"the layer was sha256:{noted} when it was first made, and is "
                f"sha256:{blob.sha256} now",
                where=recipe.what,
                hint="An input changed while it was read, or this is a bug worth reporting.",
            )
        store.write_note("layer", recipe.key, blob.sha256)
        bench.made[recipe.key] = blob
        return _layer(recipe, blob, cached=False)
