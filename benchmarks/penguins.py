"""The penguins project that `make quickstart` leaves behind, ready for benchmarks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from packager.assembling import Built, assemble, gather
from packager.project import load
from packager.reporter import Silent
from packager.store import Store

REPOSITORY = Path(__file__).resolve().parent.parent
QUICKSTART = REPOSITORY / "build" / "quickstart" / "penguins"


def project(folder: Path) -> Path:
    """Copy the trained and locked project into a folder; it is made first if it is not there."""
    if not (QUICKSTART / "packager.lock").exists():
        subprocess.run(["make", "quickstart"], cwd=REPOSITORY, check=True, stdout=sys.stderr)
    root = folder / "penguins"
    leave = shutil.ignore_patterns(".venv", ".packager")
    shutil.copytree(QUICKSTART, root, ignore=leave)
    packager = [sys.executable, "-m", "packager", "lock"]
    checked = subprocess.run([*packager, "--check"], cwd=root, check=False, capture_output=True)
    if checked.returncode:  # made by an earlier version
        subprocess.run(packager, cwd=root, check=True, stdout=sys.stderr)
    return root


def built(root: Path, store: Store) -> Built:
    """Assemble its image."""
    return assemble(gather(load(root), "linux/amd64", store.scratch), store, Silent())
