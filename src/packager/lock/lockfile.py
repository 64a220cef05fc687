"""`packager.lock`: every byte that will enter the image, by name, size and hash; never a place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

from packager import __version__, formats, runtime
from packager.errors import ClaimError, UsageError
from packager.files import read_toml, replace_file
from packager.lock.debian_pins import STAMP, SUITES, DebianPins, DebPin
from packager.lock.image_pins import ImagePins, LayerPin
from packager.lock.requirements import read_requirements
from packager.project import GIT, PLATFORMS, PREFIXES, Project, Target

__all__ = [
    "BUILT",
    "FILE",
    "REQUIREMENTS",
    "Built",
    "Lock",
    "WheelPin",
    "changes",
    "check",
    "for_image",
    "inputs_of",
    "read",
    "require_fresh",
    "settled",
    "write",
]

FILE = "packager.lock"
BUILT = "built-wheels"
"""The repository's folder of the wheels that `packager lock` built, for no index has them."""

REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")
_LARGEST = 1 << 40
_SHA256 = re.compile("[0-9a-f]{64}")
_PYTHON = re.compile(r"3\.\d{1,3}\.\d{1,3}")
_WORD = re.compile(r"[!-~]+")
_HEADER = "Written by `packager lock`, read by `packager build`; not meant to be edited."


@dataclass(frozen=True, slots=True)
class WheelPin:
    """One wheel: an exact file for one or more platforms."""

    name: str
    version: str
    file: str
    size: int
    sha256: str
    platforms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """What the wheels of a distribution were built from, which are in no index.

    Parameters
    ----------
    name, version : str
        The distribution's.
    source : str
        The file name of an sdist, a folder of the repository, or a commit, ``git@`` before it.
    sha256 : str
        Of the sdist, or of the tar that the folder or the commit was given to the build as.
    requires : tuple of WheelPin
        What was installed for the build.
    """

    name: str
    version: str
    source: str
    sha256: str
    requires: tuple[WheelPin, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """What `packager.lock` says.

    `inputs` is what the lock was resolved from, so that a stale one can say what changed.
    `debian` holds the base's packages for each platform; or `images` the image that it is, and
    `debian` those that are put on top of it.
    `built` says which wheels packager built itself, and `build_base` where, if not in the base.
    """

    inputs: Mapping[str, Any]
    wheels: tuple[WheelPin, ...]
    debian: Mapping[str, DebianPins]
    made_by: Mapping[str, Any]
    images: Mapping[str, ImagePins] = field(default_factory=dict)
    built: tuple[Built, ...] = ()
    build_base: Mapping[str, DebianPins] = field(default_factory=dict)

    @property
    def platforms(self) -> list[str]:
        """What it was made for."""
        return [*(self.images or self.debian)]

    def base_of(self, platform: str) -> Sequence[DebPin | LayerPin]:
        """List the files that the base of one platform is made of."""
        image = self.images.get(platform)
        return [*(image.layers if image else ()), *self.debs_of(platform)]

    def debs_of(self, platform: str) -> Sequence[DebPin]:
        """List the Debian packages that go into the image of one platform."""
        return self.debian[platform].packages if platform in self.debian else ()

    def wheels_for(self, platform: str) -> list[WheelPin]:
        """List the wheels that go into the image of one platform."""
        return [wheel for wheel in self.wheels if platform in wheel.platforms]

    @property
    def built_wheels(self) -> list[WheelPin]:
        """The wheels that packager built itself, and keeps in the repository."""
        names = {one.name for one in self.built}
        return [wheel for wheel in self.wheels if wheel.name in names]


def tool_facts() -> dict[str, Any]:
    """Say what of packager itself decides an image's bytes, besides the lock's entries."""
    return {
        "packager": __version__,
        "format": formats.LAYERS,
        "bytecode": formats.BYTECODE,
        "runtime": runtime.digest(),
        "compressor": formats.COMPRESSOR,
    }


def inputs_of(project: Project, requirements: Mapping[str, bytes]) -> dict[str, Any]:
    """Collect what a lock is resolved from.

    Parameters
    ----------
    project : Project
        What it requires, its base and platforms.
    requirements : mapping of str to bytes
        The pinned requirements files by name; a missing one counts as empty, so that it
        shows as a difference.
    """
    return {
        "base": project.base,
        "requires-python": project.requires_python,
        "platforms": list(project.platforms),
        "os-packages": list(project.os_packages),
        "dependencies": sorted(project.requirements),
        "dev-dependencies": sorted(project.dev_dependencies),
        **_building(project),
        **{name: _text_digest(requirements.get(name, b"")) for name in REQUIREMENTS},
    }


def _building(project: Project) -> dict[str, Any]:
    """Say what is to be built, if anything is, and where; of a git repository not its address."""
    origins = [
        f"{name} git@{origin.rpartition('@')[2]}" if origin.startswith(GIT) else f"{name} {origin}"
        for name, origin in sorted(project.build_from.items())
    ]
    lists = {"build-from": origins, "build-packages": list(project.build_packages)}
    return {key: value for key, value in lists.items() if value}


def requirements_of(project: Project) -> dict[str, bytes]:
    """Read the pinned requirements files that are there."""
    paths = [project.root / name for name in REQUIREMENTS]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _text_digest(data: bytes) -> str:
    # As git stores text, so that checkout settings do not make a lock stale.
    stored = data.replace(b"\r\n", b"\n")
    return f"sha256:{hashlib.sha256(stored).hexdigest()}"


def write(root: Path, lock: Lock) -> None:
    """Write the lock, whole or not at all."""
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(_HEADER))
    body: dict[str, Any] = {
        "version": formats.LOCK,
        "made-by": dict(lock.made_by),
        "inputs": dict(lock.inputs),
        "wheel": [_plain(asdict(wheel)) for wheel in lock.wheels],
        "built": [
            {**asdict(one), "requires": [_plain(asdict(wheel)) for wheel in one.requires]}
            for one in lock.built
        ],
        "build-base": _debian_tables(lock.build_base),
        "debian": _debian_tables(lock.debian),
        "image": [
            {
                "platform": platform,
                "manifest": pins.manifest,
                **asdict(pins.target),
                "env": list(pins.env),
                "labels": dict(pins.labels),
                "layer": [asdict(layer) for layer in pins.layers],
            }
            for platform, pins in lock.images.items()
        ],
    }
    for key, value in body.items():
        if key not in {"inputs", "made-by", "wheel"} and not value:
            continue  # most wheels are in an index, and most bases one or the other
        document.add(key, tomlkit.item(value))
    replace_file(root / FILE, tomlkit.dumps(document).encode())


