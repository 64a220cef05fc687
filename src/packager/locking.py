"""`packager lock`: resolve names once, bring every byte home, and write down what it was."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from packager import basing, formats, wheelwright
from packager.errors import ClaimError, HostError, UsageError
from packager.files import canonical_json, replace_file
from packager.layers import deb, debian_installed, wheel
from packager.layers.image_root import library_folders, refuse_taken
from packager.layers.site import Site
from packager.layers.tar import Entry
from packager.lock import debian, elf, lockfile, places, sdists, wheels
from packager.lock.debian_pins import DebianPins
from packager.lock.elf import ElfFacts, ElfFile
from packager.lock.image_pins import WHERE, ImagePins
from packager.lock.indexes import Indexes
from packager.lock.lockfile import Lock, WheelPin
from packager.lock.requirements import Pinned, is_ours, read_requirements
from packager.lock.resolve import choose_resolver, refuse_unknown, resolve, resolve_dev
from packager.project import PLATFORMS, Project
from packager.reporter import Reporter
from packager.store import Blob, Store
from packager.wheelwright import Made

__all__ = ["make"]

_IMAGE, _DEV = lockfile.REQUIREMENTS
_TARGET = frozenset({"base", "platforms"})
_FOR_IMAGE = _TARGET | {"requires-python", "dependencies", _IMAGE}
_RESOLVED_FROM = {_IMAGE: _FOR_IMAGE, _DEV: _FOR_IMAGE | {"dev-dependencies", _DEV}}
_IN_MEMORY = 4 << 20
_LIBRARY_DIRS = {
    "amd64": ["usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64"],
    "arm64": ["usr/lib/aarch64-linux-gnu", "usr/lib"],
}
_CONTENTS = 1
"""Raised when what is noted of contents, or how they are read, changes."""


@dataclass(frozen=True, slots=True)
class _Contents:
    """What tells whether an image lacks a library: its paths, its ELF files, and folders."""

    paths: Sequence[str]
    files: Sequence[ElfFile]
    folders: Sequence[str] = ()


def make(
    project: Project, store: Store, reporter: Reporter, *, upgrade: Sequence[str] | None = None
) -> list[str]:
    """Lock a project: write its requirements files and ``packager.lock``.

    Parameters
    ----------
    project : Project
        What to lock.
    store : Store
        Gets every locked file, so that building needs no network afterwards.
    reporter : Reporter
        Gets a row for each step.
    upgrade : sequence of str, optional
        Distributions whose pins may move; an empty sequence moves all, and the base's
        packages too; None moves nothing that need not.

    Returns
    -------
    list of str
        What changed against the lock before, a line each; empty for a first lock.

    Raises
    ------
    PackagerError
        When something cannot be resolved, found, or would not run in the image.
    """
    old = _previous(project)
    refuse_unknown(project, upgrade or [])
    stays = old if upgrade is None or upgrade else None
    images: Mapping[str, ImagePins] = {}
    if project.target is None:
        reporter.begin("base", f"looking into {project.base}")
        project, images = _images(project, store, stays)
    debs: Mapping[str, DebianPins] = {}
    ground: Mapping[str, DebianPins] = {}
    made: list[Made] = []
    if project.build_from:  # the resolver reads what is built
        debs = _debs(project, images, store, stays)
        if project.build_packages:
            ground = _debs(project, images, store, stays, building=True)
        inside = Lock({}, (), ground or debs, {}, images)
        made = wheelwright.make(project, inside, old, store, reporter, upgrade=upgrade)
    resolver, why = choose_resolver(project)
    kept = _kept(project, old, made) if upgrade is None else {}
    if _IMAGE not in kept or (project.dev_dependencies and _DEV not in kept):
        reporter.note(f"resolving with {resolver}: {why}")
    reporter.begin("resolve", "asking the package indexes")
    with store.scratch() as work, ThreadPoolExecutor(1) as aside:
        # A resolver is a process of its own; what needs no pins is done beside it.
        _place(made, work, store)
        moving = _moving(project, old, upgrade)
        resolving = _resolving(project, work, moving, kept, aside)
        debs = debs or _debs(project, images, store, stays)
        contents = {
            platform: _below(project, platform, images.get(platform), debs.get(platform), store)
            for platform in project.platforms
        }
        pins = read_requirements(_resolved(resolving[_IMAGE], project, store), _IMAGE)
        state = "kept" if _IMAGE in kept else resolver
        reporter.row("resolve", f"{len(pins)} distributions for the image", "", state)
        reporter.begin("lock", "choosing wheels")
        own = {one.built.name: one.wheels for one in made}
        known = _known(project, old) | {pin: own[pin.name] for pin in pins if pin.name in own}
        chosen, blobs = wheels.bring(project, pins, store, known)
        reporter.begin("lock", "looking for every shared library")
        built = tuple(one.built for one in made)
        lock = Lock({}, chosen, debs, lockfile.tool_facts(), images, built, ground)
        found = {one.sha256: _wheel(project, one, blobs[one.sha256], store) for one in chosen}
        for platform, below in contents.items():
            counts = _check_platform(project, lock, platform, below, found)
            reporter.row("lock", f"{counts} for {platform}", "", "every library found")
        _refuse_unused(lock)
        if _DEV in resolving:
            reporter.begin("resolve", "the development environment")
        requirements = {name: job.result() for name, job in resolving.items()}
    lock = replace(lock, inputs=lockfile.inputs_of(project, requirements))
    # All at the end: a lock that cannot be completed leaves the old ones as they were.
    for name, data in requirements.items():
        _set_aside(project.root / name, reporter)
        replace_file(project.root / name, data)
    _keep_wheels(project, lock, blobs, reporter)
    lockfile.write(project.root, lock)
    return _moved(project, old, lock) if old else []


def _check_platform(
    project: Project,
    lock: Lock,
    platform: str,
    below: Sequence[_Contents],
    found: Mapping[str, _Contents],
) -> str:
    """Refuse an image that would not run; say how much is in it."""
    fitting = [found[one.sha256] for one in lock.wheels_for(platform)]
    _check_libraries(project, platform, [*below, *fitting])
    parts = [f"{len(fitting)} wheels"]
    if platform in lock.images:
        names = [one.name for one in lock.wheels]
        refuse_taken({*below[0].paths}, Site.of(project.offered), names, project.base)
        parts.append(f"{len(lock.images[platform].layers)} layers of {project.base}")
    if platform in lock.debian:
        parts.append(f"{len(lock.debian[platform].packages)} packages")
    return ", ".join(parts)


def _refuse_unused(lock: Lock) -> None:
    """Refuse to keep a wheel that nothing requires."""
    for built in lock.built:
        if all(wheel.name != built.name for wheel in lock.wheels):
            raise ClaimError(
                f"nothing requires {built.name}, which was built",
                where=f"pyproject.toml: tool.packager.build-from.{built.name}",
                hint="Name it in [project.dependencies], or take it out here.",
            )


def _keep_wheels(
    project: Project, lock: Lock, blobs: Mapping[str, Blob], reporter: Reporter
) -> None:
    """Keep what was built in the repository, for no index has it."""
    for one in lock.built_wheels:
        path, data = project.root / lockfile.BUILT / one.file, blobs[one.sha256].path.read_bytes()
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(exist_ok=True)
            replace_file(path, data)
            reporter.note(f"{lockfile.BUILT}/{one.file} is new: commit it with the lock")


def _place(made: Sequence[Made], work: Path, store: Store) -> None:
    """Put what was built where `resolve` looks; of several platforms, it resolves for the first."""
    (work / lockfile.BUILT).mkdir()
    for one in made:
        blob = store.get(one.wheels[0].sha256)
        assert blob is not None
        shutil.copyfile(blob.path, work / lockfile.BUILT / one.wheels[0].file)


def _set_aside(path: Path, reporter: Reporter) -> None:
    """Keep a requirements file that somebody wrote by hand."""
    aside = path.with_suffix(".in")
    if path.exists() and not is_ours(path) and not aside.exists():
        path.rename(aside)
        reporter.note(f"your own {path.name} is {aside.name} now")


def _previous(project: Project) -> Lock | None:
    try:
        return lockfile.read(project.root)
    except ClaimError:
        return None  # there is none yet, or it is one that this run replaces


def _kept(project: Project, old: Lock | None, made: Sequence[Made]) -> dict[str, bytes]:
    """Find the requirements files that resolving would give again, pin for pin."""
    if old is None or _offers_another(project, old):
        return {}
    if {*old.built_wheels} != {wheel for one in made for wheel in one.wheels}:
        return {}
    files = lockfile.requirements_of(project)
    now = lockfile.inputs_of(project, files)
    same = {key for key in now if old.inputs.get(key) == now[key]}
    return {name: data for name, data in files.items() if _RESOLVED_FROM[name] <= same}


def _moving(
    project: Project, old: Lock | None, upgrade: Sequence[str] | None
) -> Sequence[str] | None:
    """Add what is built, or was, to the pins that may move: none of an index has those bytes."""
    names = sorted({*project.build_from, *(one.name for one in (old.built if old else ()))})
    return [*(upgrade or []), *names] if names and upgrade != [] else upgrade


def _resolving(
    project: Project,
    work: Path,
    upgrade: Sequence[str] | None,
    kept: Mapping[str, bytes],
    aside: ThreadPoolExecutor,
) -> dict[str, Future[bytes]]:
    """Start resolving what is not kept, one file after the other."""
    image = aside.submit(lambda: kept.get(_IMAGE) or resolve(project, work, upgrade=upgrade))
    jobs = {_IMAGE: image}
    if project.dev_dependencies:
        jobs[_DEV] = aside.submit(
            lambda: kept.get(_DEV) or resolve_dev(project, work, image.result(), upgrade=upgrade)
        )
    return jobs


def _resolved(job: Future[bytes], project: Project, store: Store) -> bytes:
    """Wait for a resolver; if what it misses is a wheel, say how that can be had."""
    try:
        return job.result()
    except UsageError as error:
        way = sdists.way_out(error.hint, Indexes(lambda: store.session, project.hints))
        hint = f"{error.hint}\n  {way}" if way else error.hint
        raise UsageError(error.what, where=error.where, hint=hint) from None


def _offers_another(project: Project, old: Lock) -> bool:
    """Tell whether a lock was resolved for what the base offered before it moved."""
    return any(pins.target != project.target for pins in old.images.values())


def _images(
    project: Project, store: Store, old: Lock | None
) -> tuple[Project, Mapping[str, ImagePins]]:
    """Pin a base that is an image; the old pins stay while its name does."""
    keep = old.images if old and old.inputs.get("base") == project.base else {}
    images = {
        platform: keep.get(platform) or basing.pin(project, platform, store)
        for platform in project.platforms
    }
    offers = {pins.target for pins in images.values()}
    if len(offers) > 1:
        told = ", ".join(sorted(f"Python {one.python}, glibc 2.{one.glibc}" for one in offers))
        raise ClaimError(f"{project.base} differs between platforms: {told}", where=WHERE)
    target = offers.pop()
    if not SpecifierSet(project.requires_python).contains(target.python, prereleases=True):
        raise ClaimError(
            f"{project.base} has Python {target.python}, which {project.requires_python} "
            "leaves out",
            where=WHERE,
            hint="Choose another base, or change requires-python in [project].",
        )
    return replace(project, target=target), images


def _image(project: Project, platform: str, pins: ImagePins, store: Store) -> _Contents:
    """List what a base that is an image holds; that its own programs run is its maker's claim."""
    key = hashlib.sha256(canonical_json([_CONTENTS, asdict(pins)])).hexdigest()
    noted = store.note("root", key)
    if noted is None:
        found = basing.contents(project, platform, pins, store)
        noted = {"paths": sorted(found), "folders": library_folders(found)}
        store.write_note("root", key, noted)
    return _Contents(noted["paths"], [], noted["folders"])


