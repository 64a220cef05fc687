"""Who we are to a registry: the logins that Docker's configuration and its helpers hold.

Basic authentication, and the distribution project's token authentication (bearer), as the
registry asks for it.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from requests.utils import parse_dict_header, rewind_body

from packager.errors import HostError, UsageError

__all__ = ["Login", "Nobody"]

_CLIENT = "model-packager"


class Nobody(AuthBase):
    """Send no login; without this, requests would send one of the user's netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Leave a request as it is."""
        return request


@dataclass(frozen=True, slots=True)
class _Stored:
    """A login: user and password, or a token in place of both."""

    user: str = ""
    password: str = ""
    token: str = ""

    @property
    def basic(self) -> str:
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return f"Basic {pair}"


class Login(AuthBase):
    """Meets what one registry asks for; threads may share it.

    Parameters
    ----------
    registry : str
        What its logins are stored under.
    host : str
        Where it answers, with its port; nobody else gets a login, wherever we are redirected.
    scope : str
        What is to be allowed in any case: ``"repository:lab/penguins:pull,push"``.
    session : callable
        Gives the session that asks for tokens.
    insecure : bool
        Whether a password may go over plain HTTP.
    """

    def __init__(
        self,
        registry: str,
        host: str,
        scope: str,
        session: Callable[[], requests.Session],
        *,
        insecure: bool,
    ) -> None:
        self._registry, self._host, self._scope = registry, host, scope
        self._session, self._insecure = session, insecure
        self._header = ""
        self._stored: _Stored | None = None
        self._looked = False

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Say who we are, if it was asked before, and listen whether it is asked now."""
        if self._header:
            request.headers["Authorization"] = self._header
        request.register_hook("response", self._again)  # type: ignore[no-untyped-call]
        return request

    @property
    def refused(self) -> tuple[str, str]:
        """What to say of a registry that keeps asking, and what to do about it."""
        hint = f"docker login {self._registry} stores a login that packager finds."
        if not self._stored:
            return "wants a login, and Docker's configuration has none for it", hint
        who = f"of {self._stored.user}" if self._stored.user else "token"
        return f"does not accept the login {who} that Docker's configuration has", hint

    def _again(self, answer: requests.Response, **how: Any) -> requests.Response:
        """Repeat a request that was asked who sends it."""
        asks = answer.status_code == requests.codes.unauthorized
        if not asks or urlsplit(answer.url).netloc != self._host:
            return answer
        header = self._meet(answer.headers.get("WWW-Authenticate", ""))
        if header in {"", answer.request.headers.get("Authorization")}:
            return answer
        _ = answer.content  # so that its connection is free for the second
        again = answer.request.copy()
        if again._body_position is not None:  # type: ignore[attr-defined]
            rewind_body(again)
        again.headers["Authorization"] = self._header = header
        second: requests.Response = answer.connection.send(again, **how)
        second.history.append(answer)
        second.request = again
        return second

    def _meet(self, challenge: str) -> str:
        """Give the header that meets a challenge; empty if there is none."""
        kind, _, rest = challenge.partition(" ")
        wanted = parse_dict_header(rest)  # type: ignore[no-untyped-call]
        stored = self._look_up()
        match kind.lower():
            case "basic" if stored and stored.user:
                return stored.basic
            case "bearer" if "realm" in wanted:
                return self._token(wanted, stored)
        return ""

    def _token(self, wanted: dict[str, Any], stored: _Stored | None) -> str:
        realm = str(wanted["realm"])
        if stored and not self._insecure and urlsplit(realm).scheme != "https":
            raise HostError(
                f"asks for the login to be sent to {realm}, which is not encrypted",
                where=self._registry,
                hint="--insecure allows it.",
            )
        # What was asked for first, too: a token takes the place of the one before.
        scopes = list(dict.fromkeys([self._scope, *str(wanted.get("scope") or "").split()]))
        service = {"service": wanted["service"]} if wanted.get("service") else {}
        if stored and stored.token:
            form = {"grant_type": "refresh_token", "refresh_token": stored.token}
            more = {"client_id": _CLIENT, "scope": " ".join(scopes)}
            answer = self._session().post(realm, data=form | more | service, auth=Nobody())
        else:
            headers = {"Authorization": stored.basic} if stored else {}
            query = {"scope": scopes, **service}
            answer = self._session().get(realm, params=query, headers=headers, auth=Nobody())
        if not answer.ok:
            return ""
        given = answer.json()
        return f"Bearer {given.get('token') or given['access_token']}"

    def _look_up(self) -> _Stored | None:
        """Find the stored login, once; a helper may be a program that asks its user."""
        if not self._looked:
            self._stored = _stored(self._registry)
            self._looked = True
        return self._stored


def _stored(registry: str) -> _Stored | None:
    from docker import auth
    from docker.errors import DockerException

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a helper that is missing becomes an error below
        try:
            found = auth.load_config().resolve_authconfig(registry) or {}
        except (DockerException, ValueError) as error:
            raise UsageError(
                f"the login for {registry} cannot be read: {error}",
                where="docker's config.json",
                hint=f"docker login {registry} stores it anew.",
            ) from None
    entry = {key.lower(): value for key, value in found.items()}
    user, password = entry.get("username") or "", entry.get("password") or ""
    token = entry.get("identitytoken") or ""
    return _Stored(user, password, token) if user or token else None
