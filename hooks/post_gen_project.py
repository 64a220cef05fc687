"""Start the history of a freshly baked repository, and say what to type next."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

TEMPLATE = Path({{template_root | quoted}})  # noqa: F821 - Jinja fills it in
FROM_ARCHIVE = {{cookiecutter._template | quoted}}.endswith(".zip")  # noqa: F821 - likewise
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


def start_history() -> None:
    """Make the repository, its first commit, and the note where packager comes from."""
    git("init", "--quiet")
    # Not `init -b`: git has that since 2.28 only.
    git("symbolic-ref", "HEAD", "refs/heads/main")
    if (TEMPLATE / "src" / "packager").is_dir() and not FROM_ARCHIVE:
        # In git's local configuration, because no committed file may name this machine.
        git("config", "--local", "packager.source", str(TEMPLATE))
    if not knows_a_user():
        print("git knows no user.name and user.email yet: the first commit is left to you.")
        return
    # Forced, so that a global ignore list cannot drop files of the template.
    git("add", "--all", "--force")
    git("commit", "--quiet", "--no-verify", "--message", "Start from the template")


def main() -> None:
    """Do what can be done, and explain what cannot."""
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
  make setup    # the environments, and the locks
  make train    # the model, its metrics, its recorded examples
  make image    # the sealed, tested image""")


if __name__ == "__main__":
    main()
