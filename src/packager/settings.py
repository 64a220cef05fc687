"""The keys of `pyproject.toml` that packager reads: what each may hold, and what is said if not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_snake

from packager import __version__
from packager.errors import ClaimError, UsageError
from packager.project import BASES, GIT, HERE, SDIST, transport
from packager.reference import Reference

__all__ = ["check"]

_FILE = "pyproject.toml"
_LONGEST_NAME = 255  # bytes, on every file system that matters


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or not path.parts:
        raise ValueError("must be a path inside the repository, with '/' between its parts")
    if not text.isprintable() or max(len(part.encode()) for part in path.parts) > _LONGEST_NAME:
        raise ValueError("must be a path that a file system can hold, on one line")
    return text


def _origin(text: str) -> str:
    """Take what a wheel may be built from: an index's sdist, a commit, a folder, the project."""
    if text in {SDIST, HERE}:
        return text
    if not text.startswith(GIT):
        return _inside(text)
    address, _, commit = text.removeprefix(GIT).rpartition("@")
    if not address.startswith("ssh://"):  # where a user's name is no secret
        _no_credentials(address)
    if not address or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", commit):
        raise ValueError(
            "must end in @ and a whole commit, 40 hexadecimal digits: branches and tags move "
            "(git ls-remote ADDRESS lists the commits that they are at)"
        )
    return text


def _no_credentials(text: str) -> str:
    if "@" in urlsplit(text).netloc:
        raise ValueError("must not hold credentials: put them into netrc or pip's settings")
    return text


def _version(text: str) -> str:
    try:
        return str(Version(text))
    except InvalidVersion:
        raise ValueError(f"{text!r} is no version (PEP 440)") from None


def _license_text(value: object) -> object:
    """Take the tables of PEP 621 too; a file's text says nothing in one line."""
    match value:
        case {"text": str(text), **rest} if not rest:
            return text
        case {"file": str(), **rest} if not rest:
            return ""
    return value


def _line(text: str) -> str:
    return " ".join(text.split())


def _written(pattern: str, how: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is not {how}")
        return text

    return AfterValidator(check)


# https://packaging.python.org/en/latest/specifications/entry-points/
_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_EXTRAS = r"( *\[[^\r\n]*\])?"
_Command = Annotated[str, _written(r"\w[\w.-]*", "a name for a command")]
_Function = Annotated[
    str, _written(rf"{_DOTTED} *: *{_DOTTED}{_EXTRAS}", "written module:function")
]
_Group = Annotated[
    str,
    _written(
        r"(?!(console|gui)_scripts$)\w+(\.\w+)*",
        "a name for a group; commands go into [project.scripts]",
    ),
]
_Point = Annotated[str, _written(r"[^\s\[=][^=\r\n]*", "a name for an entry point")]
_Object = Annotated[
    str,
    _written(rf"{_DOTTED}( *: *{_DOTTED})?{_EXTRAS}", "written module or module:object"),
]
_Name = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"),
    AfterValidator(canonicalize_name),
]
_Path = Annotated[str, AfterValidator(_inside)]
_Url = Annotated[str, AfterValidator(_no_credentials)]


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


