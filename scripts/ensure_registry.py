"""Make sure that there is a registry, to which the tests push; they start it themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import debian

from packager.errors import HostError

_PROGRAM = "docker-registry"
_HOW = """\
There is no docker-registry, and only on Debian or Ubuntu as root would this script install one.
Please put the distribution project's registry on PATH under this name."""


def main() -> int:
    """Say which registry is used, or why there is none."""
    if not shutil.which(_PROGRAM):
        if not debian.may_install():
            print(_HOW, file=sys.stderr)
            return HostError.exit_code
        debian.install(_PROGRAM, "skopeo")
        if Path("/run/systemd/system").is_dir():  # nobody asked for one that everybody reaches
            subprocess.run(["systemctl", "disable", "--now", _PROGRAM], check=True)
    print(f"Registry: {shutil.which(_PROGRAM)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
