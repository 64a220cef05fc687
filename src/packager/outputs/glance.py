"""One look at this machine's engine, without the SDK: which image bears a name there.

That is all a build asks that changes nothing, and to import the SDK takes longer than all the
rest of such a build.  Any engine but the one at the usual socket, and any doubt, is the SDK's.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["Seen", "look"]

_SOCKET = Path("/var/run/docker.sock")
_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """The engine's own ID, and that of the image which bears a name."""

    engine: str
    image: str


class _Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def look(reference: str) -> Seen | None:
    """Look which image bears a name; None if none does, or if only the SDK can tell.

    Parameters
    ----------
    reference : str
        The name, with its tag.
    """
    if not (path := _socket()):
        return None
    connection = _Local(path)
    try:
        image = _get(connection, f"/images/{quote(reference)}/json")
        engine = _get(connection, "/info") if image else None
        return Seen(engine["ID"], image["Id"]) if image and engine else None
    except (OSError, http.client.HTTPException, ValueError, LookupError):
        return None
    finally:
        connection.close()


def _socket() -> Path | None:
    """Give the socket that the SDK would use, where the user's settings name no other."""
    named = os.environ.get("DOCKER_HOST", "")
    if named:
        return Path(named.removeprefix("unix://")) if named.startswith("unix://") else None
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        settings = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        settings = {}
    except (OSError, ValueError):
        return None
    if os.environ.get("DOCKER_CONTEXT") or settings.get("currentContext", "default") != "default":
        return None
    return _SOCKET if _SOCKET.exists() and hasattr(socket, "AF_UNIX") else None


def _get(connection: http.client.HTTPConnection, path: str) -> dict[str, Any] | None:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        return None
    found = json.loads(body)
    return found if isinstance(found, dict) else None
