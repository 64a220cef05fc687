"""An engine's HTTP API, as far as images need it: over a socket here, else the SDK's client.

To import the SDK takes longer than all the rest of a build that changes little.  The requests
and their answers are those of the Docker Engine API, which podman speaks, too.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from packager.errors import HostError, without_credentials

if TYPE_CHECKING:
    import docker

__all__ = ["RefusedError", "Wire", "innermost", "through_client", "through_socket", "trouble"]

_SECONDS = 600  # that an engine may be silent while it works
_TAR = "application/x-tar"
_DONE = range(200, 300)
_GONE = 404
_NO_SUCH = {301, 400, _GONE}  # the first two: nothing can have that name

Ask = Callable[[str, str, "Iterable[bytes] | None", float], tuple[int, bytes]]
"""Sends a method, a path, perhaps a tar archive; gives a status and the whole answer.  The number
is of seconds that the engine may be silent."""


class RefusedError(Exception):
    """The engine answered that it does not do what it was asked for."""


class Wire:
    """Requests to one engine; threads may share it.

    All methods raise what `trouble` turns into errors for users.

    Parameters
    ----------
    ask : callable
        From `through_socket` or `through_client`.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def facts(self, what: str, *, seconds: float = _SECONDS) -> dict[str, Any]:
        """Ask what the engine says of itself: ``"version"`` or ``"info"``."""
        return _object(self._done("GET", f"/{what}", seconds=seconds))

    def image(self, name: str) -> dict[str, Any] | None:
        """Inspect an image, by ID or reference; None if there is none."""
        status, answer = self._ask("GET", f"/images/{_named(name)}/json", None, _SECONDS)
        return None if status in _NO_SUCH else _object(_accepted(status, answer))

    def history(self, name: str) -> list[dict[str, Any]]:
        """List what made each layer of an image, the newest first."""
        return list(json.loads(self._done("GET", f"/images/{_named(name)}/history")))

    def load(self, archive: Iterable[bytes]) -> None:
        """Send an archive of images."""
        answers = self._done("POST", "/images/load?quiet=1", archive)
        for line in filter(None, answers.splitlines()):
            if wrong := json.loads(line).get("error"):
                raise RefusedError(f"it cannot load the image: {wrong}")

    def tag(self, image: str, name: str, tag: str) -> None:
        """Give an image, by its ID, a name."""
        self._done("POST", f"/images/{_named(image)}/tag?{urlencode({'repo': name, 'tag': tag})}")

    def remove_image(self, name: str) -> None:
        """Remove an image by its ID, or take a name away; one that is not there is gone, too."""
        self._gone(f"/images/{_named(name)}")

    def containers(self, label: str) -> list[str]:
        """List the IDs of the containers, running or not, that bear a label with its value."""
        query = urlencode({"all": 1, "filters": json.dumps({"label": [label]})})
        return [one["Id"] for one in json.loads(self._done("GET", f"/containers/json?{query}"))]

    def remove_container(self, container: str) -> None:
        """Stop and remove a container with what it wrote."""
        self._gone(f"/containers/{container}?force=1&v=1")

    def _gone(self, path: str) -> None:
        status, answer = self._ask("DELETE", path, None, _SECONDS)
        if status != _GONE:
            _accepted(status, answer)

    def _done(
        self,
        method: str,
        path: str,
        archive: Iterable[bytes] | None = None,
        *,
        seconds: float = _SECONDS,
    ) -> bytes:
        return _accepted(*self._ask(method, path, archive, seconds))


def _named(image: str) -> str:
    return quote(image, safe="/:@")


def _accepted(status: int, answer: bytes) -> bytes:
    if status not in _DONE:
        raise RefusedError(_message(answer) or f"status {status}")
    return answer


def _object(answer: bytes) -> dict[str, Any]:
    found = json.loads(answer)
    if not isinstance(found, dict):
        raise ValueError("what answers is no engine")
    return found


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, LookupError, TypeError):
        return answer.decode("utf-8", "replace").strip()


def through_socket(path: Path) -> Ask:
    """Reach an engine over its socket on this machine."""

    def ask(
        method: str, target: str, archive: Iterable[bytes] | None, seconds: float
    ) -> tuple[int, bytes]:
        with contextlib.closing(_Connection(path, seconds)) as connection:
            headers = {"Content-Type": _TAR, "Transfer-Encoding": "chunked"} if archive else {}
            # One that refuses need not have read everything, and what it says tells more.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, archive, headers, encode_chunked=bool(archive))
            answer = connection.getresponse()
            return answer.status, answer.read()

    return ask


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def through_client(client: docker.DockerClient) -> Ask:
    """Reach an engine as the SDK does, which knows TLS and Windows' pipes."""
    api = client.api

    def ask(
        method: str, target: str, archive: Iterable[bytes] | None, seconds: float
    ) -> tuple[int, bytes]:
        headers: Mapping[str, str] = {"Content-Type": _TAR} if archive else {}
        address = f"{api.base_url}{target}"
        answer = api.request(
            method, address, data=archive, headers=headers, timeout=seconds, allow_redirects=False
        )
        return answer.status_code, answer.content

    return ask


def innermost(error: BaseException) -> str:
    """Say what is behind an error that libraries wrapped in their own."""
    # A NameError is how the SDK notices that a package is missing; it then says which.
    while (cause := error.__cause__ or error.__context__) and not isinstance(cause, NameError):
        error = cause
    return without_credentials(str(error).strip("()")) or type(error).__name__


@contextlib.contextmanager
def trouble() -> Iterator[None]:
    """Turn what a wire raises into an error that a user can act on."""
    try:
        yield
    except RefusedError as error:
        raise HostError(f"the engine refuses: {error}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise HostError(
            f"the engine stopped answering: {innermost(error)}", hint="Is it still running?"
        ) from None
