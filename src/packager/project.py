"""`pyproject.toml` with its `[tool.packager]` table, read once into a typed `Project`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from packager import __version__
from packager.errors import HostError, UsageError
from packager.files import read_toml

if TYPE_CHECKING:
    from packager.store import Store

__all__ = [
    "BASES",
    "GIT",
    "HERE",
    "MACHINES",
    "PLATFORMS",
    "PREFIXES",
    "SDIST",
    "SERVER",
    "TRANSPORTS",
    "Hints",
    "Project",
    "Target",
    "find_root",
    "is_folder",
    "load",
    "minor",
    "transport",
]

BASES = {"debian:bookworm": "3.11.2", "debian:trixie": "3.13.5"}
"""Each base that can be assembled, and the CPython that it holds, which Debian never changes."""

TRANSPORTS = ("docker-archive", "docker-daemon", "oci", "oci-archive")
"""What a base begins with that is an image in no registry, in the words of skopeo and podman."""

PREFIXES = ("usr/local", "usr")
"""What the Python of an image may be installed below."""

_GLIBC = {"debian:bookworm": 36, "debian:trixie": 41}

PLATFORMS = {"linux/amd64": "amd64", "linux/arm64": "arm64"}
"""Each platform an image can be made for, and its name in Debian and in OCI."""

MACHINES = {"linux/amd64": {"x86_64", "AMD64"}, "linux/arm64": {"aarch64", "arm64"}}
"""What hosts call the machine of each platform."""

SDIST = "sdist"
"""What a distribution is built from that an index offers as source alone."""

HERE = "."
"""What the project itself is built from: its `pyproject.toml` and its code."""

GIT = "git+"
"""What begins the address of a git repository that a distribution is built from."""

SERVER = ("httptools>=0.6.4", "uvicorn>=0.34")
"""What an image needs besides, so that its model can be asked over HTTP."""

_FILE = "pyproject.toml"
_KIND = "settings 2"


@dataclass(frozen=True, slots=True)
class Hints:
    """Where bytes may be found besides the user's own settings; never part of a lock."""

    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    debian_mirror: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What a base offers to Python packages.

    Parameters
    ----------
    python : str
        Its CPython to the last number, which wheels' Requires-Python is held against.
    glibc : int
        The minor version of its GNU C library 2.
    prefix : str
        What its Python is installed below: ``usr``, as Debian's, or ``usr/local``.
    """

    python: str
    glibc: int
    prefix: str = "usr"


@dataclass(frozen=True, slots=True)
class Project:
    """What is to be packaged, as its author wrote it down.

    Paths are relative to `root` and use ``/``, whatever the host.  Of a base from a registry
    only the lock knows what it offers, so `target` is None until `lockfile.settled` gives it.
    `build_from` says for distributions, by their normalised names, what their wheels are built
    of: `SDIST`, a folder of the repository, or ``git+ADDRESS@COMMIT``.
    """

    root: Path
    name: str
    version: str
    description: str
    license: str
    requires_python: str
    dependencies: tuple[str, ...]
    dev_dependencies: tuple[str, ...]
    entry_points: Mapping[str, Mapping[str, str]]
    source: str
    base: str
    target: Target | None
    platforms: tuple[str, ...]
    os_packages: tuple[str, ...]
    build_from: Mapping[str, str]
    build_packages: tuple[str, ...]
    model: PurePosixPath
    examples: PurePosixPath | None
    card: PurePosixPath | None
    predictor: str | None
    code: tuple[PurePosixPath, ...]
    trust_pickle: bool
    bytecode: bool
    serve: bool
    resolver: Literal["pip-tools", "uv"] | None
    hints: Hints

    @property
    def requirements(self) -> tuple[str, ...]:
        """What is resolved for the image: its dependencies, a server, and itself if it is built."""
        own = [self.name] if self.is_built else []
        return (*self.dependencies, *(SERVER if self.serve else ()), *own)

    @property
    def is_built(self) -> bool:
        """Whether the project's own code goes into the image as a wheel, and not as it is."""
        return HERE in self.build_from.values()

    @property
    def python(self) -> str:
        """The CPython minor version of the base, ``"3.11"`` for example."""
        return minor(self.full_python)

    @property
    def full_python(self) -> str:
        """The base's CPython to the last number."""
        return self.offered.python

    @property
    def offered(self) -> Target:
        """What the base offers, where that is known."""
        assert self.target is not None
        return self.target


