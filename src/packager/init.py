"""Adopt a repository that has a model and no template: find out, and write `[tool.packager]`."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from packager import __version__
from packager.errors import PackagerError, UsageError
from packager.files import replace_file
from packager.project import BASES, load, minor
from packager.runtime.packager_runtime.facts import InputError, read_examples

__all__ = ["Finding", "InitReport", "adopt", "render"]

_FILE = "pyproject.toml"
_PICKLES = {".joblib", ".pkl", ".pickle"}
_BUILT_IN = {".skops", ".onnx", *_PICKLES}
_NEEDS = {".skops": "skops", ".onnx": "onnxruntime"}
_SKIPPED = {"__pycache__", "build", "dist", "docs", "node_modules", "site-packages", "tests"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found out: what, where, and how sure that is."""

    what: str
    where: str
    sure: str


@dataclass(frozen=True, slots=True)
class InitReport:
    """What adopting found and wrote.

    Attributes
    ----------
    findings : tuple of Finding
        What went into the file.
    remarks : tuple of str
        What the author has to look at.
    written : tuple of Path
        Files that were written.
    """

    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]
    written: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Loader:
    """A module that looks like a predictor, and the path of it that has to enter the image."""

    predictor: str
    code: str


@dataclass(frozen=True, slots=True)
class _Code:
    """The repository's Python, parsed and never run; `functions` are plain ones that predict."""

    loaders: tuple[_Loader, ...]
    functions: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def loader(self) -> _Loader | None:
        """The predictor, if there is no doubt which."""
        return self.loaders[0] if len(self.loaders) == 1 else None

    @property
    def paths(self) -> list[str]:
        """What of it enters the image."""
        return sorted({*self.packages, *([self.loader.code] if self.loader else [])})


def adopt(root: Path, *, model: str | None = None) -> InitReport:
    """Write `[tool.packager]`, and what `[project]` lacks, into ``pyproject.toml``.

    Parameters
    ----------
    root : Path
        The repository.
    model : str, optional
        Path of the model below `root`; needed only where there are several.

    Returns
    -------
    InitReport
        What was found and what to look at.

    Raises
    ------
    UsageError
        When the table is there already, when there is no model or more than one, or when
        ``pyproject.toml`` cannot be read.
    """
    path = root / _FILE
    text = _read(path)
    document: Any = tomlkit.parse(text)
    _refuse_adopted(document)
    remarks: list[str] = []
    chosen = _model(root, model)
    code = _code(root)
    examples = _examples(root)
    project = document.setdefault("project", tomlkit.table())
    findings = [chosen, *_complete(project, root, remarks)]
    base = _base(project)
    findings += [base, *_own_code(code), *([examples] if examples else [])]
    table = _table(chosen.where, base.where, code, examples)
    replace_file(path, _joined(tomlkit.dumps(document), table).encode())
    if Path(chosen.where).suffix.lower() in _PICKLES:
        remarks.append(
            f"{chosen.where} is a pickle, which runs code when it is loaded: skops is safer"
        )
    remarks += _about(root, chosen.where, code)
    return InitReport(tuple(findings), tuple(remarks), (path,))


def render(report: InitReport) -> str:
    """Set a report as text for a person.

    Parameters
    ----------
    report : InitReport
        As `adopt` returns it.

    Returns
    -------
    str
        Lines without an end after the last.
    """
    rows = [(found.what, found.where, found.sure) for found in report.findings]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"wrote {path.name}" for path in report.written]
    lines += [f"  {what:{widths[0]}}  {where:{widths[1]}}  {sure}" for what, where, sure in rows]
    lines += [f"look at: {remark}" for remark in report.remarks]
    return "\n".join([*lines, "next: packager lock, then packager build"])


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8") if path.exists() else ""
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not valid TOML: {error}", where=str(path)) from None
    return text


def _refuse_adopted(document: Any) -> None:
    tool = document.get("tool", {})
    if "packager" in tool:
        raise UsageError(
            "there is a table [tool.packager] already",
            where=_FILE,
            hint="Change it by hand, or remove it and run packager init again.",
        )
    if "poetry" in tool and "project" not in document:
        raise UsageError(
            "dependencies are in [tool.poetry]; packager reads the standard [project]",
            where=_FILE,
            hint="Poetry 2 reads [project] as well: move name, version and dependencies there.",
        )


def _files(folder: Path) -> Iterator[Path]:
    """Walk the repository's own files, leaving out environments and what was generated."""
    for item in sorted(folder.iterdir()):
        if item.is_file():
            yield item
        elif item.is_dir() and not _is_skipped(item):
            yield from _files(item)


def _is_skipped(folder: Path) -> bool:
    if folder.is_symlink() or folder.name.startswith(".") or folder.name in _SKIPPED:
        return True
    return (folder / "pyvenv.cfg").exists() or (folder / "conda-meta").exists()


