"""Claims about wheels that packager builds: of sdists, folders, commits and the project itself."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Tiny, WheelMaker, git, write_tiny
from sdists import compiled, flit, own_backend, write_sdist, write_sources
from simple_index import SimpleIndex, served

from packager.errors import ClaimError, HostError, UsageError
from packager.lock.requirements import read_requirements
from packager.outputs.engine import Engine


@pytest.fixture
def project(tmp_path: Path, locked_tiny: Path, shared_store: Path) -> Tiny:
    """A project with an image of its own, whose base is locked already."""
    root = tmp_path / "homemade"
    write_tiny(root, "homemade")
    for name in ("packager.lock", "requirements.txt"):
        shutil.copy(locked_tiny / name, root)
    return Tiny(root, shared_store)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SimpleIndex]:
    """An index beside the user's own, with a package of pure Python and one in C."""
    made = [
        write_sdist(tmp_path / "made", "pure-thing", version, flit("pure-thing", version))
        for version in ("1.0", "2.0")
    ]
    made.append(write_sdist(tmp_path / "made", "quick-times", "1.0", compiled("quick-times")))
    with served(tmp_path / "index", *made) as running:
        yield running


def depend(project: Tiny, *names: str, settings: str = "", **origins: str) -> None:
    """Require distributions, and say what they are built from."""
    project.edit("pyproject.toml", "dependencies = []", f"dependencies = {[*names]}")
    built = "".join(f'{name} = "{origin}"\n' for name, origin in origins.items())
    with (project.root / "pyproject.toml").open("a") as file:
        file.write(f"{settings}\n\n[tool.packager.build-from]\n{built}")


def locked(project: Tiny, *words: str) -> str:
    run = project.run("lock", *words)
    assert run.returncode == 0, run.stderr
    return run.stdout


def refused(project: Tiny, kind: type[Exception], *words: str) -> str:
    """Have packager refuse something; nothing is written."""
    before = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    run = project.run(*(words or ("lock",)))
    assert run.returncode == kind.exit_code, run.stderr  # type: ignore[attr-defined]
    assert "Traceback (most recent call last)" not in run.stderr.partition("error: ")[0]
    after = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    assert after == before
    return run.stderr


def read_lock(project: Tiny) -> dict[str, Any]:
    return tomllib.loads((project.root / "packager.lock").read_text())


def pins(project: Tiny, file: str = "requirements.txt") -> dict[str, str]:
    data = (project.root / file).read_bytes()
    return {pin.name: pin.version for pin in read_requirements(data, file)}


def forget(project: Tiny, sha256: str) -> None:
    """Take bytes out of the store, as if this were another machine."""
    (project.store / "blobs" / sha256).unlink()


def test_an_sdist_is_built_once_and_a_clone_needs_no_more_than_the_repository(
    project: Tiny, index: SimpleIndex, tmp_path: Path
) -> None:
    settings = f'bytecode = false\nextra-index-urls = ["{index.address}"]'
    depend(project, "pure-thing<2", settings=settings, Pure_Thing="sdist")
    assert "pure-thing 1.0 of pure_thing-1.0.tar.gz" in locked(project)
    lock = read_lock(project)
    [wheel], [built] = lock["wheel"], lock["built"]
    assert pins(project) == {"pure-thing": "1.0"}
    kept = project.root / "built-wheels" / wheel["file"]
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == wheel["sha256"]
    sdist = tmp_path / "made" / "pure_thing-1.0.tar.gz"
    assert built["sha256"] == hashlib.sha256(sdist.read_bytes()).hexdigest()
    assert [one["name"] for one in built["requires"]] == ["flit-core"]
    assert "kept" in locked(project)
    assert read_lock(project) == lock
    text = (project.root / "packager.lock").read_text()
    for damage in ((built["sha256"], "short"), ("[[built]]\n", "[[built]]\nplace = 'x'\n")):
        (project.root / "packager.lock").write_text(text.replace(*damage))
        assert "damaged: ValueError: built: " in refused(project, ClaimError, "lock", "--check")
    (project.root / "packager.lock").write_text(text)

    git(project.root, "init", "-q")
    git(project.root, "add", "-A")
    git(project.root, "commit", "-qm", "Locked")
    git(tmp_path, "clone", "-q", str(project.root), "clone")
    clone = Tiny(tmp_path / "clone", project.store)
    forget(project, wheel["sha256"])
    there = clone.root / "built-wheels" / wheel["file"]
    output = ("--no-load", "-o", str(tmp_path / "image.tar"))
    there.unlink()
    assert f"{wheel['file']}: could not be fetched" in refused(clone, HostError, "build", *output)
    offline = ("build", "--offline", *output)
    assert f"nobody is asked for it: {wheel['file']}" in refused(clone, HostError, *offline)
    there.write_bytes(kept.read_bytes() + b"\0")
    for words in (("build", *output), ("lock", "--check")):
        assert "is not the wheel that was built" in refused(clone, ClaimError, *words)
    there.write_bytes(kept.read_bytes())
    clone.edit("pyproject.toml", index.address, "http://127.0.0.1:9/")
    assert [one["role"] for one in clone.built(*offline[1:])["layers"]].count("wheels") == 1