def _debian_tables(pinned: Mapping[str, DebianPins]) -> list[dict[str, Any]]:
    return [
        {
            "platform": platform,
            "suite": pins.suite,
            "architecture": pins.architecture,
            "timestamp": pins.timestamp,
            "package": [_plain(asdict(pin)) for pin in pins.packages],
        }
        for platform, pins in pinned.items()
    ]


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return {key: list(item) if isinstance(item, tuple) else item for key, item in value.items()}


def read(root: Path) -> Lock:
    """Read the lock.

    Raises
    ------
    ClaimError
        When there is none, or it is damaged, or of another format version; names the key.
    """
    try:
        document = read_toml(root / FILE)
    except FileNotFoundError:
        raise ClaimError(
            "there is no lock yet", where=FILE, hint="packager lock makes it."
        ) from None
    except ValueError as error:
        raise _damaged(f"not valid TOML: {error}") from None
    made_by = document.get("made-by")
    if document.get("version") != formats.LOCK:
        maker = made_by.get("packager", "?") if isinstance(made_by, dict) else "?"
        raise ClaimError(
            f"format version {document.get('version')!r}, this packager reads {formats.LOCK}",
            where=FILE,
            hint=f"It was written by packager {maker}.",
        )
    try:
        lock = Lock(
            inputs=_table(document["inputs"], "inputs"),
            wheels=tuple(_wheel(wheel) for wheel in document.get("wheel", [])),
            debian={entry["platform"]: _debian(entry) for entry in document.get("debian", [])},
            made_by=_table(made_by, "made-by"),
            images={entry["platform"]: _image(entry) for entry in document.get("image", [])},
            built=tuple(_built(entry) for entry in document.get("built", [])),
            build_base={one["platform"]: _debian(one) for one in document.get("build-base", [])},
        )
        _require_whole(lock, len(document.get("debian", [])), len(document.get("image", [])))
        return lock
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from None


