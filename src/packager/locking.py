"""`packager lock`: resolve names once, bring every byte home, and write down what it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from packager.errors import ClaimError
from packager.layers import deb, wheel
from packager.layers.tar import Entry
from packager.lock import debian, elf, lockfile, places, wheels
from packager.lock.debian import DebianPins
from packager.lock.elf import ElfFile
from packager.lock.indexes import Indexes
from packager.lock.lockfile import Lock
from packager.lock.resolve import choose_resolver, read_requirements, resolve
from packager.project import PLATFORMS, Project
from packager.reporter import Reporter
from packager.store import Blob, Store

__all__ = ["check", "make"]

_IN_MEMORY = 4 << 20
_LIBRARY_DIRS = {
    "amd64": ["usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64"],
    "arm64": ["usr/lib/aarch64-linux-gnu", "usr/lib"],
}


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
    resolver, why = choose_resolver(project)
    reporter.note(f"resolving with {resolver}: {why}")
    reporter.begin("resolve", "asking the package indexes")
    resolve(project, upgrade=upgrade)
    pins = read_requirements(project.root / "requirements.txt")
    reporter.row("resolve", f"{len(pins)} distributions for the image", "", resolver)
    reporter.begin("lock", "choosing wheels and packages")
    indexes = Indexes(lambda: store.session, project.hints)
    chosen = wheels.choose(pins, indexes, python=project.python, platforms=project.platforms)
    bases = _bases(project, store, old, move_all=upgrade is not None and not upgrade)
    lock = Lock(lockfile.inputs_of(project), chosen, bases, lockfile.tool_facts())
    blobs: dict[str, Blob] = {}
    for platform in project.platforms:
        blobs |= store.fetch(places.wanted(project, lock, platform, store))
        reporter.begin("lock", "looking for every shared library")
        _check_libraries(project, lock, platform, blobs, store)
        counts = (
            f"{len(lock.wheels_for(platform))} wheels, {len(bases[platform].packages)} packages"
        )
        reporter.row("lock", f"{counts} for {platform}", "", "every library found")
    lock = replace(lock, wheels=tuple(replace(w, size=blobs[w.sha256].size) for w in chosen))
    lockfile.write(project.root, lock)
    return _moves(old, lock) if old else []


def check(project: Project) -> None:
    """Check, offline, that the locks belong to the project as it is.

    Raises
    ------
    ClaimError
        When a lock is missing or stale; says what changed.
    """
    lock = lockfile.read(project.root)
    lockfile.require_fresh(lock, project)


def _previous(project: Project) -> Lock | None:
    try:
        return lockfile.read(project.root)
    except ClaimError:
        return None  # there is none yet, or it is one that this run replaces


def _bases(
    project: Project, store: Store, old: Lock | None, *, move_all: bool
) -> Mapping[str, DebianPins]:
    """Resolve each platform's base; it stays while what it was resolved for stays."""
    inputs = lockfile.inputs_of(project)
    keep: Mapping[str, DebianPins] = {}
    if old and not move_all:
        same = all(old.inputs.get(key) == inputs[key] for key in ("base", "os-packages"))
        keep = old.debian if same else {}
    return {
        platform: keep.get(platform)
        or debian.resolve(
            project.base.partition(":")[2],
            PLATFORMS[platform],
            project.os_packages,
            session=store.session,
            mirror=project.hints.debian_mirror,
        )
        for platform in project.platforms
    }


def _check_libraries(
    project: Project, lock: Lock, platform: str, blobs: Mapping[str, Blob], store: Store
) -> None:
    """Refuse an image in which a shared library would be missing."""
    site = wheel.Site.debian(project.python)
    pins = lock.debian[platform].packages
    debs = [(pin, blobs[pin.sha256].path) for pin in pins]
    base = [pair for pair in debs if pair[0].role == "base"]
    extra = [pair for pair in debs if pair[0].role == "extra"]
    with store.scratch() as scratch:
        entries = deb.base_entries(base, python=project.python, scratch=scratch)
        if extra:
            entries += deb.extra_entries(base, extra, scratch=scratch)
        for pin in lock.wheels_for(platform):
            entries += wheel.wheel_entries(blobs[pin.sha256].path, pin.file, site)
        elf.check(
            _elf_files(entries),
            paths=[entry.path for entry in entries if entry.kind != "dir"],
            architecture=PLATFORMS[platform],
            library_dirs=_LIBRARY_DIRS[PLATFORMS[platform]],
            python_dir=site.packages,
        )


def _elf_files(entries: Iterable[Entry]) -> Iterator[ElfFile]:
    for entry in entries:
        if entry.open is None or not (".so" in entry.path or entry.mode & 0o111):
            continue
        # The reader seeks back and forth, which a compressed member cannot do cheaply.
        with entry.open() as stream, tempfile.SpooledTemporaryFile(_IN_MEMORY) as copy:
            if stream.read(4) != b"\x7fELF":
                continue
            copy.write(b"\x7fELF")
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
            facts = elf.needed(copy)
        if facts:
            yield ElfFile(entry.path, entry.owner, facts)


def _moves(old: Lock, new: Lock) -> list[str]:
    """Say which wheels and packages changed their version between two locks."""
    lines = []
    before, after = _versions(old), _versions(new)
    for name in sorted({*before, *after}):
        one, other = before.get(name), after.get(name)
        if one is None:
            lines.append(f"{name} {other} is new")
        elif other is None:
            lines.append(f"{name} {one} is gone")
        elif one != other:
            lines.append(f"{name} {one} became {other}")
    return lines


def _versions(lock: Lock) -> dict[str, str]:
    found = {wheel.name: wheel.version for wheel in lock.wheels}
    for platform, pins in lock.debian.items():
        found |= {f"{pin.name} ({platform})": pin.version for pin in pins.packages}
    return found
