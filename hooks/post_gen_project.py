"""Start the history of a freshly baked repository, and say what to type next."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

TEMPLATE = Path({{template_root | quoted}})  # noqa: F821 - Jinja fills it in
ADDRESS = {{cookiecutter._template | quoted}}  # noqa: F821 - likewise
# Cruft tells hooks the commit, and bakes from a clone in a temporary folder.
COMMIT = {{cookiecutter._commit | default("") | quoted}}  # noqa: F821 - likewise
PROJECT = Path.cwd()
# A bake may run inside a hook of another repository, whose variables name that one.
ENVIRONMENT = {key: os.environ[key] for key in os.environ if not key.startswith("GIT_")} | {
    key: os.environ[key]
    for key in os.environ
    if key.startswith(("GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG"))
}


def git(*arguments: str) -> str:
    """Run git in the new repository and return what it prints."""
    done = subprocess.run(
        ["git", *arguments], check=True, capture_output=True, text=True, env=ENVIRONMENT
    )
    return done.stdout.strip()


def knows_a_user() -> bool:
    """Say whether commits would carry a name somebody chose."""
    for key in ("name", "email"):
        variable = f"GIT_COMMITTER_{key.upper()}"
        known = subprocess.run(
            ["git", "config", f"user.{key}"], check=False, capture_output=True, env=ENVIRONMENT
        )
        if known.returncode != 0 and variable not in ENVIRONMENT:
            return False
    return True


def source_of_packager() -> str:
    """Name what pip can install packager from for as long as the repository lives."""
    if not (TEMPLATE / "src" / "packager").is_dir() or ADDRESS.endswith(".zip"):
        return ""
    if not COMMIT:
        return str(TEMPLATE)
    if Path(ADDRESS, "src", "packager").is_dir():
        return ADDRESS
    return f"git+{ADDRESS}@{COMMIT}" if "://" in ADDRESS else ""


def start_history() -> None:
    """Make the repository, its first commit, and the note where packager comes from."""
    git("init", "--quiet")
    # Not `init -b`: git has that since 2.28 only.
    git("symbolic-ref", "HEAD", "refs/heads/main")
    if source := source_of_packager():
        # In git's local configuration, because no committed file may name this machine.
        git("config", "--local", "packager.source", source)
    if not knows_a_user():
        print("git knows no user.name and user.email yet: the first commit is left to you.")
        print("  git config --global user.name NAME; git config --global user.email ADDRESS")
        print("  git add --all; git commit --message 'Start from the template'")
        return
    # Forced, so that a global ignore list cannot drop files of the template.
    git("add", "--all", "--force")
    git("commit", "--quiet", "--no-verify", "--message", "Start from the template")


def main() -> None:
    """Do what can be done, and explain what cannot."""
    if COMMIT and Path(os.environ.get("PWD", ""), ".cruft.json").is_file():
        return  # `cruft update` compares two bakes, and throws both away
    if shutil.which("git") is None:
        print("git is not installed: the repository has no history yet.")
    elif not (PROJECT / ".git").exists():
        try:
            start_history()
        except subprocess.CalledProcessError as error:
            print(f"git could not make the first commit:\n{error.stderr.strip()}")
    here = Path(os.environ.get("PWD", PROJECT.parent)) == PROJECT.parent
    folder = PROJECT.name if here else str(PROJECT)
    print(f"""
Next:
  cd {shlex.quote(folder)}
  make setup        # the environments, and the locks
  make train cards  # the model, its metrics, its recorded examples, its card
  make image        # the sealed, tested image""")


if __name__ == "__main__":
    main()
