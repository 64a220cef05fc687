"""The Docker SDK's client, and its errors in our words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import docker
import requests
from docker.errors import APIError, DockerException

from packager.errors import HostError
from packager.outputs.finding import Address
from packager.outputs.wire import innermost

__all__ = ["connect", "trouble"]


def connect(address: Address, *, patience: int, seconds: int) -> docker.DockerClient:
    """Connect to an engine.

    Parameters
    ----------
    address : Address
        Where it may answer.
    patience : int
        Seconds to wait for its first answer.
    seconds : int
        Seconds to wait for later ones.

    Raises
    ------
    ConnectionError
        When none answers; says why.
    """
    try:
        client = docker.DockerClient(
            base_url=address.host,
            tls=address.tls or False,
            timeout=patience,
            use_ssh_client=True,
        )
    except (DockerException, requests.RequestException, OSError) as error:
        raise ConnectionError(innermost(error)) from None
    client.api.timeout = seconds
    return client


@contextlib.contextmanager
def trouble() -> Iterator[None]:
    """Turn what the SDK raises into an error that a user can act on."""
    try:
        yield
    except APIError as error:
        raise HostError(f"the engine refuses: {error.explanation or error}") from None
    except (DockerException, requests.RequestException) as error:
        raise HostError(
            f"the engine stopped answering: {innermost(error)}", hint="Is it still running?"
        ) from None
