"""A baked repository takes over what the template has learnt since, and keeps its own edits.

docs/updating.md describes it; here cruft does it for real, with a template repository, an old
tag, and edits that were committed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import git

from .conftest import TEMPLATE, Cookiecutter, copy_of_template, files

Cruft = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cruft(clean_environment: dict[str, str], git_user: dict[str, str]) -> Cruft:
    """Run cruft as somebody in a folder would, and keep what it says."""

    def run(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cruft", *words],
            cwd=cwd,
            env={**clean_environment, **git_user, "PWD": str(cwd), "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )

    return run


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A template repository with a tag and, after it, three improvements."""
    root = copy_of_template(tmp_path, with_packager=True)
    (root / "src" / "packager" / "__init__.py").touch()
    git(root, "init", "--quiet")
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "--message", "Then")
    git(root, "tag", "then")
    inside = root / TEMPLATE.name
    replace(inside / "README.md", "## Steps\n", "## Steps, one by one\n")
    with (inside / ".gitignore").open("a", encoding="utf-8") as stream:
        stream.write("\n# Learnt since.\n*.swp\n")
    (inside / "NEWS.md").write_text("# News of {{ cookiecutter.project_name }}\n", "utf-8")
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "--message", "Now")
    return root


@pytest.fixture
def project(template: Path, cruft: Cruft, tmp_path: Path) -> Path:
    """What was baked from the tag, with `.cruft.json` committed."""
    folder = tmp_path / "baked"
    folder.mkdir()
    done = cruft(folder, "create", "--no-input", "--checkout", "then", str(template))
    assert done.returncode == 0, done.stdout
    root = folder / "penguins"
    assert git(root, "status", "--porcelain") == "?? .cruft.json\n"
    git(root, "add", ".cruft.json")
    git(root, "commit", "--quiet", "--message", "Remember the template")
    return root


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def commit(project: Path) -> None:
    git(project, "commit", "--quiet", "--all", "--message", "An edit")


def test_only_the_address_that_was_typed_is_remembered(project: Path, template: Path) -> None:
    remembered = json.loads((project / ".cruft.json").read_text("utf-8"))
    assert remembered["template"] == str(template)
    assert remembered["checkout"] == "then"
    assert remembered["commit"] == git(template, "rev-parse", "then").strip()
    del remembered["template"], remembered["context"]["cookiecutter"]["_template"]
    assert "/" not in json.dumps(remembered).replace("data/raw/", "")
    for name, content in files(project).items():
        if name != ".cruft.json":
            assert str(template.parent).encode() not in content, name


def test_packager_comes_from_the_template_and_not_from_a_clone_that_is_gone(
    project: Path, template: Path
) -> None:
    assert git(project, "config", "--local", "packager.source").strip() == str(template)


