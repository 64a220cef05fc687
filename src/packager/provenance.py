"""Where an image's inputs come from: said beside the image, never inside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from packager import __version__, git, image
from packager.layers.tree import CITATION
from packager.lock import lockfile
from packager.project import HERE, Project, is_folder

__all__ = ["Provenance", "inputs_of", "of"]


_DIFF = ("-c", "diff.autoRefreshIndex=true", "diff", "--name-only", "--no-ext-diff", "HEAD")


@dataclass(frozen=True, slots=True)
class Provenance:
    """The commit, empty without git, and whether an input of the image differs from it."""

    commit: str
    dirty: bool

    def annotations(self) -> dict[str, str]:
        """Give the annotations of an archive's index; without git, nothing about a commit."""
        builder = {f"{image.LABEL}.builder": f"packager {__version__}"}
        if not self.commit:
            return builder
        dirty = "true" if self.dirty else "false"
        commit = {image.REVISION: self.commit, f"{image.LABEL}.dirty": dirty}
        return builder | commit


def inputs_of(project: Project) -> list[str]:
    """List the paths of what an image is made from, relative to the repository."""
    named = [project.model, *filter(None, (project.examples, project.card)), *project.code]
    if (project.root / CITATION).exists():
        named.append(PurePosixPath(CITATION))
    folders = [one for one in project.build_from.values() if is_folder(one) and one != HERE]
    built = [lockfile.BUILT, *folders] if project.build_from else []
    return ["pyproject.toml", "requirements.txt", lockfile.FILE, *built, *map(str, named)]


def of(project: Project) -> Provenance:
    """Ask git for the commit, and whether an input of the image differs from it.

    Raises
    ------
    HostError
        When this is a git repository and git fails.
    """
    if not git.is_repository(project.root):
        return Provenance("", dirty=False)
    inputs = inputs_of(project)
    status = ("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    lines = git.run(project.root, *status, "--", *inputs).decode("utf-8", "replace").splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
    commit = heads["branch.oid"]
    if commit == "(initial)":
        return Provenance("", dirty=False)
    # A file with other line endings than it was checked out with differs for `status` alone.
    changed = any(not line.startswith("# ") for line in lines) and bool(
        git.run(project.root, *_DIFF, "--", *inputs)
    )
    untracked = git.run(project.root, "ls-files", *git.UNTRACKED, "--", *inputs)
    return Provenance(commit, dirty=changed or bool(untracked))
