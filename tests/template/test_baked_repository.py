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
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .conftest import ANSWERS, GATES, ONE_WORKER, ROOT, Make

pytestmark = ONE_WORKER

LOCKS = ["packager.lock", "requirements-dev.txt", "requirements.txt"]


def git(project: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=project, capture_output=True, text=True, check=True)
    return done.stdout


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@contextmanager
def written(path: Path, text: str | tuple[str, str]) -> Iterator[None]:
    """Write a file for a while, or replace one text in it by another."""
    before = path.read_bytes() if path.exists() else None
    if isinstance(text, tuple):
        assert before is not None
        after = before.decode().replace(*text, 1).encode()
        assert after != before
    else:
        after = text.encode()
    path.write_bytes(after)
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


def test_setup_adds_the_locks_and_changes_nothing_else(project: Path) -> None:
    # What training changes, where another test has trained already.
    trained = [":!models", ":!experiments", ":!MODEL_CARD.md"]
    status = git(project, "status", "--porcelain", "--", ".", *trained).splitlines()
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


def test_a_clone_that_does_not_know_packager_says_what_to_type(
    project: Path, make: Make, tmp_path: Path
) -> None:
    git(project, "clone", "--quiet", ".", str(tmp_path / "clone"))
    done = make(tmp_path / "clone", "setup")
    assert done.returncode == 2
    assert "make setup PACKAGER=ADDRESS" in done.stdout
    assert not (tmp_path / "clone" / ".packager").exists()


def test_a_source_that_cannot_be_installed_leaves_the_packager_that_works(
    project: Path, make: Make, tmp_path: Path
) -> None:
    done = make(project, "setup", f"PACKAGER={tmp_path / 'nothing'}")
    assert done.returncode == 2
    assert git(project, "config", "--local", "packager.source").strip() == str(ROOT)
    assert make(project, "lock-check").returncode == 0


def test_the_clone_remembers_which_packager_it_was_told(project: Path) -> None:
    told = git(project, "config", "--local", "packager.source").strip()
    assert told == (project / ".packager" / "source").read_text().strip()


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
    assert {"numpy", "scikit-learn", "skops"} <= image <= workbench
    assert not image & {"black", "hatchling", "pandas", "pdoc", "pre-commit", "pytest", "ruff"}


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("name", GATES)
def test_a_fresh_repository_passes_its_own_gate(project: Path, gate: Make, name: str) -> None:
    before = git(project, "diff")
    done = gate(project, name)
    assert done.returncode == 0, done.stdout
    assert git(project, "diff") == before


def test_check_runs_every_gate(project: Path, make: Make) -> None:
    planned = make(project, "--dry-run", "check").stdout
    for name in GATES:
        assert make(project, "--dry-run", name).stdout.splitlines()[-1] in planned


EXTRA = "src/birds/extra.py"
DOCUMENTED = '"""Extra."""\n\n\ndef extra(x: int) -> int:\n    """{}"""\n    return x\n'
KEY = f"AKIA{'Q7X2' * 4}"
"""Shaped like a key to a cloud, and nobody's."""


