"""A container engine: found, asked who it is, given images, and let run, build and export them.

Whatever is done to images goes over a wire of our own (`wire`); only what starts, builds or
exports imports the Docker SDK.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import HostError
from packager.outputs import finding
from packager.outputs.finding import Address
from packager.outputs.images import Images
from packager.outputs.wire import (
    RefusedError,
    Wire,
    innermost,
    through_client,
    through_socket,
    trouble,
)
from packager.store import Blob, Store

if TYPE_CHECKING:
    import docker

    from packager.layers.bytecode import Work
    from packager.outputs.containers import Run, Served, Talk

__all__ = ["Engine", "connect"]

_PING_SECONDS = 5
_WORK_SECONDS = 600
_SAVE_CHUNK = 1 << 20
_SSH, _UNIX = "ssh://", "unix://"


def connect(store: Store | None = None) -> Engine:
    """Connect to the engine that answers: `DOCKER_HOST`, the current context, the usual sockets.

    Parameters
    ----------
    store : Store, optional
        Remembers what the engine has, so that it need not be sent again.

    Raises
    ------
    HostError
        When none answers, says which were tried; or when the current context does not exist.
    """
    tried = []
    for address in finding.addresses():
        try:
            return _at(address, store)
        except (RefusedError, OSError, HTTPException, ValueError) as error:
            tried.append(f"{address.name}: {innermost(error)}")
    raise HostError(
        "no container engine answers",
        where="; ".join(tried),
        hint="Start Docker or podman's socket, or set DOCKER_HOST.  Without an engine, "
        "packager build -o image.tar --no-load still works.",
    )


def _at(address: Address, store: Store | None) -> Engine:
    def client() -> docker.DockerClient:
        from packager.outputs import sdk

        return sdk.connect(address, patience=_PING_SECONDS, seconds=_WORK_SECONDS)

    if address.host and address.host.startswith(_SSH):
        return _behind_ssh(address, store)
    if address.host and address.host.startswith(_UNIX):
        path = Path(address.host.removeprefix(_UNIX))
        return Engine(Wire(through_socket(path)), client, store)
    connected = client()
    return Engine(Wire(through_client(connected)), lambda: connected, store)


def _behind_ssh(address: Address, store: Store | None) -> Engine:
    from packager.outputs.ssh import Tunnel

    tunnel = Tunnel(str(address.host))
    try:
        return _at(replace(address, host=f"{_UNIX}{tunnel.path}"), store)
    except (OSError, HTTPException) as error:
        why = tunnel.said.decode("utf-8", "replace").strip() or innermost(error)
    raise ConnectionError(why)


class Engine(Images):
    """A container engine, as far as packager needs one.

    Parameters
    ----------
    wire : Wire
        To the engine, which is asked at once who it is.
    client : callable
        Gives the SDK's client, once it is needed.
    store : Store, optional
        As for `connect`.

    Attributes
    ----------
    architecture : str
        What it runs on, ``"amd64"`` for example; what it emulates is not among what it says.
    """

    def __init__(
        self, wire: Wire, client: Callable[[], docker.DockerClient], store: Store | None = None
    ) -> None:
        version = wire.facts("version", seconds=_PING_SECONDS)
        components = [str(one.get("Name", "")) for one in version.get("Components") or []]
        podman = any("Podman" in name for name in components)
        name = f"{'podman' if podman else 'docker'} {version.get('Version', '?')}"
        super().__init__(wire, name, podman=podman, store=store)
        self.architecture = str(version.get("Arch", ""))
        self._make_client = client

    @functools.cached_property
    def client(self) -> docker.DockerClient:
        """The SDK's client."""
        with trouble():
            return self._make_client()

    def save(self, image: str) -> Iterator[bytes]:
        """Export an image, as docker save does, a part at a time.

        Raises
        ------
        HostError
            When the engine stops on the way.
        """
        from packager.outputs import sdk

        with sdk.trouble():
            yield from self.client.api.get_image(image, chunk_size=_SAVE_CHUNK)

    def build(
        self,
        context: Path,
        file: Path,
        *,
        labels: Mapping[str, str],
        arguments: Mapping[str, str],
        platform: str,
        tell: Callable[[str], None],
    ) -> str:
        """Let the engine build an image from a Dockerfile, untagged.

        Until it is tagged or removed, a lease tells other runs that it has an owner.

        Parameters
        ----------
        context : Path
            The folder that goes to the engine, less what its ``.dockerignore`` names.
        file : Path
            The Dockerfile, anywhere.
        labels, arguments : mapping
            Of the image; of the build.
        platform : str
            ``linux/amd64`` for example.
        tell : callable
            Gets the log, line by line, as it comes.

        Returns
        -------
        str
            The image ID, ``sha256:…``.

        Raises
        ------
        UsageError
            When the engine does not understand the Dockerfile, or a file cannot be sent.
        ClaimError
            When a step fails: says which, and how its log ended.
        """
        from packager.outputs import builder

        made = builder.build(
            self.client,
            context,
            file,
            labels=labels,
            arguments=arguments,
            platform=platform,
            tell=tell,
        )
        self._own(made)
        return made

    @contextlib.contextmanager
    def workshop(self, stack: Sequence[Blob], architecture: str) -> Iterator[Work]:
        """Bring layers in as an image of their own, gone afterwards, to run its programs.

        Parameters
        ----------
        stack : sequence of Blob
            The layers, a base first.
        architecture : {"amd64", "arm64"}
            Whose programs they hold.

        Yields
        ------
        callable
            Runs a command beside copies of files, which get the given names in ``/tmp``, with no
            network and no privileges, and brings one file back that it wrote, if it did.

        Raises
        ------
        HostError
            When the engine refuses.
        """
        from packager.image import bare
        from packager.layers.making import Layer

        layers = [Layer("base", "", 1, blob, cached=True) for blob in stack]
        image = bare(layers, f"linux/{architecture}")
        try:
            self.load(image, lasting=False)
            yield partial(self._work, self.id_of(image))
        finally:
            with contextlib.suppress(HostError):  # one that stays behind is found by its label
                self.remove(self.id_of(image))

    def _work(
        self, image: str, command: Sequence[str], files: Mapping[str, Path], result: Path
    ) -> None:
        from packager.outputs import containers, strays

        lease = strays.take(self._wire, "container")
        containers.work(self.client, lease, image, command, files=files, result=result)

    def run_sealed(
        self,
        image: str,
        command: Sequence[str],
        *,
        program: str | None = None,
        seconds: float,
        memory: str,
        processes: int,
    ) -> Run:
        """Run a command with no network, nothing to write but ``/tmp``, and no privileges.

        Parameters
        ----------
        image : str
            ID or reference.
        command : sequence of str
            Arguments to the image's entry point.
        program : str, optional
            What to start in place of the entry point.
        seconds : float
            How long it may take; it is killed then.
        memory : str
            ``"4g"`` for example; swap is not given in addition.
        processes : int
            How many processes and threads it may have.

        Raises
        ------
        HostError
            When the engine cannot start it.
        """
        from packager.outputs import containers, strays

        return containers.sealed(
            self.client,
            strays.take(self._wire, "container"),
            image,
            command,
            program=program,
            seconds=seconds,
            memory=memory,
            processes=processes,
        )

    @contextlib.contextmanager
    def talk_sealed(
        self, image: str, command: Sequence[str], *, memory: str, processes: int
    ) -> Iterator[Talk]:
        """Start a command as `run_sealed` does, and talk to it line by line.

        Parameters
        ----------
        image, command, memory, processes
            As for `run_sealed`.

        Yields
        ------
        Talk
            It is gone afterwards.

        Raises
        ------
        HostError
            When the engine cannot start it.
        """
        from packager.outputs import containers, strays

        lease = strays.take(self._wire, "container")
        with containers.talk(
            self.client, lease, image, command, memory=memory, processes=processes
        ) as talk:
            yield talk

    @contextlib.contextmanager
    def served(
        self,
        image: str,
        command: Sequence[str],
        *,
        address: tuple[str, int],
        memory: str,
        processes: int,
    ) -> Iterator[Served]:
        """Start a server as `run_sealed` starts a command, but with a port of its own.

        Parameters
        ----------
        image, command, memory, processes
            As for `run_sealed`.
        address : tuple of str and int
            Address and port of the engine's host that lead to `containers.PORT` inside; 0 takes
            a port that is free.

        Yields
        ------
        Served
            It is gone afterwards.

        Raises
        ------
        HostError
            When the engine cannot start it.
        """
        from packager.outputs import containers, strays

        lease = strays.take(self._wire, "container")
        with containers.served(
            self.client,
            lease,
            image,
            command,
            address=address,
            memory=memory,
            processes=processes,
        ) as server:
            yield server
