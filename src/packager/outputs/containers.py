"""Containers that are closed off: started, waited for, looked at, gone."""

from __future__ import annotations

import contextlib
import shutil
import struct
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, cast

import docker
import requests
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from packager.layers import tar
from packager.layers.tar import Entry
from packager.leases import Lease
from packager.outputs.sdk import trouble
from packager.outputs.strays import LABEL_SEALED, LABEL_WORK

__all__ = [
    "OPEN_FILES",
    "PORT",
    "SHM_MB",
    "TMP_MB",
    "EndedError",
    "Run",
    "Served",
    "Talk",
    "sealed",
    "served",
    "talk",
    "work",
]

TMP_MB = 512
"""What ``/tmp`` holds in a sealed container, in MB."""

SHM_MB = 64
"""What ``/dev/shm``, which processes share memory through, holds there, in MB."""

OPEN_FILES = 4096
"""How many files a process may have open there."""

PORT = 8080
"""Where a server listens inside."""

_WORK_SECONDS = 600
_END_SECONDS = 10  # for one that has closed its output to end
_TAIL = 1 << 16
_FRAME, _STDOUT = 8, 1
_LONGEST_LINE = 1 << 30
_OUTPUT_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """How a sealed container ended.

    Attributes
    ----------
    exit_code : int or None
        None when it was stopped because its time was over.
    stdout, stderr : bytes
        The end of what it printed.
    seconds : float
        From its start to its end, by the engine's clock.
    """

    exit_code: int | None
    out_of_memory: bool
    stdout: bytes
    stderr: bytes
    seconds: float = 0.0


def sealed(
    client: docker.DockerClient,
    lease: Lease,
    image: str,
    command: Sequence[str],
    *,
    program: str | None,
    seconds: float,
    memory: str,
    processes: int,
) -> Run:
    """Run a command sealed; see `Engine.run_sealed`."""
    options = _seal(memory, processes) | {"labels": {LABEL_SEALED: lease.name}}
    if program:
        options["entrypoint"] = [program]
    with _container(client, lease, image, command, options) as container:
        return _run(container, seconds)


def work(
    client: docker.DockerClient,
    lease: Lease,
    image: str,
    command: Sequence[str],
    *,
    files: Mapping[str, Path],
    result: Path,
) -> None:
    """Run a command beside copies of files, and bring one back; see `Engine.workshop`."""
    options = {
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "user": "65532:65532",
        "use_config_proxy": False,
        "labels": {LABEL_WORK: lease.name},
    }
    with _container(client, lease, image, command, options) as container:
        # Not through a volume, which a remote engine lacks, nor through the logs,
        # which are text.
        entries = [_file_entry(name, path) for name, path in files.items()]
        container.put_archive("/tmp", tar.chunks(tar.merge(entries)))  # noqa: S108
        _run(container, _WORK_SECONDS)
        _take_out(container, f"/tmp/{result.name}", result)  # noqa: S108


@contextlib.contextmanager
def _container(
    client: docker.DockerClient,
    lease: Lease,
    image: str,
    command: Sequence[str],
    options: Mapping[str, Any],
) -> Iterator[Container]:
    """Create a container, gone afterwards; if this run is killed, the next one removes it."""
    with trouble():
        container = client.containers.create(image, list(command), **options)
        try:
            yield container
        finally:
            # How it ended is known; one that stays behind is a later run's to remove.
            with contextlib.suppress(APIError, requests.RequestException):
                container.remove(force=True, v=True)
                lease.end()


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
    code = _wait(container, seconds)
    return Run(
        exit_code=code,
        out_of_memory=_out_of_memory(container),
        stdout=_end_of(container, stdout=True, stderr=False),
        stderr=_end_of(container, stdout=False, stderr=True),
        seconds=_seconds(container),
    )


def _wait(container: Container, seconds: float) -> int | None:
    """Wait for its exit code; None if it had to be killed."""
    try:
        return int(container.wait(timeout=seconds)["StatusCode"])
    except requests.exceptions.ReadTimeout:
        _kill(container)
    except requests.exceptions.ConnectionError as error:
        if "timed out" not in str(error):
            raise
        _kill(container)
    return None


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


