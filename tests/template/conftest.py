"""Bakes the template the way a user does: with the cookiecutter command, in its own process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import COUNTED
from simple_index import SimpleIndex, served

from packager import pip

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"

# Marks what uses `project`, so that parallel runs set up one repository and not one each.
ONE_WORKER = pytest.mark.xdist_group("baked repository")
ANSWERS = {
    "project_name": """-- "It's" a \\ `pingüin` 🐧""",
    "description": """C:\\new "quoted" '''three''' \\""",
    "author_name": """Conan "the \\ Barbarian" O'Brien van der Mäß""",
    "author_surname": "van der Mäß",
    "author_email": "conan+barbarian@example.org",
    "license": "BSD-3-Clause",
    "publish_docs": "GitHub Pages",
    "project_slug": "hostile-birds.2",
    "package_name": "birds",
}


HOSTILE = {
    "quotes": {
        "project_name": """ "It's" a \\ `test` """.strip(),
        "description": """C:\\new\\table "quoted" 'single' \"\"\"three\"\"\" \\""",
        "author_name": """Conan "the \\ Barbarian" O'Brien""",
    },
    "not-ascii": {
        "project_name": "Pingüine 🐧 企鹅",
        "description": "Größe → Art: 👩‍🔬 misst, ﷽ zählt",
        "author_name": "Ludwig van der Mäß",
    },
    "leading-dashes": {
        "project_name": "-- - gulls",
        "description": "- not a list",
        "author_name": "-n",
    },
    "markup": {
        "project_name": "# <b>Gulls</b> *of* [the](x) _south_ & co | $x$",
        "description": "1. 100% &amp; ![x](y) <script>alert(1)</script> ~~no~~ {key: value} # x",
        "author_name": "!yes: [no] {x} # y",
    },
    "very-long": {
        "project_name": "Very " * 60 + "long",
        "description": "It goes on and on, " * 150 + "and ends.",
        "author_name": "Hubert Blaine " * 30 + "Wolfeschlegelstein",
    },
    "numbers": {
        "project_name": "Study 2024",
        "description": "true",
        "author_name": "12e3",
    },
}


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody who has configured nothing: no pip, git or bake settings."""
    unwanted = (
        *("PIP_", "UV_", "GIT_", "COOKIECUTTER", "PYTEST_", "PYTHON", "PACKAGER", "OPENBLAS_"),
        *("MAKE", "MFLAGS", "XDG_CONFIG", "XDG_CACHE"),
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    # Not settings but surroundings: what the machine trusts, and what it has downloaded.
    cache = str(Path.home() / ".cache" / "pip")
    surroundings = {"PIP_CERT": os.environ.get("PIP_CERT", ""), "PIP_CACHE_DIR": cache}
    return {
        **kept,
        **{key: value for key, value in surroundings.items() if value},
        "HOME": str(tmp_path_factory.mktemp("home")),
        "GIT_CONFIG_NOSYSTEM": "1",
    }


@pytest.fixture(scope="session")
def git_user() -> dict[str, str]:
    """Variables that tell git a name, as a configured user's git knows one."""
    settings = {"user.name": "A Baker", "user.email": "baker@example.org"}
    numbered = {f"GIT_CONFIG_KEY_{n}": key for n, key in enumerate(settings)}
    numbered |= {f"GIT_CONFIG_VALUE_{n}": value for n, value in enumerate(settings.values())}
    return {"GIT_CONFIG_COUNT": str(len(settings)), **numbered}


Cookiecutter = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cookiecutter(clean_environment: dict[str, str]) -> Cookiecutter:
    """Run cookiecutter with words and answers; keep what it says."""

    def run(
        *words: str,
        template: str | Path = ROOT,
        cwd: Path,
        environment: dict[str, str] | None = None,
        typed: str | None = None,
        **answers: str,
    ) -> subprocess.CompletedProcess[str]:
        how = [] if typed is not None else ["--no-input"]
        given = [f"{key}={value}" for key, value in answers.items()]
        return subprocess.run(
            [sys.executable, "-m", "cookiecutter", *how, *words, "--", str(template), *given],
            cwd=cwd,
            env={**clean_environment, "PWD": str(cwd), **(environment or {})},
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )

    return run


Bake = Callable[..., Path]


