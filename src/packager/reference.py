"""The name of an image, read by the grammar of the distribution project's `reference` package."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from packager.errors import UsageError

__all__ = ["HUB", "Reference"]

HUB = "docker.io"
"""What is meant where a name names no registry."""
_LIBRARY = "library/"
_LONGEST_NAME = 255

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A registry, a repository in it, and a tag: ``docker.io``, ``library/penguins``, ``0.1.0``.

    Its text is the short form that engines show: ``penguins:0.1.0``.
    """

    registry: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str, *, where: str = "") -> Reference:
        """Read a name as an engine would; the tag is ``latest`` where none is given.

        Parameters
        ----------
        text : str
            ``penguins``, ``lab/penguins:1`` or ``registry.example:5000/lab/penguins:1``.
        where : str, optional
            The option or key that it comes from, for messages.

        Returns
        -------
        Reference
            In full: with its registry, and ``library/`` where that is implied.

        Raises
        ------
        UsageError
            Names the part that no engine would take.
        """
        name, tag = _split_tag(text)
        registry, repository = _split_registry(name)
        wrong = _wrong_with(registry, repository, tag)
        if wrong:
            raise UsageError(f"{text!r} names no image: {wrong}", where=where)
        return cls(registry, repository, tag)

    @classmethod
    def of(cls, name: str, version: str) -> Reference:
        """Name an image after a project, in the letters that a reference may have.

        Parameters
        ----------
        name : str
            The distribution's name; two spellings of one distribution give one image name.
        version : str
            What a tag cannot hold (``+``, ``!``) becomes ``_``.

        Returns
        -------
        Reference
            On the default registry.

        Raises
        ------
        UsageError
            When name or version is too long, or there is no version.
        """
        tag = re.sub(r"[^A-Za-z0-9_.-]", "_", version)
        return cls.parse(f"{canonicalize_name(name)}:{tag}", where="pyproject.toml: project")

    @property
    def full(self) -> str:
        """The name with nothing implied: ``docker.io/library/penguins:0.1.0``."""
        return f"{self.registry}/{self.repository}:{self.tag}"

    @property
    def name(self) -> str:
        """The short form without its tag, as an engine wants it for tagging."""
        if self.registry == HUB:
            return self.repository.removeprefix(_LIBRARY)
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"


def _split_tag(text: str) -> tuple[str, str]:
    head, slash, last = text.rpartition("/")
    last, colon, tag = last.partition(":")
    return f"{head}{slash}{last}", tag if colon else "latest"


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        registry, repository = first, rest
    else:
        registry, repository = HUB, name
    if registry == HUB and "/" not in repository:
        repository = f"{_LIBRARY}{repository}"
    return registry, repository


def _wrong_with(registry: str, repository: str, tag: str) -> str:
    if not _REGISTRY.fullmatch(registry):
        return f"{registry!r} is no address of a registry"
    if not _REPOSITORY.fullmatch(repository):
        return (
            f"{repository.removeprefix(_LIBRARY)!r} is more than small letters and digits "
            "with single '.', '_', '-' or '/' between"
        )
    if len(f"{registry}/{repository}") > _LONGEST_NAME:
        return f"it is longer than {_LONGEST_NAME} characters, the registry included"
    if not _TAG.fullmatch(tag):
        return (
            f"the tag {tag!r} is not 1 to 128 letters, digits, '.', '_' and '-', "
            "with no '.' or '-' first"
        )
    return ""
