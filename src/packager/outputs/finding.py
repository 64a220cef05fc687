"""Where engines are: what `DOCKER_HOST` or the current context names, else the usual sockets."""

from __future__ import annotations

import hashlib
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
        When the current context does not exist, or no certificates.
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


def _folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _current() -> str:
    try:
        named = json.loads((_folder() / "config.json").read_bytes()).get("currentContext")
    except (OSError, ValueError, AttributeError):  # docker's client takes no offence, either
        named = None
    return str(named or _DEFAULT)


def _context(name: str) -> Address:
    """Read a context, as docker's client keeps them; none at all is an error."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    try:
        meta = json.loads((_folder() / "contexts/meta" / digest / "meta.json").read_bytes())
        endpoint = meta["Endpoints"]["docker"]
        host, unsure = str(endpoint["Host"]), bool(endpoint.get("SkipTLSVerify"))
    except FileNotFoundError:
        raise HostError(
            f"there is no docker context {name}",
            where="DOCKER_CONTEXT" if os.environ.get("DOCKER_CONTEXT") else _CONFIG,
            hint="docker context ls shows those that exist.",
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise HostError(f"cannot be read: {error!r}", where=f"docker context {name}") from None
    files = _folder() / "contexts/tls" / digest / "docker"
    if not _takes_tls(host) or not (files.is_dir() or unsure):
        return Address(f"context {name}", host)
    return Address(f"context {name}", host, _tls(files, verify=not unsure))


def _tls_of_environment() -> Any:
    named, verify = os.environ.get("DOCKER_CERT_PATH"), os.environ.get("DOCKER_TLS_VERIFY")
    if not named and not verify:
        return None
    files = Path(named) if named else _folder()
    if not files.is_dir():
        raise HostError("is no folder with certificates", where=f"DOCKER_CERT_PATH={files}")
    return _tls(files, verify=bool(verify))


def _tls(folder: Path, *, verify: bool) -> Any:
    """Give the SDK the certificates that a folder has."""
    from docker.tls import TLSConfig

    ca, cert, key = (
        str(path) if path.is_file() else None
        for path in (folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    )
    return TLSConfig(client_cert=(cert, key) if cert and key else None, ca_cert=ca, verify=verify)