class EndedError(Exception):
    """A container ended while it was still needed.

    Attributes
    ----------
    run : Run
        How.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(f"ended with {run.exit_code}")
        self.run = run


@contextlib.contextmanager
def talk(
    client: docker.DockerClient,
    lease: Lease,
    image: str,
    command: Sequence[str],
    *,
    memory: str,
    processes: int,
) -> Iterator[Talk]:
    """Start a command sealed, to talk to; see `Engine.talk_sealed`."""
    options = _seal(memory, processes) | {
        "labels": {LABEL_SEALED: lease.name},
        "stdin_open": True,
        # What is said goes to whoever asks, and is nothing for the host to keep.
        "log_config": docker.types.LogConfig(type="none"),
    }
    with _container(client, lease, image, command, options) as container:
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        attached = client.api.attach_socket(str(container.id), params=streams)
        with contextlib.closing(attached):
            container.start()
            yield Talk(container, attached)


class Talk:
    """Lines to a container's standard input, and its answers.

    Parameters
    ----------
    container : Container
        Started.
    attached : socket
        From the engine: all three streams of it.
    """

    def __init__(self, container: Container, attached: Any) -> None:
        self._container = container
        self._socket = getattr(attached, "_sock", attached)
        self._socket.settimeout(None)  # how long an answer may take is said with the question
        self._said = bytearray()
        self._errors = bytearray()

    def ask(self, line: bytes, *, seconds: float) -> bytes:
        """Write a line to its standard input, and wait for one on its standard output.

        Parameters
        ----------
        line : bytes
            With its end; nothing, to wait only.
        seconds : float
            It is killed if it takes longer.

        Raises
        ------
        EndedError
            When it ends before.
        """
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill(self._container)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            # One that has ended takes no more; what it said before tells why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._socket.sendall(line)
            return self._line()
        except EOFError:
            raise EndedError(self._end(late=late.is_set())) from None
        finally:
            timer.cancel()

    def _line(self) -> bytes:
        searched = 0
        while (end := self._said.find(b"\n", searched)) < 0:
            searched = len(self._said)
            if searched > _LONGEST_LINE:
                raise EOFError
            # The engine's own frames: which stream, and how many bytes of it follow.
            stream, size = struct.unpack(">BxxxL", self._received(_FRAME))
            data = self._received(size)
            if stream == _STDOUT:
                self._said += data
            else:
                self._errors += data
                del self._errors[:-_TAIL]
        line = bytes(self._said[:end])
        del self._said[: end + 1]
        return line

    def _received(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                part = self._socket.recv(size - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _end(self, *, late: bool) -> Run:
        code = _wait(self._container, _END_SECONDS)
        return Run(
            exit_code=None if late else code,
            out_of_memory=_out_of_memory(self._container),
            stdout=bytes(self._said[-_TAIL:]),
            stderr=bytes(self._errors),
        )


@contextlib.contextmanager
def served(
    client: docker.DockerClient,
    lease: Lease,
    image: str,
    command: Sequence[str],
    *,
    address: tuple[str, int],
    memory: str,
    processes: int,
) -> Iterator[Served]:
    """Start a server sealed but for one port; see `Engine.served`."""
    host, port = address
    options = _seal(memory, processes) | {
        "labels": {LABEL_SEALED: lease.name},
        "ports": {f"{PORT}/tcp": (host, port or None)},
    }
    del options["network_mode"]
    with _container(client, lease, image, command, options) as container:
        container.start()
        container.reload()
        yield Served(container)


class Served:
    """A container that serves on a port of the host.

    Parameters
    ----------
    container : Container
        Started.
    """

    def __init__(self, container: Container) -> None:
        self._container = container

    @property
    def port(self) -> int:
        """The port of the host, or 0 if it has ended already."""
        bound = self._container.ports.get(f"{PORT}/tcp") or [{"HostPort": "0"}]
        return int(bound[0]["HostPort"])

    def lines(self) -> Iterator[bytes]:
        """Yield what it prints, line by line without their ends, until it has ended."""
        kept = b""
        with trouble():
            for piece in self._container.logs(stream=True, follow=True):
                *whole, kept = (kept + piece).split(b"\n")
                yield from whole
                if len(kept) > _TAIL:
                    yield kept
                    kept = b""
        if kept:
            yield kept

    def stop(self, seconds: int) -> None:
        """Ask it to end; it is killed if it takes longer."""
        with trouble():
            self._container.stop(timeout=seconds)

    def end(self) -> Run:
        """Wait for its end; what it printed, `lines` tells."""
        with trouble():
            code = int(self._container.wait()["StatusCode"])
            return Run(code, _out_of_memory(self._container), b"", b"")


def _out_of_memory(container: Container) -> bool:
    container.reload()
    return bool(container.attrs["State"].get("OOMKilled"))


def _seconds(container: Container) -> float:
    """Say how long a container ran, by the engine's clock."""
    state = container.attrs["State"]
    begin, end = (datetime.fromisoformat(state[key]) for key in ("StartedAt", "FinishedAt"))
    return (end - begin).total_seconds()
