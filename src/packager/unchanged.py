"""A build that would change nothing, known by the identities of all that the last one read.

As make goes by times, this goes by inode, size, mtime and ctime, which no edit leaves as they
were; and what it says is held against the engine and the proofs each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager import __version__, proof
from packager.errors import PackagerError
from packager.proof import Limits
from packager.reporter import Reporter
from packager.store import SETTLED_NS, TELLS_CHANGES, Store, identity

if TYPE_CHECKING:
    from packager.project import Project

__all__ = ["Stamp", "proved", "recall", "take"]

_KIND = "built"
_MOST = 5000  # to look at more takes as long as to build
_RULES = (".gitattributes", ".gitignore")
_OF_GIT = ("HEAD", "index", "config", "packed-refs", "reftable/tables.list", "info/attributes")
_GENERATED = "__pycache__"

Identities = dict[str, list[int] | None]
"""By path; None where nothing is there."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a build is about to read, as it was before."""

    key: str
    seen: Identities
    taken: int

    def keep(self, store: Store, told: Mapping[str, Any]) -> None:
        """Remember what a build said, if all that it read stayed as it was meanwhile.

        Parameters
        ----------
        store : Store
            Keeps it.
        told : mapping
            From `build.summary`.
        """
        settled = all(one is None or self.taken - one[3] > SETTLED_NS for one in self.seen.values())
        if settled and self.seen == _identities(self.seen):
            store.write_note(_KIND, self.key, [self.seen, told])


def recall(store: Store, root: Path, wishes: object) -> dict[str, Any] | None:
    """Recall what the last such build said, if nothing that it read has changed since.

    Parameters
    ----------
    store : Store
        Remembers it.
    root : Path
        The repository.
    wishes : object
        What is wanted of the build, ready for JSON.
    """
    match store.note(_KIND, _key(root, wishes)):
        case [dict(seen), dict(told)] if seen == _identities(seen):
            return told
    return None


def proved(
    told: Mapping[str, Any], limits: Limits | None, *, store: Store, reporter: Reporter
) -> dict[str, Any] | None:
    """See whether the image of an earlier build is in the engine as it should be.

    Parameters
    ----------
    told : mapping
        From `recall`.
    limits : Limits, optional
        Of the smoke test; None leaves it out.
    store : Store
        Remembers proofs.
    reporter : Reporter
        Gets the rows, if nothing is left to be done.

    Returns
    -------
    dict or None
        As `build.summary` gives it; None where something is left, or something is wrong.
    """
    from packager.outputs import engine

    reporter.row("inputs", "as they were at the last build", "", "unchanged")
    with contextlib.suppress(PackagerError):  # a build says better what is wrong
        images = {told["id"], told["manifest"]}
        there, verdict = proof.is_there(
            engine.connect(), told["tag"], images, limits, store=store, reporter=reporter
        )
        if there:
            return {**told, "smoke": verdict and verdict.told()}
    return None


def _key(root: Path, wishes: object) -> str:
    # In ASCII: a path, and words on a command line, may be bytes that are no text.
    body = json.dumps([__version__, str(root), wishes], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


def take(project: Project, wishes: object) -> Stamp | None:
    """Look at all that a build reads, before it does.

    Parameters
    ----------
    project : Project
        Names the files.
    wishes : object
        As for `recall`.

    Returns
    -------
    Stamp or None
        None where identities do not tell: on Windows; where links lead elsewhere; in a git
        repository whose parts lie elsewhere, as a worktree's do; with too many files, and with
        names that cannot be written down.
    """
    from packager import git, provenance

    taken, top = time.time_ns(), git.top(project.root)
    inputs = [*_below(project.root / name for name in provenance.inputs_of(project))]
    paths = {*inputs, *_sources(project.root), *_surroundings(project.root, top, inputs), *_own()}
    if not TELLS_CHANGES or len(paths) > _MOST or _cannot_tell(project.root, top, paths):
        return None
    return Stamp(_key(project.root, wishes), _identities(sorted(map(str, paths))), taken)


def _identities(paths: Iterable[str]) -> Identities:
    return {path: _identity(Path(path)) for path in paths}


def _identity(path: Path) -> list[int] | None:
    try:
        return identity(path)
    except OSError:
        return None


def _below(paths: Iterable[Path]) -> Iterator[Path]:
    """List paths with all that is below them; a folder changes as names come and go."""
    for path in paths:
        yield path
        for folder, folders, files in os.walk(path):
            folders[:] = [name for name in folders if name != _GENERATED]
            yield from (Path(folder, name) for name in [*folders, *files])


def _sources(root: Path) -> Iterator[Path]:
    """List where packages and the citation are looked for, so that a new one is seen."""
    from packager.layers.tree import CITATION

    yield root / CITATION
    yield root / "src"
    yield from (root / "src").glob("*/")


def _surroundings(root: Path, top: Path | None, inputs: Iterable[Path]) -> Iterator[Path]:
    """List what git goes by: its own files, and rules in every folder above an input."""
    for folder in {path.parent for path in inputs} | {root, *root.parents}:
        if folder != top:  # a lock of git's comes and goes there
            yield folder / ".git"
        if top and folder.is_relative_to(top):
            yield from (folder / name for name in _RULES)
    if top and (top / ".git").is_dir():
        head = (top / ".git" / "HEAD").read_text(errors="replace")
        names = [*_OF_GIT, head.removeprefix("ref: ").strip()]
        yield from (top / ".git" / name for name in names)


def _own() -> Iterator[Path]:
    """List what of packager itself goes into images."""
    from packager import formats, runtime

    return _below([Path(runtime.__file__).parent, Path(formats.__file__)])


def _cannot_tell(root: Path, top: Path | None, paths: Iterable[Path]) -> bool:
    from packager import git

    if top and not (top / ".git").is_dir():
        return True
    # Where a system has no links, git writes them as text.
    staged = git.run(root, "ls-files", "--stage", "-z") if top else b""
    linked = b"\x00120000 " in b"\x00" + staged or any(path.is_symlink() for path in paths)
    return linked or not all(map(_is_text, paths))


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
