"""The project's own files as entries: its model, its code and card as git stores them."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from packager import git
from packager.errors import ClaimError, UsageError
from packager.layers.site import Site, record_file, record_row, script
from packager.layers.tar import Entry, data_entry, merge
from packager.project import HERE, Project

__all__ = [
    "CITATION",
    "ROOT",
    "Model",
    "Own",
    "code_entries",
    "importable",
    "own_files",
    "read_model",
    "source_entries",
]

ROOT = "srv/packager"
"""The image's folder for the model and the facts about it."""

CITATION = "CITATION.cff"
"""Where a repository says how it is cited (Citation File Format 1.2)."""

_MODEL = "pyproject.toml: tool.packager.model"
_CODE = "pyproject.toml: tool.packager.code"
_CARD = "pyproject.toml: tool.packager.card"
_LFS = b"version https://git-lfs.github.com/spec/"
_GENERATED = {"__pycache__"}

Scratch = Callable[[], AbstractContextManager[str | Path]]
"""Makes a folder that is gone after the ``with`` block."""

_Index = dict[str, list[bytes]]
"""By the path of a tracked file, what git's index says of it: more than once in a merge."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was read once.

    `digest` is ``"sha256:"`` and 64 hex digits: of a file its own, of a folder that of the
    sorted lines ``<sha256>  <path below it>``.  The entries know what they must yield when
    they are read again.
    """

    digest: str
    entries: tuple[Entry, ...]


def read_model(project: Project, digest: Callable[[Path], str] | None = None) -> Model:
    """Digest the model, file by file.

    Parameters
    ----------
    project : Project
        Names the model.
    digest : callable
        Gives the sha256 of a file, in hex, perhaps from memory.

    Raises
    ------
    UsageError
        When there is none, when a part of it lies outside the repository or has a name that
        cannot be written down, or when it is a git-LFS pointer instead of a model.
    """
    path = project.root / project.model
    files = _model_files(project, path)
    entries = [_model_entry(project, file, digest or _sha256_of) for file in files]
    if path.is_file():
        return Model(f"sha256:{entries[0].sha256}", tuple(entries))
    above = f"{ROOT}/model/{path.name}/"
    lines = sorted((entry.path.removeprefix(above), entry.sha256) for entry in entries)
    listing = "".join(f"{digest}  {name}\n" for name, digest in lines)
    return Model(f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}", tuple(entries))


def _model_files(project: Project, path: Path) -> list[Path]:
    if not path.exists():
        raise UsageError(
            f"{project.model} does not exist",
            where=_MODEL,
            hint="Train and export the model first, or correct the path.",
        )
    inner = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in [path, *inner]:
        _refuse_outside(project.root, file.relative_to(project.root).as_posix(), file, _MODEL)
    for link in inner:
        if link.is_symlink() and not link.is_file():
            name = link.relative_to(project.root).as_posix()
            raise UsageError(f"{name} is a link, but not to a file", where=_MODEL)
    found = [file for file in inner if file.is_file()]
    if not found:
        raise UsageError(f"{project.model} is an empty folder", where=_MODEL)
    return found


def _sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _model_entry(project: Project, path: Path, digest: Callable[[Path], str]) -> Entry:
    name = path.relative_to(project.root).as_posix()
    _refuse_name(name, _MODEL)
    with path.open("rb") as stream:
        _refuse_pointer(name, stream.read(len(_LFS)), _MODEL)
        size = os.fstat(stream.fileno()).st_size
    inner = path.relative_to((project.root / project.model).parent).as_posix()
    return Entry(
        f"{ROOT}/model/{inner}",
        size=size,
        open=partial(_open, path),
        owner=name,
        sha256=digest(path),
    )


def _open(path: Path) -> io.BufferedReader:
    return path.open("rb")


def _refuse_outside(root: Path, name: str, path: Path, where: str) -> None:
    if not path.resolve().is_relative_to(root):
        raise UsageError(f"{name} is a link out of the repository", where=where)


def _refuse_pointer(name: str, data: bytes, where: str) -> None:
    if data.startswith(_LFS):
        raise UsageError(
            f"{name} is a git-LFS pointer, not the file itself",
            where=where,
            hint="git lfs pull fetches what it points to.",
        )


def _refuse_name(name: str, where: str) -> None:
    # Bytes that are not UTF-8 arrive as lone surrogates.
    if re.search("[\r\n\ud800-\udfff]", name):
        raise UsageError(
            f"the file name {name!a} is not one line of UTF-8",
            where=where,
            hint="Rename the file.",
        )


@dataclass(frozen=True, slots=True)
class Own:
    """A project's own files, as git stores them.

    Attributes
    ----------
    code : list of (str, bytes)
        Sorted by path relative to the repository.
    card : bytes or None
        The model card, if one is to be in the image.
    citation : bytes or None
        `CITATION`, if the repository has it.
    """

    code: list[tuple[str, bytes]]
    card: bytes | None
    citation: bytes | None


