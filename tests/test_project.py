"""Claims about configuration: each mistake gets one clear message that names file and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Tiny, run_packager, write_tiny

from packager import project
from packager.errors import ClaimError, PackagerError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tiny(tmp_path)
    return tmp_path


def change(root: Path, old: str, new: str) -> None:
    path = root / "pyproject.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_is_written_is_what_is_read(root: Path) -> None:
    loaded = project.load(root)
    assert (loaded.name, loaded.version, loaded.license) == ("tiny", "0.1.0", "Apache-2.0")
    assert (loaded.base, loaded.python, loaded.platforms) == (
        "debian:bookworm",
        "3.11",
        ("linux/amd64",),
    )
    assert [str(path) for path in loaded.code] == ["src/tiny"]
    assert str(loaded.model) == "models/model.txt"


MODEL = 'model = "models/model.txt"'
MISTAKES = {
    "unknown key": (MODEL, f"{MODEL}\nos-packges = []", "os-packges: unknown key", "os-packages"),
    "wrong type": (MODEL, "model = 3", "tool.packager.model: input should be", "string"),
    "missing key": (MODEL, "", "tool.packager.model: this key is missing", ""),
    "leaves": (MODEL, 'model = "../model.txt"', "tool.packager.model: must be a path inside", ""),
    "absolute": (MODEL, 'model = "/model.txt"', "tool.packager.model: must be a path inside", ""),
    "base": ("debian:bookworm", "debian:sarge", "unknown base 'debian:sarge'", "debian:trixie"),
    "python": (">=3.11", "==3.12.*", "leaves out Python 3.11", "No base offers"),
    "other python": (">=3.11", ">=3.13", "leaves out Python 3.11", "debian:trixie"),
    "specifier": (">=3.11", "newest", "project.requires-python", "newest"),
    "platform": (MODEL, f'{MODEL}\nplatforms = ["windows"]', "platforms.0", "linux/amd64"),
    "requirement": ("dependencies = []", 'dependencies = ["a b"]', "project.dependencies", "a b"),
    "reference": (
        "dependencies = []",
        'dependencies = ["a @ https://example.org/a.whl"]',
        "direct reference",
        "find-links",
    ),
    "credentials": (
        MODEL,
        f'{MODEL}\nextra-index-urls = ["https://u:secret@example.org/simple"]',
        "extra-index-urls.0: must not hold credentials",
        "netrc",
    ),
    "predictor": ('"tiny.predict:load"', '"tiny.predict"', "tool.packager.predictor", ""),
    "version": ('version = "0.1.0"', 'dynamic = ["version"]', "version is dynamic", "static"),
    "code": (MODEL, f'{MODEL}\ncode = ["lib"]', "tool.packager.code", "lib does not exist"),
    "toml": (MODEL, "model = ", "not valid TOML", ""),
    "table": ("[tool.packager]", "[tool.pakager]", "no [tool.packager]", "packager init"),
}


@pytest.mark.parametrize(("old", "new", "says", "also"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_a_clear_message(
    root: Path, old: str, new: str, says: str, also: str
) -> None:
    change(root, old, new)
    with pytest.raises(UsageError) as caught:
        project.load(root)
    message = str(caught.value)
    assert "pyproject.toml" in message
    assert says in message
    assert also in message
    assert "secret" not in message


def test_another_expected_version_is_refused(root: Path) -> None:
    change(root, MODEL, f'{MODEL}\nrequires = ">=99"')
    with pytest.raises(ClaimError, match="expects packager >=99"):
        project.load(root)


def test_the_root_is_found_from_below_and_missed_elsewhere(root: Path, tmp_path: Path) -> None:
    assert project.find_root(root / "src" / "tiny") == root
    with pytest.raises(PackagerError, match=r"no pyproject.toml here or above"):
        project.find_root(Path(tmp_path.anchor))


def mistake(tiny: Tiny, name: str) -> None:
    if name == "model is missing":
        (tiny.root / "models/model.txt").unlink()
    elif name == "model is an LFS pointer":
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
        (tiny.root / "models/model.txt").write_text(pointer)
    elif name == "predictor's function is missing":
        tiny.edit("src/tiny/predict.py", "def load(", "def other(")
    elif name == "predictor's module is missing":
        tiny.edit("pyproject.toml", "tiny.predict:load", "tiny.elsewhere:load")
    elif name == "pickle without consent":
        tiny.edit("pyproject.toml", 'predictor = "tiny.predict:load"\n', "")
        (tiny.root / "models/model.txt").rename(tiny.root / "models/model.joblib")
        tiny.edit("pyproject.toml", "model.txt", "model.joblib")
    elif name == "format without a loader":
        tiny.edit("pyproject.toml", 'predictor = "tiny.predict:load"\n', "")
    elif name == "examples are missing":
        (tiny.root / "models/examples.json").unlink()
    elif name == "examples are damaged":
        (tiny.root / "models/examples.json").write_text("{")
    elif name == "unknown key":
        tiny.edit("pyproject.toml", "[tool.packager]", "[tool.packager]\nmodle = 1")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model is missing", "models/model.txt does not exist"),
        ("model is an LFS pointer", "git-LFS pointer"),
        ("predictor's function is missing", "defines no load"),
        ("predictor's module is missing", "no module tiny.elsewhere"),
        ("pickle without consent", "trust-pickle = true"),
        ("format without a loader", "no built-in loader for .txt"),
        ("examples are missing", "models/examples.json does not exist"),
        ("examples are damaged", "not a file of recorded examples"),
        ("unknown key", "tool.packager.modle: unknown key"),
    ],
)
def test_a_build_that_cannot_work_ends_in_one_message_and_exit_2(
    tiny: Tiny, name: str, says: str
) -> None:
    mistake(tiny, name)
    run = tiny.run("build", "--no-load", "-o", "image.tar")
    assert run.returncode == UsageError.exit_code, run.stderr
    assert says in run.stderr
    assert run.stderr.count("error:") == 1
    assert "Traceback" not in run.stderr
    assert not list(tiny.root.glob("*.tar*"))


def test_no_arguments_teach_and_a_wrong_command_exits_2(tmp_path: Path) -> None:
    shown = run_packager(tmp_path, tmp_path / "store", "--help")
    assert shown.returncode == 0
    for command in ("init", "lock", "build", "smoke", "info"):
        assert f"\n  {command} " in shown.stdout
    wrong = run_packager(tmp_path, tmp_path / "store", "bild")
    assert wrong.returncode == UsageError.exit_code
    assert "bild" in wrong.stderr
