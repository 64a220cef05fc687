"""Every combination of the answers that decide which files a repository has.

Each is baked and checked with the tools of this repository's own environment; `make test-all`
also sets each framework and format up for real, trains, and runs every gate.
"""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import COUNTED
from conftest import git as git_does

from .conftest import GATES, HOSTILE, TEMPLATE, Bake, Make, files, git, hints, nearer

FORMATS = {
    "scikit-learn": ("skops", "onnx"),
    "xgboost": ("skops", "onnx"),
    "lightgbm": ("skops", "onnx"),
    "pytorch": ("safetensors", "torch.export"),
}
EXAMPLES = ("penguins", "blank")
LICENSES = ("Apache-2.0", "MIT", "BSD-3-Clause")
PUBLISHED = ("no", "GitHub Pages")
# What needs nothing but the tools themselves; test_baked_repository.py knows all the gates.
QUICK_GATES = ("lint", "format-check", "docstrings")


@dataclass(frozen=True)
class Combination:
    """Answers; those that decide on code are all combined, the others take turns."""

    framework: str
    export_format: str
    example: str
    license: str
    publish_docs: str
    hostile: str

    @property
    def name(self) -> str:
        return f"{self.framework}-{self.export_format}-{self.example}"

    @property
    def answers(self) -> dict[str, str]:
        own = {key: value for key, value in vars(self).items() if key != "hostile"}
        return {**HOSTILE[self.hostile], **own, "project_slug": "birds"}


def combinations() -> list[Combination]:
    """The three lists that take turns have 3, 2 and 7 entries: no two walk in step."""
    code = (
        (framework, export_format, example)
        for framework, export_formats in FORMATS.items()
        for export_format, example in itertools.product(export_formats, EXAMPLES)
    )
    turns = zip(*map(itertools.cycle, (LICENSES, PUBLISHED, HOSTILE)), strict=True)
    return [Combination(*each, *turn) for each, turn in zip(code, turns, strict=False)]


COMBINATIONS = combinations()


def test_every_answer_has_its_turn() -> None:
    for key, values in {
        "framework": set(FORMATS),
        "export_format": {each for formats in FORMATS.values() for each in formats},
        "example": set(EXAMPLES),
        "license": set(LICENSES),
        "publish_docs": set(PUBLISHED),
        "hostile": set(HOSTILE),
    }.items():
        assert {getattr(each, key) for each in COMBINATIONS} == values
    assert len({each.name for each in COMBINATIONS}) == len(COMBINATIONS) == 16


def test_the_questions_have_these_answers() -> None:
    asked = json.loads((TEMPLATE.parent / "cookiecutter.json").read_text("utf-8"))
    assert asked["framework"] == list(FORMATS)
    assert asked["example"] == list(EXAMPLES)
    assert asked["license"] == list(LICENSES)
    assert asked["publish_docs"] == list(PUBLISHED)


# --- Baked, and read with our own tools ------------------------------------------------------


@pytest.fixture(scope="module", params=COMBINATIONS, ids=lambda each: each.name)
def combined(
    request: pytest.FixtureRequest, bake: Bake, git_user: dict[str, str]
) -> tuple[Combination, Path]:
    return request.param, bake(environment=git_user, **request.param.answers)


def recipe(project: Path, make: Make, gate: str) -> list[list[str]]:
    """The commands of a gate, from the Makefile, with our tools in place of the locked ones."""
    planned = make(project, "--dry-run", gate).stdout.splitlines()
    commands = [shlex.split(line) for line in planned if line.startswith(".venv/bin/")]
    assert commands, planned
    tools = Path(sys.executable).parent
    return [[str(tools / Path(command[0]).name), *command[1:]] for command in commands]


def complaints(project: Path, make: Make, config: pytest.Config) -> list[str]:
    """Read every file with what reads it, run the quick gates, and see what git says."""
    found = []
    known = git(project, "ls-files", "--cached", "--others", "--exclude-standard")
    for name in known.splitlines():
        if name.startswith("data/raw/"):
            continue  # never edited, whatever it looks like
        content = (project / name).read_bytes()
        found += [f"{name}: {complaint}" for complaint in unreadable(name, content)]
    for gate in QUICK_GATES:
        config.stash[COUNTED]["gates"] += 1
        for command in recipe(project, make, gate):
            done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
            if done.returncode:
                found.append(f"{gate}: {done.stdout}{done.stderr}")
    status = git(project, "status", "--porcelain")
    return [*found, *(f"git status: {line}" for line in status.splitlines())]


READERS = {
    ".cff": yaml.safe_load,
    ".ipynb": json.loads,
    ".json": json.loads,
    ".py": lambda text: compile(text, "", "exec"),
    ".toml": tomllib.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
}


def unreadable(name: str, content: bytes) -> Iterator[str]:
    text = content.decode()
    try:
        READERS.get(Path(name).suffix, str)(text)
    except (SyntaxError, ValueError, yaml.YAMLError) as error:
        yield f"{type(error).__name__}: {error}"
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield "does not end in one line break"
    for number, line in enumerate(text.splitlines(), 1):
        if line != line.rstrip():
            yield f"white space at the end of line {number}"


