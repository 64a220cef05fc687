"""Run packager so that it dies at an exact operation: killable.py MODE KIND NUMBER TO ARGUMENT...

An operation is what changes a file or starts or asks another program; its kind says what it
does in which folder, and they are counted by kind, from 0.  The modes: `list` writes the time
and the kind of each to the file TO, `tell` writes a byte to the file descriptor TO when the
one is reached, `die` kills the process group before it.
"""

import atexit
import itertools
import json
import os
import re
import signal
import sys
import time

from packager.cli import main

EVENTS = {
    *("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.symlink"),
    *("subprocess.Popen", "socket.connect", "fcntl.flock", "shutil.rmtree"),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

mode, fatal, number, to, *arguments = sys.argv[1:]
count = itertools.count()
listed = []


def operation(kind: str) -> None:
    if mode == "list":
        listed.append((time.monotonic(), kind))
    elif kind == fatal and next(count) == int(number):
        if mode == "die":
            os.killpg(0, signal.SIGKILL)
        os.write(int(to), b".")


def hook(event: str, details: tuple) -> None:
    if event in EVENTS or (event == "open" and (details[2] or 0) & WRITING):
        # A renamed file's new name says more.
        path = details[1 if event == "os.rename" else 0] if details else ""
        operation(f"{event} {where(path)}")


def where(path: object) -> str:
    """Name the folder that an operation is in; all that a run unpacks is in one."""
    if not isinstance(path, str | bytes | os.PathLike):
        return ""
    folder = os.path.dirname(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100, PTH120
    return re.sub(r".*/run-.*", "partial", folder)


def write_times() -> None:
    # Before the hook's own file is opened, as that is an operation, too.
    ended = [*listed, (time.monotonic(), "end")]
    with open(to, "w") as file:  # noqa: PTH123
        json.dump([[moment - listed[0][0], kind] for moment, kind in ended], file)


if mode == "list":
    atexit.register(write_times)
sys.argv[1:] = arguments
operation("begin")
sys.addaudithook(hook)
main()
