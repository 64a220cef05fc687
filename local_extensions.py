"""What cookiecutter does with answers: check them, and quote them for the files they go into.

Cookiecutter imports this module by its name from the template's root.  An answer is data:
no template file pastes one without `quoted` or `markdown`, except the slug and the package
name, which `checked` has found harmless.
"""

from __future__ import annotations

import json
import keyword
import re
import sys
import unicodedata
from collections.abc import Mapping
from email.errors import MessageError
from email.headerregistry import Address
from pathlib import Path
from typing import Any

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment
from jinja2.ext import Extension

__all__ = ["AnswersAreData", "checked", "given_names", "installable", "markdown", "quoted"]

LONGEST_PACKAGE_NAME = 40
"""Characters; longer names would break the import lines of the baked files over two lines."""

_SLUG = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_PACKAGE = re.compile(r"[a-z][a-z0-9]*(_+[a-z0-9]+)*")
# What the baked repository installs or imports under these names itself.
_TAKEN = frozenset("""
    annotated_types ast_serialize asttokens attrs black certifi cfgv charset_normalizer click
    cloudpickle comm conftest contourpy coverage cycler debugpy decorator detect_secrets distlib
    docutils editables executing fastjsonschema filelock flatbuffers fonttools fsspec hatchling
    identify idna iniconfig ipykernel ipython ipython_pygments_lexers jedi jinja2 joblib
    jsonschema jsonschema_specifications jupyter_client jupyter_core jupytext kiwisolver librt
    lightgbm markdown2 markdown_it_py markupsafe matplotlib matplotlib_inline mdit_py_plugins
    mdurl ml_dtypes model_packager mpmath mypy mypy_extensions narwhals nbclient nbformat
    nbstripout nest_asyncio2 networkx nodeenv numpy onnx onnxmltools onnxruntime packager
    packager_runtime packaging pandas parso pathspec pdoc pexpect pillow pip platformdirs pluggy
    pooch pre_commit pre_commit_hooks prettytable prompt_toolkit protobuf psutil ptyprocess
    pure_eval pydantic pydantic_core pygments pyparsing pytest python_dateutil python_discovery
    pytokens pyyaml pyzmq referencing requests rpds_py ruamel_yaml ruff safetensors scikit_learn
    scipy setuptools six skl2onnx sklearn skops stack_data sympy tests threadpoolctl tokenize_rt
    tomlkit torch tornado tqdm traitlets trove_classifiers typing_extensions typing_inspection
    tzdata urllib3 virtualenv wcwidth xgboost xgboost_cpu yaml
    """.split())  # noqa: SIM905 - a list would have ninety lines
_LINE_BREAKERS = {"Cc", "Cs", "Zl", "Zp"}
_LINES = ("project_name", "description", "author_name", "author_surname", "author_email")
_TABULAR = ("skops", "onnx")
_FORMATS = {
    "scikit-learn": _TABULAR,
    "xgboost": _TABULAR,
    "lightgbm": _TABULAR,
    "pytorch": ("safetensors", "torch.export"),
}


