"""What is true of a baked repository once `make setup` has run: a real one, with real tools.

One repository with hostile answers is set up for all tests here, which takes a network and
some minutes; a test that changes a file puts it back.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import ANSWERS, ONE_WORKER, ROOT, Make

pytestmark = ONE_WORKER

LOCKS = ["packager.lock", "requirements-dev.txt", "requirements.txt"]
GATES = ["lint", "format-check", "test", "docs", "lock-check"]


def git(project: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=project, capture_output=True, text=True, check=True)
    return done.stdout


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@contextmanager
def changed(path: Path, old: str, new: str) -> Iterator[None]:
    """Replace text in a file for a while."""
    before = path.read_bytes()
    after = path.read_text("utf-8").replace(old, new, 1).encode()
    assert after != before
    path.write_bytes(after)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_setup_adds_the_locks_and_changes_nothing_else(project: Path) -> None:
    status = git(project, "status", "--porcelain", "--", ".", ":!models").splitlines()
    assert status == [f"?? {name}" for name in LOCKS]


def test_setup_is_idempotent(project: Path, make: Make) -> None:
    made = [project / name for name in (*LOCKS, ".venv/ready", ".packager/source")]
    before = [path.stat().st_mtime_ns for path in made]
    done = make(project, "setup")
    assert done.returncode == 0, done.stdout
    assert "pip install" not in done.stdout
    assert [path.stat().st_mtime_ns for path in made] == before


def test_another_source_of_packager_is_installed_anew(project: Path, make: Make) -> None:
    done = make(project, "--dry-run", "setup", "PACKAGER=model-packager==9")
    assert ".packager/bin/python -m pip install" in done.stdout
    assert '"model-packager==9"' in done.stdout


def test_locks_are_pinned_by_hash_and_name_no_place(
    project: Path, clean_environment: dict[str, str]
) -> None:
    for name in LOCKS:
        text = (project / name).read_text("utf-8")
        assert "sha256" in text
        assert not re.search(r"://|--find-links|--index-url", text), name
        assert str(ROOT) not in text
        assert clean_environment["HOME"] not in text


def test_nothing_of_the_workbench_enters_the_image(project: Path) -> None:
    def names(lock: str) -> set[str]:
        return set(
            re.findall(r"^([a-z0-9._-]+)==", (project / lock).read_text("utf-8"), re.MULTILINE)
        )

    image, workbench = names("requirements.txt"), names("requirements-dev.txt")
    assert {"pandas", "scikit-learn", "skops"} <= image <= workbench
    assert not image & {"black", "hatchling", "pdoc", "pre-commit", "pytest", "ruff"}


@pytest.mark.parametrize("gate", GATES)
def test_a_fresh_repository_passes_its_own_gate(project: Path, make: Make, gate: str) -> None:
    done = make(project, gate)
    assert done.returncode == 0, done.stdout
    assert git(project, "diff") == ""


def test_check_runs_every_gate(project: Path, make: Make) -> None:
    planned = make(project, "--dry-run", "check").stdout
    for gate in GATES:
        assert make(project, "--dry-run", gate).stdout.splitlines()[-1] in planned


@pytest.mark.parametrize(
    ("gate", "mistake", "said"),
    [
        ("lint", ("src/birds/data.py", "import io\n", "import io\nimport os\n"), "F401"),
        ("format-check", ("src/birds/data.py", "SEED = 0", "SEED  =  0"), "would reformat"),
        ("test", ("data/penguins.csv", "39.1", "39.2"), "not the file it should be"),
        ("docs", ("src/birds/data.py", "seed: int", "seed: 'No.Such'"), "parsing type annotation"),
        ("lock-check", ("pyproject.toml", "skops>=0.13", "skops>=0.12"), "skops"),
        ("lock-check", ("requirements.txt", "sha256:", "sha256:0"), "requirements.txt"),
    ],
)
def test_a_gate_refuses_what_it_is_there_to_refuse(
    project: Path, make: Make, gate: str, mistake: tuple[str, str, str], said: str
) -> None:
    file, old, new = mistake
    with changed(project / file, old, new):
        done = make(project, gate)
    assert done.returncode == 2
    assert said in done.stdout


def test_hooks_run_the_locked_tools_at_each_commit(
    project: Path, make: Make, git_user: dict[str, str], tmp_path: Path
) -> None:
    assert make(project, "hooks").returncode == 0
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **git_user}

    def commit() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "commit", "--all", "--message", "A change"],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    try:
        with changed(project / "src/birds/data.py", "import io\n", "import io\nimport os\n"):
            refused = commit()
            assert refused.returncode != 0
            assert "F401" in refused.stdout
        with changed(project / "pyproject.toml", "skops>=0.13", "skops>=0.12"):
            refused = commit()
            assert refused.returncode != 0
            assert re.search(r"packager lock --check\.+Failed", refused.stdout)
        with changed(project / "README.md", "# ", "#  "):
            accepted = commit()
            assert accepted.returncode == 0, accepted.stdout
            git(project, "reset", "--quiet", "--hard", "HEAD~1")
    finally:
        git(project, "reset", "--quiet")
        (project / ".git" / "hooks" / "pre-commit").unlink()


def test_training_twice_gives_the_same_files(project: Path, make: Make, trained: Path) -> None:
    first = digests(trained)
    assert set(first) == {"examples.json", "metrics.json", "model.skops"}
    assert make(project, "train").returncode == 0
    assert digests(trained) == first


def test_git_takes_the_model_and_its_examples(project: Path, trained: Path) -> None:
    untracked = git(project, "ls-files", "--others", "--exclude-standard", "models").split()
    assert untracked == [f"models/{name}" for name in sorted(digests(trained))]


def test_examples_keep_to_the_format(trained: Path, project: Path) -> None:
    text = (trained / "examples.json").read_text("utf-8")
    recorded = json.loads(text)
    again = json.dumps(recorded, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
    assert text == f"{again}\n"
    assert recorded["format"] == 1
    assert recorded["model"] == f"sha256:{digests(trained)['model.skops']}"
    assert recorded["data"]["license"] == "CC0-1.0"
    assert recorded["data"]["rows"] == len(recorded["inputs"]["sex"])
    assert None in recorded["inputs"]["sex"]
    packager = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["tool"]["packager"]
    assert project / packager["examples"] == trained / "examples.json"


def test_evaluate_prints_the_metrics_of_the_exported_model(
    project: Path, make: Make, trained: Path
) -> None:
    done = make(project, "--silent", "evaluate")
    assert done.returncode == 0, done.stdout
    metrics = json.loads((trained / "metrics.json").read_text("utf-8"))
    assert metrics.pop("model").startswith("sha256:")
    assert json.loads(done.stdout) == metrics


def test_a_model_that_is_not_the_recorded_one_fails_the_tests(
    project: Path, make: Make, trained: Path
) -> None:
    with changed(trained / "examples.json", '"Adelie"', '"Gentoo"'):
        done = make(project, "test")
    assert done.returncode == 2
    assert "test_the_model_predicts_what_is_recorded[committed]" in done.stdout


def test_the_baked_metadata_hold_the_answers(project: Path) -> None:
    script = (
        "import importlib.metadata, json; m = importlib.metadata.metadata('hostile-birds.2'); "
        "print(json.dumps([m['Summary'], m['Author-email'], m['License-Expression']]))"
    )
    python = project / ".venv" / "bin" / "python"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    summary, author, licence = json.loads(done.stdout)
    assert summary == ANSWERS["description"]
    assert author.endswith("<conan+barbarian@example.org>")
    assert licence == "BSD-3-Clause"