def own_files(project: Project, scratch: Scratch = tempfile.TemporaryDirectory) -> Own:
    """Read code, card and citation as git stores them, whatever the user's and checkout's settings.

    In a git repository these are the files that git tracks, or would add going by
    ``.gitignore`` alone.  Line endings are what git stores going by ``.gitattributes`` alone;
    filters, which only a user's settings define, do not run.  Without git, from a source
    archive, they are the files that are there.

    Parameters
    ----------
    project : Project
        Names the code and the card.
    scratch : callable, optional
        Makes a folder that is gone after the ``with`` block; by default among the system's.

    Raises
    ------
    UsageError
        When there is no code or no card, though they are named, or a file lies outside the
        repository, is a git-LFS pointer, or has a name that cannot be written down.
    HostError
        When this is a git repository and git fails.
    """
    root, card = project.root, project.card
    named = {}
    if card is not None:
        if not (root / card).is_file():
            raise UsageError(f"{card} is no file", where=_CARD)
        named[str(card)] = _CARD
    if (root / CITATION).is_file():
        named[CITATION] = CITATION
    named |= {str(path): _CODE for path in project.code}
    stored = _stored_files(root, named, scratch) if named else {}
    code = [(name, data) for name, data in stored.items() if _is_below(name, project.code)]
    return Own(code, stored[str(card)] if card is not None else None, stored.get(CITATION))


def source_entries(
    project: Project, name: str, folder: str, scratch: Scratch = tempfile.TemporaryDirectory
) -> list[Entry]:
    """Read a folder that a wheel is built from, by the rules that `own_files` goes by.

    Parameters
    ----------
    project : Project
        In whose repository it is.
    name : str
        What is built from it.
    folder : str
        Its path; `HERE` for the project itself, which is built from what `code` names.
    scratch : callable, optional
        As for `own_files`.

    Returns
    -------
    list of Entry
        In order, below ``source/``.

    Raises
    ------
    UsageError, HostError
        As for `own_files`.
    """
    where = f"pyproject.toml: tool.packager.build-from.{name}"
    named = ["pyproject.toml", *map(str, project.code)] if folder == HERE else [folder]
    stored = _stored_files(project.root, dict.fromkeys(named, where), scratch)
    return merge(
        data_entry(f"source/{PurePosixPath(path).relative_to(folder)}", data, owner=path)
        for path, data in stored.items()
    )


def _is_below(name: str, places: Iterable[PurePosixPath | str]) -> bool:
    return any(PurePosixPath(name).is_relative_to(place) for place in places)


def _stored_files(root: Path, asked: Mapping[str, str], scratch: Scratch) -> dict[str, bytes]:
    """Read files and what lies below folders, each asked for by a key of the settings."""
    with_git = git.is_repository(root)
    index, others = _git_files(root, asked) if with_git else ({}, _found_files(root, asked))
    listed, links = [*index, *others], _text_links(root, index)
    named = {name: _followed(root / name, links) for name in listed if not _generated(name)}
    files = {name: path for name, path in sorted(named.items()) if path.is_file()}
    keys = {name: next(asked[one] for one in asked if _is_below(name, [one])) for name in files}
    for key in asked.values():
        if key not in keys.values():
            places = (place for place, its in asked.items() if its == key)
            raise UsageError(
                f"no files in {', '.join(places)}",
                where=key,
                hint="Files that .gitignore names are left out." if with_git else "",
            )
    for name, path in files.items():
        _refuse_name(name, keys[name])
        _refuse_outside(root, name, path, keys[name])
    _refuse_twins(root, keys)
    paths = list(files.values())
    read = _as_stored(root, index, paths, scratch) if with_git else map(Path.read_bytes, paths)
    stored = dict(zip(files, read, strict=True))
    for name, data in stored.items():
        _refuse_pointer(name, data, keys[name])
    return stored


def _refuse_twins(root: Path, keys: Mapping[str, str]) -> None:
    """Refuse names that differ in case only, where the file system has one file for them."""
    first: dict[str, str] = {}
    for name, key in keys.items():
        twin = first.setdefault(name.casefold(), name)
        if twin != name and not (_listed(root, name) and _listed(root, twin)):
            raise UsageError(
                f"{twin} and {name} are one file here: this file system does not tell their "
                "names apart",
                where=key,
                hint="Rename one of them, or build where names are told apart.",
            )


def _listed(root: Path, name: str) -> bool:
    """Tell whether a path is there in just these letters."""
    steps = (root / name, *(root / above for above in PurePosixPath(name).parents))
    return all(
        step.name in {one.name for one in step.parent.iterdir()} for step in steps if step != root
    )


def _git_files(root: Path, folders: Iterable[str]) -> tuple[_Index, list[str]]:
    """List what git tracks, and what it would add."""
    index: _Index = {}
    others = []
    listed = git.run(root, "ls-files", "-z", "-t", "--stage", *git.UNTRACKED, "--", *folders)
    for line in filter(None, listed.split(b"\0")):
        if line.startswith(b"? "):
            others.append(os.fsdecode(line[2:]))
        else:
            said, _, name = line[2:].partition(b"\t")
            index.setdefault(os.fsdecode(name), []).append(said)
    return index, others


