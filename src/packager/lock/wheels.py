"""Pinned requirements to exact wheels for a target, chosen by tags as pip chooses them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from packager.errors import ClaimError, HostError, UsageError
from packager.lock import places
from packager.lock.indexes import Found, Indexes
from packager.lock.lockfile import BUILT, WheelPin
from packager.lock.requirements import Pinned
from packager.project import SDIST, Project
from packager.store import Blob, Store

__all__ = ["bring", "choose", "target_tags"]

_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_OLDEST_GLIBC = {"linux/amd64": 5, "linux/arm64": 17}
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_CONNECTIONS = 6


def target_tags(python: str, glibc: int, platform: str) -> list[Tag]:
    """List the tags that a target accepts, best first (PEP 425, 600).

    Parameters
    ----------
    python : str
        ``"3.11"`` for example.
    glibc : int
        The minor version of the GNU C library 2.
    platform : str
        ``"linux/amd64"`` or ``"linux/arm64"``.
    """
    machine = _MACHINES[platform]
    platforms = []
    for minor in range(glibc, _OLDEST_GLIBC[platform] - 1, -1):
        platforms.append(f"manylinux_2_{minor}_{machine}")
        if minor in _LEGACY:
            platforms.append(f"{_LEGACY[minor]}_{machine}")
    platforms.append(f"linux_{machine}")
    major, minor_version = (int(part) for part in python.split("."))
    version = (major, minor_version)
    interpreter = f"cp{major}{minor_version}"
    return [
        *cpython_tags(version, [interpreter], platforms),
        *compatible_tags(version, interpreter, platforms),
    ]


def choose(
    pins: Iterable[Pinned],
    indexes: Indexes,
    *,
    python: str,
    glibc: int,
    platforms: Sequence[str],
    known: Mapping[Pinned, Sequence[WheelPin]] = MappingProxyType({}),
) -> tuple[WheelPin, ...]:
    """Choose the best wheel of each pin for each platform.

    Parameters
    ----------
    pins : iterable of Pinned
        From a hashed requirements file.
    indexes : Indexes
        Where to look.
    python, glibc, platforms
        The target.
    known : mapping of Pinned to sequence of WheelPin, optional
        What was chosen before for the same target: the same pin with the same hashes has the
        same best wheels, so nothing is asked for it.

    Returns
    -------
    tuple of WheelPin
        Sorted by name and file; a wheel that serves several platforms occurs once.  The
        size is 0 where the index does not state it.

    Raises
    ------
    UsageError
        When a release has no wheel for the target; names what it has instead.
    HostError
        When an index cannot be asked.
    """
    tags = {platform: target_tags(python, glibc, platform) for platform in platforms}

    def one(pin: Pinned) -> Sequence[WheelPin]:
        if pin in known:
            return known[pin]
        offered = _wheels(pin, indexes.files(pin.name))
        best: dict[str, tuple[Found, list[str]]] = {}
        for platform in platforms:
            found = _best(pin, offered, tags[platform], python, platform)
            best.setdefault(found.file, (found, []))[1].append(platform)
        return [
            WheelPin(
                name=pin.name,
                version=pin.version,
                file=found.file,
                size=found.size or 0,
                sha256=_sha256(pin, found),
                platforms=tuple(fit),
            )
            for found, fit in best.values()
        ]

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        chosen = [wheel for wheels in pool.map(one, pins) for wheel in wheels]
    return tuple(sorted(chosen, key=lambda wheel: (wheel.name, wheel.file)))


def bring(
    project: Project,
    pins: Iterable[Pinned],
    store: Store,
    known: Mapping[Pinned, Sequence[WheelPin]] = MappingProxyType({}),
) -> tuple[tuple[WheelPin, ...], dict[str, Blob]]:
    """Choose a project's wheels and bring them home, which tells the size of each.

    Parameters
    ----------
    project : Project
        Says for what, and where to look.
    pins, known
        As for `choose`.
    store : Store
        Gets them.

    Returns
    -------
    tuple of WheelPin, dict of str to Blob
        What `choose` gives, sizes and all, and the wheels by their hashes.

    Raises
    ------
    PackagerError
        As `choose` and `Store.fetch`.
    """
    indexes = Indexes(lambda: store.session, project.hints)
    chosen = choose(
        pins,
        indexes,
        python=project.python,
        glibc=project.offered.glibc,
        platforms=project.platforms,
        known=known,
    )
    blobs = store.fetch(places.wheels(chosen, indexes, project.root / BUILT))
    return tuple(replace(one, size=blobs[one.sha256].size) for one in chosen), blobs


def _wheels(pin: Pinned, files: Iterable[Found]) -> list[Found]:
    return [
        file
        for file in files
        if (file.sha256 is None or file.sha256 in pin.hashes)
        and _same_version(file.version, pin.version)
    ]


def _same_version(one: str | None, other: str) -> bool:
    try:
        return one is not None and _version(one) == _version(other)
    except InvalidVersion:
        return False


@functools.lru_cache(1 << 12)
def _version(text: str) -> Version:
    # A page names each version dozens of times, once for every file of it.
    return Version(text)


def _best(pin: Pinned, offered: list[Found], tags: list[Tag], python: str, platform: str) -> Found:
    rank = {tag: place for place, tag in enumerate(tags)}
    fitting = [(place, file) for file in offered if (place := _rank(file, rank)) is not None]
    if fitting:
        return min(fitting, key=lambda pair: (pair[0], pair[1].file))[1]
    what = f"{pin.name} {pin.version}"
    if not offered:
        raise ClaimError(
            "no index or folder that is configured has it with a hash of the lock",
            where=f"requirements.txt: {what}",
            hint="packager lock --upgrade moves its pin.",
        )
    wheels = sorted(file.file for file in offered if file.file.endswith(".whl"))
    has = f"it has {len(wheels)} others, {wheels[0]} for one" if wheels else "only an sdist"
    raise UsageError(
        f"no wheel for CPython {python} on {platform} ({has})",
        where=f"requirements.txt: {what}",
        hint=f'Pin a release that has one, or let packager lock build it: {pin.name} = "{SDIST}" '
        "in [tool.packager.build-from].",
    )


def _rank(file: Found, rank: dict[Tag, int]) -> int | None:
    try:
        tags = parse_wheel_filename(file.file)[3]
    except InvalidWheelFilename:
        return None
    return min((rank[tag] for tag in tags if tag in rank), default=None)


def _sha256(pin: Pinned, found: Found) -> str:
    if found.sha256:
        return found.sha256
    if len(pin.hashes) == 1:
        return next(iter(pin.hashes))
    raise HostError(
        f"its place states no sha256, and {len(pin.hashes)} are allowed",
        where=found.file,
        hint="Use an index that states hashes (PEP 503 or 691).",
    )
