"""What is true of a repository the moment it is baked; nothing is installed."""

from __future__ import annotations

import hashlib
import html
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt

from .conftest import (
    HOSTILE,
    ROOT,
    TEMPLATE,
    Bake,
    Cookiecutter,
    Make,
    copy_of_template,
    files,
    git,
)

REFUSED = [
    ("project_slug", "Penguins"),
    ("project_slug", "-penguins"),
    ("project_slug", "../penguins"),
    ("project_slug", "pen guins"),
    ("project_slug", "penguins--two"),
    ("project_slug", "scikit-learn"),
    ("project_slug", "model.packager"),
    ("package_name", "my-penguins"),
    ("package_name", "2penguins"),
    ("package_name", "Penguins"),
    ("package_name", "pingüine"),
    ("package_name", "class"),
    ("package_name", "match"),
    ("package_name", "json"),
    ("package_name", "numpy"),
    ("package_name", "sklearn"),
    ("package_name", "skops"),
    ("package_name", "p" * 41),
    ("package_name", "a; import os"),
    ("project_name", "two\nlines"),
    ("project_name", " "),
    ("description", "tab\tin it"),
    ("description", ""),
    ("author_name", ""),
    ("author_surname", "Nobody"),
    ("export_format", "pickle"),
    ("export_format", "safetensors"),
    ("author_email", "nobody"),
    ("author_email", 'a"b@example.org\x7f'),
]


@pytest.fixture(scope="session")
def default(bake: Bake, git_user: dict[str, str]) -> Path:
    return bake(environment=git_user)


# --- The template --------------------------------------------------------------------------


def ignored(*paths: str) -> str:
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input="\n".join(paths),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout


def test_git_ignores_no_file_of_the_template() -> None:
    found = [path.relative_to(ROOT).as_posix() for path in TEMPLATE.rglob("*") if path.is_file()]
    assert len(found) > 20
    assert not ignored(*found)


def test_the_check_for_ignored_files_finds_one() -> None:
    assert ignored(f"{TEMPLATE.name}/build/index.html")


def expected(**answers: str) -> set[str]:
    """The files that the template's own names announce; an empty name is none."""
    names = (path.relative_to(TEMPLATE).parts for path in TEMPLATE.rglob("*") if path.is_file())
    environment = Environment(undefined=StrictUndefined, autoescape=False)
    baked = [
        [environment.from_string(part).render(cookiecutter=answers) for part in n] for n in names
    ]
    return {"/".join(parts) for parts in baked if all(parts)}


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"example": "blank", "framework": "pytorch", "export_format": "torch.export"},
        {"framework": "xgboost", "export_format": "onnx", "publish_docs": "GitHub Pages"},
    ],
    ids=["default", "blank", "published"],
)
def test_every_file_of_the_template_is_baked(bake: Bake, answers: dict[str, str]) -> None:
    default = {
        "package_name": "penguins",
        "example": "penguins",
        "framework": "scikit-learn",
        "export_format": "skops",
        "publish_docs": "no",
        "license": "Apache-2.0",
    }
    assert set(files(bake(project_slug="penguins", **answers))) == expected(**default | answers)


# --- Answers are data ----------------------------------------------------------------------


@pytest.fixture(scope="session", params=HOSTILE)
def hostile(request: pytest.FixtureRequest, bake: Bake) -> tuple[dict[str, str], Path]:
    answers = HOSTILE[request.param]
    return answers, bake(project_slug="hostile", **answers)


def test_hostile_answers_come_back_from_pyproject(hostile: tuple[dict[str, str], Path]) -> None:
    answers, project = hostile
    table = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert table["description"] == answers["description"]
    assert table["authors"] == [{"name": answers["author_name"]}]


def test_hostile_answers_come_back_from_the_citation(hostile: tuple[dict[str, str], Path]) -> None:
    answers, project = hostile
    citation = yaml.safe_load((project / "CITATION.cff").read_text("utf-8"))
    assert citation["title"] == answers["project_name"]
    assert citation["authors"] == [{"name": answers["author_name"]}]


def test_hostile_answers_are_shown_by_markdown(hostile: tuple[dict[str, str], Path]) -> None:
    answers, project = hostile
    text = (project / "README.md").read_text("utf-8")
    heading, paragraph = MarkdownIt("commonmark").render(text).splitlines()[:2]
    assert html.unescape(heading) == f"<h1>{answers['project_name']}</h1>"
    assert html.unescape(paragraph) == f"<p>{answers['description']}</p>"


def test_a_surname_stays_whole_in_the_citation(bake: Bake) -> None:
    name = {"author_name": "Ludwig van der Mäß", "author_surname": "van der Mäß"}
    citation = yaml.safe_load((bake(**name) / "CITATION.cff").read_text("utf-8"))
    assert citation["authors"] == [{"family-names": "van der Mäß", "given-names": "Ludwig"}]


@pytest.mark.parametrize(("licence", "first"), [("MIT", "MIT"), ("BSD-3-Clause", "BSD 3-Clause")])
def test_hostile_author_stands_in_the_licence(bake: Bake, licence: str, first: str) -> None:
    author = HOSTILE["quotes"]["author_name"]
    text = (bake(license=licence, author_name=author) / "LICENSE").read_text("utf-8")
    assert text.startswith(first)
    assert f"Copyright (c) {author}\n" in text


