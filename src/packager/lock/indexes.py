"""Where wheels can be found: the indexes and folders of pip's settings and the project's hints."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from html import unescape
from pathlib import Path
from typing import Any, AnyStr
from urllib.parse import urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

import requests
from packaging.utils import canonicalize_name

from packager import net, pip
from packager.errors import HostError, PackagerError, UsageError, without_credentials
from packager.project import Hints

__all__ = ["Found", "Indexes"]

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPTED = f"{_JSON}, application/vnd.pypi.simple.v1+html; q=0.2, text/html; q=0.01"
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Found:
    """One file that an index offers; `sha256`, `size` and what it `requires` where it is stated.

    A page lists thousands of which few are wanted, so what takes time is made when asked for.
    `address` is relative to `page`, which carries the credentials that the user gave for it.
    """

    file: str
    address: str
    page: str
    sha256: str | None
    size: int | None
    requires: str = ""
    yanked: bool = False

    @property
    def project(self) -> str | None:
        """The normalised name of the project; None if the file's name tells of none."""
        return _parsed(self.file)[0]

    @property
    def version(self) -> str | None:
        """The version as the file's name spells it; None if it tells of none."""
        return _parsed(self.file)[1]

    @property
    def url(self) -> str:
        """The whole address."""
        return _with_credentials_of(self.page, urljoin(self.page, self.address))


# One attribute that matters, in quotes and plain ASCII; no other may hold what could end a tag.
_PLAIN = re.compile(
    rb"""<a(?:\s+data-[a-z-]+="[^"<>]*")*\s+href="([!#-;=?-~]*)"(?:\s+[a-z-]+="[^"<>]*")*\s*"""
)

_Ask = Callable[[str, str, str], list[Found]]


class Indexes:
    """The package indexes and link folders, asked in the user's order.

    Parameters
    ----------
    session : callable
        Gives the session to ask with; not called before something is asked.
    hints : Hints
        The project's own places, asked after the user's.
    """

    def __init__(self, session: Callable[[], requests.Session], hints: Hints) -> None:
        self._session = session
        self._hints = hints
        self._offers = functools.cache(lambda ask, place, name, file: ask(place, name, file))
        self._failed: dict[tuple[_Ask, str], PackagerError] = {}

    def files(self, name: str) -> list[Found]:
        """List the files that any place offers for a project (its normalised name).

        Raises
        ------
        HostError
            When an index cannot be reached, or answers with an error; not when it does
            not know the project.
        UsageError
            When a link folder does not exist.
        """
        return [found for place in self._places() for found in self._offers(*place, name, "")]

    def places(self, name: str, file: str) -> Iterator[str]:
        """Find the addresses of one file; a place is asked when those before did not serve.

        Raises
        ------
        PackagerError
            As for `files`, but only when no other place has the file.
        """
        known = False
        for place in self._places():
            # One that cannot be asked keeps everybody waiting: so it is asked only once.
            if place in self._failed:
                continue
            try:
                offered = self._offers(*place, canonicalize_name(name), file)
            except PackagerError as error:
                self._failed[place] = error
                continue
            for one in offered:
                if one.file == file:
                    known = True
                    yield one.url
        if not known and self._failed:
            raise next(iter(self._failed.values()))

    def _places(self) -> list[tuple[_Ask, str]]:
        settings, hints = pip.settings(), self._hints
        indexes = dict.fromkeys([*settings.index_urls, *hints.extra_index_urls])
        links = dict.fromkeys([*settings.find_links, *hints.find_links])
        return [*((self._ask, index) for index in indexes), *((self._look, link) for link in links)]

    def _ask(self, index: str, name: str, file: str) -> list[Found]:
        if folder := _local(index):
            page = folder / name / "index.html"
            html = page.read_text("utf-8") if page.is_file() else ""
            return _links([html], f"{page.parent.as_uri()}/")
        address = f"{index.rstrip('/')}/{name}/"
        try:
            headers = {"Accept": _ACCEPTED}
            with self._session().get(address, headers=headers, stream=True) as answer:
                return _read(answer, _with_credentials_of(index, answer.url), file)
        except requests.RequestException as error:
            raise HostError(
                f"the package index cannot be asked for {name}: {net.reasons(error)}",
                where=without_credentials(index),
                hint="Check the network, the proxy and pip's settings (pip config list).",
            ) from None

    def _look(self, link: str, name: str, _: str) -> list[Found]:
        found = _linked(folder) if (folder := _local(link)) else self._page(link)
        return [one for one in found if one.project == name]

    def _page(self, link: str) -> list[Found]:
        try:
            answer = self._session().get(link)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise HostError(
                f"find-links cannot be read: {net.reasons(error)}",
                where=without_credentials(link),
            ) from None
        return _links([answer.text], link)


