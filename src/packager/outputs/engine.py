"""The only room that knows the Docker SDK: find an engine, give it an image, run it sealed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import docker
import requests
from docker.context import Context, ContextAPI
from docker.context.config import get_current_context_name
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.utils import kwargs_from_env

from packager.errors import HostError, UsageError
from packager.image import LABEL, LABEL_INPUTS, Image
from packager.layers import tar
from packager.layers.tar import Entry, data_entry
from packager.outputs import archive
from packager.outputs.reference import Reference

__all__ = ["Engine", "Loaded", "Run", "connect"]

_PING_SECONDS = 5
_WORK_SECONDS = 600
_RECENT = 50
_OUTPUT_LIMIT = 64 << 20
_NO_SUCH = {400, 404}  # 400: no image can have that name
_LABEL_SEALED = f"{LABEL}.smoke"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading took: how many layers were sent, and whether the image was there before."""

    sent: int
    existed: bool


@dataclass(frozen=True, slots=True)
class Run:
    """How a sealed container ended.

    Attributes
    ----------
    exit_code : int or None
        None when it was stopped because its time was over.
    """

    exit_code: int | None
    out_of_memory: bool
    stdout: bytes
    stderr: bytes


def connect() -> Engine:
    """Connect to the engine that answers: `DOCKER_HOST`, the current context, the usual sockets.

    Raises
    ------
    HostError
        When none answers, says which were tried; or when the current context does not exist.
    """
    tried = []
    for name, address in _addresses():
        try:
            client = docker.DockerClient(
                base_url=address.get("Host"),
                tls=address.get("TLS") or False,
                timeout=_PING_SECONDS,
                use_ssh_client=True,
            )
            client.ping()
        except (DockerException, requests.RequestException, OSError) as error:
            tried.append(f"{name}: {_innermost(error)}")
            continue
        client.api.timeout = _WORK_SECONDS
        return Engine(client)
    raise HostError(
        "no container engine answers",
        where="; ".join(tried),
        hint="Start Docker or podman's socket, or set DOCKER_HOST.  Without an engine, "
        "packager build -o image.tar --no-load still works.",
    )


def _addresses() -> Iterator[tuple[str, dict[str, Any]]]:
    if os.environ.get("DOCKER_HOST"):
        # What the user names is what the user gets: no other engine is tried.
        yield "DOCKER_HOST", {"Host": os.environ["DOCKER_HOST"], "TLS": _tls_of_environment()}
        return
    named = os.environ.get("DOCKER_CONTEXT", "")
    context = _context(named)
    if context.Host:
        yield f"context {context.name}", {"Host": context.Host, "TLS": context.TLSConfig}
    if named:
        return
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{_user()}"))
    for path in (
        Path("/var/run/docker.sock"),
        runtime / "docker.sock",
        Path.home() / ".docker/run/docker.sock",
        Path.home() / ".docker/desktop/docker.sock",
        Path("/run/podman/podman.sock"),
        runtime / "podman/podman.sock",
    ):
        if path.exists():
            yield str(path), {"Host": f"unix://{path}"}


def _context(named: str) -> Context:
    """Read a context, the current one where none is named; none at all is an error."""
    name = named or get_current_context_name()
    try:
        context = ContextAPI.get_context(name)
    except Exception as error:
        raise HostError(f"cannot be read: {error}", where=f"docker context {name}") from error
    if context is None:
        raise HostError(
            f"there is no docker context {name}",
            where="DOCKER_CONTEXT" if named else "docker's config.json: currentContext",
            hint="docker context ls shows those that exist.",
        )
    return context


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _tls_of_environment() -> Any:
    return kwargs_from_env().get("tls")


def _innermost(error: BaseException) -> str:
    # A NameError is how the SDK notices that a package is missing; it then says which.
    while (cause := error.__cause__ or error.__context__) and not isinstance(cause, NameError):
        error = cause
    return str(error).strip("()") or type(error).__name__


