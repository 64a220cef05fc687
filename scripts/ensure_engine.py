"""Make sure that a container engine answers: use it, else install and start Debian's, else say how.

Finding an engine is what `packager` itself does (DOCKER_HOST, contexts, the usual
sockets).  Only as root on Debian or Ubuntu is anything installed or started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import debian

from packager.errors import HostError
from packager.outputs.engine import connect

_LOG = Path("/var/log/dockerd.log")
_WAIT_SECONDS = 60
_HOW = """\
There is no container engine, and only on Debian or Ubuntu as root would this script
install one.  Please install and start Docker (https://docs.docker.com/engine/install/) or
podman's socket (systemctl --user start podman.socket), or set DOCKER_HOST."""


def main() -> int:
    """Say which engine is used, or why there is none."""
    engine = _answering()
    if engine is None:
        if os.environ.get("DOCKER_HOST") or not debian.may_install():
            print(_HOW, file=sys.stderr)
            return HostError.exit_code
        if not shutil.which("dockerd"):
            debian.install("docker.io")
        _start()
        engine = _wait()
    print(f"Engine: {engine}")
    return 0


def _answering() -> str | None:
    try:
        return connect().name
    except HostError:
        return None


def _start() -> None:
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "start", "docker"], check=True)
        return
    print(f"Starting dockerd (log: {_LOG}) ...", flush=True)
    with _LOG.open("ab") as log:
        # It must outlive this script and the terminal.
        subprocess.Popen(["dockerd"], stdout=log, stderr=log, start_new_session=True)


def _wait() -> str:
    end = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < end:
        if engine := _answering():
            return engine
        time.sleep(0.2)
    sys.exit(f"dockerd did not answer within {_WAIT_SECONDS} s; the end of {_LOG} says why.")


if __name__ == "__main__":
    sys.exit(main())