@pytest.fixture
def served(template: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the template repository on a server that knows nothing of git."""
    git(tmp_path, "clone", "--quiet", "--bare", str(template), "there/template.git")
    git(tmp_path / "there" / "template.git", "update-server-info")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "there"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/template.git"
        server.shutdown()
        thread.join()


def test_packager_of_a_template_with_an_address_is_that_commit(
    template: Path, served: str, cruft: Cruft, tmp_path: Path
) -> None:
    done = cruft(tmp_path, "create", "--no-input", served)
    assert done.returncode == 0, done.stdout
    baked = git(template, "rev-parse", "HEAD").strip()
    source = git(tmp_path / "penguins", "config", "--local", "packager.source").strip()
    assert source == f"git+{served}@{baked}"


def test_changes_arrive_and_edits_stay(project: Path, cruft: Cruft) -> None:
    replace(project / "README.md", "## Licence\n", "## Licence and thanks\n")
    replace(project / "experiment.toml", "seed = 0", "seed = 7")
    (project / "src" / "penguins" / "own.py").write_text('"""My own."""\n', "utf-8")
    git(project, "rm", "--quiet", "CITATION.cff")
    git(project, "add", "--all")
    commit(project)
    assert cruft(project, "check").returncode == 1

    done = cruft(project, "update", "--skip-apply-ask")

    assert done.returncode == 0, done.stdout
    readme = (project / "README.md").read_text("utf-8")
    assert "## Steps, one by one\n" in readme
    assert "## Licence and thanks\n" in readme
    assert (project / "NEWS.md").read_text("utf-8") == "# News of Penguins\n"
    assert (project / ".gitignore").read_text("utf-8").endswith("*.swp\n")
    changed = {line.split()[-1] for line in git(project, "status", "--porcelain").splitlines()}
    assert changed == {"README.md", "NEWS.md", ".gitignore", ".cruft.json"}
    git(project, "add", "--all")
    commit(project)
    assert cruft(project, "check").returncode == 0
    assert cruft(project, "update", "--skip-apply-ask").returncode == 0
    assert git(project, "status", "--porcelain") == ""


def test_what_cookiecutter_baked_can_be_linked_later(
    template: Path,
    cookiecutter: Cookiecutter,
    cruft: Cruft,
    tmp_path: Path,
    git_user: dict[str, str],
) -> None:
    answers = {"project_name": "Gulls"}
    words = ("--checkout", "then")
    address = f"git+file://{template}"
    done = cookiecutter(*words, template=address, cwd=tmp_path, environment=git_user, **answers)
    assert done.returncode == 0, done.stdout
    gulls = tmp_path / "gulls"
    context = ("--extra-context", json.dumps(answers))
    done = cruft(gulls, "link", "--no-input", *words, *context, str(template))
    assert done.returncode == 0, done.stdout
    git(gulls, "add", ".cruft.json")
    commit(gulls)
    assert cruft(gulls, "update", "--skip-apply-ask").returncode == 0
    assert (gulls / "NEWS.md").read_text("utf-8") == "# News of Gulls\n"
    assert "## Steps, one by one\n" in (gulls / "README.md").read_text("utf-8")


def test_an_update_says_nothing_of_the_bakes_it_compares(project: Path, cruft: Cruft) -> None:
    assert "make setup" not in cruft(project, "update", "--skip-apply-ask").stdout


def test_both_sides_of_a_conflict_are_shown(project: Path, cruft: Cruft) -> None:
    replace(project / "README.md", "## Steps\n", "## My steps\n")
    commit(project)
    done = cruft(project, "update", "--skip-apply-ask")
    assert "README.md" in done.stdout
    assert "with conflicts" in done.stdout
    assert "UU README.md" in git(project, "status", "--porcelain").splitlines()
    readme = (project / "README.md").read_text("utf-8")
    ours, theirs = readme.split("<<<<<<< ours\n")[1].split(">>>>>>> theirs")[0].split("=======\n")
    assert (ours, theirs) == ("## My steps\n", "## Steps, one by one\n")
    assert (project / "NEWS.md").exists()


def test_uncommitted_work_is_not_touched(project: Path, cruft: Cruft) -> None:
    replace(project / "README.md", "## Steps\n", "## My steps\n")
    before = files(project)
    done = cruft(project, "update", "--skip-apply-ask")
    assert "clean" in done.stdout
    assert files(project) == before


def test_without_the_skipped_history_an_update_would_fail(project: Path, cruft: Cruft) -> None:
    # If this fails, the template's [tool.cruft] is no longer needed.
    replace(project / "pyproject.toml", 'skip = [".git"]', "skip = []")
    commit(project)
    elsewhere = project.parent
    cruft(elsewhere, "update", "--skip-apply-ask", "--project-dir", str(project))
    assert not (project / "NEWS.md").exists()


def test_an_update_from_elsewhere_arrives_too(project: Path, cruft: Cruft) -> None:
    words = ["update", "--skip-apply-ask", "--project-dir", str(project)]
    done = cruft(project.parent, *words)
    assert done.returncode == 0, done.stdout
    assert (project / "NEWS.md").exists()
