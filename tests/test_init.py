"""Adopting a repository that was not made from the template."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from packager.errors import UsageError
from packager.init import adopt, render
from packager.project import load

PREDICTOR = """\
import nothing_that_is_installed

class Model:
    def predict(self, inputs):
        return inputs

def load(path):
    return Model()
"""

CLOSURE = """\
from types import SimpleNamespace

def load(path):
    def predict(inputs):
        return inputs
    return SimpleNamespace(predict=predict)
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    root = tmp_path / "my study"
    put(root, "models/model.skops", b"\x00")
    put(root, "requirements.txt", "scikit-learn>=1.7\nskops\n")
    return root


def put(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def written(root: Path) -> str:
    return (root / "pyproject.toml").read_bytes().decode()


def table(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(written(root))["tool"]["packager"]
    return found


def test_a_model_and_its_requirements_become_a_project_that_loads(study: Path) -> None:
    report = adopt(study)
    project = load(study)
    assert (project.name, project.version) == ("my-study", "0.1.0")
    assert str(project.model) == "models/model.skops"
    assert project.dependencies == ("scikit-learn>=1.7", "skops")
    assert (project.base, project.requires_python) == ("debian:bookworm", ">=3.11")
    assert (project.predictor, project.examples, project.trust_pickle) == (None, None, False)
    assert report.written == (study / "pyproject.toml",)
    assert stat.S_IMODE((study / "pyproject.toml").stat().st_mode) == 0o644
    assert [path.name for path in study.iterdir() if path.name.startswith(".")] == []


def test_each_key_is_explained_and_examples_are_asked_for(study: Path) -> None:
    adopt(study)
    text = written(study)
    assert '# examples = "models/examples.json"' in text
    assert '# predictor = "package.module:load"' in text
    assert "trust-pickle" not in text


def test_what_is_there_stays_as_it_is(study: Path) -> None:
    mine = (
        "# mine\r\n[project]  # a comment\r\nname = 'kept'\r\nversion = '3'\r\n"
        "dependencies = ['skops']\r\nrequires-python = '>=3.11'\r\n\r\n"
        "[project.scripts]\r\nkept = 'a:b'\r\n\r\n[tool.black]\r\nline-length = 99 # odd\r\n"
    )
    put(study, "pyproject.toml", mine)
    (study / "pyproject.toml").chmod(0o600)
    adopt(study)
    text = written(study)
    assert text.startswith(mine)
    assert "\n" not in text.replace("\r\n", "")
    assert load(study).dependencies == ("skops",)
    assert stat.S_IMODE((study / "pyproject.toml").stat().st_mode) == 0o600


def test_only_missing_keys_are_added_to_a_project(study: Path) -> None:
    put(study, "pyproject.toml", "[project]\nname = 'kept'\n\n[project.urls]\nsource = 'x'\n")
    adopt(study)
    project = tomllib.loads(written(study))["project"]
    assert project == {
        "name": "kept",
        "version": "0.1.0",
        "requires-python": ">=3.11",
        "dependencies": ["scikit-learn>=1.7", "skops"],
        "urls": {"source": "x"},
    }


def test_adopting_twice_is_refused_and_changes_nothing(study: Path) -> None:
    adopt(study)
    before = written(study)
    with pytest.raises(UsageError, match=r"there is a table \[tool.packager\] already"):
        adopt(study)
    assert written(study) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [("[project", "not valid TOML"), ("[tool.poetry]\nname = 'x'\n", r"in \[tool.poetry\]")],
)
def test_a_file_that_cannot_be_extended_is_left_alone(study: Path, text: str, message: str) -> None:
    put(study, "pyproject.toml", text)
    with pytest.raises(UsageError, match=message):
        adopt(study)
    assert written(study) == text


def test_several_models_are_listed_and_one_must_be_named(study: Path) -> None:
    put(study, "old/model.onnx", b"")
    with pytest.raises(UsageError) as wrong:
        adopt(study)
    assert wrong.value.what == ("2 files could be the model: models/model.skops, old/model.onnx")
    assert "--model models/model.skops" in wrong.value.hint
    assert not (study / "pyproject.toml").exists()
    adopt(study, model="old/model.onnx")
    assert table(study)["model"] == "old/model.onnx"


def test_environments_caches_and_pickled_data_are_no_models(study: Path) -> None:
    put(study, "env/pyvenv.cfg", "")
    for name in ("env/lib/a.joblib", ".cache/b.skops", "tests/c.onnx", "data/rows.pkl"):
        put(study, name, b"")
    adopt(study)
    assert table(study)["model"] == "models/model.skops"


def test_a_lone_pickle_is_a_model(study: Path) -> None:
    (study / "models/model.skops").rename(study / "models/model.pkl")
    adopt(study)
    assert table(study)["model"] == "models/model.pkl"


def test_no_model_is_an_error_that_says_what_was_looked_for(study: Path) -> None:
    (study / "models/model.skops").unlink()
    with pytest.raises(UsageError, match=r"no file ends in \.joblib, \.onnx"):
        adopt(study)


@pytest.mark.parametrize("name", ["../elsewhere", "absent.skops", "."])
def test_a_named_model_must_be_in_the_repository(study: Path, name: str) -> None:
    put(study.parent, "elsewhere", b"")
    with pytest.raises(UsageError, match="is no file or folder of this repository"):
        adopt(study, model=name)


def test_a_folder_can_be_named_and_then_needs_a_predictor(study: Path) -> None:
    put(study, "network/weights.bin", b"")
    report = adopt(study, model="network")
    assert table(study)["model"] == "network"
    assert "network has no built-in loader: write a predictor" in render(report)


@pytest.mark.parametrize("suffix", [".joblib", ".pkl"])
def test_a_pickle_is_trusted_in_so_many_words(study: Path, suffix: str) -> None:
    (study / "models/model.skops").rename(study / f"models/model{suffix}")
    report = adopt(study)
    assert table(study)["trust-pickle"] is True
    assert "# Loading a pickle runs whatever code is in it" in written(study)
    assert "is a pickle, which runs code when it is loaded" in render(report)


@pytest.mark.parametrize(
    ("requires", "base"),
    [
        (">=3.11", "debian:bookworm"),
        ("==3.11.*", "debian:bookworm"),
        (">=3.12", "debian:trixie"),
        ("<3.11", "debian:bookworm"),
    ],
)
def test_the_base_fits_the_python_that_is_asked_for(study: Path, requires: str, base: str) -> None:
    put(study, "pyproject.toml", f"[project]\nrequires-python = '{requires}'\n")
    report = adopt(study)
    assert table(study)["base"] == base
    assert ("No base offers such a Python" in render(report)) == (requires == "<3.11")


@pytest.mark.parametrize(
    ("pinned", "base"),
    [("3.13.2\n", "debian:trixie"), ("3.11", "debian:bookworm"), ("3.1", "debian:bookworm")],
)
def test_a_pinned_python_decides_where_nothing_else_does(
    study: Path, pinned: str, base: str
) -> None:
    put(study, ".python-version", pinned)
    adopt(study)
    assert table(study)["base"] == base


def test_requirements_lose_hashes_options_and_comments(study: Path) -> None:
    put(
        study,
        "requirements.txt",
        "\ufeff# compiled\n--index-url https://user:secret@host/\nnumpy==2.0 \\\n"
        "    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via -r x\n"
        "pandas[excel]>=2 ; python_version > '3'  # why\n-e .\nlocal @ file:///wheel.whl\n"
        "git+https://token@host/x\n",
    )
    report = adopt(study)
    project = tomllib.loads(written(study))["project"]
    assert project["dependencies"] == ["numpy==2.0", "pandas[excel]>=2 ; python_version > '3'"]
    text = render(report)
    for line in ("line 2", "line 8", "line 9 (local)", "line 10"):
        assert f"requirements.txt, {line}: left out of project.dependencies" in text
    assert "[tool.packager.build-from]" in text
    assert "secret" not in text
    assert "token" not in text


def test_the_hand_written_requirements_win_over_the_compiled_ones(study: Path) -> None:
    put(study, "requirements.in", "skops\n")
    adopt(study)
    assert load(study).dependencies == ("skops",)


def test_a_missing_library_of_the_loader_is_told(study: Path) -> None:
    put(study, "requirements.txt", "scikit-learn\n")
    assert "project.dependencies lacks skops" in render(adopt(study))


def test_a_dynamic_version_is_left_and_told(study: Path) -> None:
    put(study, "pyproject.toml", "[project]\nname = 'x'\ndynamic = ['version', 'dependencies']\n")
    text = render(adopt(study))
    assert "version" not in set(tomllib.loads(written(study))["project"]) - {"dynamic"}
    assert "version is dynamic" in text
    assert "project.dependencies is dynamic" in text


@pytest.mark.parametrize(
    ("path", "also", "predictor", "code"),
    [
        ("src/birds/serve.py", "src/birds/__init__.py", "birds.serve:load", ["src/birds"]),
        (
            "birds/deep/serve.py",
            "birds/__init__.py",
            "serve:load",
            ["birds", "birds/deep/serve.py"],
        ),
        ("birds/__init__.py", "birds/x.py", "birds:load", ["birds"]),
        ("scripts/serve.py", "notes.txt", "serve:load", ["scripts/serve.py"]),
    ],
)
@pytest.mark.parametrize("source", [PREDICTOR, CLOSURE])
def test_a_predictor_is_found_by_its_shape_and_never_imported(
    study: Path, *, path: str, also: str, predictor: str, code: list[str], source: str
) -> None:
    put(study, also, "")
    put(study, path, source)
    adopt(study)
    assert table(study)["predictor"] == predictor
    assert table(study)["code"] == code
    assert load(study).predictor == predictor


@pytest.mark.parametrize(
    "source",
    [
        "def load(path): ...\n",
        "def load(path): ...\ndef predict(rows): ...\n",
        "class A:\n    def load(self): ...\n    def predict(self, x): ...\n",
        "def load(:\n",
        "\0",
    ],
)
def test_other_shapes_are_not_taken_for_a_predictor(study: Path, source: str) -> None:
    put(study, "serve.py", source)
    adopt(study)
    assert "predictor" not in table(study)


def test_several_predictors_are_named_and_none_is_chosen(study: Path) -> None:
    put(study, "a.py", PREDICTOR)
    put(study, "b.py", CLOSURE)
    adopt(study)
    assert "predictor" not in table(study)
    assert '# predictor = "a:load"' in written(study)
    assert '"b:load"' in written(study)


def test_a_plain_function_that_predicts_is_mentioned_with_its_place(study: Path) -> None:
    put(study, "analysis/run.py", "import os\n\ndef predict(rows):\n    return rows\n")
    adopt(study)
    assert "predictor" not in table(study)
    assert '# "analysis/run.py, line 3" has a function predict' in written(study)


def test_recorded_examples_are_taken_where_they_can_be_read(study: Path) -> None:
    column = [{"name": "x", "datatype": "FP64", "shape": [-1]}]
    recorded = {
        "format": 1,
        "model": "sha256:" + "0" * 64,
        "signature": {"inputs": column, "outputs": column},
        "tolerance": {"rtol": 0, "atol": 0},
        "data": {"rows": 1, "source": "here", "license": "CC0-1.0"},
        "inputs": {"x": [1.0]},
        "outputs": {"x": [1.0]},
    }
    put(study, "models/examples.json", json.dumps(recorded | {"format": 9}))
    adopt(study)
    assert "examples" not in table(study)
    (study / "pyproject.toml").unlink()
    put(study, "models/examples.json", json.dumps(recorded))
    adopt(study)
    assert table(study)["examples"] == "models/examples.json"


def test_hostile_names_stay_data(study: Path) -> None:
    name = 'mo"del\\ é.skops'
    (study / "models/model.skops").rename(study / name)
    put(study, 'pre"dict.py', "def predict(): ...\n")
    adopt(study)
    assert table(study)["model"] == name
    assert 'pre\\"dict.py' in written(study)


def test_the_report_says_what_was_found_and_what_comes_next(study: Path) -> None:
    lines = render(adopt(study)).splitlines()
    assert lines[0] == "wrote pyproject.toml"
    assert lines[1].split() == ["model", "models/model.skops", "the", "only", "one", "here"]
    assert lines[-1] == "next: packager lock, then packager build"
