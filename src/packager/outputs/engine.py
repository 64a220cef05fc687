"""The only room that knows the Docker SDK: find an engine, give it an image, run it sealed."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import shutil
import tarfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, cast

import docker
import requests
from docker.context import Context, ContextAPI
from docker.context.config import get_current_context_name
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.utils import kwargs_from_env

from packager.errors import ClaimError, HostError, UsageError
from packager.files import blaming
from packager.image import LABEL, Image, bare
from packager.layers import tar
from packager.layers.bytecode import Work
from packager.layers.making import Layer
from packager.layers.tar import Entry, data_entry
from packager.leases import Lease, expired, runtime_folder
from packager.net import without_credentials
from packager.outputs import archive
from packager.outputs.chains import Chains
from packager.outputs.reference import Reference
from packager.store import Blob, Store

__all__ = ["OPEN_FILES", "SHM_MB", "TMP_MB", "Engine", "Loaded", "Run", "connect"]

TMP_MB = 512
"""What ``/tmp`` holds in a sealed container, in MB."""

SHM_MB = 64
"""What ``/dev/shm``, which processes share memory through, holds there, in MB."""

OPEN_FILES = 4096
"""How many files a process may have open there."""

_PING_SECONDS = 5
_WORK_SECONDS = 600
_OUTPUT_LIMIT = 8 << 20
_SAVE_CHUNK = 1 << 20
_LAST_LINES = 12
_STEP = re.compile(r"Step [0-9]+/[0-9]+ : ")
_OF_THE_ENGINE = (" ---> ", "Removing intermediate container ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NO_SUCH = {400, 404}  # 400: no image can have that name
_LABEL_SEALED = f"{LABEL}.smoke"
_LABEL_WORK = f"{LABEL}.bytecode"


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
    stdout, stderr : bytes
        The end of what it printed.
    """

    exit_code: int | None
    out_of_memory: bool
    stdout: bytes
    stderr: bytes


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
    for name, address in _addresses():
        try:
            client = docker.DockerClient(
                base_url=address.get("Host"),
                tls=address.get("TLS") or False,
                timeout=_PING_SECONDS,
                use_ssh_client=True,
            )
            engine = Engine(client, store)
        except (DockerException, requests.RequestException, OSError) as error:
            tried.append(f"{name}: {_innermost(error)}")
            continue
        client.api.timeout = _WORK_SECONDS
        return engine
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
    return without_credentials(str(error).strip("()")) or type(error).__name__


