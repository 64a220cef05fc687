"""What the scripts install themselves: as root on Debian or Ubuntu, and nowhere else."""

from __future__ import annotations

import os
import platform
import subprocess


def may_install() -> bool:
    """Tell whether this is a machine on which something may be installed."""
    if platform.system() != "Linux" or os.getuid() != 0:
        return False
    release = platform.freedesktop_os_release()
    return bool({"debian", "ubuntu"} & {release["ID"], *release.get("ID_LIKE", "").split()})


def install(*packages: str) -> None:
    """Install packages of the distribution."""
    print(f"Installing the distribution's {packages[0]} ...", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    quiet = ["apt-get", "-y", "-qq", "-o", "Dpkg::Use-Pty=0"]
    for words in (["update"], ["install", "--no-install-recommends", *packages]):
        subprocess.run([*quiet, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
