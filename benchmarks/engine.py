"""An engine of the benchmark's own: empty caches are empty, and nobody else's are emptied."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_SECONDS = 30
_BRIDGE, _ADDRESS = "benchmark0", "10.213.0.1/24"


@contextmanager
def own(folder: Path) -> Iterator[None]:
    """Run a dockerd with its data in a folder; `DOCKER_HOST` names it while the block runs.

    It touches no firewall rule, and has a bridge of its own: with none at all it would take away
    that of an engine which runs already.  Builds use the host's network, runs use none.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as short,  # a socket's path must be
        _bridge(),
    ):
        address = f"unix://{short}/docker.sock"
        words: list[str | Path] = [
            "--data-root",
            folder,
            "--exec-root",
            f"{short}/run",
            "-H",
            address,
        ]
        words += ["--pidfile", f"{short}/pid", "--bridge", _BRIDGE, "--iptables=false"]
        log = Path(f"{folder}.log")
        with log.open("wb") as said:
            daemon = subprocess.Popen(["dockerd", *words], stdout=said, stderr=said)
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = address
        try:
            _wait(daemon, log)
            yield
        finally:
            os.environ.pop("DOCKER_HOST")
            if before is not None:
                os.environ["DOCKER_HOST"] = before
            daemon.terminate()
            daemon.wait()
            _unmount(short)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _bridge() -> Iterator[None]:
    link = ["ip", "link"]
    subprocess.run([*link, "delete", _BRIDGE], check=False, capture_output=True)
    subprocess.run([*link, "add", _BRIDGE, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", _ADDRESS, "dev", _BRIDGE], check=True)
        yield
    finally:
        subprocess.run([*link, "delete", _BRIDGE], check=False)


def _unmount(folder: str) -> None:
    """Take away what the engine left mounted, the host's network among it."""
    for line in Path("/proc/mounts").read_text().splitlines():
        if (place := line.split()[1]).startswith(folder):
            subprocess.run(["umount", place], check=True)


def _wait(daemon: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while daemon.poll() is None and time.monotonic() < end:
        if not subprocess.run(["docker", "version"], check=False, capture_output=True).returncode:
            return
        time.sleep(0.2)
    sys.exit(f"dockerd (it needs root) does not answer; {log} says why")


def docker(*words: str | Path, data: bytes | None = None) -> str:
    """Run the docker command, and give what it printed."""
    command = ["docker", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, input=data)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode().strip()


def layers(tag: str) -> list[str]:
    """List the diff IDs of an image's layers, the lowest first."""
    return list(json.loads(docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", tag)))


def remove_images(*beginnings: str) -> None:
    """Remove all images whose names begin so, and those that lost their names to later ones."""
    for tag in docker("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        if tag.startswith(beginnings):
            docker("rmi", "-f", tag)
    docker("image", "prune", "-f")


def crowd(count: int) -> None:
    """Load so many images that share one tiny layer, unless that was done before."""
    if len(docker("images", "-q", "crowd").split()) >= count:
        return
    docker("load", "-q", data=archive_of(b"tiny", {f"crowd:{one}": one for one in range(count)}))


def archive_of(content: bytes, names: Mapping[str, int]) -> bytes:
    """Make a docker archive of images with one tiny layer, each with a number of its own."""
    layer = _tar({"content": content})
    digest = hashlib.sha256(layer).hexdigest()
    members, manifest = {"layer.tar": layer}, []
    for name, number in names.items():
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"number": str(number)}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        members[f"{number}.json"] = json.dumps(config).encode()
        manifest.append({"Config": f"{number}.json", "RepoTags": [name], "Layers": ["layer.tar"]})
    members["manifest.json"] = json.dumps(manifest).encode()
    return _tar(members)


def _tar(members: Mapping[str, bytes]) -> bytes:
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, data in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return out.getvalue()


def build_from(dockerfile: str, files: Mapping[str, bytes], tag: str) -> None:
    """Build an image the old way, out of a context made in memory."""
    context = _tar({"Dockerfile": dockerfile.encode(), **files})
    docker("build", "-q", "-t", tag, "-", data=context)


def builder() -> str:
    """Find a docker command that makes the engine use BuildKit: with buildx, or from before it."""
    for folder in os.get_exec_path():
        command = Path(folder, "docker")
        if command.exists():
            asked = subprocess.run(
                [command, "build", "--help"],
                check=False,
                capture_output=True,
                env={**os.environ, "DOCKER_BUILDKIT": "1"},
            )
            if not asked.returncode and b"--secret" in asked.stdout:
                return str(command)
    sys.exit("no docker command on PATH can use BuildKit: install Docker's buildx")