def test_what_has_no_wheel_is_refused_with_the_line_that_has_it_built(
    project: Tiny, index: SimpleIndex
) -> None:
    depend(project, "pure-thing", settings=f'extra-index-urls = ["{index.address}"]')
    for resolver in ("pip-tools", "uv"):
        project.edit("pyproject.toml", "extra-index", f'resolver = "{resolver}"\nextra-index')
        assert 'pure-thing = "sdist" in [tool.packager.build-from]' in refused(project, UsageError)
        project.edit("pyproject.toml", f'resolver = "{resolver}"\n', "")
    project.edit("pyproject.toml", "pure-thing", "pure-thing>2")
    with (project.root / "pyproject.toml").open("a") as file:
        file.write('pure-thing = "sdist"\n')
    assert "no sdist of pure-thing>2 for Python 3.11.2" in refused(project, UsageError)


@pytest.mark.parametrize("resolver", ["pip-tools", pytest.param("uv", marks=pytest.mark.whole)])
def test_a_folder_is_built_again_when_it_changes_whatever_an_index_has_of_that_name(
    resolver: str, project: Tiny, tmp_path: Path, make_wheel: WheelMaker
) -> None:
    folder = write_sources(project.root / "libs" / "mine", own_backend("mine"))
    taken = make_wheel("mine", "999.0", {"mine.py": b"STOLEN = True"}, folder=tmp_path / "links")
    make_wheel("wants-mine", requires=("mine>=1",), folder=taken.parent)
    settings = f'resolver = "{resolver}"\nfind-links = ["{taken.parent}"]'
    extra = '[project.optional-dependencies]\ndev = ["mine>=1"]\n\n[tool.packager]'
    project.edit("pyproject.toml", "[tool.packager]", extra)
    depend(project, "wants-mine", settings=settings, mine="libs/mine")
    locked(project)
    assert pins(project, "requirements-dev.txt") == {"mine": "1.0", "wants-mine": "1.0"}
    assert pins(project) == {"mine": "1.0", "wants-mine": "1.0"}
    [wheel] = (project.root / "built-wheels").iterdir()
    assert b"BUILT_BY = 65532" in wheel.read_bytes()
    text = (project.root / "requirements.txt").read_text()
    assert "--find-links built-wheels\n" in text
    assert "file:" not in text + (project.root / "packager.lock").read_text()
    assert "fresh" in locked(project, "--check")

    write_sources(folder, own_backend("mine", "1.1"))
    (folder / "__pycache__").mkdir()
    for words in (("build", "--no-load", "-o", str(tmp_path / "a.tar")), ("lock", "--check")):
        assert "libs/mine is not what mine was built from" in refused(project, ClaimError, *words)
    assert "mine 1.0 became 1.1" in locked(project)
    assert [path.name for path in (project.root / "built-wheels").iterdir()] == [
        "mine-1.1-py3-none-any.whl"
    ]
    project.edit("pyproject.toml", 'mine = "libs/mine"\n', "")
    assert "mine 1.1 became 999.0" in locked(project)
    assert not [*(project.root / "built-wheels").iterdir()]


def test_a_commit_is_built_and_its_repository_s_address_is_in_no_lock(
    project: Tiny, tmp_path: Path
) -> None:
    there = write_sources(tmp_path / "elsewhere", own_backend("from_git"))
    git(there, "init", "-q")
    git(there, "add", "-A")
    git(there, "commit", "-qm", "One")
    commit = git(there, "rev-parse", "HEAD").strip()
    write_sources(there, own_backend("from_git", "2.0"))
    git(there, "commit", "-qam", "Two")
    depend(project, "from-git", **{"from-git": f"git+{there.as_uri()}@{commit}"})
    locked(project)
    assert pins(project) == {"from-git": "1.0"}
    assert read_lock(project)["built"][0]["source"] == f"git@{commit}"
    assert str(there) not in (project.root / "packager.lock").read_text()
    shutil.rmtree(there)
    assert "kept" in locked(project)
    project.edit("pyproject.toml", commit, "0" * 40)
    assert f"commit {'0' * 40} cannot be had" in refused(project, HostError)