def _debs(
    project: Project,
    images: Mapping[str, ImagePins],
    store: Store,
    old: Lock | None,
    *,
    building: bool = False,
) -> Mapping[str, DebianPins]:
    """Resolve Debian packages; the old ones stay while what they were resolved for stays.

    What wheels are built in is a base with more packages, by itself as new as its archive.
    """
    if images and not project.os_packages:
        return {}
    inputs = lockfile.inputs_of(project, {})
    keys = ["base", "os-packages", *(["build-packages"] if building else [])]
    keep: Mapping[str, DebianPins] = {}
    same = old and all(old.inputs.get(key) == inputs[key] for key in keys)
    if old and same and old.images == images:
        keep = old.build_base if building else old.debian
    more = project.build_packages if building else ()
    return {
        platform: keep.get(platform)
        or _packages_for(project, platform, images.get(platform), more, store)
        for platform in project.platforms
    }


def _packages_for(
    project: Project, platform: str, image: ImagePins | None, more: Sequence[str], store: Store
) -> DebianPins:
    """Choose the packages of a base, or those that one which is an image lacks."""
    suite, installed = project.base.partition(":")[2], None
    if image:
        found = basing.contents(project, platform, image, store)
        suite = debian_installed.suite(found, project.base)
        installed = debian_installed.installed(found, project.base)
    return debian.resolve(
        suite,
        PLATFORMS[platform],
        [*project.os_packages, *more],
        session=store.session,
        mirror=project.hints.debian_mirror,
        installed=installed,
    )


