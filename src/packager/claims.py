"""What a project claims of its model, held against its files before anything is made."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from packager import citation
from packager.errors import ClaimError, UsageError
from packager.files import canonical_json
from packager.layers import tar, tree
from packager.lock import lockfile
from packager.lock.lockfile import Lock
from packager.project import HERE, SDIST, Project, is_folder
from packager.runtime.packager_runtime.facts import InputError, Recording
from packager.runtime.packager_runtime.facts import read_examples as read_recording
from packager.runtime.packager_runtime.tables import check
from packager.runtime.packager_runtime.trees import is_lightgbm

__all__ = [
    "MOST_CARD",
    "Examples",
    "card_text",
    "check_predictor",
    "check_sources",
    "cite",
    "read_examples",
]

MOST_CARD = 1 << 20
"""Bytes of a card: a long one has a fiftieth of that."""

_FORMATS = {".skops", ".onnx", ".json", ".ubj"}
# What moves a cursor or rings a bell, where a card is printed to a terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PICKLES = {".joblib", ".pkl", ".pickle", ".pt2"}


@dataclass(frozen=True, slots=True)
class Examples:
    """The recorded examples of a project, as far as building needs to know them."""

    data: bytes
    rows: int
    license: str
    source: str


def read_examples(project: Project, model: str, path: Path | None = None) -> Examples | None:
    """Read the recorded examples and hold them against the model.

    Parameters
    ----------
    project : Project
        Names the file.
    model : str
        The model's digest.
    path : Path, optional
        Read in place of the project's own file.

    Raises
    ------
    UsageError
        When the file is missing or damaged.
    ClaimError
        When they were recorded with another model.
    """
    if project.examples is None:
        return None
    where = str(project.examples)
    own = project.root / project.examples
    path = path or own
    if not path.exists():
        raise UsageError(
            f"{where} does not exist",
            where="pyproject.toml: tool.packager.examples",
            hint="Train and export the model first, or correct the path.",
        )
    if path == own and not path.resolve().is_relative_to(project.root):
        raise UsageError(
            f"{where} is a link out of the repository",
            where="pyproject.toml: tool.packager.examples",
        )
    try:
        examples = read_recording(path)
        _check_values(examples)
        data = canonical_json(json.loads(path.read_bytes())) + b"\n"
    except (InputError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UsageError(
            f"not a file of recorded examples: {reason}",
            where=where,
            hint="Train and export again; in JSON a missing value is null, never NaN.",
        ) from None
    if examples.model != model:
        raise ClaimError(
            f"is not the model that the examples were recorded with (recorded {examples.model}, "
            f"found {model})",
            where=str(project.model),
            hint=f"Train and export again, or restore {project.model} and {where}.",
        )
    return Examples(data, examples.rows, examples.license, examples.source)


def _check_values(examples: Recording) -> None:
    """Hold every recorded value against its datatype and shape, as the image would."""
    for what, columns, signature in (
        ("inputs", examples.given, examples.inputs),
        # What a model gives may be no finite number, and that is recorded as null.
        ("outputs", examples.expected, [replace(one, nullable=True) for one in examples.outputs]),
    ):
        try:
            check(columns, signature)
        except InputError as error:
            raise InputError(f"{what}: {error}") from None


def cite(data: bytes) -> bytes:
    """Write a citation file (`tree.CITATION`) as a BibTeX entry.

    Raises
    ------
    UsageError
        When the file is damaged.
    """
    import yaml

    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).partition("\n")[0]
        raise UsageError(f"is no YAML: {first}", where=tree.CITATION) from None
    if not isinstance(found, dict):
        raise UsageError("is no citation file", where=tree.CITATION)
    return f"{citation.bibtex(found)}\n".encode()


def check_sources(project: Project, lock: Lock, scratch: tree.Scratch = TemporaryDirectory) -> None:
    """Refuse a lock whose wheels were built from a folder of the repository that has changed.

    Parameters
    ----------
    project, lock
        To compare.
    scratch : callable, optional
        As for `tree.own_files`.

    Raises
    ------
    ClaimError
        Names the folder.
    """
    for built in lock.built:
        folder = project.build_from.get(built.name, SDIST)
        if not is_folder(folder):
            continue
        digest = hashlib.sha256()
        for chunk in tar.chunks(tree.source_entries(project, built.name, folder, scratch)):
            digest.update(chunk)
        if digest.hexdigest() != built.sha256:
            raise ClaimError(
                f"the lock is stale: {'the code' if folder == HERE else folder} is not what "
                f"{built.name} was built from",
                where=lockfile.FILE,
                hint="packager lock builds it again.",
            )


def card_text(data: bytes, where: str) -> str:
    """Decode a card.

    Raises
    ------
    UsageError
        When it is no text, or too much of it.
    """
    if len(data) > MOST_CARD:
        raise UsageError(
            f"has more than {MOST_CARD} bytes, which nobody reads as a card", where=where
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"is no text in UTF-8: {error}", where=where) from None
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise UsageError(f"holds the control character {found[0]!a}", where=f"{where}:{line}")
    return text


def check_predictor(project: Project, code: list[tuple[str, bytes]]) -> None:
    """Refuse a predictor that is not there before minutes are spent on its image.

    What a dependency holds, only the smoke test can tell.
    """
    if project.predictor is None:
        _check_loader(project)
        return
    module, _, function = project.predictor.partition(":")
    where = "pyproject.toml: tool.packager.predictor"
    own = {tree.importable(project, name): (name, data) for name, data in code}
    path = module.replace(".", "/")
    file = next((own[one] for one in (f"{path}/__init__.py", f"{path}.py") if one in own), None)
    if file is None:
        _refuse_misspelt(module, own, where)
        return
    if not _may_define(file[1], function):
        raise UsageError(f"{file[0]} defines no {function}", where=where)


def _refuse_misspelt(module: str, own: Mapping[str, object], where: str) -> None:
    """Refuse a module of a package that is the project's own, or that lacks its package."""
    top, path = module.partition(".")[0], module.replace(".", "/")
    inner = [name for name in sorted(own) if name.endswith((f"/{path}.py", f"/{path}/__init__.py"))]
    if inner:
        full = inner[0].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        raise UsageError(f"no module {module}", where=where, hint=f"Did you mean {full}?")
    if f"{top}/__init__.py" in own and not any(name.startswith(f"{path}.") for name in own):
        raise UsageError(
            f"no module {module} in the code", where=where, hint="It is written module:function."
        )