def _table(value: object, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{key} is no table")
    return value


def _require_whole(lock: Lock, debian: int, images: int) -> None:
    """Refuse a lock that would fail later by what it lacks."""
    if len(lock.debian) != debian or len(lock.images) != images:
        raise ValueError("debian, image: a platform occurs twice")
    on_top = [pin.role == "extra" for pins in lock.debian.values() for pin in pins.packages]
    if lock.images and not (lock.debian.keys() <= lock.images.keys() and all(on_top)):
        raise ValueError("debian, image: a platform has two bases")
    if missing := {*lock.inputs["platforms"]} - {*lock.platforms}:
        raise ValueError(f"debian, image: nothing is locked for {', '.join(sorted(missing))}")
    if not isinstance(lock.inputs["base"], str):
        raise TypeError("inputs: base is no text")


def _wheel(table: object) -> WheelPin:
    pin: WheelPin = _pin(WheelPin, table)
    parse_wheel_filename(pin.file)
    return pin


def _built(entry: object) -> Built:
    given = dict(_table(entry, "built"))
    requires = tuple(_wheel(wheel) for wheel in given.pop("requires"))
    if {*given} != {"name", "version", "source", "sha256"}:
        raise ValueError(f"built: keys {sorted(given)} are not those that are expected")
    for key, value in given.items():
        if wrong := "" if key == "source" else _wrong_with(key, value):
            raise ValueError(f"built: {key} {wrong}")
    return Built(**given, requires=requires)


def _debian(entry: object) -> DebianPins:
    given = _table(entry, "debian")
    packages = tuple(_pin(DebPin, package) for package in given["package"])
    pins = DebianPins(given["suite"], given["architecture"], given["timestamp"], packages)
    if pins.suite not in SUITES or PLATFORMS[given["platform"]] != pins.architecture:
        raise ValueError(f"debian: {pins.suite!r} for {pins.architecture!r} is no base")
    datetime.strptime(pins.timestamp, STAMP)
    return pins


def _image(entry: object) -> ImagePins:
    given = _table(entry, "image")
    layers = tuple(_pin(LayerPin, layer, name="layer") for layer in given["layer"])
    if not _SHA256.fullmatch(given["manifest"]):
        raise ValueError("image: manifest is not 64 hex digits")
    glibc, env, labels = given["glibc"], given["env"], _table(given["labels"], "labels")
    if wrong := _wrong_with("size", glibc):
        raise ValueError(f"image: glibc {wrong}")
    if not all(isinstance(one, str) for one in (*env, *labels.values())):
        raise TypeError("image: env or labels hold more than text")
    if given["platform"] not in PLATFORMS or not layers or given["prefix"] not in PREFIXES:
        raise ValueError("image: no layers, or a platform or prefix that is unknown")
    if not _PYTHON.fullmatch(given["python"]):
        raise ValueError(f"image: {given['python']!r} is no version of CPython")
    target = Target(given["python"], glibc, given["prefix"])
    return ImagePins(given["manifest"], target, tuple(env), labels, layers)


def _pin(kind: type[Any], value: object, *, name: str = "") -> Any:
    table = _table(value, "wheel or package")
    names = {field.name for field in fields(kind)}
    if set(table) != names:
        raise ValueError(f"keys {sorted(table)} where {sorted(names)} are expected")
    for key, item in table.items():
        if wrong := _wrong_with(key, item):
            raise ValueError(f"{name or table['name']}: {key} {wrong}")
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in table.items()})


def _wrong_with(key: str, value: object) -> str:
    if key == "size":
        fits = type(value) is int and 0 <= value < _LARGEST
        return "" if fits else f"is not a number of bytes below {_LARGEST}"
    if key == "platforms":
        fits = isinstance(value, list) and bool(value) and all(one in PLATFORMS for one in value)
        return "" if fits else f"is not a list of {', '.join(PLATFORMS)}"
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        return "is not one word"
    return {
        "sha256": "" if _SHA256.fullmatch(value) else "is not 64 hex digits",
        "diff_id": "" if _SHA256.fullmatch(value) else "is not 64 hex digits",
        "role": "" if value in {"base", "extra"} else "is neither base nor extra",
        "file": "leads out" if value.startswith("/") or ".." in value.split("/") else "",
    }.get(key, "")


def _damaged(why: str) -> ClaimError:
    return ClaimError(f"damaged: {why}", where=FILE, hint="Restore it, or run packager lock.")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say what differs between the inputs of a lock and those of now, a line each."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, list) and isinstance(after, list):
            lines += [f"{key}: {item} was added" for item in after if item not in before]
            lines += [f"{key}: {item} was removed" for item in before if item not in after]
        elif str(after).startswith("sha256:"):
            lines.append(f"{key} was changed")
        else:
            lines.append(f"{key}: {before} became {after}")
    return lines