class Engine:
    """A container engine, as far as packager needs one."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        version = client.version()
        self.version = str(version.get("Version", "?"))
        components = [str(one.get("Name", "")) for one in version.get("Components") or []]
        self._podman = any("Podman" in name for name in components)

    @property
    def name(self) -> str:
        """What it is, for messages."""
        return f"{'podman' if self._podman else 'docker'} {self.version}"

    def check_loads(self) -> None:
        """Refuse, before any work is done, an engine that `load` cannot fill.

        Raises
        ------
        HostError
            When images live in containerd's store: there an image is known by the digest of
            its manifest, and `load` looks for that of its config.
        """
        with _trouble():
            status = self.client.info().get("DriverStatus") or []
        if ["driver-type", "io.containerd.snapshotter.v1"] in status:
            raise HostError(
                f"{self.name} keeps its images in containerd's store, which packager build "
                "cannot load into yet",
                hint="Write a file and load it yourself: packager build -o image.tar --no-load, "
                "then docker load -i image.tar, then packager smoke.",
            )

    def get(self, image: str) -> dict[str, Any]:
        """Inspect an image that must be there, by ID or reference.

        Raises
        ------
        UsageError
            When the engine does not have it.
        """
        found = self.find(image)
        if found is None:
            raise UsageError(f"{self.name} has no image {image}", hint="packager build makes one.")
        return found

    def find(self, image: str) -> dict[str, Any] | None:
        """Inspect an image by ID or reference; None if the engine does not have it."""
        with _trouble():
            try:
                return dict(self.client.images.get(image).attrs)
            except APIError as error:
                if error.status_code in _NO_SUCH:
                    return None
                raise

    def history(self, image: str) -> list[dict[str, Any]]:
        """List what made each layer of an image, the newest first."""
        with _trouble():
            return list(self.client.images.get(image).history())

    def load(self, image: Image) -> Loaded:
        """Bring an image into the engine, untagged, sending only what it lacks.

        Raises
        ------
        HostError
            When the engine refuses it, or does not hold it whole afterwards.
        """
        if self._holds(image):
            return Loaded(sent=0, existed=True)
        known = self._known_prefix(image)
        with _trouble():
            try:
                self._send(image, skip=known)
            except (APIError, docker.errors.ImageLoadError):
                if not known:
                    raise
                known = 0  # the prefix may have been removed meanwhile
                self._send(image, skip=0)
        if not self._holds(image):
            raise HostError(f"{self.name} took the image, but does not hold it", where=image.id)
        return Loaded(sent=len(image.layers) - known, existed=False)

    def _holds(self, image: Image) -> bool:
        found = self.find(image.id)
        return found is not None and found["RootFS"].get("Layers") == image.diff_ids

    def _known_prefix(self, image: Image) -> int:
        """Count the layers, from the bottom, that a classic engine has in the same chain.

        It looks a layer up by its chain before it opens the layer's file, so these files
        can be left out.  Only our own images are asked, the newest ones: walking all of
        an engine's images takes minutes where there are thousands.
        """
        if self._podman:
            return 0
        with _trouble():
            ours = self.client.api.images(filters={"label": LABEL_INPUTS}, all=False)
        newest = sorted(ours, key=lambda one: -one.get("Created", 0))[:_RECENT]
        best = 0
        for one in newest:
            found = self.find(one["Id"])
            layers = found["RootFS"].get("Layers") or [] if found else []
            same = takewhile(
                lambda pair: pair[0] == pair[1], zip(layers, image.diff_ids, strict=False)
            )
            best = max(best, sum(1 for _ in same))
        return best

    def _send(self, image: Image, *, skip: int) -> None:
        answers: Any = self.client.api.load_image(_stream(image, skip), quiet=True)  # type: ignore[no-untyped-call]
        for answer in answers or []:
            if "error" in answer:
                raise docker.errors.ImageLoadError(answer["error"])

    def tag(self, image: Image, reference: Reference) -> None:
        """Give an image in the engine a name."""
        with _trouble():
            self.client.api.tag(image.id, reference.name, reference.tag, force=True)

    def untag(self, image: Image, reference: Reference) -> None:
        """Take a name away from an image, if it is this image's; one without any name goes."""
        found = self.find(str(reference))
        if found is not None and found["Id"] == image.id:
            with _trouble(), contextlib.suppress(ImageNotFound, NotFound):
                self.client.images.remove(str(reference))

    def remove(self, image: Image) -> None:
        """Remove an image that nobody named."""
        with _trouble(), contextlib.suppress(ImageNotFound, NotFound):
            self.client.images.remove(image.id)

    def run_sealed(
        self, image: str, command: Sequence[str], *, seconds: float, memory: str, processes: int
    ) -> Run:
        """Run a command with no network, nothing to write but ``/tmp``, and no privileges.

        Parameters
        ----------
        image : str
            ID or reference.
        command : sequence of str
            Arguments to the image's entry point.
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
        with _trouble():
            container = self.client.containers.create(
                image,
                list(command),
                network_mode="none",
                read_only=True,
                tmpfs={"/tmp": "rw,nosuid,nodev,size=512m,mode=1777"},  # noqa: S108
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                user="65532:65532",
                mem_limit=memory,
                memswap_limit=memory,
                pids_limit=processes,
                labels={_LABEL_SEALED: ""},
                log_config=docker.types.LogConfig(
                    type="json-file", config={"max-size": f"{_OUTPUT_LIMIT}"}
                ),
            )
            try:
                return _run(container, seconds)
            finally:
                # How it ended is known; one that stays behind is found by its label.
                with contextlib.suppress(APIError, requests.RequestException):
                    container.remove(force=True, v=True)


def _run(container: Container, seconds: float) -> Run:
    container.start()
    code: int | None = None
    try:
        code = int(container.wait(timeout=seconds)["StatusCode"])
    except requests.exceptions.ReadTimeout:
        _kill(container)
    except requests.exceptions.ConnectionError as error:
        if "timed out" not in str(error):
            raise
        _kill(container)
    container.reload()
    return Run(
        exit_code=code,
        out_of_memory=bool(container.attrs["State"].get("OOMKilled")),
        stdout=container.logs(stdout=True, stderr=False),
        stderr=container.logs(stdout=False, stderr=True),
    )


def _kill(container: Container) -> None:
    with contextlib.suppress(APIError):  # it may have ended by itself meanwhile
        container.kill()


@contextlib.contextmanager
def _trouble() -> Iterator[None]:
    """Turn what the SDK raises into an error that a user can act on."""
    try:
        yield
    except APIError as error:
        raise HostError(f"the engine refuses: {error.explanation or error}") from None
    except docker.errors.ImageLoadError as error:
        raise HostError(
            f"the engine cannot load the image: {error}", hint="Is its disk full?"
        ) from None
    except (DockerException, requests.RequestException) as error:
        raise HostError(
            f"the engine stopped answering: {_innermost(error)}", hint="Is it still running?"
        ) from None


def _stream(image: Image, skip: int) -> Iterator[bytes]:
    """Yield a docker archive, the first `skip` layers' files left out."""
    config = image.id.removeprefix("sha256:")
    names = [layer.blob.sha256 for layer in image.layers]
    manifest = archive.docker_manifest(image, [], [f"blobs/sha256/{name}" for name in names])
    blobs = {layer.blob.sha256: layer.blob for layer in image.layers[skip:]}
    entries: list[Entry] = [
        data_entry("manifest.json", manifest),
        data_entry(f"blobs/sha256/{config}", image.config),
        *(archive.blob_entry(name, blob) for name, blob in blobs.items()),
    ]
    return tar.chunks(tar.merge(entries))