UNFIT = {
    "the network": (
        "import socket; found = [name for _, name in socket.if_nameindex()]; "
        "assert found != ['lo'], f'nothing but {found}'",
        "[]",
        "nothing but ['lo']",
    ),
    "another name": ("global NAME; NAME = 'other'", "[]", "gives a wheel of other, not of mine"),
    "a way out": ("global NAME; NAME = '../../mine'", "[]", "build failed"),
    "an option": ("pass", "['--index-url=http://127.0.0.1:9/']", "cannot be locked"),
    "an address": ("pass", "['x @ http://127.0.0.1:9/x-1.0.tar.gz']", "cannot be locked"),
    "ever more": ("pass", "['pip>=' + str(os.urandom(1)[0] / 256)]", "asks for ever more"),
    "the end": ("os._exit(0)", "[]", "damaged"),
}


QUICK = ("the network", "another name", "an option")


@pytest.mark.parametrize(
    "what",
    [one if one in QUICK else pytest.param(one, marks=pytest.mark.whole) for one in UNFIT],
)
def test_a_build_that_does_what_it_must_not_is_refused(what: str, project: Tiny) -> None:
    before, requires, said = UNFIT[what]
    made = own_backend("mine", before=before, requires=requires)
    write_sources(project.root / "mine", made)
    depend(project, "mine", mine="mine")
    assert said in refused(project, ClaimError)


def test_what_nothing_requires_is_not_kept(project: Tiny) -> None:
    write_sources(project.root / "mine", own_backend("mine"))
    depend(project, mine="mine")
    assert "nothing requires mine" in refused(project, ClaimError)


def test_a_lock_that_lost_a_wheel_that_was_built_is_made_whole_again(project: Tiny) -> None:
    write_sources(project.root / "mine", own_backend("mine"))
    depend(project, "mine", mine="mine")
    locked(project)
    whole = (project.root / "packager.lock").read_text()
    start, end = whole.index("[[wheel]]"), whole.index("[[built]]")
    (project.root / "packager.lock").write_text(whole[:start] + whole[end:])
    assert "built" in locked(project)
    assert (project.root / "packager.lock").read_text() == whole


def test_an_sdist_that_is_not_what_its_page_says_is_not_built(
    project: Tiny, index: SimpleIndex, tmp_path: Path
) -> None:
    depend(
        project,
        "pure-thing==1.0",
        settings=f'extra-index-urls = ["{index.address}"]',
        **{"pure-thing": "sdist"},
    )
    write_sdist(tmp_path / "made", "pure-thing", "1.0", flit("pure-thing", code="EVIL = 1\n"))
    assert "has other bytes" in refused(project, ClaimError)


def test_compiled_code_is_built_with_a_locked_compiler_and_again_to_the_same_bytes(
    project: Tiny, index: SimpleIndex, engine: Engine
) -> None:
    write_sources(project.root, {"src/homemade/own.c": compiled("own")["own.c"]})
    project.edit(
        "pyproject.toml",
        "[project]",
        '[build-system]\nrequires = ["setuptools>=77"]\n'
        'build-backend = "setuptools.build_meta"\n\n[project]',
    )
    settings = f"""extra-index-urls = ["{index.address}"]

[tool.setuptools]
package-dir = {{ "" = "src" }}
packages = ["homemade"]
ext-modules = [{{ name = "homemade.own", sources = ["src/homemade/own.c"] }}]
"""
    depend(project, "quick-times", settings=settings, homemade=".", **{"quick-times": "sdist"})
    project.edit(
        "src/homemade/predict.py",
        "value * self.factor",
        "own.times(quick_times.times(value, 1.0), self.factor)",
    )
    project.edit(
        "src/homemade/predict.py",
        "from pathlib",
        "import quick_times\nfrom . import own\nfrom pathlib",
    )
    said = refused(project, ClaimError)
    assert "x86_64-linux-gnu-gcc" in said
    assert "build-packages = [" in said

    packages = 'build-packages = ["gcc", "libc6-dev", "libpython3-dev"]'
    project.edit("pyproject.toml", "[tool.packager]", f"[tool.packager]\n{packages}")
    locked(project)
    lock = read_lock(project)
    assert {one["name"] for one in lock["built"]} == {"homemade", "quick-times"}
    assert "gcc" in {one["name"] for one in lock["build-base"][0]["package"]}
    assert "gcc" not in {one["name"] for one in lock["debian"][0]["package"]}
    built = project.built()
    try:
        assert built["smoke"]["examples"] == 3  # type: ignore[index]
    finally:
        engine.remove(str(built["id"]))

    for wheel in lock["wheel"]:
        (project.root / "built-wheels" / wheel["file"]).unlink()
        forget(project, wheel["sha256"])
    assert "built" in locked(project)
    assert read_lock(project) == lock
