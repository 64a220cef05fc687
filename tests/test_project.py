"""Claims about configuration: each mistake gets one clear message that names file and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Tiny, run_packager, write_tiny

from packager import claims, project, settings
from packager.errors import ClaimError, PackagerError, UsageError
from packager.layers import tree
from packager.layers.site import Site
from packager.store import Store

NAN, INF = float("nan"), float("inf")


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
    "archive": (
        "debian:bookworm",
        "oci-archive:../base.tar",
        "tool.packager.base: '../base.tar' must be a path inside",
        "",
    ),
    "daemon": ("debian:bookworm", "docker-daemon:A B", "tool.packager.base: 'A B' names no", ""),
    "card": (MODEL, f'{MODEL}\ncard = "../card.md"', "packager.card: must be a path inside", ""),
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
    "branch": (
        "[tool.packager]",
        '[tool.packager.build-from]\na = "git+https://example.org/a@main"\n\n[tool.packager]',
        "build-from.a: must end in @ and a whole commit",
        "git ls-remote",
    ),
    "credentials of git": (
        "[tool.packager]",
        f'[tool.packager.build-from]\na = "git+https://u:p@example.org/a@{"0" * 40}"\n\n'
        "[tool.packager]",
        "build-from.a: must not hold credentials",
        "",
    ),
    "folder": (
        "[tool.packager]",
        '[tool.packager.build-from]\na = "../a"\n\n[tool.packager]',
        "build-from.a: must be a path inside",
        "",
    ),
    "compiler": (
        'base = "debian:bookworm"',
        'base = "registry.example/python:3.12"\nbuild-packages = ["gcc"]',
        "build-packages are for bases that are assembled",
        "an image that has the packages",
    ),
    "another project": (
        "[tool.packager]",
        '[tool.packager.build-from]\na = "."\n\n[tool.packager]',
        'build-from.a: "." is what tiny is built from',
        "a folder of its own",
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
    "tool": ("[tool.packager]", "[other]", "no [tool.packager]", "packager init"),
    "dynamic": ('version = "0.1.0"', "dynamic = 5", "project.dynamic: input should be", "list"),
    "no version": ('"0.1.0"', '"hello world/x"', "project.version: 'hello world/x' is no", "440"),
    "version line": ('"0.1.0"', '"0.1.0\\n0.2"', "project.version: ", "is no version"),
    "script": (
        "[tool.packager]",
        '[project.scripts]\nfoo = "pkg"\n[tool.packager]',
        "project.scripts.foo: 'pkg' is not written module:function",
        "",
    ),
    "script name": (
        "[tool.packager]",
        '[project.scripts]\n"../foo" = "pkg:main"\n[tool.packager]',
        "'../foo' is not a name for a command",
        "",
    ),
    "script group": (
        "[tool.packager]",
        '[project.entry-points.console_scripts]\nfoo = "pkg:main"\n[tool.packager]',
        "project.entry-points.console_scripts",
        "commands go into [project.scripts]",
    ),
    "entry point": (
        "[tool.packager]",
        '[project.entry-points.plugins]\nfoo = "pkg\\nbar = other"\n[tool.packager]',
        "project.entry-points.plugins.foo: ",
        "is not written module or module:object",
    ),
    "licence": (
        '"Apache-2.0"',
        '{ text = "MIT", file = "LICENSE" }',
        "project.license: ",
        "string",
    ),
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


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tool = 3", "tool"),
        ("project = 1\n[tool.packager]", "project"),
        ("[tool]\npackager = 3", "tool.packager"),
    ],
)
def test_what_must_be_a_table_is_told_so(root: Path, text: str, key: str) -> None:
    model = 'model = "models/model.txt"\n' if text.endswith("]") else ""
    (root / "pyproject.toml").write_text(f"{text}\n{model}")
    with pytest.raises(UsageError, match=f"^pyproject.toml: {key}: must be a table$"):
        project.load(root)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"MIT OR Apache-2.0"', "MIT OR Apache-2.0"),
        ('{ text = "MIT" }', "MIT"),
        ('{ file = "LICENSE" }', ""),
    ],
)
def test_every_legal_form_of_a_licence_is_read(root: Path, written: str, meant: str) -> None:
    change(root, '"Apache-2.0"', written)
    assert project.load(root).license == meant


def test_a_version_is_normalised_and_names_the_metadata(root: Path) -> None:
    change(root, '"0.1.0"', '"v1.0-RC1"')
    change(root, 'name = "tiny"', 'name = "My.tiny--Project"')
    change(
        root,
        "[tool.packager]",
        '[project.scripts]\nrun = "tiny.predict : load [x]"\n'
        '[project.gui-scripts]\nshow = "tiny.predict:load"\n[tool.packager]',
    )
    loaded = project.load(root)
    entries = tree.code_entries(loaded, tree.own_files(loaded).code, Site.debian("3.11"))
    names = [entry.path for entry in entries]
    assert loaded.version == "1.0rc1"
    folder = "my_tiny_project-1.0rc1.dist-info"
    assert f"usr/local/lib/python3.11/dist-packages/{folder}/METADATA" in names
    assert {"usr/local/bin/run", "usr/local/bin/show"} <= set(names)


def test_the_same_text_is_checked_once_and_another_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    checked: list[object] = []
    real = settings.check
    monkeypatch.setattr(settings, "check", lambda keys: checked.append(keys) or real(keys))
    first = project.load(root, store)
    assert project.load(root, store) == first == project.load(root)
    assert len(checked) == 2  # once for the store, once without one
    change(root, 'version = "0.1.0"', 'version = "0.2.0"')
    assert project.load(root, store).version == "0.2.0"
    change(root, "[tool.packager]", "[tool.packager]\ntypo = 1")
    for _ in range(2):
        with pytest.raises(UsageError, match="unknown key"):
            project.load(root, store)


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


@pytest.mark.parametrize(
    ("predictor", "files", "says"),
    [
        ("tiny:load", {"__init__": "from .predict import load"}, ""),
        ("tiny:load", {"__init__": "from .predict import load as other"}, "defines no load"),
        ("tiny:load", {"__init__": "from .predict import *"}, ""),
        ("tiny:load", {"__init__": "def __getattr__(name): ..."}, ""),
        ("tiny:load", {"__init__": "try:\n    import load\nexcept ImportError:\n    x = 1"}, ""),
        ("tiny:load", {"__init__": "def other():\n    load = 1"}, "defines no load"),
        ("tiny:load", {"__init__": "# def load(path): ..."}, "defines no load"),
        ("tiny:load", {"__init__": "a, (load, b) = 1, (2, 3)"}, ""),
        ("tiny:load", {"__init__": "load: object = print"}, ""),
        ("tiny:load", {"__init__": "syntax of a newer Python"}, ""),
        ("tiny.predict:load", {}, ""),
        ("tiny.predict:other", {}, "src/tiny/predict.py defines no other"),
        ("predict:load", {}, "Did you mean tiny.predict?"),
        ("tiny.elsewhere:load", {}, "no module tiny.elsewhere"),
        ("dependency:load", {}, ""),
        ("dependency.inner:load", {}, ""),
    ],
)
def test_a_predictor_is_found_as_python_finds_it(
    root: Path, predictor: str, files: dict[str, str], says: str
) -> None:
    change(root, "tiny.predict:load", predictor)
    for name, text in files.items():
        (root / f"src/tiny/{name}.py").write_text(text)
    loaded = project.load(root)
    code = tree.own_files(loaded).code
    if not says:
        claims.check_predictor(loaded, code)
        return
    with pytest.raises(UsageError) as caught:
        claims.check_predictor(loaded, code)
    assert says in str(caught.value)
    assert "tool.packager.predictor" in str(caught.value)


def test_compiled_modules_are_modules(root: Path) -> None:
    change(root, "tiny.predict:load", "tiny.fast:load")
    (root / "src/tiny/fast.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    loaded = project.load(root)
    claims.check_predictor(loaded, tree.own_files(loaded).code)


def examples_of(root: Path) -> claims.Examples | None:
    loaded = project.load(root)
    return claims.read_examples(loaded, tree.read_model(loaded).digest)


def test_examples_are_read_as_the_image_will_read_them(root: Path) -> None:
    path = root / "models/examples.json"
    first = examples_of(root)
    assert first is not None
    assert (first.rows, first.license, first.source) == (3, "CC0-1.0", "made up")
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3))
    assert examples_of(root) == first


DAMAGED = {
    "no JSON": "{",
    "not UTF-8": "\udcff",
    "deep": "[" * 100_000,
    "no examples": "[]",
    "of another format": {"format": 2},
    "data is a list": {"data": []},
    "endless rows": {"data": {"rows": INF, "source": "", "license": ""}},
    "huge tolerance": {"tolerance": {"rtol": 10**400, "atol": 0}},
    "no outputs": {"outputs": {}},
    "short column": {"inputs": {"x": [1.0]}},
    "not a number": {"inputs": {"x": [1.0, NAN, 2.0]}},
    "infinite": {"inputs": {"x": [1.0, INF, 2.0]}},
    "lone surrogate": {"more": "\ud800"},
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_damaged_examples_are_named(root: Path, damage: str | dict[str, Any]) -> None:
    path = root / "models/examples.json"
    if isinstance(damage, dict):
        damage = json.dumps(json.loads(path.read_text()) | damage)
    path.write_bytes(damage.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        UsageError, match=r"^models/examples\.json: not a file of recorded examples"
    ):
        examples_of(root)


def test_examples_that_are_a_folder_are_named(root: Path) -> None:
    (root / "models/examples.json").unlink()
    (root / "models/examples.json").mkdir()
    with pytest.raises(
        UsageError, match=r"^models/examples\.json: not a file of recorded examples"
    ):
        examples_of(root)


def test_no_arguments_teach_and_a_wrong_command_exits_2(tmp_path: Path) -> None:
    shown = run_packager(tmp_path, tmp_path / "store", "--help")
    assert shown.returncode == 0
    for command in ("init", "lock", "build", "smoke", "info"):
        assert f"\n  {command} " in shown.stdout
    wrong = run_packager(tmp_path, tmp_path / "store", "bild")
    assert wrong.returncode == UsageError.exit_code
    assert "bild" in wrong.stderr


def test_settings_that_lock_has_checked_are_not_checked_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    assert run_packager(tiny.root, store, "lock", "--check").returncode == 0
    monkeypatch.setattr(settings, "check", None)
    assert project.load(tiny.root, Store(store)).name == "tiny"
    tiny.edit("pyproject.toml", "A factor", "Another factor")
    with pytest.raises(TypeError):
        project.load(tiny.root, Store(store))


def test_locks_are_checked_where_no_store_can_be(tiny: Tiny) -> None:
    checked = run_packager(tiny.root, Path("/dev/null/store"), "lock", "--check")
    assert checked.returncode == 0, checked.stderr
    tiny.edit("pyproject.toml", "dependencies = []", 'dependencies = ["idna"]')
    assert run_packager(tiny.root, Path("/dev/null/store"), "lock", "--check").returncode == 1
