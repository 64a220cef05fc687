"""Apptainer, as a cluster has it: in a Debian of its own, run by a user without any rights.

It is in Debian's unstable release alone.  Unlike in `chroots`, the release becomes the root of the
mount namespace, because nobody may make a user namespace inside a chroot.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import chroots
from filelock import FileLock

SEALED = ["apptainer", "run", "--containall", "--no-eval", "--net", "--network", "none"]

_USER = 1234
_PACKAGES = "apptainer ca-certificates e2fsprogs mount tzdata"

# $1 is the root, $2 a folder that is shared, $3 the user; then comes the command.
_ENTER = """
set -e
root=$1 shared=$2 user=$3; shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount --bind "$root/fuse" "$root/dev/fuse"
mount --bind "$shared" "$root/mnt"
cd "$root"
pivot_root . old
umount -l old
cd /mnt
exec setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \\
    env -i HOME=/home/user PATH=/usr/bin:/bin "$@"
"""


@dataclass(frozen=True)
class Host:
    """A machine with Apptainer."""

    root: Path

    def run(
        self, command: Sequence[str], folder: Path, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a user whom a folder of this machine belongs to."""
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, _USER, _USER)
        words = [*chroots.CONTAINED, "sh", "-c", _ENTER, "sh", self.root, folder, str(_USER)]
        return subprocess.run(
            [*words, *command], input=text, capture_output=True, text=True, check=False
        )


@contextlib.contextmanager
def installed() -> Iterator[Host]:
    """Give a machine with Apptainer, made if it is not there."""
    chroots.require_root_on_debian()
    chroots.FOLDER.mkdir(parents=True, exist_ok=True)
    made = chroots.Chroot("sid", chroots.FOLDER / "apptainer")
    with FileLock(chroots.FOLDER / "apptainer.lock"):
        chroots.bootstrap(made, _PACKAGES)
        _settle(made.root)
        yield Host(made.root)


def _settle(root: Path) -> None:
    """Give it what every machine has: a user, names, a time zone, file systems of users' own."""
    if (root / "fuse").exists():
        return
    (root / "old").mkdir()
    (root / "home/user").mkdir()
    shutil.chown(root / "home/user", _USER, _USER)
    for name, line in (
        ("passwd", f"user:x:{_USER}:{_USER}::/home/user:/bin/sh\n"),
        ("group", f"user:x:{_USER}:\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        ("resolv.conf", ""),
    ):
        with (root / "etc" / name).open("a") as file:
            file.write(line)
    shutil.copy(root / "usr/share/zoneinfo/UTC", root / "etc/localtime")
    os.mknod(root / "fuse", 0o020666, os.makedev(10, 229))
    (root / "fuse").chmod(0o666)
