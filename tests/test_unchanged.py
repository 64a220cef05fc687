"""A build that changes nothing says again what the last one said, and nothing escapes it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Tiny, copy_store, git

from packager import unchanged
from packager.outputs.engine import Engine
from packager.project import load
from packager.store import Store

WISHES = {"tag": "None"}
TOLD = {"id": "sha256:1"}


@pytest.fixture
def repository(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with an own .gitignore, a second package and a card, all committed."""
    monkeypatch.setattr(unchanged, "SETTLED_NS", -(10**12))  # believe at once
    root = tiny.root
    (root / ".gitignore").write_text("*.log\n")
    (root / "src" / "data").mkdir()
    (root / "src" / "data" / "table.csv").write_text("1\n")
    (root / "CARD.md").write_text("# Card\n")
    tiny.edit("pyproject.toml", "[tool.packager]\n", '[tool.packager]\ncard = "CARD.md"\n')
    if not (root / ".git").exists():
        git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    return root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "notes")


def keep(root: Path, store: Store) -> bool:
    """Remember a build of the repository as it is; say whether that was possible."""
    stamp = unchanged.take(load(root), WISHES)
    if stamp:
        stamp.keep(store, TOLD)
    return unchanged.recall(store, root, WISHES) == TOLD


def append(path: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with (root / path).open("a") as file:
            file.write(" ")

    return change


def write(path: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")

    return change


def same_size_and_times(root: Path) -> None:
    """Change a model as a tool would that keeps its time."""
    path = root / "models" / "model.txt"
    before = path.stat()
    path.write_bytes(b"9.5\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def replaced(root: Path) -> None:
    path = root / "models" / "model.txt"
    shutil.copy2(path, root / "models" / "other.txt")
    (root / "models" / "other.txt").replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "code": append("src/tiny/predict.py"),
    "model": append("models/model.txt"),
    "model, size and time kept": same_size_and_times,
    "model, another file": replaced,
    "examples": append("models/examples.json"),
    "card": append("CARD.md"),
    "configuration": append("pyproject.toml"),
    "lock": append("packager.lock"),
    "requirements": append("requirements.txt"),
    "new module": write("src/tiny/new.py"),
    "new folder": write("src/tiny/deep/new.py"),
    "gone": lambda root: (root / "src" / "tiny" / "predict.py").unlink(),
    "mode": lambda root: (root / "src" / "tiny" / "predict.py").chmod(0o755),
    "new package": write("src/other/__init__.py"),
    "folder becomes a package": write("src/data/__init__.py"),
    "rules": append(".gitignore"),
    "attributes": append(".gitattributes"),
    "rules above": write("src/.gitignore"),
    "attributes above": write("src/.gitattributes"),
    "attributes beside": write("src/tiny/.gitattributes"),
    "commit": lambda root: git(root, "commit", "-qm", "more", "--allow-empty"),
    "branch": lambda root: git(root, "checkout", "-qb", "other"),
    "staged": lambda root: (write("new.txt")(root), git(root, "add", "new.txt")),
    "git's configuration": lambda root: git(root, "config", "core.ignorecase", "true"),
    "git within": lambda root: git(root / "src", "init", "-q"),
    "no git": lambda root: shutil.rmtree(root / ".git"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_an_image_depends_on_is_watched(
    change: Callable[[Path], object], repository: Path, store: Store
) -> None:
    assert keep(repository, store)
    assert unchanged.recall(store, repository, {"tag": "other"}) is None
    change(repository)
    assert unchanged.recall(store, repository, WISHES) is None


@pytest.mark.parametrize(
    "change",
    [append("README.md"), write("notes.txt"), write("src/tiny/__pycache__/x.pyc")],
    ids=["README", "a file elsewhere", "bytecode again"],
)
def test_what_no_image_depends_on_is_not_watched(
    change: Callable[[Path], None], repository: Path, store: Store
) -> None:
    (repository / "src" / "tiny" / "__pycache__").mkdir(exist_ok=True)
    assert keep(repository, store)
    change(repository)
    assert unchanged.recall(store, repository, WISHES) == TOLD


def test_a_change_during_the_build_is_not_taken_for_what_was_built(
    repository: Path, store: Store
) -> None:
    stamp = unchanged.take(load(repository), WISHES)
    assert stamp
    append("src/tiny/predict.py")(repository)
    stamp.keep(store, TOLD)
    assert unchanged.recall(store, repository, WISHES) is None


def test_files_too_young_to_tell_are_not_believed(
    repository: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "SETTLED_NS", 10**12)
    assert not keep(repository, store)


def link(root: Path) -> None:
    (root / "src" / "tiny" / "link.py").symlink_to("predict.py")


def text_link(root: Path) -> None:
    link(root)
    git(root, "add", ".")
    (root / "src" / "tiny" / "link.py").unlink()
    git(root, "-c", "core.symlinks=false", "checkout", "-q", "src/tiny/link.py")
    assert not (root / "src" / "tiny" / "link.py").is_symlink()


def outside(root: Path) -> None:
    git(root, "init", "-q", "--separate-git-dir", str(root.parent / "git"))


def odd_name(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root / "src" / "tiny") + b"/\xff.log")).touch()


@pytest.mark.parametrize("change", [link, text_link, outside, odd_name])
def test_where_identities_do_not_tell_nothing_is_remembered(
    change: Callable[[Path], None], repository: Path, store: Store
) -> None:
    assert keep(repository, store)
    change(repository)
    assert not keep(repository, store)


def test_words_that_are_no_text_are_no_trouble(tmp_path: Path, store: Store) -> None:
    assert unchanged.recall(store, tmp_path / "\udcff", {"tag": "\udcff"}) is None


def test_without_git_it_works_as_well_until_there_is_one(repository: Path, store: Store) -> None:
    shutil.rmtree(repository / ".git")
    assert keep(repository, store)
    git(repository, "init", "-q")
    assert unchanged.recall(store, repository, WISHES) is None


# --- With the engine -----------------------------------------------------------------------


ONE_NAME = pytest.mark.xdist_group("again")
"""Two workers would take the name of the image from each other."""


@pytest.fixture
def named(tiny: Tiny, tmp_path: Path, engine: Engine) -> Iterator[Tiny]:
    """A project of a name that no other test gives to an image."""
    tiny.edit("pyproject.toml", 'name = "tiny"', 'name = "again"')
    tiny.edit("pyproject.toml", 'description = "A factor"', f'description = "{tmp_path}"')
    tiny.store = copy_store(tiny.store, tmp_path / "store")
    yield tiny
    for name in ("again:0.1.0", "again:other"):
        if engine.find(name):
            engine.client.images.remove(name, force=True)


def settled(tiny: Tiny) -> str:
    """Build until nothing is left to be done; files tell only when they are two seconds old."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if " unchanged\n" in (told := tiny.run("build").stdout):
            return told
    raise AssertionError(told)


@ONE_NAME
def test_it_says_again_what_the_build_said(named: Tiny) -> None:
    first = named.built()
    told = settled(named)
    assert "passed before" in told
    assert str(first["id"]) in told
    again = named.built()
    for result in (first, again):
        for layer in result["layers"]:  # type: ignore[attr-defined]
            layer.pop("cached")
        result["smoke"].pop("remembered")  # type: ignore[attr-defined]
    assert again == first


@ONE_NAME
@pytest.mark.parametrize("change", ["gone", "renamed", "limits", "other engine", "tag"])
def test_what_the_engine_lacks_is_done(change: str, named: Tiny, engine: Engine) -> None:
    built = str(named.built()["id"])
    settled(named)
    arguments, environment = [], {}
    match change:
        case "gone":
            engine.client.images.remove("again:0.1.0", force=True)
        case "renamed":
            engine.client.api.tag(built, "again", "other")
            engine.client.images.remove("again:0.1.0")
        case "limits":
            arguments = ["--memory", "3g"]
        case "other engine":
            environment = {"DOCKER_HOST": f"unix://{named.root}/none"}
        case "tag":
            arguments = ["-t", "again:other"]
    run = named.run("build", *arguments, **environment)
    if change == "other engine":
        assert (run.returncode, "no container engine answers" in run.stderr) == (3, True)
        return
    assert run.returncode == 0
    assert (" unchanged\n" in run.stdout) == (change in {"gone", "renamed", "limits"})
    assert "passed before\n" in run.stdout or " passed\n" in run.stdout
    name = "again:other" if change == "tag" else "again:0.1.0"
    assert engine.get(name)["Id"] == built
