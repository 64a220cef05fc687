"""The one way to the network: the user's proxies, certificates, credentials and index settings."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import truststore
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from requests_file import FileAdapter
from urllib3.util import Retry

from packager import __version__, pip
from packager.errors import HostError, without_credentials

__all__ = [
    "holds_secret",
    "pause",
    "reasons",
    "session",
    "system_certificates",
]

_TIMEOUT = 60.0
# Where distributions keep certificates: Debian, Fedora, SUSE, Alpine.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_LONGEST_WAIT = 30.0


class _Patience(Retry):
    """Wait as long as a server asks for, but no longer than somebody at a terminal would."""

    def get_retry_after(self, response: Any) -> float | None:
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, _LONGEST_WAIT)


class _Adapter(HTTPAdapter):
    """Wait for no answer for ever."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = _TIMEOUT
        return super().send(request, *args, **kwargs)


class _SystemTrust(_Adapter):
    """Verify against the operating system's certificates, where a lab's own CA is installed.

    They are read once: that takes longer than a small file takes to arrive.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._trusted = _system_trust()
        # What OpenSSL read by itself; users who name a file often name that one.
        read = ssl.get_default_verify_paths().cafile if sys.platform == "linux" else None
        self._named = {read} if read else set()
        super().__init__(**kwargs)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._trusted)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(*args, **kwargs, ssl_context=self._trusted)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Trust what the user's settings name, too, without having each connection read it."""
        if isinstance(verify, str):
            self.trust(verify)
        super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
        conn.ca_certs = conn.ca_cert_dir = None

    def trust(self, named: str) -> None:
        """Trust the certificates of a file or folder, too."""
        if named in self._named:
            return
        kind = "capath" if Path(named).is_dir() else "cafile"
        try:
            self._trusted.load_verify_locations(**{kind: named})
        except OSError as error:  # what is no certificate, too
            raise HostError(
                f"no certificates can be read from it: {error.strerror or error}",
                where=named,
                hint="Correct pip's setting cert (pip config debug), or REQUESTS_CA_BUNDLE.",
            ) from None
        self._named.add(named)


def _system_trust() -> ssl.SSLContext:
    if sys.platform != "linux":
        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # There truststore would read all certificates again for each connection.
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted.set_default_verify_paths()
    if not trusted.cert_store_stats()["x509_ca"]:  # a Python built elsewhere, or no certificates
        trusted.load_verify_locations(system_certificates())
    return trusted


def system_certificates() -> Path:
    """Name the file that holds whom this system trusts, or the one that SSL_CERT_FILE names."""
    named = ssl.get_default_verify_paths().cafile
    known = [*filter(os.path.isfile, [named or "", *_BUNDLES]), DEFAULT_CA_BUNDLE_PATH]
    return Path(known[0])


class _NoTrust(_Adapter):
    """Verify nothing: for hosts that pip's `trusted-host` names."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        return super().send(request, *args, **{**kwargs, "verify": False})


class _Session(requests.Session):
    def __init__(self, trusted_hosts: frozenset[str], retry: Retry) -> None:
        super().__init__()
        self._trusted_hosts = trusted_hosts
        self._no_trust = _NoTrust(max_retries=retry, pool_maxsize=16)

    def get_adapter(self, url: str) -> Any:
        parts = urlsplit(url)
        if self._trusted_hosts & {parts.hostname, f"{parts.hostname}:{parts.port}"}:
            return self._no_trust
        return super().get_adapter(url)

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Let pip's proxy count more than the environment's, as it does for pip."""
        first = {**self.proxies, **(proxies or {})}
        return super().merge_environment_settings(url, first, stream, verify, cert)


def session(*, trusted: Iterable[str] = ()) -> requests.Session:
    """Make a session that honours proxies, netrc, custom certificates and pip's settings.

    Refused connections, 429 and server errors are tried again, later each time.

    Parameters
    ----------
    trusted : iterable of str
        Hosts, with a port or without, whose certificates need not be verified, beside those
        that pip's `trusted-host` names.
    """
    # Silence is what takes longest to notice, so it is tried but once more; what else there is
    # (a certificate, say) does not get better.
    failing = (429, 500, 502, 503, 504)
    retry = _Patience(total=4, read=1, other=0, backoff_factor=0.5, status_forcelist=failing)
    trusting = _SystemTrust(max_retries=retry, pool_maxsize=16)  # while pip reads its settings
    settings = pip.settings()
    made = _Session(settings.trusted_hosts | {*trusted}, retry)
    made.mount("https://", trusting)
    made.mount("http://", trusting)
    made.mount("file://", FileAdapter())
    made.headers["User-Agent"] = f"model-packager/{__version__}"
    if settings.cert:
        trusting.trust(settings.cert)
    made.cert = settings.client_cert or None
    if settings.proxy:
        made.proxies = {"http": settings.proxy, "https": settings.proxy}
    return made


def pause(answer: requests.Response | None, tries: int) -> float:
    """Say how many seconds to wait before what failed so often is tried again.

    Parameters
    ----------
    answer : requests.Response, optional
        May ask for patience.
    tries : int
        How many have failed.
    """
    asked = None if answer is None else _Patience().get_retry_after(answer.raw)
    return 0.5 * 2**tries if asked is None else asked


def holds_secret(url: str) -> bool:
    """Tell whether an address may open what it names: credentials, a signature as a query."""
    parts = urlsplit(url)
    return "@" in parts.netloc or bool(parts.query)


def reasons(error: BaseException) -> str:
    """Say why a request failed in a line: the innermost reason, without any credentials."""
    while (inner := _wrapped(error)) is not None:
        error = inner
    return without_credentials(str(error)) or type(error).__name__


def _wrapped(error: BaseException) -> BaseException | None:
    wraps = [getattr(error, "reason", None), *error.args[:1]]  # a reason may be a mere word
    return next((one for one in wraps if isinstance(one, BaseException)), None)
