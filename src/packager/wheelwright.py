"""Wheels that no index has, built of their sources while locking: sealed, in the image's base."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import IO

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from packager import git
from packager.errors import (
    ClaimError,
    HostError,
    PackagerError,
    UsageError,
    without_credentials,
)
from packager.layers import making, tar, tree
from packager.layers.bytecode import Work
from packager.layers.making import Layer
from packager.layers.plan import Plan
from packager.layers.site import Site
from packager.layers.tar import Slice
from packager.lock import lockfile, places, sdists, wheels
from packager.lock.indexes import Indexes
from packager.lock.lockfile import BUILT, Built, Lock, WheelPin
from packager.lock.requirements import read_requirements
from packager.lock.resolve import resolve
from packager.outputs import engine
from packager.outputs.engine import Engine
from packager.project import GIT, PLATFORMS, SDIST, Project, is_folder
from packager.reporter import Reporter, human_size, printable
from packager.store import Blob, Store, Wanted

__all__ = ["Made", "make"]

_SCRIPT, _TAR, _ANSWER = "build_in_image.py", "source.tar", "answer"
_ROUNDS = 3  # what the sources name to be installed; what their backend asks for; a wheel
_LOG = 1 << 14
_LINES = 12
_GROUND = ("base", "platforms", "os-packages", "build-packages")
_COMPILER = (
    "There is no network where it is built, and no compiler in the base: build-packages = "
    '["gcc", "libc6-dev", "libpython3-dev"] in [tool.packager] puts Debian\'s there.'
)


@dataclass(frozen=True, slots=True)
class Made:
    """A distribution whose wheels were built: of what, and which they are."""

    built: Built
    wheels: tuple[WheelPin, ...]


def make(
    project: Project,
    ground: Lock,
    old: Lock | None,
    store: Store,
    reporter: Reporter,
    *,
    upgrade: Sequence[str] | None,
) -> list[Made]:
    """Build what the project wants built, or keep what was built before of the same sources.

    Parameters
    ----------
    project : Project
        Says what is to be built.
    ground : Lock
        Names what it is built in, and no wheels.
    old : Lock, optional
        The one before.
    store : Store
        Gets the wheels.
    reporter : Reporter
        Gets a row for each distribution.
    upgrade : sequence of str, optional
        Distributions that are to be built again; an empty sequence means all.

    Raises
    ------
    PackagerError
        When a source cannot be had, or its build fails: with its last words.
    """
    again = {canonicalize_name(name) for name in upgrade or project.build_from}
    known = _known(project, old, store) if old else {}
    made = []
    with ExitStack() as stack:
        bench = _Bench(project, ground, store, stack)
        for name, origin in project.build_from.items():
            reporter.begin("build", f"{name}, in a container of the base")
            before = None if upgrade is not None and name in again else known.get(name)
            kept = before if before and bench.same(before.built, origin) else None
            made.append(kept or bench.build(name, origin))
            size = human_size(sum(wheel.size for wheel in made[-1].wheels))
            what = f"{name} {made[-1].built.version} of {made[-1].built.source}"
            reporter.row("build", what, size, "kept" if kept else "built")
    return made


def _known(project: Project, old: Lock, store: Store) -> dict[str, Made]:
    """Find what was built before on the same ground, and is still there."""
    now = lockfile.inputs_of(project, {})
    elsewhere = any(pins.target != project.target for pins in old.images.values())
    if elsewhere or any(old.inputs.get(k) != now.get(k) for k in _GROUND):
        return {}
    origins = {*now["build-from"]}.intersection(old.inputs.get("build-from", []))
    unmoved = {origin.partition(" ")[0] for origin in origins}
    indexes = Indexes(lambda: store.session, project.hints)
    found = {}
    for built in (one for one in old.built if one.name in unmoved):
        pins = tuple(wheel for wheel in old.built_wheels if wheel.name == built.name)
        if {one for pin in pins for one in pin.platforms} != {*project.platforms}:
            continue  # somebody edited the lock
        with contextlib.suppress(PackagerError):  # what is lost is built again
            store.fetch(places.wheels(pins, indexes, project.root / BUILT))
            found[built.name] = Made(built, pins)
    return found


@dataclass(frozen=True, slots=True)
class _Source:
    """What a distribution is built from: how the lock names it, its archive's name, and that."""

    name: str
    label: str
    file: str
    blob: Blob