def test_hostile_bake_is_python_and_passes_its_own_checks(
    hostile: tuple[dict[str, str], Path],
) -> None:
    _, project = hostile
    assert_checks_pass(project)


def test_longest_package_name_passes_the_checks(bake: Bake) -> None:
    assert_checks_pass(bake(package_name="p" * 40))


def test_the_checks_find_a_mistake(bake: Bake) -> None:
    project = bake()
    (project / "src" / "penguins" / "extra.py").write_text("import os\n")
    with pytest.raises(AssertionError, match="F401"):
        assert_checks_pass(project)


def assert_checks_pass(project: Path) -> None:
    for path in project.rglob("*.py"):
        compile(path.read_bytes(), path, "exec")
    for tool in (["ruff", "check", "--no-cache", "."], ["black", "--check", "--diff", "."]):
        command = [sys.executable, "-m", *tool]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_typed_answers_that_look_like_a_template_are_not_rendered(
    cookiecutter: Cookiecutter, tmp_path: Path
) -> None:
    name = "{{ 7 * 7 }} {% raw %} {# x #}"
    done = cookiecutter(cwd=tmp_path, typed=f"{name}\nbraces\n\n\n{name}\n" + "\n" * 7)
    assert done.returncode == 0, done.stdout
    project = tmp_path / "braces"
    table = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert table["description"] == name
    assert table["authors"] == [{"name": f"The {name} authors"}]


def test_an_address_is_kept_and_none_is_left_out(bake: Bake, default: Path) -> None:
    def authors(project: Path) -> list[dict[str, str]]:
        text = (project / "pyproject.toml").read_text("utf-8")
        found: list[dict[str, str]] = tomllib.loads(text)["project"]["authors"]
        return found

    assert authors(bake(author_email="a.b+c@example.org"))[0]["email"] == "a.b+c@example.org"
    assert authors(default) == [{"name": "The Penguins authors"}]


@pytest.mark.parametrize(
    ("template", "requirement"),
    [
        ("gh:owner/repo", "git+https://github.com/owner/repo"),
        ("gl:group/repo", "git+https://gitlab.com/group/repo"),
        ("https://example.org/a/b.git", "git+https://example.org/a/b.git"),
        ("https://example.org/b.zip", ""),
        ("https://user:secret@example.org/b", ""),
        ("https://example.org/$(touch x)", ""),
        ("../template", ""),
        ("/somewhere/template", ""),
    ],
)
def test_only_an_address_that_anybody_reaches_is_written_down(
    template: str, requirement: str
) -> None:
    module = runpy.run_path(str(ROOT / "local_extensions.py"))
    assert module["installable"](template) == requirement


@pytest.mark.parametrize(("key", "answer"), REFUSED)
def test_bad_answers_are_refused_by_name(
    cookiecutter: Cookiecutter, tmp_path: Path, key: str, answer: str
) -> None:
    done = cookiecutter(cwd=tmp_path, **{key: answer})
    assert done.returncode == 1
    assert done.stdout.startswith(f"{key}: {answer!r} ")
    assert "Traceback" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_slug_that_would_hide_a_standard_module_is_refused(
    cookiecutter: Cookiecutter, tmp_path: Path
) -> None:
    done = cookiecutter(cwd=tmp_path, project_name="Statistics")
    assert done.returncode == 1
    assert "'statistics' would hide a module of Python's own library" in done.stdout
    assert not list(tmp_path.iterdir())


# --- Nothing of the baker ------------------------------------------------------------------


def test_no_file_names_the_bakers_machine(default: Path, clean_environment: dict[str, str]) -> None:
    secrets = [str(ROOT), str(default.parent), clean_environment["HOME"], "baker@example.org"]
    for name, content in files(default).items():
        assert not [secret for secret in secrets if secret.encode() in content], name


def test_nothing_is_left_unrendered(default: Path) -> None:
    for name, content in files(default).items():
        assert b"cookiecutter" not in content, name


LATER = """
import datetime

class Later(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(days=4000)

datetime.datetime = Later
"""


