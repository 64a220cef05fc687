"""Engines of the tests' own beside this host's: Docker of several releases, and podman.

    with chroots.engines("trixie") as root, docker(root, containerd=True) as engine:
        engine.packager(project, store, "build")

Each has its own folders and its own network, with a loopback and bridges that nobody else sees;
what has to reach a port of it is run inside that network.  Nothing of it is left, however a test
ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chroots import Chroot, inner_environment, install
from registries import Certificate

from packager.outputs.finding import Address
from packager.outputs.sdk import connect

TLS_HOST = "tcp://127.0.0.1:2376"
_SSH_PORT = 2222
_WAIT_SECONDS = 120
_NETWORK = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@dataclass(frozen=True)
class Running:
    """An engine that answers at a socket in its folder."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def host(self) -> str:
        """As in `DOCKER_HOST`."""
        return f"unix://{self.folder}/socket"

    @property
    def inside(self) -> list[str]:
        """The words that, put before a command, run it in the engine's network."""
        return ["nsenter", "--net", "--target", str(self.process.pid)]

    def started(
        self, root: Path, store: Path, *arguments: str, **environment: str
    ) -> subprocess.Popen[str]:
        """Start the installed command line, as somebody in the engine's network does."""
        own = {"PACKAGER_CACHE": str(store), "NO_COLOR": "1", "DOCKER_HOST": self.host}
        return subprocess.Popen(
            [*self.inside, sys.executable, "-m", "packager", *arguments],
            cwd=root,
            env={**os.environ, **own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def packager(
        self, root: Path, store: Path, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        with self.started(root, store, *arguments, **environment) as process:
            out, errors = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@contextlib.contextmanager
def docker(
    root: Chroot, *, containerd: bool = False, certificate: Certificate | None = None
) -> Iterator[Running]:
    """Run a release's own Docker, over TLS at `TLS_HOST` as well where there is a certificate."""
    with _folder() as folder:
        settings: dict[str, Any] = {
            "data-root": f"{folder}/data",
            "exec-root": f"{folder}/exec",
            "pidfile": f"{folder}/pid",
            "hosts": [f"unix://{folder}/socket"],
            "iptables": False,
            "ip6tables": False,
            "ip-forward": False,
        }
        if containerd:
            settings["features"] = {"containerd-snapshotter": True}
        if certificate:
            ca, cert, key = certificate_files(certificate, folder)
            settings["hosts"].append(TLS_HOST)
            settings |= {"tlsverify": True, "tlscacert": ca, "tlscert": cert, "tlskey": key}
        (folder / "daemon.json").write_text(json.dumps(settings))
        with _running(folder, root, ["dockerd", "--config-file", f"{folder}/daemon.json"]) as one:
            yield one


def certificate_files(certificate: Certificate, folder: Path) -> list[str]:
    """Write a certificate that vouches for itself as Docker wants it: CA, certificate, key."""
    names = {"ca.pem": certificate.chain, "cert.pem": certificate.chain, "key.pem": certificate.key}
    return [str(shutil.copy(source, folder / name)) for name, source in names.items()]


@contextlib.contextmanager
def podman(root: Chroot) -> Iterator[Running]:
    """Run a release's own podman behind its Docker API."""
    with _folder() as folder:
        # runc, because crun refuses hosts with both cgroup versions.
        stores = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--runtime", "runc"]
        command = ["podman", *stores, "system", "service", "--time=0", f"unix://{folder}/socket"]
        with _running(folder, root, command) as one:
            yield one


@contextlib.contextmanager
def ssh(engine: Running, root: Chroot) -> Iterator[dict[str, str]]:
    """Run sshd in an engine's network, and give the environment of somebody who may come in."""
    install("openssh-client", needed="/usr/bin/ssh")
    with _folder() as folder:
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", folder / name], check=True)
        known = f"[127.0.0.1]:{_SSH_PORT} {(folder / 'host.pub').read_text()}"
        (folder / "known").write_text(known)
        (folder / "sshd").write_text(
            f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
            "PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n"
        )
        # ssh finds its configuration by whom the system says the user is, and not by HOME.
        options = f"-F none -i {folder}/user -o UserKnownHostsFile={folder}/known"
        (folder / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh {options} "$@"\n')
        (folder / "ssh").chmod(0o755)
        (root.root / "run/sshd").mkdir(exist_ok=True)
        listen = f"ListenAddress=127.0.0.1:{_SSH_PORT}"
        server = ["/usr/sbin/sshd", "-D", "-e", "-f", f"{folder}/sshd", "-o", listen]
        entering = [*engine.inside, *root.entering([folder, engine.folder])]
        with _started(folder, [*entering, *server], lambda: "listening" in log_of(folder)):
            host = f"ssh://root@127.0.0.1:{_SSH_PORT}{engine.folder}/socket"
            yield {"DOCKER_HOST": host, "PATH": f"{folder}:{os.environ['PATH']}"}


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # Not tmp_path: the paths of the engines' sockets have to be short.
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(folder: Path, root: Chroot, command: Sequence[str]) -> Iterator[Running]:
    install("iproute2", needed="/usr/sbin/ip")
    words = [*_NETWORK, *root.entering([folder]), *command]
    host = f"unix://{folder}/socket"
    with _started(folder, words, lambda: _answers(host)) as process:
        yield Running(folder, process)


@contextlib.contextmanager
def _started(
    folder: Path, words: Sequence[str], ready: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            words, env=inner_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + _WAIT_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(log_of(folder))
            time.sleep(0.05)
        yield process
    finally:
        process.kill()  # unshare ignores SIGTERM; its --kill-child ends the whole namespace
        process.wait()


def log_of(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")


def _answers(host: str) -> bool:
    with contextlib.suppress(ConnectionError):
        connect(Address("", host), patience=5, seconds=5).close()
        return True
    return False
