"""Where wheels can be found: the indexes and folders of pip's settings and the project's hints."""

from __future__ import annotations

import functools
from collections.abc import Callable
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
from packager.errors import HostError
from packager.project import Hints

__all__ = ["Found", "Indexes"]


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
        self.files = functools.cache(self._files)

    def _files(self, name: str) -> list[Found]:
        """List the files that any place offers for a project (its normalised name).

        Raises
        ------
        HostError
            When an index cannot be reached, or answers with an error; not when it does
            not know the project.
        """
        found = []
        settings = net.pip_settings()
        for index in dict.fromkeys([*settings.index_urls, *self._hints.extra_index_urls]):
            found += [_found(package, index) for package in self._ask(index, name)]
        for link in dict.fromkeys([*settings.find_links, *self._hints.find_links]):
            found += [_found(package, link) for package in self._look(link, name)]
        return found

    def places(self, name: str, file: str) -> list[str]:
        """List the addresses of one file."""
        return [one.url for one in self.files(canonicalize_name(name)) if one.file == file]

    def _ask(self, index: str, name: str) -> list[DistributionPackage]:
        if folder := _local(index):
            page = folder / name / "index.html"
            html = page.read_text("utf-8") if page.is_file() else ""
            return ProjectPage.from_html(name, html, base_url=f"{page.parent.as_uri()}/").packages
        try:
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
        if (folder := _local(link)) and folder.is_dir():
            links = [Link(file.name, file.as_uri(), {}) for file in sorted(folder.iterdir())]
            packages = [DistributionPackage.from_link(one) for one in links]
        else:
            html = folder.read_text("utf-8") if folder else self._page(link)
            base = folder.as_uri() if folder else link
            packages = ProjectPage.from_html(name, html, base_url=base).packages
        return [one for one in packages if one.project and canonicalize_name(one.project) == name]

    def _page(self, link: str) -> str:
        try:
            answer = self._session().get(link)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise HostError(
                f"find-links cannot be read: {net.reasons(error)}",
                where=net.without_credentials(link),
            ) from None
        return answer.text


def _local(place: str) -> Path | None:
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in place else Path(place).absolute()


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
