"""Where engines are: what `DOCKER_HOST` or the current context names, else the usual sockets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packager.errors import HostError

__all__ = ["Address", "addresses"]

_CONFIG = "docker's config.json: currentContext"
_DEFAULT = "default"
_SOCKET = Path("/var/run/docker.sock")


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine may answer.

    Attributes
    ----------
    name : str
        What named it, for messages.
    host : str or None
        As in `DOCKER_HOST`; None for what is usual on this system.
    tls : TLSConfig or None
        The SDK's.
    """

    name: str
    host: str | None
    tls: Any = None


def addresses() -> Iterator[Address]:
    """List where to look, in order; what the user names is the only place.

    Raises
    ------
    HostError
        When the current context does not exist, or a certificate.
    """
    if host := os.environ.get("DOCKER_HOST"):
        yield Address("DOCKER_HOST", host, _tls_of_environment() if _takes_tls(host) else None)
    elif (name := os.environ.get("DOCKER_CONTEXT") or _current()) != _DEFAULT:
        yield _context(name)
    else:
        yield from _usual()


def _takes_tls(host: str) -> bool:
    return not host.startswith(("unix://", "ssh://"))


def _usual() -> Iterator[Address]:
    if os.name == "nt":
        yield Address(f"context {_DEFAULT}", None)
        return
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}"))
    for path in (
        _SOCKET,
        runtime / "docker.sock",
        Path.home() / ".docker/run/docker.sock",
        Path.home() / ".docker/desktop/docker.sock",
        Path("/run/podman/podman.sock"),
        runtime / "podman/podman.sock",
    ):
        if path == _SOCKET or path.exists():
            yield Address(str(path), f"unix://{path}")


def _current() -> str:
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        named = json.loads((folder / "config.json").read_bytes()).get("currentContext")
    except (OSError, ValueError, AttributeError):  # the SDK takes no offence, either
        named = None
    return str(named or _DEFAULT)


def _context(name: str) -> Address:
    """Read a context; none at all is an error."""
    from docker.context import ContextAPI

    try:
        context = ContextAPI.get_context(name)
    except Exception as error:
        raise HostError(f"cannot be read: {error}", where=f"docker context {name}") from error
    if context is None:
        raise HostError(
            f"there is no docker context {name}",
            where="DOCKER_CONTEXT" if os.environ.get("DOCKER_CONTEXT") else _CONFIG,
            hint="docker context ls shows those that exist.",
        )
    return Address(f"context {name}", context.Host, context.TLSConfig)


def _tls_of_environment() -> Any:
    from docker.errors import TLSParameterError
    from docker.utils import kwargs_from_env

    try:
        return kwargs_from_env().get("tls")
    except TLSParameterError:
        raise HostError(
            "has no cert.pem, key.pem and ca.pem",
            where=f"DOCKER_CERT_PATH={os.environ.get('DOCKER_CERT_PATH', '')}",
            hint="DOCKER_TLS_VERIFY asks for a certificate to show to the engine.",
        ) from None