def is_folder(origin: str) -> bool:
    """Tell whether a distribution is built from a folder of the repository."""
    return origin != SDIST and not origin.startswith(GIT)


def minor(version: str) -> str:
    """Cut a version of CPython to the part that packages and paths are named by: ``"3.11"``."""
    return version.rpartition(".")[0]


def transport(base: str) -> tuple[str, str]:
    """Split the name of a base that is in no registry into how and where; else both are empty."""
    how, _, where = base.partition(":")
    return (how, where) if how in TRANSPORTS else ("", "")


def find_root(start: Path) -> Path:
    """Find the nearest folder, from `start` upwards, that holds a ``pyproject.toml``.

    Raises
    ------
    UsageError
        When there is none.
    """
    for folder in [start, *start.parents]:
        if (folder / _FILE).is_file():
            return folder
    raise UsageError(
        f"no {_FILE} here or above",
        where=str(start),
        hint="Go to the repository, or give its place: packager -C FOLDER …",
    )


def load(root: Path, store: Store | None = None) -> Project:
    """Read and check a repository's configuration.

    Parameters
    ----------
    root : Path
        The folder that holds ``pyproject.toml``.
    store : Store, optional
        Remembers what was checked, so that the same text is not checked again.

    Returns
    -------
    Project
        Checked as far as this file alone allows; whether the model is there is not.

    Raises
    ------
    UsageError
        Names the file, the key, and what to do.
    ClaimError
        When the repository expects another version of packager.
    """
    keys = _checked(root, store)
    hints = Hints(
        tuple(keys["extra-index-urls"]),
        tuple(_anchored(root, link) for link in keys["find-links"]),
        keys["debian-mirror"],
    )
    return Project(
        root=root.resolve(),
        name=keys["name"],
        version=keys["version"],
        description=keys["description"],
        license=keys["license"],
        requires_python=keys["requires-python"],
        dependencies=tuple(keys["dependencies"]),
        dev_dependencies=tuple(keys["dev-dependencies"]),
        entry_points=keys["entry-points"],
        source=keys["source"],
        base=keys["base"],
        target=_target(keys["base"]),
        platforms=tuple(keys["platforms"]),
        os_packages=tuple(sorted(set(keys["os-packages"]))),
        build_from=dict(sorted(keys["build-from"].items())),
        build_packages=tuple(sorted(set(keys["build-packages"]))),
        model=PurePosixPath(keys["model"]),
        examples=PurePosixPath(keys["examples"]) if keys["examples"] else None,
        card=PurePosixPath(keys["card"]) if keys["card"] else None,
        predictor=keys["predictor"],
        code=_code(root, keys["code"]),
        trust_pickle=keys["trust-pickle"],
        bytecode=keys["bytecode"],
        serve=keys["serve"],
        resolver=keys["resolver"],
        hints=hints,
    )


def _target(base: str) -> Target | None:
    return Target(BASES[base], _GLIBC[base]) if base in BASES else None


def _checked(root: Path, store: Store | None) -> dict[str, Any]:
    """Read the keys, checked now or, the same text by the same packager, before."""
    document = _read(root / _FILE)
    text = hashlib.sha256(__version__.encode() + b"\0" + (root / _FILE).read_bytes()).hexdigest()
    known = store.note(_KIND, text) if store else None
    if isinstance(known, dict):
        return known
    from packager import settings

    keys = settings.check(document)
    if store:
        with suppress(HostError):  # it saves time, nothing else
            store.write_note(_KIND, text, keys)
    return keys


def _anchored(root: Path, link: str) -> str:
    return link if "://" in link else str((root / link).resolve())


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except FileNotFoundError:
        raise UsageError(f"no {_FILE} here", where=str(path.parent)) from None
    except ValueError as error:
        raise UsageError(f"not valid TOML: {error}", where=str(path)) from None


def _code(root: Path, named: list[str] | None) -> tuple[PurePosixPath, ...]:
    if named is None:
        found = sorted((root / "src").glob("*/__init__.py"))
        return tuple(PurePosixPath("src", path.parent.name) for path in found)
    for name in named:
        if not (root / name).exists():
            raise UsageError(f"{name} does not exist", where=f"{_FILE}: tool.packager.code")
    return tuple(PurePosixPath(name) for name in named)
