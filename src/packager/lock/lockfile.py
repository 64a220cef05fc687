"""`packager.lock`: every byte that will enter the image, by name, size and hash; never a place."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tomlkit

from packager import __version__, formats, runtime
from packager.errors import ClaimError
from packager.files import replace_file
from packager.lock.debian import DebianPins, DebPin
from packager.lock.resolve import read_requirements
from packager.project import Project

__all__ = [
    "FILE",
    "REQUIREMENTS",
    "Lock",
    "WheelPin",
    "changes",
    "inputs_of",
    "read",
    "require_fresh",
    "write",
]

FILE = "packager.lock"
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")
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
class Lock:
    """What `packager.lock` says.

    `inputs` is what the lock was resolved from, so that a stale one can say what changed.
    `debian` holds the base's packages for each platform.
    """

    inputs: Mapping[str, Any]
    wheels: tuple[WheelPin, ...]
    debian: Mapping[str, DebianPins]
    made_by: Mapping[str, Any]

    def wheels_for(self, platform: str) -> list[WheelPin]:
        """List the wheels that go into the image of one platform."""
        return [wheel for wheel in self.wheels if platform in wheel.platforms]


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
        Its declared dependencies, base and platforms.
    requirements : mapping of str to bytes
        The pinned requirements files by name; a missing one counts as empty, so that it
        shows as a difference.
    """
    return {
        "base": project.base,
        "requires-python": project.requires_python,
        "platforms": list(project.platforms),
        "os-packages": list(project.os_packages),
        "dependencies": sorted(project.dependencies),
        "dev-dependencies": sorted(project.dev_dependencies),
        **{name: _text_digest(requirements.get(name, b"")) for name in REQUIREMENTS},
    }


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
    document = tomlkit.document()
    document.add(tomlkit.comment(_HEADER))
    body: dict[str, Any] = {
        "version": formats.LOCK,
        "made-by": dict(lock.made_by),
        "inputs": dict(lock.inputs),
        "wheel": [_plain(asdict(wheel)) for wheel in lock.wheels],
        "debian": [
            {
                "platform": platform,
                "suite": pins.suite,
                "architecture": pins.architecture,
                "timestamp": pins.timestamp,
                "package": [_plain(asdict(pin)) for pin in pins.packages],
            }
            for platform, pins in lock.debian.items()
        ],
    }
    for key, value in body.items():
        document.add(key, tomlkit.item(value))
    replace_file(root / FILE, tomlkit.dumps(document).encode())


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return {key: list(item) if isinstance(item, tuple) else item for key, item in value.items()}


def read(root: Path) -> Lock:
    """Read the lock.

    Raises
    ------
    ClaimError
        When there is none, or it is damaged, or of another format version; names the key.
    """
    path = root / FILE
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ClaimError(
            "there is no lock yet", where=FILE, hint="packager lock makes it."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _damaged(f"not valid TOML: {error}") from None
    if document.get("version") != formats.LOCK:
        raise ClaimError(
            f"format version {document.get('version')!r}, this packager reads {formats.LOCK}",
            where=FILE,
            hint=f"It was written by packager {document.get('made-by', {}).get('packager', '?')}.",
        )
    try:
        return Lock(
            inputs=document["inputs"],
            wheels=tuple(_pin(WheelPin, wheel) for wheel in document.get("wheel", [])),
            debian={entry["platform"]: _debian(entry) for entry in document["debian"]},
            made_by=document["made-by"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from None


def _debian(entry: Mapping[str, Any]) -> DebianPins:
    packages = tuple(_pin(DebPin, package) for package in entry["package"])
    return DebianPins(entry["suite"], entry["architecture"], entry["timestamp"], packages)


def _pin(kind: type[Any], table: Mapping[str, Any]) -> Any:
    names = {field.name for field in fields(kind)}
    if set(table) != names:
        raise ValueError(f"keys {sorted(table)} where {sorted(names)} are expected")
    digest = table["sha256"]
    if len(digest) != len(hashlib.sha256().hexdigest()) or set(digest) - set("0123456789abcdef"):
        raise ValueError(f"{table['name']}: sha256 is not 64 hex digits")
    values = {key: tuple(item) if isinstance(item, list) else item for key, item in table.items()}
    return kind(**values)


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
        hint=("" if same else f"Install model-packager=={maker}, or ")
        + "run packager lock to move on.",
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


def _deciding(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key != "packager"}


def image_inputs(lock: Lock, platform: str) -> list[Any]:
    """Collect the part of a lock that one platform's image is made of.

    The compressor is no part of it: an image ID does not depend on one.
    """
    return [
        [[wheel.file, wheel.sha256] for wheel in lock.wheels_for(platform)],
        [[pin.name, pin.sha256, pin.role] for pin in lock.debian[platform].packages],
        lock.inputs["base"],
        {key: value for key, value in _deciding(lock.made_by).items() if key != "compressor"},
    ]
