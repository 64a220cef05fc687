"""git, asked about one repository: the asker's environment does not reach the answer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from packager.errors import HostError

__all__ = [
    "UNTRACKED",
    "About",
    "about",
    "archive",
    "borrow",
    "is_repository",
    "lines",
    "run",
    "top",
]

UNTRACKED = (
    "--others",
    "--exclude-per-directory=.gitignore",
    "--exclude=__pycache__/",
    "--exclude=*.pyc",
)
"""Options of ``git ls-files`` for what `git add` would add, the user's own excludes unheard."""

_SHA1 = 40  # hexadecimal digits

_FIXED = {
    # A path is a path, never a pattern.
    "GIT_LITERAL_PATHSPECS": "1",
    # Asking must not write: the repository may be read-only, or in use.
    "GIT_OPTIONAL_LOCKS": "0",
    # So that git finds the repository wherever `is_repository` sees one.
    "GIT_DISCOVERY_ACROSS_FILESYSTEM": "1",
}


def top(root: Path) -> Path | None:
    """Find the git repository that a folder lies in, whether or not git is installed."""
    return next((folder for folder in [root, *root.parents] if (folder / ".git").exists()), None)


def is_repository(root: Path) -> bool:
    """Tell whether a folder lies in a git repository, whether or not git is installed."""
    return top(root) is not None


def run(
    root: Path, *arguments: str, data: bytes = b"", environment: Mapping[str, str] | None = None
) -> bytes:
    """Run git in a folder, without the ``GIT_…`` variables that steer it elsewhere.

    Parameters
    ----------
    root : Path
        Where it runs.
    *arguments : str
        The command and its arguments.
    data : bytes
        For its standard input.
    environment : mapping of str to str, optional
        Variables to set besides the user's own.

    Returns
    -------
    bytes
        What it printed.

    Raises
    ------
    HostError
        When git is missing or fails; quotes it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            input=data,
            env={**kept, **_FIXED, **(environment or {})},
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise HostError(
            "this is a git repository, and there is no git to read it", hint="Install git."
        ) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise HostError("git cannot read this repository", where=str(root), hint=said)
    return done.stdout


def lines(root: Path, *arguments: str) -> list[str]:
    """Run git in a folder, as `run`, for the lines that it prints."""
    return os.fsdecode(run(root, *arguments)).splitlines()


@dataclass(frozen=True, slots=True)
class About:
    """A folder of a repository, as git sees it.

    Attributes
    ----------
    root : Path
        The folder.
    top : Path
        The repository's work tree.
    prefix : str
        The folder's path in it, empty or with ``/`` at its end.
    algorithm : {"sha1", "sha256"}
        What names objects.
    objects : Path
        Where they are.
    """

    root: Path
    top: Path
    prefix: str
    algorithm: str
    objects: Path


def about(root: Path) -> About:
    """Ask git about a folder, at one go.

    Raises
    ------
    HostError
        When git is missing or fails.
    """
    asked = ("--show-toplevel", "--show-prefix", "--show-object-format", "--git-path", "objects")
    top, prefix, algorithm, objects = lines(root, "rev-parse", *asked)
    return About(root, Path(top), prefix, algorithm, (root / objects).resolve())


def borrow(of: About, git_dir: Path, work_tree: Path) -> Callable[..., bytes]:
    """Make a scratch repository of another's objects, which no setting of the user's reaches.

    Parameters
    ----------
    of : About
        The repository that the objects are borrowed from.
    git_dir : Path
        Where the scratch repository is made.
    work_tree : Path
        The files that it is about.

    Returns
    -------
    callable
        `run`, in the scratch repository.
    """
    git_dir.mkdir(parents=True, exist_ok=True)
    environment = {
        "GIT_DIR": str(git_dir),
        "GIT_WORK_TREE": str(work_tree),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "HOME": str(git_dir),
        "XDG_CONFIG_HOME": str(git_dir),
    }
    ours = partial(run, of.root, environment=environment)
    ours("init", "--quiet", "--template=", f"--object-format={of.algorithm}")
    alternates = git_dir / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_bytes(os.fsencode(f"{of.objects}\n"))
    return ours


def archive(address: str, commit: str, folder: Path) -> bytes:
    """Fetch one commit of somebody's repository; give its files as a tar, below ``source/``.

    Parameters
    ----------
    address : str
        Of the repository, as git takes it; git's own settings know the user's credentials.
    commit : str
        Hexadecimal, whole.
    folder : Path
        Empty; for what is fetched.

    Raises
    ------
    HostError
        When it cannot be had; quotes git.
    """
    ours = partial(run, folder, environment={"GIT_TERMINAL_PROMPT": "0"})
    kind = "sha1" if len(commit) == _SHA1 else "sha256"
    ours("init", "--quiet", "--bare", "--template=", f"--object-format={kind}")
    try:
        ours("fetch", "--quiet", "--depth=1", "--", address, commit)
    except HostError:  # not every server gives a commit that no branch or tag is at
        ours("fetch", "--quiet", "--", address, "+refs/*:refs/*")
    fixed = ("-c", "core.autocrlf=false", "-c", "tar.umask=0022")
    return ours(*fixed, "archive", "--format=tar", "--prefix=source/", commit)