def _model(root: Path, named: str | None) -> Finding:
    if named is not None:
        path = (root / named).resolve()
        if not path.exists() or path == root or not path.is_relative_to(root):
            raise UsageError(f"{named} is no file or folder of this repository", where="--model")
        return Finding("model", path.relative_to(root).as_posix(), "as you said")
    files = [file for file in _files(root) if file.suffix.lower() in _BUILT_IN]
    # Data sets are pickled too, so a bare pickle counts only where there is nothing better.
    models = [file for file in files if file.suffix.lower() not in {".pkl", ".pickle"}] or files
    names = [file.relative_to(root).as_posix() for file in models]
    if not names:
        raise UsageError(
            f"no model here: no file ends in {', '.join(sorted(_BUILT_IN))}",
            where=str(root),
            hint="Train and export it first, or name a file or folder: packager init --model PATH",
        )
    if len(names) > 1:
        raise UsageError(
            f"{len(names)} files could be the model: {', '.join(names)}",
            where=str(root),
            hint=f"Say which: packager init --model {names[0]}",
        )
    return Finding("model", names[0], "the only one here")


def _examples(root: Path) -> Finding | None:
    found = [file for file in _files(root) if file.name == "examples.json"]
    if len(found) != 1:
        return None
    try:
        read_examples(found[0])
    except InputError:
        return None
    return Finding("examples", found[0].relative_to(root).as_posix(), "the only recorded ones")


def _complete(project: Any, root: Path, remarks: list[str]) -> list[Finding]:
    """Fill in the keys that an image needs, as far as they are neither there nor dynamic."""
    findings = []
    dynamic = project.get("dynamic", [])
    if "dependencies" in dynamic:
        remarks.append("project.dependencies is dynamic: packager reads only what stands there")
    for key, make in (
        ("name", _name),
        ("version", _version),
        ("requires-python", _requires_python),
        ("dependencies", _dependencies),
    ):
        if key not in project and key not in dynamic:
            value, finding = make(root, remarks)
            project[key] = value
            findings.append(finding)
    return findings


def _name(root: Path, _: list[str]) -> tuple[str, Finding]:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.name).strip("-._") or "model"
    return name, Finding("name", name, "from the folder")


def _version(_root: Path, _: list[str]) -> tuple[str, Finding]:
    return "0.1.0", Finding("version", "0.1.0", "a start")


def _requires_python(root: Path, _: list[str]) -> tuple[str, Finding]:
    pinned = root / ".python-version"
    wish = pinned.read_text("utf-8").strip() if pinned.is_file() else ""
    for version in map(minor, BASES.values()):
        if f"{wish}.".startswith(f"{version}."):
            return f">={version}", Finding(
                "requires-python", f">={version}", "from .python-version"
            )
    lowest = minor(next(iter(BASES.values())))
    return f">={lowest}", Finding("requires-python", f">={lowest}", "the default base's")


def _dependencies(root: Path, remarks: list[str]) -> tuple[Any, Finding]:
    array = tomlkit.array()
    for name in ("requirements.in", "requirements.txt"):
        if (root / name).is_file():
            kept, left_out = _requirements(root / name)
            array.extend(kept)
            array.multiline(bool(kept))
            remarks += [f"{name}, {what}: left out of project.dependencies" for what in left_out]
            if left_out:
                remarks.append(
                    "of a folder or a commit, project.dependencies takes the name, and "
                    "[tool.packager.build-from] what its wheel is built from"
                )
            remarks.append("packager lock writes requirements.txt anew from project.dependencies")
            return array, Finding("dependencies", f"{len(kept)}", f"from {name}")
    remarks.append("project.dependencies is empty: list what the model needs to predict")
    return array, Finding("dependencies", "0", "no requirements.txt")


def _requirements(path: Path) -> tuple[list[str], list[str]]:
    kept, left_out = [], []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        # Options may hold credentials, so what is left out is named by its line alone.
        wanted = re.sub(r"(^|\s)#.*|\s+--?[a-z].*|\\$", "", line).strip()
        if not wanted or wanted.startswith("--hash"):
            continue
        try:
            requirement = Requirement(wanted)
        except InvalidRequirement:
            left_out.append(f"line {number}")
            continue
        if requirement.url:
            left_out.append(f"line {number} ({requirement.name})")
        else:
            kept.append(wanted)
    return kept, left_out


def _base(project: Any) -> Finding:
    wish = str(project.get("requires-python", ""))
    try:
        wanted = SpecifierSet(wish)
    except InvalidSpecifier as error:
        raise UsageError(str(error), where=f"{_FILE}: project.requires-python") from None
    default = next(iter(BASES))
    fitting = [base for base, version in BASES.items() if wanted.contains(version)]
    if not fitting:
        return Finding("base", default, f"though {wish} fits none")
    return Finding("base", fitting[0], f"has Python {BASES[fitting[0]]}")