@pytest.fixture
def later(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python lives eleven years from now."""
    (tmp_path / "sitecustomize.py").write_text(LATER)
    return {"PYTHONPATH": str(tmp_path)}


def test_a_bake_does_not_depend_on_the_day(
    bake: Bake, default: Path, later: dict[str, str]
) -> None:
    assert files(bake(environment=later)) == files(default)


def test_a_template_that_depends_on_the_day_would_be_noticed(
    bake: Bake, later: dict[str, str], tmp_path: Path
) -> None:
    template = copy_of_template(tmp_path)
    with (template / TEMPLATE.name / "README.md").open("a") as readme:
        readme.write("{% now 'utc', '%Y' %}")
    assert files(bake(template=template, environment=later)) != files(bake(template=template))


def test_settings_of_the_baker_do_not_matter(bake: Bake, default: Path, tmp_path: Path) -> None:
    (tmp_path / "rc").write_text("default_context:\n  license: WTFPL\n  year: '1999'\n")
    settings = {"COOKIECUTTER_CONFIG": str(tmp_path / "rc"), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    assert files(bake(environment=settings)) == files(default)


def test_the_data_arrive_unchanged(default: Path) -> None:
    registry = tomllib.loads((default / "data" / "registry.toml").read_text("utf-8"))
    entry = registry["penguins"]
    content = (default / "data" / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert entry["license"] == "CC0-1.0"


# --- History, and where packager comes from ------------------------------------------------


def test_the_first_commit_holds_every_file(default: Path) -> None:
    assert git(default, "branch", "--show-current") == "main"
    assert git(default, "status", "--porcelain", "--ignored") == ""
    assert git(default, "ls-files").splitlines() == sorted(files(default))


def test_without_a_git_user_the_commit_is_left_to_the_baker(
    cookiecutter: Cookiecutter, tmp_path: Path
) -> None:
    done = cookiecutter(cwd=tmp_path)
    assert done.returncode == 0
    assert "git knows no user.name" in done.stdout
    assert git(tmp_path / "penguins", "rev-list", "--all") == ""


def test_without_git_the_bake_works_and_says_so(cookiecutter: Cookiecutter, tmp_path: Path) -> None:
    done = cookiecutter(cwd=tmp_path, environment={"PATH": str(tmp_path / "nothing")})
    assert done.returncode == 0
    assert "git is not installed" in done.stdout
    assert not (tmp_path / "penguins" / ".git").exists()


def test_a_commit_that_git_refuses_is_explained(
    cookiecutter: Cookiecutter, tmp_path: Path, git_user: dict[str, str]
) -> None:
    signing = {
        **git_user,
        "GIT_CONFIG_COUNT": "4",
        "GIT_CONFIG_KEY_2": "commit.gpgsign",
        "GIT_CONFIG_VALUE_2": "true",
        "GIT_CONFIG_KEY_3": "gpg.program",
        "GIT_CONFIG_VALUE_3": "/nonexistent",
    }
    done = cookiecutter(cwd=tmp_path, environment=signing)
    assert done.returncode == 0
    assert "git could not make the first commit" in done.stdout
    assert "make setup" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_bake_inside_a_hook_of_another_repository_leaves_that_alone(
    bake: Bake, tmp_path: Path, git_user: dict[str, str]
) -> None:
    git(tmp_path, "init", "--quiet")
    before = (tmp_path / ".git" / "config").read_text()
    project = bake(environment={**git_user, "GIT_DIR": str(tmp_path / ".git")})
    assert (tmp_path / ".git" / "config").read_text() == before
    assert git(project, "ls-files").splitlines() == sorted(files(project))


def test_git_remembers_which_checkout_the_bake_came_from(default: Path) -> None:
    assert git(default, "config", "--local", "packager.source") == str(ROOT)


def test_a_relative_template_is_remembered_as_an_absolute_one(
    cookiecutter: Cookiecutter, tmp_path: Path
) -> None:
    template = copy_of_template(tmp_path, with_packager=True)
    (tmp_path / "here").mkdir()
    done = cookiecutter("-o", "../there", template=f"../{template.name}", cwd=tmp_path / "here")
    assert done.returncode == 0, done.stdout
    project = tmp_path / "there" / "penguins"
    assert git(project, "config", "--local", "packager.source") == str(template)
    assert f"cd {project}" in done.stdout


def test_a_template_without_packager_is_not_remembered(bake: Bake, tmp_path: Path) -> None:
    project = bake(template=copy_of_template(tmp_path))
    assert git(project, "config", "--local", "packager.source") == ""


def test_an_archive_that_is_unpacked_and_deleted_is_not_remembered(
    bake: Bake, tmp_path: Path
) -> None:
    template = copy_of_template(tmp_path, with_packager=True)
    archive = shutil.make_archive(str(tmp_path / "template"), "zip", tmp_path, template.name)
    project = bake(template=archive)
    assert git(project, "config", "--local", "packager.source") == ""


# --- The Makefile, before anything is set up -----------------------------------------------


def test_make_alone_lists_the_steps(make: Make, default: Path) -> None:
    shown = make(default)
    assert shown.returncode == 0
    assert [word for word in ("setup", "train", "check", "image") if word not in shown.stdout] == []


@pytest.mark.parametrize(
    ("step", "first"),
    [
        ("train", "make setup"),
        ("lint", "make setup"),
        ("lock-check", "make setup"),
        ("evaluate", "make setup"),
        ("image", "make setup"),
    ],
)
def test_a_step_taken_too_early_names_the_one_before(
    make: Make, default: Path, step: str, first: str
) -> None:
    done = make(default, step)
    assert done.returncode == 2
    assert f"run {first} first" in done.stdout


def test_an_old_python_is_refused(make: Make, default: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10); '
        'sys.version = \'3.10.1 x\'; exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    done = make(default, "setup", f"PYTHON={old}")
    assert done.returncode == 2
    assert "Python 3.11 or newer is needed and this is 3.10.1" in done.stdout
    assert not (default / ".packager").exists()
