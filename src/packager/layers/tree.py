"""The project's own files as entries: its model, its code as git stores it, its examples."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from packager.errors import ClaimError, HostError, UsageError
from packager.layers.tar import Entry, data_entry
from packager.layers.wheel import Site, record_file, record_row, script
from packager.project import Project

__all__ = ["ROOT", "code_entries", "code_files", "model_digest", "model_entries"]

ROOT = "srv/packager"
"""The image's folder for the model and the facts about it."""

_LFS = b"version https://git-lfs.github.com/spec/"
_GENERATED = {"__pycache__"}


def model_files(project: Project) -> list[tuple[str, Path]]:
    """List the files of the model, by path relative to the model's own parent.

    Raises
    ------
    UsageError
        When there is none, when it lies outside the repository, or when it is a git-LFS
        pointer instead of a model.
    """
    path = project.root / project.model
    where = "pyproject.toml: tool.packager.model"
    if not path.exists():
        raise UsageError(
            f"{project.model} does not exist",
            where=where,
            hint="Train and export the model first, or correct the path.",
        )
    if not path.resolve().is_relative_to(project.root):
        raise UsageError(f"{project.model} is a link out of the repository", where=where)
    if path.is_file():
        found = [(path.name, path)]
    else:
        inner = sorted(file for file in path.rglob("*") if file.is_file())
        found = [(f"{path.name}/{file.relative_to(path).as_posix()}", file) for file in inner]
    if not found:
        raise UsageError(f"{project.model} is an empty folder", where=where)
    for _, file in found:
        with file.open("rb") as stream:
            if stream.read(len(_LFS)) == _LFS:
                raise UsageError(
                    f"{file.relative_to(path.parent)} is a git-LFS pointer, not a model",
                    where=where,
                    hint="git lfs pull fetches the file that it points to.",
                )
    return found


def model_digest(project: Project) -> str:
    """Digest the model: of a file its sha256, of a folder that of its ``sha256  path`` lines.

    Returns
    -------
    str
        ``"sha256:"`` and 64 hex digits.
    """
    files = model_files(project)
    if (project.root / project.model).is_file():
        return f"sha256:{_sha256(files[0][1])}"
    lines = sorted((name.partition("/")[2], _sha256(path)) for name, path in files)
    listing = "".join(f"{digest}  {name}\n" for name, digest in lines)
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_entries(project: Project) -> list[Entry]:
    """List the model's files as entries."""
    return [
        Entry(
            f"{ROOT}/model/{name}",
            size=path.stat().st_size,
            open=lambda path=path: path.open("rb"),  # type: ignore[misc]
            owner=str(project.model),
        )
        for name, path in model_files(project)
    ]


def code_files(project: Project) -> list[tuple[str, bytes]]:
    """Read the project's code as git stores it, whatever the checkout's settings.

    In a git repository these are the files that git tracks or would add, each with the
    bytes that git would store (line endings and filters undone).  Without git, from a
    source archive, they are the files that are there.

    Returns
    -------
    list of (str, bytes)
        Sorted by path relative to the repository.

    Raises
    ------
    UsageError
        When there is no code.
    HostError
        When git is there but fails.
    """
    names = [str(path) for path in project.code]
    listed = _git_files(project.root, names)
    if listed is None:
        listed = _found_files(project.root, names)
        files = [(name, (project.root / name).read_bytes()) for name in listed]
    else:
        files = _as_stored(project.root, listed)
    if names and not files:
        raise UsageError(
            f"no files in {', '.join(names)}", where="pyproject.toml: tool.packager.code"
        )
    return sorted(files)


def _git_files(root: Path, names: list[str]) -> list[str] | None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *names]
    try:
        run = subprocess.run(command, cwd=root, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    if run.returncode:
        return None  # not a repository
    listed = {os.fsdecode(name) for name in run.stdout.split(b"\0") if name}
    return [name for name in listed if (root / name).is_file() and not _is_generated(name)]


def _found_files(root: Path, names: Iterable[str]) -> list[str]:
    found = []
    for name in names:
        path = root / name
        files = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
        found += [file.relative_to(root).as_posix() for file in files]
    return [name for name in found if not _is_generated(name)]


def _is_generated(name: str) -> bool:
    return bool(_GENERATED & set(PurePosixPath(name).parts)) or name.endswith(".pyc")


def _as_stored(root: Path, names: list[str]) -> list[tuple[str, bytes]]:
    """Ask git for the bytes that it would store, without storing them in the repository."""
    with tempfile.TemporaryDirectory() as scratch:
        objects = _git(root, ["rev-parse", "--git-path", "objects"]).strip()
        environment = {
            **os.environ,
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((root / os.fsdecode(objects)).resolve()),
        }
        paths = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
        ids = _git(root, ["hash-object", "-w", "--stdin-paths"], paths, environment)
        batch = _git(root, ["cat-file", "--batch"], ids, environment)
    return list(zip(names, _split_batch(batch, len(names)), strict=True))


def _split_batch(batch: bytes, count: int) -> list[bytes]:
    contents, position = [], 0
    for _ in range(count):
        end = batch.index(b"\n", position)
        size = int(batch[position:end].split()[-1])
        contents.append(batch[end + 1 : end + 1 + size])
        position = end + 1 + size + 1
    return contents


def _git(
    root: Path, command: list[str], data: bytes = b"", environment: dict[str, str] | None = None
) -> bytes:
    run = subprocess.run(
        ["git", *command], cwd=root, input=data, env=environment, capture_output=True, check=False
    )
    if run.returncode:
        raise HostError(f"git {command[0]} failed", hint=os.fsdecode(run.stderr).strip())
    return run.stdout


def code_entries(project: Project, files: list[tuple[str, bytes]], site: Site) -> list[Entry]:
    """List the code, with a synthesised dist-info, as entries of the site folder.

    Each folder or module named by `project.code` becomes importable by its own name, and
    `importlib.metadata` and entry points work as after an installation.
    """
    entries = [
        data_entry(f"{site.packages}/{_importable(project, name)}", data, owner=name)
        for name, data in files
    ]
    scripts = project.entry_points.get("console_scripts", {})
    for name, target in scripts.items():
        module, _, attribute = target.partition(":")
        data = script(site, module.strip(), attribute.partition("[")[0].strip())
        entries.append(
            data_entry(f"{site.prefix}/bin/{name}", data, mode=0o755, owner="project.scripts")
        )
    return entries + _dist_info(project, files, site)


def _importable(project: Project, name: str) -> str:
    for code in project.code:
        if PurePosixPath(name).is_relative_to(code):
            return str(PurePosixPath(name).relative_to(code.parent))
    raise ClaimError("git lists a file outside of the code that was asked for", where=name)


def _dist_info(project: Project, files: list[tuple[str, bytes]], site: Site) -> list[Entry]:
    folder = (
        f"{project.name.replace('-', '_').replace('.', '_').lower()}-{project.version}.dist-info"
    )
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
    rows = [record_row(_importable(project, name), data) for name, data in files]
    rows += [record_row(f"{folder}/{name}", data) for name, data in made.items()]
    rows.append((f"{folder}/RECORD", "", ""))
    made["RECORD"] = record_file(rows)
    return [
        data_entry(f"{site.packages}/{folder}/{name}", data, owner=project.name)
        for name, data in made.items()
    ]