def _below(
    project: Project,
    platform: str,
    image: ImagePins | None,
    debs: DebianPins | None,
    store: Store,
) -> list[_Contents]:
    """Look into what is below the wheels: an image, Debian packages, or both, in this order."""
    parts = [_image(project, platform, image, store)] if image else []
    return [*parts, *([_packages(project, debs, store)] if debs else [])]


def _packages(project: Project, pins: DebianPins, store: Store) -> _Contents:
    """Bring Debian packages home, and look into them."""
    blobs = store.fetch(places.packages(pins, project.hints.debian_mirror))
    debs = [(pin, blobs[pin.sha256].path) for pin in pins.packages]
    base = [pair for pair in debs if pair[0].role == "base"]
    extra = [pair for pair in debs if pair[0].role == "extra"]

    def entries(scratch: Path) -> list[Entry]:
        if not base:  # what they find in an image makes no difference to what they need
            machine = pins.architecture
            return deb.image_entries([], extra, architecture=machine, scratch=scratch)
        made = deb.base_entries(base, python=project.python, scratch=scratch)
        return made + (deb.extra_entries(base, extra, scratch=scratch) if extra else [])

    return _contents(store, [[pin.sha256, pin.role] for pin in pins.packages], project, entries)


def _known(project: Project, old: Lock | None) -> dict[Pinned, Sequence[WheelPin]]:
    """Read off the old lock which wheels of which pins were chosen for the same target."""
    data = lockfile.requirements_of(project).get(_IMAGE, b"")
    now = lockfile.inputs_of(project, {_IMAGE: data})
    same = old is not None and not _offers_another(project, old)
    if old is None or not same or any(old.inputs.get(k) != now[k] for k in (*_TARGET, _IMAGE)):
        return {}
    locked: defaultdict[str, list[WheelPin]] = defaultdict(list)
    for one in old.wheels:
        locked[one.name].append(one)
    return {
        pin: locked[pin.name]
        for pin in read_requirements(data, _IMAGE)
        if {one.sha256 for one in locked[pin.name]} <= pin.hashes
        and {name for one in locked[pin.name] for name in one.platforms} == {*project.platforms}
    }


