"""Claims about the hooks that other repositories may use: they pass, and they refuse a commit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, Tiny, git

HOOKS = ".pre-commit-hooks.yaml"
DATASHEET = "{% if cookiecutter.example == 'penguins' %}DATASHEET.md{% endif %}"


def pre_commit(root: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pre-commit with caches of its own; it finds the tests' packager first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("GIT_")}
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", *words],
        cwd=root,
        env={**environment, "PATH": path, "PRE_COMMIT_HOME": str(home), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """This repository as others would find it, as far as the hooks need it."""
    root = tmp_path / "published"
    root.mkdir()
    for name in (HOOKS, "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, root)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "src", root / "src", ignore=ignored)
    commit(root)
    return root


def commit(root: Path) -> str:
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Publish")
    return git(root, "rev-parse", "HEAD").strip()


def adopt(tiny: Tiny, published: Path, **settings: str) -> None:
    """Name the hooks in a repository, and give it a datasheet that is complete."""
    data = f"sha256:{'0' * 64}"
    model = hashlib.sha256((tiny.root / "models/model.txt").read_bytes()).hexdigest()
    found = {"model": f"sha256:{model}", "data": data}
    (tiny.root / "models/metrics.json").write_text(json.dumps(found))
    sheet = (REPOSITORY / "{{cookiecutter.project_slug}}" / DATASHEET).read_text()
    before, _, after = sheet.partition("<!-- about: ")
    about = f"{before}<!-- about: {data} -->{after.partition('-->')[2]}"
    (tiny.root / "DATASHEET.md").write_text(about)
    hooks = [{"id": name, **settings} for name in ("packager-lock", "packager-cards")]
    revision = git(published, "rev-parse", "HEAD").strip()
    entry = {"repo": str(published), "rev": revision, "hooks": hooks}
    (tiny.root / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [entry]}))
    git(tiny.root, "add", "-A")


def hold(tiny: Tiny, home: Path) -> None:
    """See the hooks pass, and each of them refuse what it is for."""
    run = pre_commit(tiny.root, home, "run", "--all-files")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("Passed") == 2

    tiny.edit("pyproject.toml", "dependencies = []", 'dependencies = ["click"]')
    git(tiny.root, "add", "-A")
    run = pre_commit(tiny.root, home, "run", "packager-lock")
    assert run.returncode == 1
    assert "dependencies" in run.stdout
    tiny.edit("pyproject.toml", 'dependencies = ["click"]', "dependencies = []")

    tiny.edit("DATASHEET.md", "sha256:0", "sha256:1")
    git(tiny.root, "add", "-A")
    run = pre_commit(tiny.root, home, "run")
    assert run.returncode == 1
    assert "DATASHEET.md:3: its answers are about other data" in run.stdout


def test_the_hooks_are_hooks(tmp_path: Path) -> None:
    run = pre_commit(REPOSITORY, tmp_path, "validate-manifest", HOOKS)
    assert run.returncode == 0, run.stdout
    broken = tmp_path / HOOKS
    broken.write_text((REPOSITORY / HOOKS).read_text().replace("entry:", "entri:"))
    assert pre_commit(REPOSITORY, tmp_path, "validate-manifest", str(broken)).returncode == 1


def test_the_hooks_pass_and_refuse(tiny: Tiny, published: Path, tmp_path: Path) -> None:
    # With the tests' packager in place of one that pre-commit would install.
    adopt(tiny, published, language="system")
    hold(tiny, tmp_path / "home")


@pytest.mark.whole
def test_the_hooks_install_themselves(tiny: Tiny, published: Path, tmp_path: Path) -> None:
    adopt(tiny, published)
    hold(tiny, tmp_path / "home")
    [installed] = (tmp_path / "home").glob("repo*/py_env-*/bin/packager")
    assert installed.is_file()