def _code(root: Path) -> _Code:
    loaders, functions = [], []
    for path in _files(root):
        if path.suffix != ".py" or path.name.startswith(("test_", "conftest")):
            continue
        has_loader, line = _shape(path)
        if has_loader:
            loaders.append(_importable(root, path))
        if line:
            functions.append(f"{path.relative_to(root).as_posix()}, line {line}")
    packages = list((root / "src").glob("*/__init__.py")) or [
        path for path in root.glob("*/__init__.py") if not _is_skipped(path.parent)
    ]
    names = sorted(path.parent.relative_to(root).as_posix() for path in packages)
    return _Code(tuple(loaders), tuple(functions), tuple(names))


def _shape(path: Path) -> tuple[bool, int]:
    """Look for a function load beside anything with a predict; and for a plain predict's line."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return False, 0
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    top = {node.name: node for node in functions if node in tree.body}
    inner = {node.name for node in functions if node not in tree.body}
    line = top["predict"].lineno if "predict" in top else 0
    return "load" in top and "predict" in inner, line


def _importable(root: Path, path: Path) -> _Loader:
    parts = [] if path.stem == "__init__" else [path.stem]
    top = path
    while (top.parent / "__init__.py").is_file():
        top = top.parent
        parts.insert(0, top.name)
    return _Loader(f"{'.'.join(parts)}:load", top.relative_to(root).as_posix())


def _own_code(code: _Code) -> list[Finding]:
    found = [Finding("code", path, "enters the image") for path in code.paths]
    if code.loader:
        sure = "by its shape: load, and something with predict"
        return [Finding("predictor", code.loader.predictor, sure), *found]
    return found


def _table(model: str, base: str, code: _Code, examples: Finding | None) -> str:
    """Write the table as a person would, which a TOML writer cannot."""
    version = Version(__version__)
    next_one = f"{version.major}.{version.minor + 1}"
    lines = [
        "[tool.packager]",
        "# The versions of packager that know this table.",
        f'requires = ">={version.major}.{version.minor},<{next_one}"',
        f"# {'; '.join(f'{name} has Python {python}' for name, python in BASES.items())}.",
        f"base = {_quoted(base)}",
        'platforms = ["linux/amd64"]',
        '# More Debian packages, such as "libgomp1".',
        "os-packages = []",
        f"model = {_quoted(model)}",
    ]
    if Path(model).suffix.lower() in _PICKLES:
        lines += [
            "# Loading a pickle runs whatever code is in it: this says that you trust the file.",
            "# skops.io.dump writes a scikit-learn model to a .skops file, which needs no trust.",
            "trust-pickle = true",
        ]
    lines += _examples_lines(examples)
    lines += _predictor_lines(code)
    if code.paths:
        lines += [f"code = [{', '.join(map(_quoted, code.paths))}]"]
    lines += ["# With a web server from the lock, so that the model can be asked over HTTP."]
    lines += ["serve = true"]
    return "".join(f"{line}\n" for line in lines)


def _examples_lines(examples: Finding | None) -> list[str]:
    if examples:
        return [f"examples = {_quoted(examples.where)}"]
    return [
        "# Rows with the predictions recorded for them, which the image must repeat before it is",
        "# delivered: have your training write them (packager's template shows how), then say",
        '# examples = "models/examples.json"',
    ]


def _predictor_lines(code: _Code) -> list[str]:
    if code.loader:
        return [
            "# load(path) returns an object whose predict takes and returns a dict of columns.",
            f"predictor = {_quoted(code.loader.predictor)}",
        ]
    seen = [loader.predictor for loader in code.loaders]
    lines = [
        "# Where the model's format has no built-in loader, or to predict with code of your own:",
        "# a function load(path) whose object has a predict from a dict of columns to another.",
        f"# predictor = {_quoted((seen or ['package.module:load'])[0])}",
    ]
    lines += [f"# There is also {_quoted(name)}." for name in seen[1:]]
    lines += [
        f"# {_quoted(place)} has a function predict that it could call." for place in code.functions
    ]
    return lines


def _quoted(text: str) -> str:
    return tomlkit.string(text).as_string()


def _joined(document: str, table: str) -> str:
    newline = "\r\n" if "\r\n" in document else "\n"
    return document.rstrip() + newline * 2 + table.replace("\n", newline)


def _about(root: Path, model: str, code: _Code) -> list[str]:
    """Read what was written as every other command will, and say what is still missing."""
    try:
        project = load(root)
    except PackagerError as error:
        return [str(error)]
    suffix = Path(model).suffix.lower()
    if code.loader:
        return []
    if suffix not in _BUILT_IN:
        return [f"{model} has no built-in loader: write a predictor, as [tool.packager] says"]
    names = {canonicalize_name(Requirement(name).name) for name in project.dependencies}
    if (needed := _NEEDS.get(suffix)) and needed not in names:
        return [f"project.dependencies lacks {needed}, which loads {model}"]
    return []
