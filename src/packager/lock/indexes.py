"""Where wheels can be found: the indexes and folders of pip's settings and the project's hints."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

import requests
from packaging.utils import canonicalize_name
from pypi_simple import (
    DistributionPackage,
    Link,
    NoSuchProjectError,
    ProjectPage,
    PyPISimple,
    UnsupportedContentTypeError,
)

from packager import net
from packager.errors import HostError, PackagerError, UsageError
from packager.project import Hints

__all__ = ["Found", "Indexes"]

_Ask = Callable[[str, str], list[DistributionPackage]]


@dataclass(frozen=True, slots=True)
class Found:
    """One file that an index offers; `sha256` and `size` where the index states them."""

    file: str
    version: str | None
    url: str
    sha256: str | None
    size: int | None


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
        self._offers = functools.cache(self._offered)
        self._failed: dict[tuple[_Ask, str], PackagerError] = {}
        self._reading = threading.Lock()

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
        return [found for place in self._places() for found in self._offers(*place, name)]

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
                offered = self._offers(*place, canonicalize_name(name))
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
        settings, hints = net.pip_settings(), self._hints
        indexes = dict.fromkeys([*settings.index_urls, *hints.extra_index_urls])
        links = dict.fromkeys([*settings.find_links, *hints.find_links])
        return [*((self._ask, index) for index in indexes), *((self._look, link) for link in links)]

    @staticmethod
    def _offered(ask: _Ask, place: str, name: str) -> list[Found]:
        return [_found(package, place) for package in ask(place, name)]

    def _ask(self, index: str, name: str) -> list[DistributionPackage]:
        if folder := _local(index):
            page = folder / name / "index.html"
            html = page.read_text("utf-8") if page.is_file() else ""
            return ProjectPage.from_html(name, html, base_url=f"{page.parent.as_uri()}/").packages
        try:
            # A page read takes ten times its size, which may be megabytes: one at a time.
            with self._reading:
                return PyPISimple(index, session=self._session()).get_project_page(name).packages
        except NoSuchProjectError:
            return []
        except (requests.RequestException, UnsupportedContentTypeError) as error:
            raise HostError(
                f"the package index cannot be asked for {name}: {net.reasons(error)}",
                where=net.without_credentials(index),
                hint="Check the network, the proxy and pip's settings (pip config list).",
            ) from None

    def _look(self, link: str, name: str) -> list[DistributionPackage]:
        packages = _linked(folder, name) if (folder := _local(link)) else self._page(link, name)
        return [one for one in packages if one.project and canonicalize_name(one.project) == name]

    def _page(self, link: str, name: str) -> list[DistributionPackage]:
        try:
            answer = self._session().get(link)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise HostError(
                f"find-links cannot be read: {net.reasons(error)}",
                where=net.without_credentials(link),
            ) from None
        return ProjectPage.from_html(name, answer.text, base_url=link).packages


def _local(place: str) -> Path | None:
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in place else Path(place).absolute()


def _linked(place: Path, name: str) -> list[DistributionPackage]:
    """List what a folder holds, or what a page on this machine links to."""
    try:
        if place.is_dir():
            links = [Link(file.name, file.as_uri(), {}) for file in sorted(place.iterdir())]
            return [DistributionPackage.from_link(one) for one in links]
        html = place.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"find-links cannot be read: {getattr(error, 'strerror', error)}",
            where=str(place),
            hint="Correct find-links in [tool.packager] or in pip's settings (pip config list).",
        ) from None
    return ProjectPage.from_html(name, html, base_url=place.as_uri()).packages


def _found(package: DistributionPackage, place: str) -> Found:
    url = _with_credentials_of(place, package.url)
    return Found(
        package.filename, package.version, url, package.digests.get("sha256"), package.size
    )


def _with_credentials_of(index: str, url: str) -> str:
    """Carry an index's user and password over to files on the same host, as pip does."""
    user, at, host = urlsplit(index).netloc.rpartition("@")
    parts = urlsplit(url)
    same = at and parts.netloc == host
    return urlunsplit(parts._replace(netloc=f"{user}@{host}")) if same else url