class Engine:
    """A container engine, as far as packager needs one.

    Parameters
    ----------
    client : DockerClient
        Asked at once who it is.
    store : Store, optional
        As for `connect`.
    """

    def __init__(self, client: docker.DockerClient, store: Store | None = None) -> None:
        self.client = client
        self._chains = Chains(self.find, store)
        version = client.version()
        self.version = str(version.get("Version", "?"))
        components = [str(one.get("Name", "")) for one in version.get("Components") or []]
        self._podman = any("Podman" in name for name in components)
        self._loading: dict[str, Lease] = {}

    @property
    def name(self) -> str:
        """What it is, for messages."""
        return f"{'podman' if self._podman else 'docker'} {self.version}"

    @functools.cached_property
    def _info(self) -> dict[str, Any]:
        with _trouble():
            return dict(self.client.info())

    @property
    def id(self) -> str:
        """What it calls itself, to tell it from others."""
        return str(self._info.get("ID", ""))

    @property
    def takes_parts(self) -> bool:
        """Whether an archive may leave out layers that the engine has; podman refuses such."""
        return not self._podman

    def check_loads(self) -> None:
        """Refuse, before any work is done, an engine that `load` cannot fill.

        Raises
        ------
        HostError
            When images live in containerd's store: there an image is known by the digest of
            its manifest, and `load` looks for that of its config.
        """
        status = self._info.get("DriverStatus") or []
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

    def save(self, image: str) -> Iterator[bytes]:
        """Export an image, as docker save does, a part at a time.

        Raises
        ------
        HostError
            When the engine stops on the way.
        """
        with _trouble():
            yield from self.client.api.get_image(image, chunk_size=_SAVE_CHUNK)

    def _take(self, what: str) -> Lease:
        """Take a lease on what is about to be in the engine, and sweep up after dead runs."""
        with blaming("the user's folder for what is running"):
            folder = runtime_folder()
            lease = Lease(folder / f"{what}-{secrets.token_hex(8)}")
        for dead in expired(folder, "*-*"):  # containers first: they need their images
            # It may belong to another engine, or this one may still be at work on it.
            if self._swept(dead) or dead.age() > _WORK_SECONDS:
                dead.end()
            else:
                dead.let_go()
        return lease

    def _swept(self, dead: Lease) -> bool:
        """Remove the container or the unnamed image that a killed run left; False: none seen."""
        kind, name, *_ = dead.name.split("-")
        with contextlib.suppress(APIError, requests.RequestException):
            if kind == "image":
                return self._remove_stray(name, dead)
            labels = [f"{label}={dead.name}" for label in (_LABEL_SEALED, _LABEL_WORK)]
            found = [
                one
                for label in labels
                for one in self.client.api.containers(all=True, filters={"label": label})
            ]
            for one in found:
                self.client.api.remove_container(one["Id"], force=True, v=True)
            return bool(found)
        return False

    def _remove_stray(self, name: str, dead: Lease) -> bool:
        found = self.find(f"sha256:{name}")
        others = {path.name for path in dead.path.parent.glob(f"image-{name}-*")} - {dead.name}
        if found and not found.get("RepoTags") and not others:
            self.client.images.remove(found["Id"])
        return bool(found)

    def settle(self, image: str) -> None:
        """Note that an image (its ID) is named, gone or left as it was: it is nobody's stray."""
        if lease := self._loading.pop(image, None):
            lease.end()

    def known(self, image: Image) -> int:
        """Count the layers of an image, from the bottom, that need not be sent."""
        return self._chains.known(image) if self.takes_parts else 0

    def load(self, image: Image, *, lasting: bool = True) -> Loaded:
        """Bring an image into the engine, untagged, sending only what it lacks.

        Until it is tagged or removed, a lease tells other runs that it has an owner.

        Parameters
        ----------
        image : Image
            What to bring in.
        lasting : bool
            Whether it will stay, so that others may build on its layers.

        Raises
        ------
        HostError
            When the engine refuses it, or does not hold it whole afterwards.
        """
        # What a dead run loaded is ours from here on, and no longer anybody's stray.
        self._loading[image.id] = self._take(f"image-{image.id.removeprefix('sha256:')}")
        if self._holds(image):
            self._chains.remember(image, lasting=lasting)
            return Loaded(sent=0, existed=True)
        known = self.known(image)
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
        self._chains.remember(image, lasting=lasting)
        return Loaded(sent=len(image.layers) - known, existed=False)

    def load_part(self, image: Image, skip: int, turn: threading.Event) -> None:
        """Bring in an image that is the lower part of one, whose first layers may be on their way.

        Parameters
        ----------
        image : Image
            From `packager.image.bare`.
        skip : int
            How many of its layers the engine has, or will have when it is this one's turn.
        turn : Event
            The archive ends only then: the engine begins to take it in when it is complete.

        Raises
        ------
        HostError
            When the engine refuses it.
        """
        self._loading[image.id] = self._take(f"image-{image.id.removeprefix('sha256:')}")
        with _trouble():
            self._send(image, skip=skip, turn=turn)
        self._chains.remember(image, lasting=False)

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
        log = _Log(file.name, tell)
        with _trouble():
            try:
                for answer in self.client.api.build(
                    path=str(context),
                    dockerfile=str(file),
                    labels=dict(labels),
                    buildargs=dict(arguments),
                    platform=platform,
                    rm=True,
                    forcerm=True,
                    decode=True,
                ):
                    log.add(answer)
            except APIError as error:
                why = str(error.explanation)
                if error.is_client_error() or why.startswith("dockerfile parse error"):
                    raise UsageError(why, where=file.name) from None
                raise
            except requests.RequestException:  # an OSError, too, and not of a file
                raise
            except OSError as error:
                raise UsageError(str(error), where=str(context)) from None
        if not log.image:
            raise HostError(f"{self.name} built an image, but does not say which")
        self._loading[log.image] = self._take(f"image-{log.image.removeprefix('sha256:')}")
        return log.image

    @contextlib.contextmanager
    def workshop(self, base: Blob, architecture: str) -> Iterator[Work]:
        """Bring a base layer in as an image of its own, gone afterwards, to run its programs.

        Parameters
        ----------
        base : Blob
            The layer.
        architecture : {"amd64", "arm64"}
            Whose programs it holds.

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
        self.check_loads()
        layer = Layer("base", "", 1, base, cached=True)
        image = bare([layer], f"linux/{architecture}")
        try:
            self.load(image, lasting=False)
            yield partial(self._work, image.id)
        finally:
            with contextlib.suppress(HostError):  # one that stays behind is found by its label
                self.remove(image.id)

    def _work(
        self, image: str, command: Sequence[str], files: Mapping[str, Path], result: Path
    ) -> None:
        options = {
            "network_mode": "none",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "user": "65532:65532",
            "use_config_proxy": False,
        }
        with self._container(image, command, _LABEL_WORK, options) as container:
            # Not through a volume, which a remote engine lacks, nor through the logs,
            # which are text.
            entries = [_file_entry(name, path) for name, path in files.items()]
            container.put_archive("/tmp", tar.chunks(tar.merge(entries)))  # noqa: S108
            _run(container, _WORK_SECONDS)
            _take_out(container, f"/tmp/{result.name}", result)  # noqa: S108

    def _holds(self, image: Image) -> bool:
        found = self.find(image.id)
        return found is not None and found["RootFS"].get("Layers") == image.diff_ids

    def _send(self, image: Image, *, skip: int, turn: threading.Event | None = None) -> None:
        stream = _stream(image, skip)
        if turn:
            stream = _held_back(stream, turn)
        answers: Any = self.client.api.load_image(stream, quiet=True)  # type: ignore[no-untyped-call]
        for answer in answers or []:
            if "error" in answer:
                raise docker.errors.ImageLoadError(answer["error"])

    def tag(self, image: str, reference: Reference) -> None:
        """Give an image in the engine, by its ID, a name."""
        with _trouble():
            self.client.api.tag(image, reference.name, reference.tag, force=True)
        self.settle(image)

    def untag(self, image: str, reference: Reference) -> None:
        """Take a name away from an image, if it is this image's; one without any name goes."""
        found = self.find(str(reference))
        if found is not None and found["Id"] == image:
            with _trouble(), contextlib.suppress(ImageNotFound, NotFound):
                self.client.images.remove(str(reference))

    def remove(self, image: str) -> None:
        """Remove an image, by its ID, that nobody named."""
        with _trouble(), contextlib.suppress(ImageNotFound, NotFound):
            self.client.images.remove(image)
        self.settle(image)

    @contextlib.contextmanager
    def _container(
        self, image: str, command: Sequence[str], label: str, options: Mapping[str, Any]
    ) -> Iterator[Container]:
        """Create a container, gone afterwards; if this run is killed, the next one removes it."""
        with _trouble():
            lease = self._take("container")
            container = self.client.containers.create(
                image, list(command), labels={label: lease.name}, **options
            )
            try:
                yield container
            finally:
                # How it ended is known; one that stays behind is a later run's to remove.
                with contextlib.suppress(APIError, requests.RequestException):
                    container.remove(force=True, v=True)
                    lease.end()

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
        options = _seal(memory, processes)
        with self._container(image, command, _LABEL_SEALED, options) as container:
            return _run(container, seconds)