def _wheel(project: Project, pin: WheelPin, blob: Blob, store: Store) -> _Contents:
    site = Site.of(project.offered)
    what = [pin.sha256, pin.file]
    return _contents(store, what, project, lambda _: wheel.wheel_entries(blob.path, pin.file, site))


def _contents(
    store: Store, what: object, project: Project, entries: Callable[[Path], list[Entry]]
) -> _Contents:
    """Look into wheels or packages, once: the same bytes always hold the same libraries."""
    recipe = [_CONTENTS, formats.LAYERS, project.python, project.offered.prefix, what]
    key = hashlib.sha256(canonical_json(recipe)).hexdigest()
    noted = store.note("libraries", key)
    if noted is None:
        with store.scratch() as scratch:
            found = entries(scratch)
            noted = {
                "paths": [entry.path for entry in found if entry.kind != "dir"],
                "files": [asdict(file) for file in _elf_files(found, scratch)],
            }
        with contextlib.suppress(HostError):  # a store that cannot be written may be complete
            store.write_note("libraries", key, noted)
    return _Contents(noted["paths"], [_elf_file(**file) for file in noted["files"]])


def _elf_file(path: str, owner: str, facts: Mapping[str, Any]) -> ElfFile:
    needed, search = tuple(facts["needed"]), tuple(facts["search"])
    return ElfFile(path, owner, ElfFacts(facts["soname"], needed, facts["machine"], search))


