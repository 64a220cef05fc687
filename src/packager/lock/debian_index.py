"""Debian's lists of packages, and what a set of package names needs, down to the last one.

A list has 60,000 stanzas and parsing them all takes a quarter of a minute, so text is only
split and looked up by name; a stanza is parsed when a package is considered.  The meaning
of relations is Debian Policy, chapter 7.
"""

from __future__ import annotations

import difflib
import operator
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from debian.deb822 import Deb822, PkgRelation
from debian.debian_support import Version

from packager.errors import ClaimError, HostError, UsageError

__all__ = ["LEFT_OUT", "WHERE", "Index", "Package", "closure", "refuse_conflicts", "refuse_unmet"]

LEFT_OUT = frozenset({"debconf", "debconf-2.0", "dpkg"})
"""Needed by maintainer scripts, which never run here: taken as given when depended on."""

WHERE = "pyproject.toml, [tool.packager] os-packages"
"""What names packages, for messages."""

_COMPARISONS: Mapping[str, Callable[[Version, Version], Any]] = {
    "=": operator.eq,
    "<<": operator.lt,
    "<=": operator.le,
    ">=": operator.ge,
    ">>": operator.gt,
}
_PRIORITIES = ("required", "important", "standard", "optional", "extra")

# What python-debian reads a relation into: alternatives, each a dictionary.
_Wanted: TypeAlias = Mapping[str, Any]
_Relation: TypeAlias = list[Any]


@dataclass(frozen=True, slots=True)
class Package:
    """One package of one version.

    Parameters
    ----------
    name : str
        Its name.
    version : Version
        Its version, which compares as dpkg compares.
    fields : mapping of str to str
        The stanza, as Debian wrote it.
    """

    name: str
    version: Version
    fields: Mapping[str, str]

    def relations(self, *fields: str) -> Iterator[_Relation]:
        """Yield the relations of some fields, each a list of alternatives.

        Raises
        ------
        ClaimError
            When one is not written as Debian Policy has it.
        """
        for field in (one for one in fields if one in self.fields):
            for relation in PkgRelation.parse_relations(self.fields[field]):
                if any(_wrong(wanted) for wanted in relation):
                    raise ClaimError(
                        f"Debian's {self.name} has a {field} that is no list of packages: "
                        f"{self.fields[field][:80]!a}"
                    )
                yield relation

    def meets(self, wanted: _Wanted) -> bool:
        """Say whether this package, or a name that it provides, is what a relation wants."""
        if self.name == wanted["name"]:
            return _compares(self.version, wanted["version"])
        return any(
            provided["name"] == wanted["name"] and _provides(provided["version"], wanted["version"])
            for provided, *_ in self.relations("Provides")
        )


class Index:
    """Every package of some lists, by name, the newest version of each.

    Parameters
    ----------
    texts : iterable of bytes
        The lists, as `packager.lock.debian_archive.packages` returns them.
    """

    def __init__(self, texts: Iterable[bytes]) -> None:
        self._stanzas: defaultdict[str, list[bytes]] = defaultdict(list)
        self._providers: defaultdict[str, set[str]] = defaultdict(set)
        self._parsed: dict[str, Package] = {}
        for text in texts:
            for stanza in text.split(b"\n\n"):
                self._add(stanza)

    def __contains__(self, name: str) -> bool:
        return name in self._stanzas

    def newest(self, name: str) -> Package:
        """Return the newest version of a package that the index contains."""
        if name not in self._parsed:
            found = (_parse(stanza) for stanza in self._stanzas[name])
            self._parsed[name] = max(found, key=lambda package: package.version)
        return self._parsed[name]

    def candidates(self, name: str) -> list[Package]:
        """List what may stand for a name: the package itself, then those that provide it.

        Providers come by Debian's priority and then by name, so the choice of one is
        always the same, and is the one that a Debian installation starts with.
        """
        own = [self.newest(name)] if name in self else []
        providers = [self.newest(other) for other in self._providers.get(name, ())]
        return own + sorted(providers, key=_precedence)

    def similar(self, name: str) -> list[str]:
        """List the names that a user who wrote `name` may have meant, closest first."""
        if name in self._providers:
            return sorted(self._providers[name])
        return difflib.get_close_matches(name, self._stanzas, n=3, cutoff=0.75)

    def _add(self, stanza: bytes) -> None:
        name = _raw(stanza, b"Package")
        if not name:
            return
        self._stanzas[name].append(stanza)
        for provided in _raw(stanza, b"Provides").split(","):
            self._providers[provided.split("(")[0].strip()].add(name)