@pytest.fixture(scope="session")
def bake(
    cookiecutter: Cookiecutter,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Bake:
    """Bake a repository that must succeed, and return its folder."""

    def run(**arguments: object) -> Path:
        folder = tmp_path_factory.mktemp("bakery")
        done = cookiecutter(cwd=folder, **arguments)
        assert done.returncode == 0, done.stdout
        (project,) = folder.iterdir()
        pytestconfig.stash[COUNTED]["bakes"] += 1
        return project

    return run


Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def make(clean_environment: dict[str, str], git_user: dict[str, str]) -> Make:
    """Run make in a baked repository; keep what it says."""

    def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *words],
            cwd=project,
            env={**clean_environment, **git_user},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def project(bake: Bake, make: Make, git_user: dict[str, str]) -> Path:
    """A repository after `make setup`; packager comes from this checkout."""
    folder = bake(environment=git_user, **ANSWERS)
    done = make(folder, "setup")
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="session")
def trained(project: Path, make: Make) -> Path:
    """The models folder after `make train cards`."""
    done = make(project, "train", "cards")
    assert done.returncode == 0, done.stdout
    return project / "models"


@pytest.fixture(scope="session")
def gate(make: Make, pytestconfig: pytest.Config) -> Make:
    """Run gates of a repository that is set up, and count them."""

    def run(project: Path, *gates: str) -> subprocess.CompletedProcess[str]:
        pytestconfig.stash[COUNTED]["gates"] += len(gates)
        return make(project, *gates)

    return run


GATES = (
    *("lint", "format-check", "types", "docstrings", "notebooks", "secrets", "large-files"),
    *("lock-check", "docs", "test", "cards-check"),
)
"""What `make check` runs."""


def git(project: Path, *words: str) -> str:
    """Ask git about a repository; what fails says nothing."""
    done = subprocess.run(["git", *words], cwd=project, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def copy_of_template(folder: Path, *, with_packager: bool = False) -> Path:
    """Copy the template, to be changed; with what makes it a source of packager or without."""
    copy = folder / "template copy"
    shutil.copytree(TEMPLATE, copy / TEMPLATE.name)
    shutil.copytree(ROOT / "hooks", copy / "hooks")
    for name in ("cookiecutter.json", "local_extensions.py"):
        shutil.copy(ROOT / name, copy / name)
    if with_packager:
        (copy / "src" / "packager").mkdir(parents=True)
    return copy


def files(project: Path) -> dict[str, bytes]:
    """Every file of a work tree, git's own and what a Makefile makes aside."""
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in sorted(project.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(project).parts
    }


def nearer(project: Path, index: SimpleIndex) -> list[str]:
    """Let a repository ask an index on loopback for PyTorch, and nothing else that has it.

    Returns words for make: pip's settings, without the folders where it looks for wheels besides;
    none where the repository needs no such index.
    """
    path = project / "pyproject.toml"
    if not hints(project):
        return []
    (hint,) = hints(project)
    path.write_text(path.read_text("utf-8").replace(hint, index.address), "utf-8")
    first, *others = pip.settings().index_urls
    return [
        "PIP_CONFIG_FILE=/dev/null",
        f"PIP_INDEX_URL={first}",
        f"PIP_EXTRA_INDEX_URL={' '.join(others)}",
    ]


def pyproject(project: Path) -> dict[str, Any]:
    return tomllib.loads((project / "pyproject.toml").read_text("utf-8"))


def hints(project: Path) -> list[str]:
    urls: list[str] = pyproject(project)["tool"]["packager"].get("extra-index-urls", [])
    return urls


@pytest.fixture(scope="session")
def pytorch_index(
    bake: Bake, git_user: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleIndex]:
    """Serve the wheel that pip finds, on the template's own index or nearer."""
    project = bake(environment=git_user, framework="pytorch")
    (hint,) = hints(project)
    needed = pyproject(project)["project"]["dependencies"]
    (torch,) = (one for one in needed if one.startswith("torch"))
    folder = tmp_path_factory.mktemp("torch")
    quickly = ("--quiet", "--no-deps", "--retries=0", f"--extra-index-url={hint}")
    download = [sys.executable, "-m", "pip", "download", *quickly, f"--dest={folder}", torch]
    subprocess.run(download, check=True)
    (wheel,) = folder.iterdir()
    with served(tmp_path_factory.mktemp("index"), wheel) as index:
        yield index