def _may_define(data: bytes, name: str) -> bool:
    """Tell whether a module could have an attribute, going by its text."""
    try:
        names = set(_bound(ast.parse(data)))
    except (SyntaxError, ValueError, RecursionError):
        return True  # the image's Python may be newer than this one
    return bool({name, "*", "__getattr__"} & names)


def _bound(node: ast.AST) -> Iterator[str]:
    """List the names that a module binds at its top level, inside its branches too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child.name
            continue
        if isinstance(child, ast.alias):
            yield child.asname or child.name.partition(".")[0]
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        yield from _bound(child)


def _check_loader(project: Project) -> None:
    """Refuse a model that the runtime has no loader for (`packager_runtime.loaders`)."""
    suffix = project.model.suffix.lower()
    if suffix in _PICKLES and not project.trust_pickle:
        raise UsageError(
            f"{project.model} is or holds a pickle, and reading one runs any code that is in it",
            where="pyproject.toml: tool.packager.trust-pickle",
            hint="Export to skops or ONNX instead, or say trust-pickle = true.",
        )
    text = suffix == ".txt" and is_lightgbm(project.root / project.model)
    if suffix not in _PICKLES | _FORMATS and not text:
        raise UsageError(
            f"there is no built-in loader for {suffix or project.model}",
            where="pyproject.toml: tool.packager.predictor",
            hint='Name a function of yours that loads it: predictor = "module:function".',
        )
