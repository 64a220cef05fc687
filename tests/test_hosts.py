"""Claims about hosts that are not Linux: what their file systems lack, no build needs.

exFAT stands for them: it takes `A` and `a` for one name, has neither modes nor links, and no
`:` in names.  It is a real one, in a file, mounted in a namespace of each command.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chroots
import pytest
from chroots import or_skip
from conftest import Tiny, git

import packager
from packager import provenance
from packager.project import load

SOURCE = Path(packager.__file__).parent
# As Git for Windows sets them up.
_CLONE = ["git", "clone", "--quiet", "-c", "core.fileMode=false", "-c", "core.symlinks=false"]
_CLONE += ["-c", "core.ignoreCase=true", "-c", "core.autocrlf=true"]

# $1 is the image of a file system, $2 where it is mounted; then comes the command.
_WITH = """
mount -t exfat-fuse -o loop "$1" "$2" >/dev/null || exit 125
place=$2; shift 2
"$@"
code=$?
cd /; umount "$place"
exit $code
"""


@dataclass(frozen=True)
class Exfat:
    """A folder on a file system of its own, which is there while a command runs."""

    image: Path
    folder: Path

    def run(self, command: Sequence[str | Path], **environment: str) -> str:
        """Run a command, and give what it says; it must succeed."""
        done = self.tried(command, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def tried(
        self, command: Sequence[str | Path], **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that may fail."""
        words = [*chroots.CONTAINED, "sh", "-c", _WITH, "sh", self.image, self.folder, *command]
        return subprocess.run(
            words,
            env={**os.environ, "NO_COLOR": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def packager(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run packager in the clone, with its store beside it."""
        command = [sys.executable, "-m", "packager", "-C", self.folder / "tiny", *words]
        return self.tried(command, PACKAGER_CACHE=str(self.folder / "store"))

    def built(self, *words: str) -> dict[str, Any]:
        """Build there, and read the result."""
        run = self.packager("build", "--json", *words)
        assert run.returncode == 0, run.stderr
        result: dict[str, Any] = json.loads(run.stdout)
        return result


@pytest.fixture
def exfat(tmp_path: Path) -> Exfat:
    with or_skip():
        chroots.require_root_on_debian()
        if not (Path("/dev/fuse").exists() and Path("/dev/loop-control").exists()):
            raise chroots.UnavailableError("this host mounts no file system that is in a file")
    # Where these can be installed, nothing is skipped.
    chroots.install("exfatprogs", needed="/usr/sbin/mkfs.exfat")
    chroots.install("exfat-fuse", needed="/usr/sbin/mount.exfat-fuse")
    made = Exfat(tmp_path / "exfat.img", tmp_path / "exfat")
    made.folder.mkdir()
    with made.image.open("wb") as file:
        file.truncate(600 << 20)
    subprocess.run(["mkfs.exfat", str(made.image)], check=True, capture_output=True)
    return made


@pytest.fixture
def clone(exfat: Exfat, tiny: Tiny, tmp_path: Path) -> Exfat:
    """The tiny project as a clone on it, and a store that has the locked packages."""
    locked = set(re.findall("[0-9a-f]{64}", (tiny.root / "packager.lock").read_text()))
    blobs = tmp_path / "store" / "blobs"
    blobs.mkdir(parents=True)
    for blob in (tiny.store / "blobs").iterdir():
        if blob.name in locked:
            (blobs / blob.name).symlink_to(blob)
    exfat.run(["cp", "-rL", blobs.parent, exfat.folder])
    exfat.run([*_CLONE, tiny.root, exfat.folder / "tiny"])
    return exfat


_LACKING = """
import os
os.chdir(os.sys.argv[1])
open("Name", "w").close()
assert os.path.exists("nAME"), "case"
os.chmod("Name", 0o600)
assert os.stat("Name").st_mode & 0o777 == 0o777
for make in os.symlink, os.link:
    try:
        make("Name", "link")
        raise AssertionError(make)
    except OSError:
        pass
try:
    open("a:b", "w")
    raise AssertionError("colon")
except OSError:
    pass
"""


def test_the_file_system_lacks_what_it_is_taken_for(exfat: Exfat, tmp_path: Path) -> None:
    exfat.run([sys.executable, "-c", _LACKING, exfat.folder])
    command = [sys.executable, "-c", _LACKING, str(tmp_path)]
    here = subprocess.run(command, capture_output=True, check=False)
    assert b"AssertionError: case" in here.stderr


def test_an_image_built_where_there_are_no_cases_modes_and_links_is_the_same(
    clone: Exfat, tiny: Tiny, tmp_path: Path
) -> None:
    clone.run(["grep", "-q", "import Path\r$", clone.folder / "tiny" / "src/tiny/predict.py"])
    ordinary = tiny.built("--no-load", "-o", str(tmp_path / "image.tar"))
    there = clone.built("--no-load", "-o", str(clone.folder / "image.tar"))
    assert (there["id"], there["manifest"]) == (ordinary["id"], ordinary["manifest"])
    assert (there["commit"], there["dirty"]) == (ordinary["commit"], False)


@pytest.mark.whole
def test_it_is_locked_and_verified_there(clone: Exfat, tiny: Tiny) -> None:
    ordinary = (tiny.root / "packager.lock").read_bytes()
    for words in (["lock"], ["lock", "--check"]):
        done = clone.packager(*words)
        assert done.returncode == 0, done.stderr
    assert clone.run(["cat", clone.folder / "tiny" / "packager.lock"]).encode() == ordinary
    image, report = clone.folder / "image.tar", clone.folder / "report.json"
    assert clone.built("--no-load", "-o", str(image))["dirty"] is False
    done = clone.packager("verify", str(image), "--report", str(report))
    assert done.returncode == 0, done.stderr
    assert "image reproduced" in done.stdout


def test_two_names_that_are_one_file_there_are_refused(
    exfat: Exfat, tiny: Tiny, tmp_path: Path
) -> None:
    (tiny.root / "src/tiny/Extra").mkdir()
    (tiny.root / "src/tiny/extra").mkdir()
    (tiny.root / "src/tiny/Extra/one.py").write_text("ONE = 1\n")
    (tiny.root / "src/tiny/extra/one.py").write_text("ONE = 2\n")
    git(tiny.root, "add", "-A")
    git(tiny.root, "commit", "-qm", "Two names")
    tiny.built("--no-load", "-o", str(tmp_path / "image.tar"))
    exfat.run([*_CLONE, tiny.root, exfat.folder / "tiny"])
    done = exfat.packager("build", "--no-load", "-o", str(exfat.folder / "image.tar"))
    assert done.returncode == 2
    assert "src/tiny/Extra/one.py and src/tiny/extra/one.py are one file here" in done.stderr


def test_line_ends_alone_make_no_input_differ_from_its_commit(tiny: Tiny, tmp_path: Path) -> None:
    git(tmp_path, *_CLONE[1:], str(tiny.root), "clone")
    lock = tmp_path / "clone" / "packager.lock"
    assert b"\r\n" in lock.read_bytes()
    lock.write_bytes(lock.read_bytes().replace(b"\r\n", b"\n"))
    assert provenance.of(load(tmp_path / "clone")).dirty is False
    lock.write_bytes(lock.read_bytes() + b"# one more line\n")
    assert provenance.of(load(tmp_path / "clone")).dirty is True


def test_what_windows_lacks_is_imported_where_its_absence_is_minded() -> None:
    lacking = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios"}
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if "packager_runtime" not in path.parts and lacking & imports_of(path)
    }
    assert users == {"files.py"}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found
