"""The facts of a CITATION.cff as a BibTeX entry."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["bibtex"]

_KINDS = {
    "article": "article",
    "book": "book",
    "conference-paper": "inproceedings",
    "data": "dataset",
    "dataset": "dataset",
    "software": "software",
}
_FIELDS = {
    "journal": "journal",
    "volume": "volume",
    "issue": "number",
    "collection-title": "booktitle",
    "version": "version",
}
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
} | {character: f"\\{character}" for character in "&%$#_"}


def bibtex(citation: Mapping[str, Any]) -> str:
    """Write an entry.

    Parameters
    ----------
    citation : mapping
        A CITATION.cff as its YAML says it; its `preferred-citation` wins where it has one.

    Returns
    -------
    str
        One BibTeX entry, the last line without its end; a person's name is never split or
        joined otherwise than the file has it.
    """
    preferred = citation.get("preferred-citation")
    source = preferred if isinstance(preferred, Mapping) else citation
    kind = _KINDS.get(str(source.get("type", "software")), "misc")
    lines = [f"@{kind}{{{_key(source)},"]
    lines += [f"  {name} = {{{value}}}," for name, value in _fields(source)]
    return "\n".join([*lines, "}"])


def _fields(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if names := [name for one in _authors(source) if (name := _name(one))]:
        yield "author", " and ".join(names)
    yield "title", f"{{{_text(source.get('title', ''))}}}"
    for theirs, ours in _FIELDS.items():
        if source.get(theirs):
            yield ours, _text(source[theirs])
    if year := _year(source):
        yield "year", year
    if source.get("doi"):
        yield "doi", _address(source["doi"])
    if address := source.get("url") or source.get("repository-code"):
        yield "url", _address(address)


def _authors(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    authors = source.get("authors")
    return [one for one in authors if isinstance(one, Mapping)] if isinstance(authors, list) else []


def _name(author: Mapping[str, Any]) -> str:
    """Give "van der Family, Jr., Given", or a group's name that BibTeX leaves whole."""
    family = " ".join(
        str(author[key]) for key in ("name-particle", "family-names") if author.get(key)
    )
    if not family:
        whole = author.get("name") or author.get("given-names") or author.get("alias")
        return f"{{{_text(whole)}}}" if whole else ""
    rest = [str(author[key]) for key in ("name-suffix", "given-names") if author.get(key)]
    return ", ".join(map(_part, [family, *rest]))


def _part(text: str) -> str:
    # An "and" or a comma within a name would part it.
    return f"{{{_text(text)}}}" if re.search(r"\band\b|,", text) else _text(text)


def _year(source: Mapping[str, Any]) -> str:
    said = source.get("year") or source.get("date-released") or source.get("date-published") or ""
    found = re.match(r"\d{4}", str(said))
    return found[0] if found else ""


def _key(source: Mapping[str, Any]) -> str:
    """Make a key of the first author's name, the year, and the title's first word."""
    first = next(iter(_authors(source)), {})
    who = str(first.get("family-names") or first.get("name") or "")
    words = [*who.split()[-1:], _year(source), *str(source.get("title", "")).split()[:1]]
    ascii_only = unicodedata.normalize("NFKD", "".join(words)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]", "", ascii_only).lower() or "model"


def _text(value: object) -> str:
    """Escape what LaTeX would read as markup."""
    return "".join(_ESCAPES.get(one, one) for one in " ".join(str(value).split()))


def _address(value: object) -> str:
    """Keep an address as it is, but for what would end the field."""
    return re.sub(r"[{}\\\s]", lambda one: f"%{ord(one[0]):02X}", str(value).strip())