def require_fresh(lock: Lock, project: Project, *, image_only: bool = False) -> None:
    """Refuse a lock that does not belong to the project as it is, or to this packager.

    Parameters
    ----------
    lock, project
        To compare.
    image_only : bool
        Leave the development environment out, which no image depends on.

    Raises
    ------
    ClaimError
        Lists what changed.
    """
    requirements = requirements_of(project)
    new, old = inputs_of(project, requirements), dict(lock.inputs)
    if image_only:
        for key in ("dev-dependencies", "requirements-dev.txt"):
            new.pop(key), old.pop(key, None)
    if lines := changes(old, new):
        raise ClaimError(
            "the lock is stale: " + "; ".join(lines), where=FILE, hint="packager lock renews it."
        )
    _require_same_tool(lock)
    _require_pinned(lock, requirements["requirements.txt"])
    _require_kept(lock, project.root)


def for_image(project: Project, platform: str | None) -> Lock:
    """Read the lock that an image is made from.

    Parameters
    ----------
    project : Project
        Whose lock, and what it must belong to.
    platform : str, optional
        One that it must be made for.

    Raises
    ------
    ClaimError
        As `read` and `require_fresh`.
    UsageError
        When it was made for other platforms.
    """
    lock = read(project.root)
    require_fresh(lock, project, image_only=True)
    if platform and platform not in lock.platforms:
        raise UsageError(
            f"the lock is for {', '.join(lock.platforms)}, not for {platform}",
            where="pyproject.toml: tool.packager.platforms",
        )
    return lock


def check(project: Project) -> None:
    """Check, offline, that the locks belong to the project as it is.

    Raises
    ------
    ClaimError
        When a lock is missing or stale; says what changed.
    """
    require_fresh(read(project.root), project)


def _require_same_tool(lock: Lock) -> None:
    lines = changes(_deciding(lock.made_by), _deciding(tool_facts()))
    if not lines:
        return
    maker = lock.made_by.get("packager")
    same = maker == __version__
    raise ClaimError(
        f"made by {'another build of ' if same else ''}packager {maker}; this one would "
        f"build something else ({'; '.join(lines)})",
        where=FILE,
        hint=("Run" if same else f"Install model-packager=={maker}, or run")
        + " packager lock to move on.",
    )


def _require_pinned(lock: Lock, requirements: bytes) -> None:
    """Hold the lock against requirements.txt, where a reader would look for the hashes."""
    pins = {pin.name: pin for pin in read_requirements(requirements, "requirements.txt")}
    for wheel in lock.wheels:
        pin = pins.get(wheel.name)
        if pin is None or wheel.sha256 not in pin.hashes:
            raise ClaimError(
                f"sha256 {wheel.sha256} of {wheel.file} is not among those of requirements.txt",
                where=FILE,
                hint="One of the two was edited: restore them, or run packager lock.",
            )


def _require_kept(lock: Lock, root: Path) -> None:
    """Refuse a wheel in the repository that is not the one that was built."""
    for wheel in lock.built_wheels:
        path = root / BUILT / wheel.file
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != wheel.sha256:
            raise ClaimError(
                f"is not the wheel that was built, whose sha256 is {wheel.sha256}",
                where=f"{BUILT}/{wheel.file}",
                hint="Restore it; packager lock builds it again if it is not there.",
            )


def _deciding(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key != "packager"}


def settled(project: Project, lock: Lock) -> Project:
    """Give a project of whose base it is known what it offers: an image's, the lock knows.

    Raises
    ------
    ClaimError
        When the lock is for another base.
    """
    if project.target:
        return project
    for pins in lock.images.values():  # they offer the same, or would not be locked
        return replace(project, target=pins.target)
    raise ClaimError(
        f"the lock is stale: base: {lock.inputs['base']} became {project.base}",
        where=FILE,
        hint="packager lock renews it.",
    )


def image_inputs(lock: Lock, platform: str) -> list[Any]:
    """Collect the part of a lock that one platform's image is made of.

    The compressor is no part of it: an image ID does not depend on one.
    """
    debs = [_pinned(package) for package in lock.debs_of(platform)]
    image = lock.images.get(platform)
    return [
        [_pinned(wheel) for wheel in lock.wheels_for(platform)],
        asdict(image) if image else debs,
        lock.inputs["base"],
        {key: value for key, value in _deciding(lock.made_by).items() if key != "compressor"},
        *([debs] if image and debs else []),
    ]


def _pinned(pin: WheelPin | DebPin) -> dict[str, Any]:
    """Give all that a pin says of its file: names and sizes show in an image, too."""
    return {key: value for key, value in asdict(pin).items() if key != "platforms"}
