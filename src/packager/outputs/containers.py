"""Containers that are closed off: started, waited for, looked at, gone."""

from __future__ import annotations

import contextlib
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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

__all__ = ["OPEN_FILES", "SHM_MB", "TMP_MB", "Run", "sealed", "work"]

TMP_MB = 512
"""What ``/tmp`` holds in a sealed container, in MB."""

SHM_MB = 64
"""What ``/dev/shm``, which processes share memory through, holds there, in MB."""

OPEN_FILES = 4096
"""How many files a process may have open there."""

_WORK_SECONDS = 600
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
    """

    exit_code: int | None
    out_of_memory: bool
    stdout: bytes
    stderr: bytes


def sealed(
    client: docker.DockerClient,
    lease: Lease,
    image: str,
    command: Sequence[str],
    *,
    seconds: float,
    memory: str,
    processes: int,
) -> Run:
    """Run a command sealed; see `Engine.run_sealed`."""
    options = _seal(memory, processes) | {"labels": {LABEL_SEALED: lease.name}}
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