def _local(place: str) -> Path | None:
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in place else Path(place).absolute()


def _parsed(file: str) -> tuple[str | None, str | None]:
    from pypi_simple import UnparsableFilenameError, parse_filename

    try:
        project, version, _ = parse_filename(file)
    except UnparsableFilenameError:
        return None, None
    return canonicalize_name(project), version


def _read(answer: requests.Response, page: str, file: str) -> list[Found]:
    """Read a project's page in either form (PEP 503, 691), or as much as tells of one file."""
    if answer.status_code == requests.codes.not_found:
        return []
    answer.raise_for_status()
    header = EmailMessage()
    header["Content-Type"] = answer.headers.get("Content-Type", "text/html")
    kind = header.get_content_type()
    if kind == _JSON:
        return _listed(answer.json(), page, file)
    if kind not in {"text/html", "application/vnd.pypi.simple.v1+html"}:
        raise requests.RequestException(f"{kind!r} is no page of links")
    charset = header.get_content_charset()
    if not file:
        return _links(answer.iter_content(_CHUNK), page, charset)
    return _link(answer.content, file, page) or _links([answer.content], page, charset)


def _listed(data: Any, page: str, file: str) -> list[Found]:
    try:
        return [
            Found(
                str(one["filename"]),
                str(one["url"]),
                page,
                one["hashes"].get("sha256"),
                one.get("size"),
                one.get("requires-python") or "",
                bool(one.get("yanked")),
            )
            for one in data["files"]
            if file in {"", one["filename"]}
        ]
    except (LookupError, TypeError, AttributeError):
        raise requests.RequestException("what it answers is no list of files (PEP 691)") from None


def _link(html: bytes, file: str, page: str) -> list[Found]:
    """Find one file's link on a page that has thousands, where it is written in the plain way.

    Where it is not, nothing is found, and the page has to be read as a whole.
    """
    end = html.find(f">{file}</a>".encode())
    anchor = html[html.rfind(b"<", 0, max(end, 0)) : end]
    address = _PLAIN.fullmatch(anchor)
    if not address or b"<base" in html.lower():
        return []
    return [_found_at(unescape(address[1].decode("ascii")), file, page, {})]


def _links(html: Iterable[AnyStr], page: str, charset: str | None = None) -> list[Found]:
    from pypi_simple import parse_links_stream

    # As a stream: a page may have megabytes, and a document made of one ten times that.
    links = parse_links_stream(html, http_charset=charset)
    return [_found_at(link.url, link.text, page, link.attrs or {}) for link in links]


def _found_at(url: str, file: str, page: str, said: Mapping[str, str | list[str]]) -> Found:
    address, _, digest = url.partition("#")
    algorithm, _, value = digest.partition("=")
    sha256 = value if algorithm == "sha256" else None
    requires = str(said.get("data-requires-python", ""))
    return Found(file, address, page, sha256, None, requires, "data-yanked" in said)


def _linked(place: Path) -> list[Found]:
    """List what a folder holds, or what a page on this machine links to."""
    try:
        if place.is_dir():
            files = sorted(place.iterdir())
            return [Found(file.name, file.as_uri(), "", None, None) for file in files]
        html = place.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"find-links cannot be read: {getattr(error, 'strerror', error)}",
            where=str(place),
            hint="Correct find-links in [tool.packager] or in pip's settings (pip config list).",
        ) from None
    return _links([html], place.as_uri())


def _with_credentials_of(index: str, url: str) -> str:
    """Carry an index's user and password over to files on the same host, as pip does."""
    user, at, host = urlsplit(index).netloc.rpartition("@")
    parts = urlsplit(url)
    same = at and parts.netloc == host
    return urlunsplit(parts._replace(netloc=f"{user}@{host}")) if same else url