class _Project(_Table):
    """The keys of `[project]` that matter here; the others are somebody else's."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    version: Annotated[str, AfterValidator(_version)]
    description: str = ""
    license: Annotated[str, BeforeValidator(_license_text), AfterValidator(_line)] = ""
    requires_python: Annotated[str, AfterValidator(_line)] = ">=3.11"
    dependencies: list[str] = []
    optional_dependencies: dict[str, list[str]] = {}
    scripts: dict[_Command, _Function] = {}
    gui_scripts: dict[_Command, _Function] = {}
    entry_points: dict[_Group, dict[_Point, _Object]] = {}
    urls: dict[str, str] = {}


class _Dynamic(_Table):
    """The keys of `[project]` that a build backend would fill in."""

    model_config = ConfigDict(extra="ignore")

    dynamic: list[str] = []


class _Settings(_Table):
    """The keys of `[tool.packager]`, all of them."""

    requires: str = ""
    base: str = "debian:bookworm"
    platforms: list[Literal["linux/amd64", "linux/arm64"]] = Field(["linux/amd64"], min_length=1)
    os_packages: list[str] = []
    build_from: dict[_Name, Annotated[str, AfterValidator(_origin)]] = {}
    build_packages: list[str] = []
    model: _Path
    examples: _Path | None = None
    card: _Path | None = None
    predictor: str | None = Field(None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    code: list[_Path] | None = None
    trust_pickle: bool = False
    bytecode: bool = True
    serve: bool = False
    resolver: Literal["pip-tools", "uv"] | None = None
    extra_index_urls: list[_Url] = []
    find_links: list[_Url] = []
    debian_mirror: _Url = ""


_T = TypeVar("_T", bound=_Table)


def check(document: Mapping[str, Any]) -> dict[str, Any]:
    """Check the keys of a ``pyproject.toml`` that packager reads.

    Parameters
    ----------
    document : mapping
        The whole of it, as `tomllib` reads it.

    Returns
    -------
    dict
        Ready for JSON: the keys of `[tool.packager]`, and of `[project]` those that matter.

    Raises
    ------
    UsageError
        Names the key, and what to do.
    ClaimError
        When the repository expects another version of packager.
    """
    tool = _table(document, "tool")
    if "packager" not in tool:
        raise UsageError(
            "there is no [tool.packager] table", where=_FILE, hint="packager init writes one."
        )
    settings = _validate(_Settings, tool["packager"], "tool.packager")
    named = _table(document, "project")
    dynamic = _validate(_Dynamic, named, "project").dynamic
    for key in ("version", "dependencies", "description", "scripts", "entry-points"):
        if key in dynamic:
            raise UsageError(
                f"{key} is dynamic, an image needs it written down",
                where=f"{_FILE}: project.dynamic",
                hint=f"Set a static {key} in [project].",
            )
    project = _validate(_Project, named, "project")
    _check_version(settings.requires)
    _check_base(settings)
    _check_python(settings.base, project.requires_python)
    _check_own(settings.build_from, canonicalize_name(project.name))
    for key, names in [
        ("dependencies", project.dependencies),
        *((f"optional-dependencies.{k}", v) for k, v in project.optional_dependencies.items()),
    ]:
        _check_requirements(key, names)
    return settings.model_dump(by_alias=True) | {
        "name": project.name,
        "version": project.version,
        "description": project.description,
        "license": project.license,
        "requires-python": project.requires_python,
        "dependencies": project.dependencies,
        "dev-dependencies": project.optional_dependencies.get("dev", []),
        "entry-points": _entry_points(project),
        "source": _source(project.urls),
    }


def _table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise UsageError("must be a table", where=f"{_FILE}: {key}")
    return table


def _validate(table: type[_T], data: object, prefix: str) -> _T:
    try:
        return table.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            _explain(first["type"], first["msg"]),
            where=f"{_FILE}: {prefix}.{key}" if key else f"{_FILE}: {prefix}",
            hint=_suggest(table, key) if first["type"] == "extra_forbidden" else "",
        ) from None


def _explain(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "this key is missing"
    if kind == "model_type":
        return "must be a table"
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _suggest(table: type[_Table], key: str) -> str:
    known = [str(field.alias) for field in table.model_fields.values()]
    close = difflib.get_close_matches(to_snake(key).replace("_", "-"), known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(known)}."


def _check_version(requires: str) -> None:
    where = f"{_FILE}: tool.packager.requires"
    if not _allows(requires, __version__, where):
        raise ClaimError(
            f"this repository expects packager {requires}, this is {__version__}",
            where=where,
            hint=f"pip install 'model-packager{requires}'",
        )


def _allows(specifiers: str, version: str, where: str) -> bool:
    try:
        return SpecifierSet(specifiers).contains(version, prereleases=True)
    except ValueError as error:  # no specifiers, or more digits than a number may have
        raise UsageError(str(error)[:200], where=where) from None


def _check_base(settings: _Settings) -> None:
    """Let a base be one that is assembled, or an image."""
    if settings.base in BASES:
        return
    where = f"{_FILE}: tool.packager.base"
    bases = f"Bases that can be assembled: {', '.join(BASES)}."
    how, place = transport(settings.base)
    if how:
        _check_local(how, place, where)
    elif settings.base.startswith("debian:"):  # images of these names have no Python
        raise UsageError(f"unknown base {settings.base!r}", where=where, hint=bases)
    else:
        name, at, digest = settings.base.partition("@")
        Reference.parse(name, where=where)
        if at and not re.fullmatch("sha256:[0-9a-f]{64}", digest):
            raise UsageError(f"{digest!r} is no digest", where=where, hint=bases)
    if settings.build_packages:
        raise UsageError(
            f"build-packages are for bases that are assembled, and {settings.base} is an image",
            where=f"{_FILE}: tool.packager.build-packages",
            hint=f"{bases}  Or use an image that has the packages.",
        )


def _check_local(how: str, place: str, where: str) -> None:
    """Let a base in no registry be named in the engine, or lie in the repository."""
    if how == "docker-daemon":
        Reference.parse(place, where=where)
        return
    try:
        _inside(place)
    except ValueError as error:
        raise UsageError(f"{place!r} {error}", where=where) from None


def _check_python(base: str, requires_python: str) -> None:
    if base not in BASES:
        return  # its Python is seen when it is locked
    where = f"{_FILE}: project.requires-python"
    if not _allows(requires_python, BASES[base], where):
        others = [f"{name} has {version}" for name, version in BASES.items()]
        fitting = [name for name in BASES if _allows(requires_python, BASES[name], where)]
        raise UsageError(
            f"{requires_python} leaves out Python {BASES[base]}, which {base} has",
            where=where,
            hint=(
                f"Set base = {fitting[0]!r} in [tool.packager]."
                if fitting
                else f"No base offers such a Python: {', '.join(others)}."
            ),
        )


def _check_own(build_from: Mapping[str, str], own: str) -> None:
    for name, origin in build_from.items():
        if (origin == HERE) != (name == own):
            raise UsageError(
                f'"{HERE}" is what {own} is built from, this project itself, and nothing else',
                where=f"{_FILE}: tool.packager.build-from.{name}",
                hint="Another package needs a folder of its own, with a pyproject.toml.",
            )


def _check_requirements(key: str, names: list[str]) -> None:
    for name in names:
        try:
            requirement = Requirement(name)
        except (InvalidRequirement, RecursionError) as error:
            what = f"{name[:80]!r} is no requirement: {str(error).splitlines()[0]}"
            raise UsageError(what, where=f"{_FILE}: project.{key}") from None
        if requirement.url and key == "dependencies":
            raise UsageError(
                f"{requirement.name} is a direct reference, which cannot be locked by hash",
                where=f"{_FILE}: project.{key}",
                hint=f'Write "{requirement.name}" there, and in [tool.packager.build-from] '
                f'{requirement.name} = "{GIT}ADDRESS@COMMIT", or a folder of the repository: then '
                "its wheel is built.  A wheel goes into a folder that find-links names.",
            )


def _entry_points(project: _Project) -> dict[str, dict[str, str]]:
    groups = {"console_scripts": project.scripts, "gui_scripts": project.gui_scripts}
    return {group: names for group, names in {**groups, **project.entry_points}.items() if names}


def _source(urls: Mapping[str, str]) -> str:
    """Pick the source address by the well-known labels of PEP 753."""
    known = {canonicalize_name(label).replace("-", ""): url for label, url in urls.items()}
    labels = ("source", "repository", "sourcecode", "github", "homepage")
    return next((known[label] for label in labels if label in known), "")
