"""Claims about the project's own files: a commit says what enters an image, a machine does not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from conftest import Tiny, git, run_packager, write_tiny

from packager import project, provenance
from packager.errors import ClaimError, HostError, UsageError
from packager.layers import tar, tree
from packager.layers.bytecode import Work
from packager.layers.making import Recipe, make
from packager.project import Project
from packager.store import Blob, Store

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tiny project, committed."""
    root = tmp_path / "tiny"
    root.mkdir()
    write_tiny(root)
    (root / ".gitignore").write_text("*.log\n")
    commit(root)
    return root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, for settings of git."""
    folder = tmp_path / "home"
    (folder / ".config" / "git").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
    return folder


def commit(root: Path) -> None:
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "All")


def code_of(root: Path) -> dict[str, bytes]:
    return dict(tree.own_files(project.load(root)).code)


def commit_of(root: Path) -> tuple[str, bool]:
    source = provenance.of(project.load(root))
    return source.commit, source.dirty


def without_links(root: Path, tmp_path: Path) -> Path:
    """Clone as git does on a system that has no links, Windows for one."""
    git(tmp_path, "-c", "core.symlinks=false", "clone", "-q", str(root), "without-links")
    return tmp_path / "without-links"


def test_a_checkout_without_links_has_the_same_code(root: Path, tmp_path: Path) -> None:
    (root / "src/tiny/alias.py").symlink_to("predict.py")
    (root / "src/tiny/second.py").symlink_to("../tiny/alias.py")
    (root / "src/tiny/folder").symlink_to("../tiny")
    commit(root)
    clone = without_links(root, tmp_path)
    assert (clone / "src/tiny/alias.py").read_text() == "predict.py"
    code = code_of(clone)
    assert code == code_of(root)
    assert code["src/tiny/second.py"] == code["src/tiny/predict.py"]
    assert "src/tiny/folder" not in code


@pytest.mark.parametrize("target", ["../../../secret.py", "/etc/passwd"])
def test_a_link_as_text_leads_out_no_more_than_a_link(
    target: str, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.py").write_text("secret = 1")
    (root / "src/tiny/out.py").symlink_to(target)
    commit(root)
    with pytest.raises(UsageError, match=r"src/tiny/out\.py is a link out of the repository"):
        code_of(without_links(root, tmp_path))


def test_a_project_in_a_subfolder_of_a_repository_gives_the_same_image(
    tiny: Tiny, tmp_path: Path
) -> None:
    above = tmp_path / "repository"
    below = above / "papers" / "one of many"
    below.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", str(tiny.root), str(below)], check=True)
    subprocess.run(["rm", "-rf", str(below / ".git")], check=True)
    commit(above)
    first = tiny.built("--no-load", "-o", str(tmp_path / "first.tar"))
    second = Tiny(below, tiny.store).built("--no-load", "-o", str(tmp_path / "second.tar"))
    assert second["id"] == first["id"]
    assert second["commit"] == git(above, "rev-parse", "HEAD").strip() != first["commit"]
    assert second["dirty"] is False


def change_settings(root: Path, home: Path, name: str) -> None:
    """Set up one of the many ways in which a machine can tell git to see files otherwise."""
    if name == "excludes of the user":
        (home / ".config/git/ignore").write_text("new.py\n")
    elif name == "excludes of the clone":
        (root / ".git/info/exclude").write_text("new.py\n")
    elif name == "attributes of the user":
        (home / ".config/git/attributes").write_text(
            "*.py text eol=crlf filter=upper\n*.dat text\n"
        )
        git(root, "config", "--global", "filter.upper.clean", "tr a-z A-Z")
    elif name == "attributes of the clone":
        (root / ".git/info/attributes").write_text("*.py filter=upper\n*.dat text\n")
        git(root, "config", "filter.upper.clean", "tr a-z A-Z")
    elif name == "line endings":
        git(root, "config", "--global", "core.autocrlf", "true")
        git(root, "rm", "-q", "--cached", "-r", ".")
        git(root, "reset", "-q", "--hard")
        assert b"\r\n" in (root / "src/tiny/predict.py").read_bytes()
    elif name == "a filter for what the repository calls filtered":
        git(root, "config", "--global", "filter.pointer.clean", "echo pointer")


SETTINGS = [
    "excludes of the user",
    "excludes of the clone",
    "attributes of the user",
    "attributes of the clone",
    "line endings",
    "a filter for what the repository calls filtered",
]


@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_of_a_machine_changes_the_code(root: Path, home: Path, name: str) -> None:
    (root / "src/tiny/table.dat").write_bytes(b"stored\r\nas it is\r\n")
    (root / "src/tiny/big.bin").write_bytes(b"\x00weights")
    (root / ".gitattributes").write_text("models/* -text\n*.bin filter=pointer\n")
    commit(root)
    (root / "src/tiny/new.py").write_text("new = 1\n")
    (root / "src/tiny/noise.log").write_text("ignored by the repository itself\n")
    before = code_of(root)
    assert before["src/tiny/table.dat"] == b"stored\r\nas it is\r\n"
    assert before["src/tiny/big.bin"] == b"\x00weights"
    assert "src/tiny/new.py" in before
    assert "src/tiny/noise.log" not in before
    change_settings(root, home, name)
    assert code_of(root) == before
    (root / ".gitignore").write_text("new.py\n")
    assert "src/tiny/new.py" not in code_of(root)


def test_no_variable_of_git_leads_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_tiny(other, "other")
    commit(other)
    code, head = code_of(root), commit_of(root)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    assert git(root, "ls-files").startswith(".gitattributes")
    assert "other" in git(root, "ls-files")
    assert code_of(root) == code
    assert commit_of(root) == head


def test_dirty_are_the_inputs_that_the_commit_does_not_hold(root: Path, home: Path) -> None:
    commit_id = git(root, "rev-parse", "HEAD").strip()
    assert commit_of(root) == (commit_id, False)
    (root / "README.md").write_text("Not an input\n")
    (root / "src/tiny/__pycache__").mkdir()
    (root / "src/tiny/__pycache__/predict.pyc").write_bytes(b"")
    assert commit_of(root) == (commit_id, False)
    (home / ".config/git/ignore").write_text("new.py\n")
    (root / "src/tiny/new.py").write_text("new = 1\n")
    assert commit_of(root) == (commit_id, True)
    (root / "src/tiny/new.py").unlink()
    (root / "src/tiny/predict.py").write_text("changed = 1\n")
    assert commit_of(root) == (commit_id, True)


def test_a_repository_without_a_commit_has_code_and_no_provenance(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    plain = code_of(tmp_path)
    git(tmp_path, "init", "-q")
    assert code_of(tmp_path) == plain
    assert commit_of(tmp_path) == ("", False)


def break_git(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "no git":
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    elif name == "damaged":
        (root / ".git/HEAD").write_text("nonsense\n")
    elif name == "another's":
        os.chown(root / ".git", 65534, 65534)
        os.chown(root, 65534, 65534)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no git", "there is no git"),
        ("damaged", "not a git repository"),
        pytest.param(
            "another's",
            "dubious ownership",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away"),
        ),
    ],
)
def test_a_git_that_fails_is_no_missing_git(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    break_git(root, tmp_path, monkeypatch, name)
    with pytest.raises(HostError, match=says):
        code_of(root)
    with pytest.raises(HostError, match=says):
        commit_of(root)
    (root / ".git").rename(tmp_path / "elsewhere")
    assert set(code_of(root)) == {"src/tiny/__init__.py", "src/tiny/predict.py"}
    assert commit_of(root) == ("", False)


def lfs_pointer(root: Path) -> None:
    (root / "src/tiny/weights.bin").write_bytes(POINTER)


def link_out(root: Path) -> None:
    (root.parent / "secret.py").write_text("secret = 1\n")
    (root / "src/tiny/out.py").symlink_to("../../../secret.py")


def newline(root: Path) -> None:
    (root / "src/tiny/two\nlines.py").write_text("")


def not_utf8(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/src/tiny/\xff.py")).write_text("")


@pytest.mark.parametrize("with_git", [True, False], ids=["git", "plain"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lfs_pointer, "src/tiny/weights.bin is a git-LFS pointer"),
        (link_out, "src/tiny/out.py is a link out of the repository"),
        (newline, r"two\\nlines.py' is not one line of UTF-8"),
        (not_utf8, r"\\udcff.py' is not one line of UTF-8"),
    ],
)
def test_code_that_cannot_be_taken_is_named(
    tmp_path: Path, damage: Callable[[Path], None], says: str, with_git: bool
) -> None:
    root = tmp_path / "tiny"
    root.mkdir()
    write_tiny(root)
    damage(root)
    if with_git:
        commit(root)
    with pytest.raises(UsageError, match=says):
        code_of(root)


def test_a_link_inside_the_repository_is_its_target(root: Path) -> None:
    (root / "src/tiny/again.py").symlink_to("predict.py")
    code = code_of(root)
    assert code["src/tiny/again.py"] == code["src/tiny/predict.py"]


def test_code_that_git_ignores_is_said_to_be_ignored(root: Path) -> None:
    git(root, "rm", "-rq", "--cached", "src")
    (root / ".gitignore").write_text("src/\n")
    with pytest.raises(UsageError, match=r"no files in src/tiny\n.*\.gitignore"):
        code_of(root)


def folder_model(root: Path) -> Project:
    """Make the model a folder."""
    (root / "models/net").mkdir()
    (root / "models/net/a.bin").write_bytes(b"a" * 10)
    (root / "models/net/deep").mkdir()
    (root / "models/net/deep/b.bin").write_bytes(b"b" * 20)
    return replace(project.load(root), model=PurePosixPath("models/net"))


def nowhere(_base: Blob, _architecture: str) -> AbstractContextManager[Work]:
    raise AssertionError("a model needs no interpreter")


def test_a_model_is_what_it_was_when_it_was_digested(root: Path, tmp_path: Path) -> None:
    folder = folder_model(root)
    model = tree.read_model(folder)
    store = Store(tmp_path / "store")
    recipe = Recipe("model", "net", "a key", 1, lambda _: list(model.entries))
    path = root / "models/net/deep/b.bin"
    path.write_bytes(b"x" * 20)
    with pytest.raises(ClaimError, match=r"models/net/deep/b\.bin.*changed while it was read"):
        list(make([recipe], {}, {}, store, nowhere))
    assert store.note("layer", "a key") is None
    path.write_bytes(b"b" * 20)
    [layer] = make([recipe], {}, {}, store, nowhere)
    names = [entry.path for entry in tar.read(layer.blob.path, "the layer")]
    assert names == ["srv/packager/model/net/a.bin", "srv/packager/model/net/deep/b.bin"]
    path.write_bytes(b"y" * 20)
    assert tree.read_model(folder).digest != model.digest


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("out.bin", "../../../secret", "models/net/out.bin is a link out of the repository"),
        ("inner", "deep", "models/net/inner is a link, but not to a file"),
        ("gone", "nowhere", "models/net/gone is a link, but not to a file"),
    ],
)
def test_a_link_in_a_model_leads_to_a_file_of_the_repository(
    root: Path, name: str, target: str, says: str
) -> None:
    folder = folder_model(root)
    (root.parent / "secret").write_text("secret")
    (root / "models/net/linked.bin").symlink_to("a.bin")
    assert len(tree.read_model(folder).entries) == 3
    (root / "models/net" / name).symlink_to(target)
    with pytest.raises(UsageError, match=says):
        tree.read_model(folder)


def test_a_pointer_deep_in_a_model_is_named(root: Path) -> None:
    folder = folder_model(root)
    (root / "models/net/deep/c.bin").write_bytes(POINTER)
    with pytest.raises(UsageError, match=r"models/net/deep/c\.bin is a git-LFS pointer"):
        tree.read_model(folder)


def test_a_name_that_cannot_be_written_down_is_refused_in_a_model(root: Path) -> None:
    folder = folder_model(root)
    (root / "models/net/two\nlines").write_text("")
    with pytest.raises(UsageError, match="not one line of UTF-8"):
        tree.read_model(folder)


def test_an_unreadable_repository_ends_in_one_message_and_exit_3(
    tiny: Tiny, tmp_path: Path
) -> None:
    (tiny.root / ".git/HEAD").write_text("nonsense\n")
    run = run_packager(tiny.root, tiny.store, "build", "--no-load", "-o", str(tmp_path / "x.tar"))
    assert run.returncode == HostError.exit_code
    assert "not a git repository" in run.stderr
    assert "Traceback" not in run.stderr