@dataclass(frozen=True)
class _Bench:
    """What it takes to build; what containers ran in stays in the engine until `stack` ends."""

    project: Project
    ground: Lock
    store: Store
    stack: ExitStack

    @cached_property
    def engine(self) -> Engine:
        return engine.connect(self.store)

    def same(self, built: Built, origin: str) -> bool:
        """Tell whether an origin still gives what was built."""
        if is_folder(origin):
            return built.sha256 == self._folder(built.name, origin).sha256
        return origin != SDIST or self._wanted(built.name).contains(built.version, prereleases=True)

    def build(self, name: str, origin: str) -> Made:
        """Build a distribution's wheels: one for each platform, or one that fits all."""
        source = self._source(name, origin)
        given: list[str] = []
        requires: tuple[WheelPin, ...] = ()
        made: list[WheelPin] = []
        for platform in self.project.platforms:
            if made and made[0].file.endswith("-any.whl"):
                made = [replace(made[0], platforms=self.project.platforms)]
                break
            for _ in range(_ROUNDS):
                answer = self._ask(platform, requires, source, given)
                if isinstance(answer, WheelPin):
                    made.append(answer)
                    break
                given += answer
                requires = self._pinned(name, given)
            else:
                raise ClaimError("its build asks for ever more", where=source.label)
        built = Built(name, made[0].version, source.label, source.blob.sha256, requires)
        return Made(built, tuple(made))

    def _wanted(self, name: str) -> SpecifierSet:
        named = [Requirement(text) for text in self.project.requirements]
        own = [str(one.specifier) for one in named if canonicalize_name(one.name) == name]
        return SpecifierSet(",".join(filter(None, own)))

    def _source(self, name: str, origin: str) -> _Source:
        if is_folder(origin):
            return _Source(name, origin, _TAR, self._folder(name, origin))
        if origin != SDIST:
            return self._commit(name, *origin.removeprefix(GIT).rsplit("@", 1))
        indexes = Indexes(lambda: self.store.session, self.project.hints)
        found = sdists.choose(name, self._wanted(name), self.project.full_python, indexes)
        sha256 = str(found.sha256)
        there = Wanted(sha256, found.size or 0, found.file, lambda: [found.url])
        return _Source(name, found.file, found.file, self.store.fetch([there])[sha256])

    def _folder(self, name: str, folder: str) -> Blob:
        entries = tree.source_entries(self.project, name, folder, self.store.scratch)
        return self.store.add(lambda out: tar.write(entries, out))

    def _commit(self, name: str, address: str, commit: str) -> _Source:
        with self.store.scratch() as scratch:
            try:
                data = git.archive(address, commit, scratch)
            except HostError as error:
                what, where = f"commit {commit} cannot be had", without_credentials(address)
                raise HostError(what, where=where, hint=error.hint) from None
            blob = self.store.add(lambda out: out.write(data))
        return _Source(name, f"git@{commit}", _TAR, blob)

    def _pinned(self, name: str, texts: Sequence[str]) -> tuple[WheelPin, ...]:
        """Pin what must be installed for a build, and bring its wheels home."""
        where = f"the build requirements of {name}"
        for text in texts:
            try:
                plain = text.isprintable() and not Requirement(text).url
            except InvalidRequirement:
                plain = False
            if not plain:
                raise ClaimError(f"{text[:80]!a} cannot be locked", where=where)
        own = replace(self.project, dependencies=tuple(texts), serve=False, build_from={})
        with self.store.scratch() as work:
            try:
                pins = read_requirements(resolve(replace(own, root=work), work), where)
            except UsageError as error:
                raise UsageError(error.what, where=where, hint=error.hint) from None
        return wheels.bring(own, pins, self.store)[0]

    def _ask(
        self, platform: str, requires: Sequence[WheelPin], source: _Source, given: Sequence[str]
    ) -> WheelPin | list[str]:
        """Have a wheel built in a container, or learn what must be installed for it."""
        layers = [layer.blob for layer in self._layers(platform, requires)]
        work = self.stack.enter_context(self.engine.workshop(layers, PLATFORMS[platform]))
        with self.store.scratch() as scratch:
            script = scratch / _SCRIPT
            script.write_bytes((resources.files("packager.layers") / _SCRIPT).read_bytes())
            names = [f"/tmp/{name}" for name in (_SCRIPT, source.file, _ANSWER)]  # noqa: S108
            command = [Site.of(self.project.offered).python, "-P", *names, *given]
            answer = scratch / _ANSWER
            work(command, {_SCRIPT: script, source.file: source.blob.path}, answer)
            if not answer.exists():
                raise HostError(
                    f"its build for {platform} ended, or had to be ended, without an answer",
                    where=source.label,
                    hint="Does the engine run programs of that platform?  "
                    "A build has ten minutes, and the engine's memory.",
                )
            return self._read(answer, platform, source)

    def _layers(self, platform: str, requires: Sequence[WheelPin]) -> list[Layer]:
        """Make the layers of what it is built in: the base, and what must be installed."""
        project, store = replace(self.project, bytecode=False), self.store
        lock = replace(self.ground, wheels=tuple(requires))
        recipes = Plan(project, lock, platform, store).below()
        found = making.find(recipes, store)
        needed = making.needs(recipes, found)
        named = places.wanted(project, lock, platform, store)
        with store.fetching([one for one in named if one.sha256 in needed]) as arriving:
            return list(making.make(recipes, found, arriving, store, self._elsewhere))

    def _elsewhere(self, base: Blob, architecture: str) -> AbstractContextManager[Work]:
        return self.engine.workshop([base], architecture)

    def _read(self, answer: Path, platform: str, source: _Source) -> WheelPin | list[str]:
        """Read what a build answered, which a stranger's program may have written."""
        parts = {one.name: one for one in tar.members(answer, source.label) if one.isreg()}

        def part(name: str) -> IO[bytes]:
            return Slice.open(answer, parts[name].offset_data, parts[name].size)

        if "requires" in parts:
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                return [str(text) for text in json.load(part("requires"))]
        if file := next((name for name in parts if name.endswith(".whl")), ""):
            with part(file) as stream:
                blob = self.store.add(lambda out: shutil.copyfileobj(stream, out))
            version = self._version(file, platform, source)
            return WheelPin(source.name, version, file, blob.size, blob.sha256, (platform,))
        log = part("log").read()[-_LOG:].decode("utf-8", "replace") if "log" in parts else ""
        said = printable(log).strip().splitlines()[-_LINES:]
        raise ClaimError(
            "its build failed, sealed, in a container of the base",
            where=source.label,
            hint="\n  ".join([*said, *([] if self.project.build_packages else [_COMPILER])]),
        )

    def _version(self, file: str, platform: str, source: _Source) -> str:
        """Read a wheel's version off its name, and refuse one that is not what was to be built."""
        offered = self.project.offered
        try:
            name, version, _, tags = parse_wheel_filename(file)
        except InvalidWheelFilename as error:
            raise ClaimError(f"it gives no wheel: {error}", where=source.label) from None
        if name != source.name:
            raise ClaimError(
                f"it gives a wheel of {name}, not of {source.name}",
                where=source.label,
                hint="Correct the name in [tool.packager.build-from].",
            )
        if tags.isdisjoint(wheels.target_tags(self.project.python, offered.glibc, platform)):
            raise ClaimError(f"it gives {file}, which is not for {platform}", where=source.label)
        return str(version)
