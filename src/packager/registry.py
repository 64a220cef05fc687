"""A registry's HTTP API (OCI distribution specification 1.1), as far as images need it.

Over the same session as everything else: the kept clients on PyPI bring sessions of their own,
without its proxies, certificates and patience; `oras` (0.2) knows no mount, and it and `dxf`
(12) send the login wherever a registry places an upload.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError, InsecureRequestWarning

from packager import net
from packager.errors import ClaimError, HostError
from packager.reference import HUB, Reference
from packager.registry_login import Login, Nobody
from packager.store import Blob, Wanted

__all__ = ["Repository", "connect", "reach"]

_API_OF_HUB = "registry-1.docker.io"
_BUSY = {429, 500, 502, 503, 504}
_LOST = (requests.RequestException, HTTPError)
_TRIES = 5
_LONGEST_ANSWER = 200

Tell = Callable[[int], object]
"""Hears how many more bytes have gone; less than none where some have to go again."""


def connect(reference: Reference, *, actions: str, insecure: bool = False) -> Repository:
    """Reach the repository that a name means, as who Docker's configuration says.

    Parameters
    ----------
    reference : Reference
        Names registry and repository.
    actions : str
        What is to be allowed: ``"pull"``, or ``"pull,push"``.
    insecure : bool
        Whether a certificate that nobody vouches for, or none at all, is good enough.

    Raises
    ------
    HostError
        When nothing answers there that is a registry, or it does not let us in.
    UsageError
        When Docker's configuration cannot be read.
    """
    trusted = [_host(reference).lower()] if insecure else []
    if insecure:  # no need to warn of what was asked for
        warnings.simplefilter("ignore", InsecureRequestWarning)
    session = net.session(trusted=trusted)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # we are no browser
    found = reach(reference, lambda: session, actions=actions, insecure=insecure)
    if insecure and not _speaks_tls(found.api, session):
        found = replace(found, api=found.api.replace("https://", "http://", 1))
    found.check()
    return found


def reach(
    reference: Reference,
    session: Callable[[], requests.Session],
    *,
    actions: str = "pull",
    insecure: bool = False,
) -> Repository:
    """Say where a repository is, and as whom it is to be asked, without asking yet.

    Parameters
    ----------
    reference, actions, insecure
        As for `connect`.
    session : callable
        Gives the session to use.
    """
    host = _host(reference)
    scope = f"repository:{reference.repository}:{actions}"
    login = Login(reference.registry, host, scope, session, insecure=insecure)
    return Repository(reference, f"https://{host}/v2/", session, login)


def _host(reference: Reference) -> str:
    return _API_OF_HUB if reference.registry == HUB else reference.registry


def _speaks_tls(api: str, session: requests.Session) -> bool:
    try:
        session.head(api, auth=Nobody())
    except requests.ConnectionError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository of a registry, from `connect` or `reach`; threads may share it.

    Attributes
    ----------
    reference : Reference
        Names it; its tag is of no account here.
    api : str
        The address that all others are relative to.
    """

    reference: Reference
    api: str
    session: Callable[[], requests.Session]
    login: Login

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.reference.registry}/{self.reference.repository}"

    def check(self) -> None:
        """Ask whether this is a registry that lets us in.

        Raises
        ------
        HostError
            When it is not, or does not.
        """
        with self._trouble():
            self._accepted(self._ask("GET", self.api))

    def has(self, blob: Blob) -> bool:
        """Tell whether the repository has a blob.

        Raises
        ------
        ClaimError
            When it says to have it, with another size.
        HostError
            When it does not say.
        """
        with self._trouble():
            answer = self._ask("HEAD", self._at(f"blobs/sha256:{blob.sha256}"))
            if answer.status_code == requests.codes.not_found:
                return False
            size = self._accepted(answer).headers.get("Content-Length")
        if size != str(blob.size):
            raise ClaimError(
                f"says that sha256:{blob.sha256} has {size} bytes, and it has {blob.size}",
                where=self.name,
                hint="What the registry keeps is damaged; have it removed there.",
            )
        return True

    def send(self, blob: Blob, origin: str | None, tell: Tell) -> bool:
        """Give the repository a blob that it lacks.

        What was sent of an upload that is cut is lost: the registry that most others are made
        of cannot go on with it.

        Parameters
        ----------
        blob : Blob
            What to send.
        origin : str, optional
            Another repository of this registry, which may have it.
        tell : callable
            Hears of bytes that have gone.

        Returns
        -------
        bool
            Whether bytes were sent; not so where `origin` had them.

        Raises
        ------
        HostError
            When the registry refuses it, or stops answering.
        """
        with self._trouble():
            for tries in range(1, _TRIES + 1):
                counted = _Counted(tell)
                try:
                    place = self._begin(blob, origin)
                    if place:
                        self._upload(place, blob, counted)
                    return bool(place)
                except _LOST as error:
                    if tries == _TRIES:
                        raise
                    time.sleep(net.pause(getattr(error, "response", None), tries))
                    tell(-counted.total)
                if self.has(blob):  # only the answer was lost
                    return True
        raise AssertionError

    def manifest(self, name: str, media_types: Sequence[str]) -> bytes:
        """Read a manifest, or an index of several.

        Parameters
        ----------
        name : str
            A tag, or a digest, which is checked.
        media_types : sequence of str
            Which kinds are understood.

        Raises
        ------
        ClaimError
            When its digest is another.
        HostError
            When there is none, or the registry does not give it.
        """
        with self._trouble():
            data = self._accepted(self._get(name, media_types))
            found = f"sha256:{hashlib.sha256(data.content).hexdigest()}"
        if name.startswith("sha256:") and found != name:
            raise ClaimError(f"gives {found} where {name} was asked for", where=self.name)
        return data.content

    def listed(self, name: str, media_type: str) -> bytes:
        """Read an index under a tag that may not be there; nothing if so.

        Raises
        ------
        HostError
            When the registry does not give it.
        """
        with self._trouble():
            answer = self._get(name, [media_type])
            missing = answer.status_code == requests.codes.not_found
            return b"" if missing else self._accepted(answer).content

    def wanted(self, sha256: str, size: int) -> Wanted:
        """Say of a blob where the store finds it."""
        address = self._at(f"blobs/sha256:{sha256}")
        label = f"sha256:{sha256[:12]}… of {self.name}"
        return Wanted(sha256, size, label, lambda: [address], self.login)

    def put(self, data: bytes, media_type: str, name: str) -> bool:
        """Store a manifest under a tag or its digest, once all it names is there; read it back.

        Returns
        -------
        bool
            Whether the registry has noted to which other manifest it belongs, its subject.

        Raises
        ------
        ClaimError
            When the registry has another manifest there then.
        HostError
            When it refuses the manifest, or stops answering.
        """
        place = self._at(f"manifests/{name}")
        with self._trouble():
            kind = {"Content-Type": media_type}
            answer = self._accepted(self._ask("PUT", place, data=data, headers=kind))
            found = self._accepted(self._ask("GET", place, headers={"Accept": media_type})).content
        if found != data:
            raise ClaimError(
                f"holds the manifest sha256:{hashlib.sha256(found).hexdigest()} as {name}, and "
                f"sha256:{hashlib.sha256(data).hexdigest()} was sent",
                where=self.name,
                hint="Either somebody else pushed this tag just now, or it changes manifests.",
            )
        return "OCI-Subject" in answer.headers

    def _get(self, name: str, media_types: Sequence[str]) -> requests.Response:
        accept = {"Accept": ", ".join(media_types)}
        return self._ask("GET", self._at(f"manifests/{name}"), headers=accept)

    def _at(self, rest: str) -> str:
        return f"{self.api}{self.reference.repository}/{rest}"

    def _ask(self, method: str, address: str, **more: Any) -> requests.Response:
        """Send a request; only the registry itself learns who we are."""
        ours = urlsplit(address)[:2] == urlsplit(self.api)[:2]
        auth = self.login if ours else Nobody()
        return self.session().request(method, address, auth=auth, allow_redirects=True, **more)

    def _begin(self, blob: Blob, origin: str | None) -> str:
        """Give the address to upload a blob to; none if it could be mounted."""
        place = self._at("blobs/uploads/")
        if origin and origin != self.reference.repository:
            query = urlencode({"mount": f"sha256:{blob.sha256}", "from": origin})
            answer = self._ask("POST", f"{place}?{query}")
            if answer.status_code == requests.codes.created:
                return ""
            if answer.status_code == requests.codes.accepted:
                return _location(answer)
        return _location(self._accepted(self._ask("POST", place)))

    def _upload(self, place: str, blob: Blob, tell: Tell) -> None:
        kind = {"Content-Type": "application/octet-stream"}
        with _Told(blob.path, tell) as stream:
            answer = self._accepted(self._ask("PATCH", place, data=stream, headers=kind))
        parts = urlsplit(_location(answer))
        query = urlencode([*parse_qsl(parts.query), ("digest", f"sha256:{blob.sha256}")])
        self._accepted(self._ask("PUT", parts._replace(query=query).geturl()))

    def _accepted(self, answer: requests.Response) -> requests.Response:
        if answer.ok:
            return answer
        if answer.status_code in _BUSY:
            raise requests.HTTPError(_said(answer), response=answer)
        if answer.status_code == requests.codes.unauthorized:
            what, hint = self.login.refused
            raise HostError(what, where=self.name, hint=hint)
        raise HostError(f"refuses: {_said(answer)}", where=self.name)

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except _LOST as error:
            raise HostError(
                f"does not answer as a registry does: {net.reasons(error)}", where=self.name
            ) from None


class _Counted:
    """Counts what it passes on."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self.total = tell, 0

    def __call__(self, amount: int) -> None:
        self.total += amount
        self._tell(amount)


class _Told(io.FileIO):
    """A file that tells how much of it has been read."""

    def __init__(self, path: Path, tell: Tell) -> None:
        super().__init__(path)
        self._tell = tell

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._tell(len(data))
        return data


def _location(answer: requests.Response) -> str:
    return urljoin(answer.url, answer.headers.get("Location", ""))


def _said(answer: requests.Response) -> str:
    """Say what a registry says is wrong: its own words, if it has some."""
    try:
        errors = answer.json()["errors"]
        words = "; ".join(
            f"{one['code']}: {one.get('message') or ''}".strip(": ") for one in errors
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        words = ""
    return f"{answer.status_code} {words or answer.reason}"[:_LONGEST_ANSWER]