def closure(index: Index, names: Sequence[str], base: Mapping[str, Package]) -> dict[str, Package]:
    """Collect packages and everything that they depend on.

    Of alternatives, one that is already there is taken, else the first that exists in a
    version that fits.

    Parameters
    ----------
    index : Index
        Where packages come from.
    names : sequence of str
        The packages wanted, by their own names.
    base : mapping of str to Package
        Packages that are there already.

    Returns
    -------
    dict of str to Package
        `base` and what was added to it.

    Raises
    ------
    UsageError
        When there is no package of a name; the message lists names that are close.
    HostError
        When the archive does not hold what a package depends on.
    """
    chosen = dict(base)
    waiting: deque[tuple[str, _Relation]] = deque()

    def choose(package: Package) -> None:
        if package.name not in chosen:
            chosen[package.name] = package
            for relation in package.relations("Pre-Depends", "Depends"):
                waiting.append((package.name, relation))

    for name in names:
        choose(_named(index, name))
    while waiting:
        owner, relation = waiting.popleft()
        if not _given(relation, chosen):
            choose(_first(index, owner, relation))
    return chosen


def refuse_conflicts(packages: Mapping[str, Package]) -> None:
    """Refuse a set of packages of which one does not bear another.

    Parameters
    ----------
    packages : mapping of str to Package
        As `closure` returns them.

    Raises
    ------
    UsageError
        When a package's Conflicts or Breaks holds against another of the set.
    """
    for package in packages.values():
        for unwanted, *_ in package.relations("Conflicts", "Breaks"):
            for other in packages.values():
                if other is not package and other.meets(unwanted):
                    raise UsageError(
                        f"the Debian packages {package.name} and {other.name} exclude each other",
                        where=WHERE,
                        hint="Drop the package that asks for one of them.",
                    )


def refuse_unmet(added: Mapping[str, Package], base: Mapping[str, Package]) -> None:
    """Refuse packages that need another version of a package than a base has.

    Parameters
    ----------
    added, base : mapping of str to Package
        What is put on top, and what is there and stays as it is.

    Raises
    ------
    UsageError
        Names both.
    """
    together = {**base, **added}
    for package in added.values():
        for relation in package.relations("Pre-Depends", "Depends"):
            if not _given(relation, together):
                has = [
                    f"{one['name']} {base[one['name']].version}"
                    for one in relation
                    if one["name"] in base
                ]
                raise UsageError(
                    f"the Debian package {package.name} {package.version} needs "
                    f"{PkgRelation.str([relation])}, and the base has {', '.join(has)}",
                    where=WHERE,
                    hint="Take a newer image as the base: packager lock --upgrade.",
                )


def _named(index: Index, name: str) -> Package:
    if name in index:
        return index.newest(name)
    close = index.similar(name)
    raise UsageError(
        f"Debian has no package {name!r} for this suite and architecture",
        where=WHERE,
        hint=f"Did you mean {' or '.join(close)}?" if close else "Check the package's name.",
    )


def _given(relation: _Relation, chosen: Mapping[str, Package]) -> bool:
    return any(
        wanted["name"] in LEFT_OUT or any(package.meets(wanted) for package in chosen.values())
        for wanted in relation
    )


def _first(index: Index, owner: str, relation: _Relation) -> Package:
    for wanted in relation:
        for package in index.candidates(wanted["name"]):
            if package.meets(wanted):
                return package
    text = PkgRelation.str([relation])
    raise HostError(
        f"{owner} needs {text}, which the archive does not hold",
        hint="The mirror may be in the middle of an update: try again, or use another one.",
    )


def _wrong(wanted: _Wanted) -> bool:
    version = wanted.get("version")
    return version is not None and (version[0] not in _COMPARISONS or not _is_version(version[1]))


def _is_version(text: str) -> bool:
    try:
        return bool(Version(text))
    except ValueError:
        return False


def _compares(version: Version, wanted: tuple[str, str] | None) -> bool:
    if wanted is None:
        return True
    return bool(_COMPARISONS[wanted[0]](version, Version(wanted[1])))


def _provides(provided: tuple[str, str] | None, wanted: tuple[str, str] | None) -> bool:
    # Policy 7.5: a name provided without a version never meets a relation that has one.
    if wanted is None:
        return True
    return provided is not None and _compares(Version(provided[1]), wanted)


def _precedence(package: Package) -> tuple[int, str]:
    priority = package.fields.get("Priority", "extra")
    return (_PRIORITIES.index(priority) if priority in _PRIORITIES else 9, package.name)


def _parse(stanza: bytes) -> Package:
    try:
        fields = Deb822(stanza.decode("utf-8"))
        return Package(fields["Package"], Version(fields["Version"]), fields)
    except (KeyError, ValueError) as error:
        name = _raw(stanza, b"Package")
        raise ClaimError(f"Debian's list of packages is damaged at {name!a}: {error}") from None


def _raw(stanza: bytes, field: bytes) -> str:
    start = 0 if stanza.startswith(field + b": ") else stanza.find(b"\n" + field + b": ") + 1
    if start == 0 and not stanza.startswith(field + b": "):
        return ""
    end = stanza.find(b"\n", start)
    value = stanza[start + len(field) + 2 : end if end >= 0 else None]
    return value.decode("utf-8", "replace").strip()