MISTAKES: list[tuple[str, str, str | tuple[str, str], str]] = [
    ("lint", EXTRA, '"""Extra."""\n\nimport os\n', "F401"),
    ("format-check", EXTRA, '"""Extra."""\n\nX  =  1\n', "would reformat"),
    ("format-check", "notebooks/explore.ipynb", ("Path(", "Path( "), "would reformat"),
    ("types", EXTRA, DOCUMENTED.format("Do.").replace("x\n", "'x'\n"), "return-value"),
    ("docstrings", EXTRA, DOCUMENTED.replace('    """{}"""\n', ""), "undocumented"),
    ("docstrings", EXTRA, DOCUMENTED.format("Do.\n\n    More.\n    "), "missing-returns"),
    ("docstrings", EXTRA, DOCUMENTED.format("Do _summary_."), "placeholders"),
    ("notebooks", "notebooks/explore.py", ("What it says", "What it said"), "make format"),
    ("notebooks", "notebooks/explore.ipynb", ("What it says", "What it said"), "make format"),
    (
        "notebooks",
        "notebooks/explore.ipynb",
        ('"execution_count": null', '"execution_count": 7'),
        "would have stripped",
    ),
    ("secrets", "README.md", ("# ", f"# {KEY} "), "AWS Access Key"),
    # A digest on the same line excuses no key.
    ("secrets", "README.md", ("# ", f"# sha256 {KEY} "), "AWS Access Key"),
    ("large-files", "README.md", "#" * 2_100_000, "exceeds 2000 KB"),
    ("lock-check", "pyproject.toml", ("skops>=0.13", "skops>=0.12"), "skops"),
    ("lock-check", "requirements.txt", ("sha256:", "sha256:0"), "requirements.txt"),
    ("docs", EXTRA, DOCUMENTED.format("Do.").replace("x: int", 'x: "No.Such"'), "annotation"),
    ("test", "data/raw/penguins.csv", ("39.1", "39.2"), "penguins.csv"),
    ("cards-check", "MODEL_CARD.md", ("## Caveats", "TODO\n\n## Caveats"), "MODEL_CARD.md:"),
    ("cards-check", "docs/record.md", ("## Why", "TODO\n\n## Why"), "has open questions"),
    (
        "cards-check",
        "models/metrics.json",
        ('"training": 2', '"training": 3'),
        "MODEL_CARD.md:",
    ),
]


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("name", "file", "text", "said"), MISTAKES, ids=[f"{one[0]}: {one[3]}" for one in MISTAKES]
)
def test_a_gate_refuses_what_it_is_there_to_refuse(
    project: Path,
    gate: Make,
    name: str,
    file: str,
    text: str | tuple[str, str],
    said: str,
) -> None:
    with written(project / file, text):
        done = gate(project, name)
    assert done.returncode == 2, done.stdout
    assert said in done.stdout


HOOKS = [
    *("ruff check", "black --check", "packager lock --check"),
    *("notebooks without outputs, one with their text", "no passwords, no keys"),
    "no file over 2 MB",
]


def test_hooks_run_the_locked_tools_at_each_commit(
    project: Path, make: Make, git_user: dict[str, str], tmp_path: Path
) -> None:
    assert make(project, "hooks").returncode == 0
    # The hooks need nothing of the shell that set the repository up.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **git_user}

    def commit() -> str:
        git(project, "add", "--all")
        done = subprocess.run(
            ["git", "commit", "--message", "A change"],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        shown = re.findall(r"^(.+?)\.{3,}.*?(Passed|Failed|Skipped)$", done.stdout, re.MULTILINE)
        assert [name for name, _ in shown] == HOOKS, done.stdout
        assert (done.returncode == 0) == all(result != "Failed" for _, result in shown)
        return " ".join(result for _, result in shown)

    start = git(project, "rev-parse", "HEAD").strip()
    try:
        with written(project / EXTRA, DOCUMENTED.format("Do.")):
            assert commit() == "Passed Passed Passed Skipped Passed Passed"
            assert git(project, "status", "--porcelain") == ""
        mistakes = {
            EXTRA: f'"""Extra."""\n\nimport os\nX  =  1\nkey = "{KEY}"\n',
            "pyproject.toml": ("skops>=0.13", "skops>=0.12"),
            "notebooks/explore.py": ("What it says", "What it said"),
            "data/raw/large.txt": "#" * 2_100_000,
        }
        with ExitStack() as stack:
            for file, text in mistakes.items():
                stack.enter_context(written(project / file, text))
            assert commit() == "Failed Failed Failed Failed Failed Failed"
        with written(project / "README.md", ("# ", "#  ")):
            assert commit() == "Skipped Skipped Skipped Skipped Passed Passed"
    finally:
        git(project, "reset", "--quiet", start)
        (project / ".git" / "hooks" / "pre-commit").unlink()


def test_training_twice_gives_the_same_files(project: Path, make: Make, trained: Path) -> None:
    first = digests(trained)
    assert set(first) == {"examples.json", "metrics.json", "model.skops", "sample.csv"}
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
    name = metrics["optimise"]
    assert f"{name} {metrics['held_out'][name]:g}" in done.stdout
    assert f"holds     {name}" in done.stdout


@pytest.mark.usefixtures("trained")
def test_evaluate_fails_where_a_threshold_is_missed(project: Path, make: Make) -> None:
    with written(project / "experiment.toml", ("min = 0.9", "min = 1.1")):
        done = make(project, "evaluate")
    assert done.returncode == 2
    assert "A threshold of experiment.toml is missed" in done.stdout


def test_a_model_that_is_not_the_recorded_one_fails_the_tests(project: Path, trained: Path) -> None:
    with written(trained / "examples.json", ('"Adelie"', '"Gentoo"')):
        done = subprocess.run(
            [".venv/bin/python", "-m", "pytest", "tests/test_examples.py"],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
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
