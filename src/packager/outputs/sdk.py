"""The Docker SDK's client, and its errors in our words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import docker
import requests
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import APIError, DockerException

from packager.errors import HostError
from packager.outputs.finding import Address
from packager.outputs.wire import innermost

__all__ = ["connect", "trouble"]


class _Api(docker.APIClient):
    """The SDK's, that trusts the certificate authority of the engine and no other."""

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        # requests would rather believe REQUESTS_CA_BUNDLE than what its session was told.
        chosen = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, chosen, cert)


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
        client = docker.DockerClient(version=MINIMUM_DOCKER_API_VERSION)  # which asks nobody yet
        client.api = _Api(base_url=address.host, tls=address.tls or False, timeout=patience)
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