def _check_libraries(project: Project, platform: str, parts: Sequence[_Contents]) -> None:
    """Refuse an image in which a shared library would be missing."""
    elf.check(
        [file for part in parts for file in part.files],
        paths=[path for part in parts for path in part.paths],
        architecture=PLATFORMS[platform],
        library_dirs=[
            *_LIBRARY_DIRS[PLATFORMS[platform]],
            *(folder for part in parts for folder in part.folders),
        ],
        python_dir=Site.of(project.offered).packages,
    )


def _elf_files(entries: Iterable[Entry], scratch: Path) -> Iterator[ElfFile]:
    for entry in entries:
        if entry.open is None or not (".so" in entry.path or entry.mode & 0o111):
            continue
        # The reader seeks back and forth, which a compressed member cannot do cheaply.
        with (
            entry.open() as stream,
            tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(scratch)) as copy,
        ):
            if stream.read(4) != b"\x7fELF":
                continue
            copy.write(b"\x7fELF")
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
            facts = elf.needed(copy)
        if facts:
            yield ElfFile(entry.path, entry.owner, facts)


def _moved(project: Project, old: Lock, new: Lock) -> list[str]:
    """Remove what was built and is no longer locked; say what changed between two locks."""
    files = {one.file for one in new.built_wheels}
    for one in old.built_wheels:
        if one.file not in files:
            (project.root / lockfile.BUILT / one.file).unlink(missing_ok=True)
    return _moves(old, new)


def _moves(old: Lock, new: Lock) -> list[str]:
    """Say which wheels and packages changed their version between two locks."""
    lines = _differences(
        {wheel.name: wheel.version for wheel in old.wheels},
        {wheel.name: wheel.version for wheel in new.wheels},
    )
    for platform, pins in new.images.items():
        if (past := old.images.get(platform)) and past.manifest != pins.manifest:
            name, moved = new.inputs["base"], f"became sha256:{pins.manifest}"
            lines.append(f"{name} sha256:{past.manifest} {moved} ({platform})")
    same_kind = bool(old.images) == bool(new.images)
    for platform in new.platforms:
        if platform not in old.platforms:
            lines.append(f"{platform} is new")
        elif same_kind:
            before, after = (
                {pin.name: pin.version for pin in lock.debs_of(platform)} for lock in (old, new)
            )
            lines += [f"{line} ({platform})" for line in _differences(before, after)]
    return lines


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    gone = [f"{name} {before[name]} is gone" for name in sorted(before.keys() - after.keys())]
    new = [f"{name} {after[name]} is new" for name in sorted(after.keys() - before.keys())]
    both = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    return gone + new + [f"{name} {before[name]} became {after[name]}" for name in both]