class _Log:
    """What an engine says while it builds; where it says that a step failed, that is raised."""

    def __init__(self, file: str, tell: Callable[[str], None]) -> None:
        self.image = ""
        self._file, self._tell = file, tell
        self._step = "before the first step"
        self._last: deque[str] = deque(maxlen=_LAST_LINES)

    def add(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            raise ClaimError(
                f"{self._step}: {without_credentials(answer['error'])}",
                where=self._file,
                hint=without_credentials("\n  ".join(self._last)),
            )
        self.image = (answer.get("aux") or {}).get("ID", self.image)
        for line in _COLOUR.sub("", answer.get("stream", "")).splitlines():
            if not line.strip():
                continue
            self._tell(line.rstrip())
            if _STEP.match(line):
                self._step = line.rstrip()
                self._last.clear()
            elif not line.startswith(_OF_THE_ENGINE):
                self._last.append(line.rstrip())


def _seal(memory: str, processes: int) -> dict[str, Any]:
    """Give the options that close a container off.

    What an engine does by itself for a container that is not privileged is left to it: a
    filter of system calls, hidden parts of ``/proc`` and ``/sys``, and namespaces for
    processes, mounts and names.
    """
    return {
        "user": "65532:65532",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "network_mode": "none",
        "ipc_mode": "private",  # an engine may be set up to share it
        "cgroupns": "private",
        "read_only": True,
        "tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={TMP_MB}m,mode=1777"},  # noqa: S108
        "shm_size": SHM_MB << 20,
        "mem_limit": memory,
        "memswap_limit": memory,
        "oom_score_adj": 1000,  # where the host runs out of memory, this goes first
        "pids_limit": processes,
        "ulimits": [
            docker.types.Ulimit(name="core", soft=0, hard=0),  # the host would keep it
            docker.types.Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES),
        ],
        # The user's docker configuration may name a proxy, password and all.
        "use_config_proxy": False,
        "log_config": docker.types.LogConfig(
            type="json-file", config={"max-size": str(_OUTPUT_LIMIT), "max-file": "2"}
        ),
    }


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
        stdout=_end_of(container, stdout=True, stderr=False),
        stderr=_end_of(container, stdout=False, stderr=True),
    )


def _end_of(container: Container, **which: bool) -> bytes:
    kept = bytearray()
    for piece in container.logs(stream=True, **which):
        kept += piece
        del kept[:-_OUTPUT_LIMIT]
    return bytes(kept)


def _file_entry(name: str, path: Path) -> Entry:
    return Entry(name, size=path.stat().st_size, open=lambda: path.open("rb"), owner=str(path))


def _take_out(container: Container, path: str, to: Path) -> None:
    """Copy a file out of a container, if it is there."""
    with TemporaryFile() as file:
        try:
            for chunk in container.get_archive(path)[0]:
                file.write(chunk)
        except NotFound:
            return
        file.seek(0)
        with tarfile.open(fileobj=file) as archive, to.open("wb") as out:
            shutil.copyfileobj(cast("IO[bytes]", archive.extractfile(archive.next() or "")), out)


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


def _held_back(stream: Iterator[bytes], turn: threading.Event) -> Iterator[bytes]:
    """Keep the end of an archive back until it is its turn."""
    last = b""
    for chunk in stream:
        yield last
        last = chunk
    turn.wait()
    yield last