def test_a_combination_is_sound(
    combined: tuple[Combination, Path], make: Make, pytestconfig: pytest.Config
) -> None:
    assert complaints(combined[1], make, pytestconfig) == []


def test_a_combination_has_one_file_of_each_name(combined: tuple[Combination, Path]) -> None:
    combination, project = combined
    names = set(files(project))
    package = {"model.py", "export.py", "exported.py", "dataset.py", "predict.py"}
    assert {f"src/birds/{name}" for name in package} <= names
    published = combination.publish_docs != "no"
    assert (".github/workflows/pages.yml" in names) == published
    # Only what chooses between examples may know the one that was not chosen.
    if combination.example == "blank":
        for name in names:
            assert b"enguin" not in (project / name).read_bytes(), name


@pytest.mark.parametrize("publish_docs", PUBLISHED)
def test_workflows_are_what_github_reads(bake: Bake, publish_docs: str) -> None:
    folder = bake(publish_docs=publish_docs) / ".github" / "workflows"
    workflows = sorted(map(str, folder.iterdir()))
    assert len(workflows) == (2 if publish_docs == "no" else 3)
    done = check_workflows(*workflows)
    assert done.returncode == 0, done.stdout


def test_a_workflow_that_github_would_refuse_is_found(bake: Bake) -> None:
    workflow = bake() / ".github" / "workflows" / "check.yml"
    workflow.write_text(workflow.read_text("utf-8").replace("runs-on:", "runs-at:"), "utf-8")
    done = check_workflows(str(workflow))
    assert done.returncode == 1
    assert "runs-on" in done.stdout


def check_workflows(*paths: str) -> subprocess.CompletedProcess[str]:
    # The schema travels with the tool: nothing is fetched.
    words = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *paths]
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sound(bake: Bake, git_user: dict[str, str]) -> Path:
    return bake(environment=git_user)


@pytest.mark.parametrize(
    ("file", "added", "said"),
    [
        ("src/penguins/extra.py", '"""Extra."""\n\nimport os\n', "F401"),
        ("src/penguins/extra.py", '"""Extra."""\n\nX  =  1\n', "would reformat"),
        ("src/penguins/extra.py", '"""Extra."""\n\n\ndef f(x):\n    return x\n', "D103"),
        ("extra.toml", "key = \n", "extra.toml: TOMLDecodeError"),
        ("extra.yml", "key: [\n", "extra.yml: ParserError"),
        ("extra.md", "end \n", "extra.md: white space at the end"),
        ("extra.txt", "fine\n", "git status: ?? extra.txt"),
    ],
    ids=["lint", "format", "docstrings", "toml", "yaml", "white space", "status"],
)
def test_what_is_not_sound_is_found(
    sound: Path,
    make: Make,
    pytestconfig: pytest.Config,
    file: str,
    added: str,
    said: str,
) -> None:
    (sound / file).write_text(added, "utf-8")
    try:
        complaint = complaints(sound, make, pytestconfig)[0]
    finally:
        (sound / file).unlink()
    assert said in complaint


# --- Set up for real -------------------------------------------------------------------------


def set_up() -> list[Combination]:
    """Each framework and format once, blank where others take the penguins all the way.

    Which is what test_baked_repository.py and test_frameworks.py do, but for these two.
    """
    others = {("xgboost", "onnx"), ("lightgbm", "onnx")}
    return [
        each
        for each in COMBINATIONS
        if (each.example == "penguins") == ((each.framework, each.export_format) in others)
    ]


def test_each_framework_and_format_is_set_up() -> None:
    chosen = {(each.framework, each.export_format) for each in set_up()}
    assert len(chosen) == len(set_up()) == sum(map(len, FORMATS.values()))


@pytest.fixture
def places(combined_for_real: Path, request: pytest.FixtureRequest) -> list[str]:
    """Words for make that say where PyTorch's own index is; no words where nobody needs it."""
    if not hints(combined_for_real):
        return []
    return nearer(combined_for_real, request.getfixturevalue("pytorch_index"))


@pytest.fixture
def combined_for_real(request: pytest.FixtureRequest, bake: Bake, git_user: dict[str, str]) -> Path:
    return bake(environment=git_user, **request.param.answers)


@pytest.mark.whole
@pytest.mark.parametrize("combined_for_real", set_up(), ids=lambda each: each.name, indirect=True)
def test_a_combination_trains_and_passes_every_gate(
    combined_for_real: Path, make: Make, gate: Make, places: list[str]
) -> None:
    project = combined_for_real
    blank = not (project / "data" / "raw" / "penguins.csv").exists()
    for step in ["setup", "train", *([] if blank else ["cards"])]:
        done = make(project, step, *places)
        assert done.returncode == 0, done.stdout
    git_does(project, "add", "--all")
    git_does(project, "commit", "--quiet", "--message", "The first day")
    for name in GATES:
        done = gate(project, name)
        if blank and name == "cards-check":
            # Its cards hold questions, and this gate is there to see them answered.
            assert done.returncode == 2
            assert "TODO" in done.stdout
        else:
            assert done.returncode == 0, f"{name}: {done.stdout}"
    done = make(project, "evaluate")
    assert done.returncode == 0, done.stdout
    assert git(project, "status", "--porcelain") == ""
