"""Pin this repository's own development environment, as packager pins a project's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from packager.lock.pip_compile import TARGET

_OLDEST_PYTHON = "3.11.2"  # Debian 12's
_HEADER = """\
# The development environment, pinned by `make lock` from pyproject.toml.
# Not meant to be edited.
"""
_FLAGS = [
    "--extra=dev",
    "--all-build-deps",
    "--generate-hashes",
    "--allow-unsafe",
    "--strip-extras",
    "--no-header",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-options",
    "--no-config",
    "--quiet",
]


def main() -> None:
    """Write requirements-dev.txt; pins stay unless ``--upgrade`` is given."""
    root = Path(__file__).resolve().parent.parent
    target = root / "requirements-dev.txt"
    command = [sys.executable, "-m", "packager.lock.pip_compile", *_FLAGS, *sys.argv[1:]]
    environment = {**os.environ, TARGET: _OLDEST_PYTHON}
    command += [f"--output-file={target}", "pyproject.toml"]
    subprocess.run(command, cwd=root, env=environment, check=True)
    lines = [line for line in target.read_text().splitlines() if not line.startswith(("#", "--"))]
    target.write_text(_HEADER + "\n".join(lines).strip() + "\n")


if __name__ == "__main__":
    main()