class AnswersAreData(Extension):
    """Gives templates the filters of this module, and hooks the place it stands in."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters.update(
            checked=checked,
            given_names=given_names,
            installable=installable,
            markdown=markdown,
            quoted=quoted,
        )
        environment.globals["template_root"] = str(Path(__file__).resolve().parent)


def quoted(text: str) -> str:
    """Write text as a double-quoted string that TOML, YAML, JSON and Python all read back.

    Parameters
    ----------
    text : str
        One line.

    Returns
    -------
    str
        With its quotes.  Characters outside ASCII stand as they are: TOML has no surrogate
        pairs.
    """
    return json.dumps(text, ensure_ascii=False)


def given_names(name: str, surname: str) -> str:
    """Take the surname off a person's name.

    Parameters
    ----------
    name : str
        As the person writes it.
    surname : str
        Its first or last part.

    Returns
    -------
    str
        The other part.
    """
    if name.endswith(f" {surname}"):
        return name.removesuffix(f" {surname}")
    return name.removeprefix(f"{surname} ")


def installable(template: str) -> str:
    """Say how pip installs packager from where the template came from, if anybody can.

    Parameters
    ----------
    template : str
        What the baker named: an address, an abbreviation of one, or a folder.

    Returns
    -------
    str
        A requirement of pip's; empty where only the baker can reach it, as a folder.
    """
    hosts = {
        "gh:": "https://github.com/",
        "gl:": "https://gitlab.com/",
        "bb:": "https://bitbucket.org/",
    }
    for short, host in hosts.items():
        template = host + template.removeprefix(short) if template.startswith(short) else template
    plain = re.fullmatch(r"https://[\w.-]+(/[\w.~-]+)+", template)
    return f"git+{template}" if plain and not template.endswith(".zip") else ""


def markdown(text: str) -> str:
    """Escape text so that CommonMark shows it as it is, wherever it stands in a line.

    Parameters
    ----------
    text : str
        One line.

    Returns
    -------
    str
        With a backslash before whatever Markdown would read as markup.
    """
    escaped = re.sub(r"[\\`*_{}\[\]<>#&|~$]", r"\\\g<0>", text)
    # At the start of a line these would begin a list, a rule or a heading's underline.
    return re.sub(r"^([0-9]*)([-+=.)])", r"\1\\\2", escaped)


def checked(answers: Mapping[str, Any]) -> str:
    """Refuse answers that no working repository can be made of.

    Parameters
    ----------
    answers : mapping
        Cookiecutter's context, all questions answered.

    Returns
    -------
    str
        Empty: the filter is used for what it refuses.

    Raises
    ------
    FailedHookException
        The one error of cookiecutter's that it shows as a message without a traceback.
    """
    for key in _LINES:
        if any(unicodedata.category(character) in _LINE_BREAKERS for character in answers[key]):
            raise _refusal(key, answers[key], "holds a control character", "Give one line of text.")
    for key in ("project_name", "description", "author_name"):
        if not answers[key].strip():
            raise _refusal(key, answers[key], "is empty", "Say something.")
    _check_slug(answers["project_slug"])
    _check_package(answers["package_name"])
    _check_surname(answers["author_surname"], answers["author_name"])
    _check_email(answers["author_email"])
    _check_format(answers["export_format"], answers["framework"])
    return ""


def _check_slug(slug: str) -> None:
    if not _SLUG.fullmatch(slug):
        raise _refusal(
            "project_slug",
            slug,
            "cannot name a folder, a distribution and an image alike",
            "Use lower-case letters and digits, with single - . _ between them: my-penguins",
        )
    if re.sub(r"[-_.]+", "_", slug) in _TAKEN:
        raise _refusal(
            "project_slug",
            slug,
            "is the name of something the repository depends on",
            f"Call it {slug}-study, for example.",
        )


def _check_package(name: str) -> None:
    hint = "Use lower-case letters, digits and _, starting with a letter: my_penguins"
    if not _PACKAGE.fullmatch(name):
        raise _refusal("package_name", name, "is no name that Python imports", hint)
    if len(name) > LONGEST_PACKAGE_NAME:
        raise _refusal("package_name", name, f"has over {LONGEST_PACKAGE_NAME} characters", hint)
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise _refusal("package_name", name, "is a keyword of Python", hint)
    if name in sys.stdlib_module_names:
        raise _refusal("package_name", name, "would hide a module of Python's own library", hint)
    if name in _TAKEN:
        raise _refusal("package_name", name, "would hide something the repository imports", hint)


def _check_surname(surname: str, name: str) -> None:
    if not surname:
        return
    if surname.strip() != surname or not (
        name.endswith(f" {surname}") or name.startswith(f"{surname} ")
    ):
        raise _refusal(
            "author_surname",
            surname,
            f"is not the first or the last part of {name!r}",
            "Repeat that part as it is written there: van der Berg. It may stay empty.",
        )


def _check_format(export_format: str, framework: str) -> None:
    if export_format not in _FORMATS[framework]:
        raise _refusal(
            "export_format",
            export_format,
            f"is no format that {framework} models are exported in here",
            f"Choose {' or '.join(_FORMATS[framework])}.",
        )


def _check_email(address: str) -> None:
    try:
        valid = not address or bool(Address(addr_spec=address).domain)
    except (MessageError, ValueError, IndexError):
        valid = False
    if not valid:
        raise _refusal("author_email", address, "is no e-mail address", "It may stay empty.")


def _refusal(key: str, answer: str, what: str, hint: str) -> FailedHookException:
    return FailedHookException(f"{key}: {answer!r} {what}\n  {hint}")