def _found_files(root: Path, folders: Iterable[str]) -> list[str]:
    found = [file for name in folders for file in [root / name, *(root / name).rglob("*")]]
    return [file.relative_to(root).as_posix() for file in found]


def _generated(name: str) -> bool:
    return bool(_GENERATED & set(PurePosixPath(name).parts)) or name.endswith(".pyc")


def _text_links(root: Path, index: _Index) -> dict[Path, Path]:
    """Find the links that git checked out as text, for want of links (core.symlinks)."""
    links = {}
    for name, said in index.items():
        path = root / name
        if said[0].startswith(b"120000 ") and path.is_file() and not path.is_symlink():
            target = path.parent / os.fsdecode(path.read_bytes())
            links[path] = Path(os.path.normpath(target))
    return links


def _followed(path: Path, links: Mapping[Path, Path]) -> Path:
    for _ in links:  # more steps than there are links would be a circle
        path = links.get(path, path)
    return path


def _as_stored(root: Path, index: _Index, paths: list[Path], scratch: Scratch) -> list[bytes]:
    """Let git store files, in a scratch repository that no setting of the user's reaches."""
    about = git.about(root)
    tracked = b"".join(
        said + b"\t" + os.fsencode(about.prefix + name) + b"\0"
        for name, stages in index.items()
        for said in stages
    )
    # A link's content is its target's.
    stored = [path.resolve().relative_to(root).as_posix() for path in paths]
    with scratch() as folder:
        run = git.borrow(about, Path(folder), about.top)
        # git leaves the line endings of a file alone that is stored with carriage returns.
        run("update-index", "-z", "--index-info", data=tracked)
        run(
            *("-c", "core.autocrlf=input", "-c", "core.fsync=none"),
            *("update-index", "--add", "-z", "--stdin"),
            data=b"".join(os.fsencode(name) + b"\0" for name in stored),
        )
        wanted = b"".join(b":./" + os.fsencode(name) + b"\n" for name in stored)
        return _split_batch(run("cat-file", "--batch", data=wanted), len(stored))


def _split_batch(batch: bytes, count: int) -> list[bytes]:
    contents, position = [], 0
    for _ in range(count):
        end = batch.index(b"\n", position)
        size = int(batch[position:end].split()[-1])
        contents.append(batch[end + 1 : end + 1 + size])
        position = end + 1 + size + 1
    return contents


def code_entries(project: Project, files: list[tuple[str, bytes]], site: Site) -> list[Entry]:
    """List the code, with a synthesised dist-info, as entries of the site folder.

    Each folder or module named by `project.code` becomes importable by its own name, and
    `importlib.metadata` and entry points work as after an installation.
    """
    entries = [
        data_entry(f"{site.packages}/{importable(project, name)}", data, owner=name)
        for name, data in files
    ]
    points = project.entry_points
    scripts = {**points.get("gui_scripts", {}), **points.get("console_scripts", {})}
    for name, target in scripts.items():
        module, _, attribute = target.partition(":")
        data = script(site, module.strip(), attribute.partition("[")[0].strip())
        entries.append(
            data_entry(f"{site.prefix}/bin/{name}", data, mode=0o755, owner="project.scripts")
        )
    return entries + _dist_info(project, files, site)


def importable(project: Project, name: str) -> str:
    """Say where below the site folder a file of the code goes, by its path in the repository."""
    for code in project.code:
        if PurePosixPath(name).is_relative_to(code):
            return str(PurePosixPath(name).relative_to(code.parent))
    raise ClaimError("git lists a file outside of the code that was asked for", where=name)


def _dist_info(project: Project, files: list[tuple[str, bytes]], site: Site) -> list[Entry]:
    folder = f"{canonicalize_name(project.name).replace('-', '_')}-{project.version}.dist-info"
    metadata = f"Metadata-Version: 2.4\nName: {project.name}\nVersion: {project.version}\n"
    if project.description:
        metadata += f"Summary: {' '.join(project.description.split())}\n"
    if project.license:
        metadata += f"License-Expression: {project.license}\n"
    metadata += f"Requires-Python: {project.requires_python}\n"
    metadata += "".join(f"Requires-Dist: {name}\n" for name in project.dependencies)
    points = "\n".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in sorted(names.items()))
        for group, names in sorted(project.entry_points.items())
    )
    made = {"METADATA": metadata.encode(), "INSTALLER": b"packager\n"}
    if points:
        made["entry_points.txt"] = points.encode()
    rows = [record_row(importable(project, name), data) for name, data in files]
    rows += [record_row(f"{folder}/{name}", data) for name, data in made.items()]
    rows.append((f"{folder}/RECORD", "", ""))
    made["RECORD"] = record_file(rows)
    return [
        data_entry(f"{site.packages}/{folder}/{name}", data, owner=project.name)
        for name, data in made.items()
    ]
