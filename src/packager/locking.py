"""`packager lock`: resolve names once, bring every byte home, and write down what it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from packager.errors import ClaimError, UsageError
from packager.files import replace_file
from packager.layers import deb, wheel
from packager.layers.tar import Entry
from packager.lock import debian, elf, lockfile, places, wheels
from packager.lock.debian import DebianPins
from packager.lock.elf import ElfFile
from packager.lock.indexes import Indexes
from packager.lock.lockfile import Lock
from packager.lock.resolve import choose_resolver, is_ours, read_requirements, resolve
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
    _refuse_unknown(project, upgrade or [])
    resolver, why = choose_resolver(project)
    reporter.note(f"resolving with {resolver}: {why}")
    reporter.begin("resolve", "asking the package indexes")
    with store.scratch() as scratch:
        requirements = resolve(project, scratch, upgrade=upgrade)
    pins = read_requirements(requirements["requirements.txt"], "requirements.txt")
    reporter.row("resolve", f"{len(pins)} distributions for the image", "", resolver)
    reporter.begin("lock", "choosing wheels and packages")
    indexes = Indexes(lambda: store.session, project.hints)
    chosen = wheels.choose(pins, indexes, python=project.python, platforms=project.platforms)
    inputs = lockfile.inputs_of(project, requirements)
    kept = old if upgrade is None or upgrade else None
    bases = _bases(project, store, inputs, kept)
    lock = Lock(inputs, chosen, bases, lockfile.tool_facts())
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
    # All at the end: a lock that cannot be completed leaves the old ones as they were.
    for name, data in requirements.items():
        _set_aside(project.root / name, reporter)
        replace_file(project.root / name, data)
    lockfile.write(project.root, lock)
    return _moves(old, lock) if old else []


def _set_aside(path: Path, reporter: Reporter) -> None:
    """Keep a requirements file that somebody wrote by hand."""
    aside = path.with_suffix(".in")
    if path.exists() and not is_ours(path) and not aside.exists():
        path.rename(aside)
        reporter.note(f"your own {path.name} is {aside.name} now")


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


def _refuse_unknown(project: Project, upgrade: Sequence[str]) -> None:
    files = lockfile.requirements_of(project).items()
    ours = {name: data for name, data in files if is_ours(project.root / name)}
    pinned = {pin.name for name, data in ours.items() for pin in read_requirements(data, name)}
    if unknown := sorted({canonicalize_name(name) for name in upgrade} - pinned):
        raise UsageError(
            f"no pin of {', '.join(unknown)} is there to be moved",
            where="--upgrade",
            hint="It takes the name of a distribution in requirements.txt or -dev.txt.",
        )


def _bases(
    project: Project, store: Store, inputs: Mapping[str, Any], old: Lock | None
) -> Mapping[str, DebianPins]:
    """Resolve each platform's base; the old one stays while what it was resolved for stays."""
    keep: Mapping[str, DebianPins] = {}
    if old and all(old.inputs.get(key) == inputs[key] for key in ("base", "os-packages")):
        keep = old.debian
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
            _elf_files(entries, scratch),
            paths=[entry.path for entry in entries if entry.kind != "dir"],
            architecture=PLATFORMS[platform],
            library_dirs=_LIBRARY_DIRS[PLATFORMS[platform]],
            python_dir=site.packages,
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


def _moves(old: Lock, new: Lock) -> list[str]:
    """Say which wheels and packages changed their version between two locks."""
    lines = _differences(
        {wheel.name: wheel.version for wheel in old.wheels},
        {wheel.name: wheel.version for wheel in new.wheels},
    )
    for platform in new.debian:
        if platform in old.debian:
            before, after = (
                {pin.name: pin.version for pin in lock.debian[platform].packages}
                for lock in (old, new)
            )
            lines += [f"{line} ({platform})" for line in _differences(before, after)]
        else:
            lines.append(f"{platform} is new")
    return lines


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    gone = [f"{name} {before[name]} is gone" for name in sorted(before.keys() - after.keys())]
    new = [f"{name} {after[name]} is new" for name in sorted(after.keys() - before.keys())]
    both = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    return gone + new + [f"{name} {before[name]} became {after[name]}" for name in both]
