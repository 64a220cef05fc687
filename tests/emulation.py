"""Programs for linux/arm64 on this kernel, or none: Debian's qemu, registered for a while.

Both are facts about the whole machine, so only one test at a time changes them, of whatever
checkout, and what was there before is there again afterwards.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chroots import UnavailableError, install, require_root_on_debian
from filelock import FileLock

_REGISTER = Path("/proc/sys/fs/binfmt_misc")
_QEMU = "/usr/bin/qemu-aarch64-static"
_LOCK = Path(tempfile.gettempdir()) / "packager-tests-binfmt.lock"
_NAME = "packager-tests-arm64"
# The head of a 64-bit ELF file, its kind, and its machine: little-endian AArch64.
_MAGIC = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00"
_MASK = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + b"\xfe\xff\xff\xff"


@contextlib.contextmanager
def emulated() -> Iterator[None]:
    """Have this kernel execute programs for linux/arm64, by the qemu of the distribution."""
    _require_another_machine()
    require_root_on_debian()
    install("qemu-user-static", needed=_QEMU)
    if not Path(_QEMU).is_file():
        raise UnavailableError(f"qemu-user-static holds no {_QEMU} here")
    _mount()
    magic, mask = ("".join(f"\\x{byte:02x}" for byte in part) for part in (_MAGIC, _MASK))
    own = _REGISTER / _NAME
    with FileLock(_LOCK):
        if own.exists():  # of a run that was killed
            own.write_text("-1")
        try:  # F: it is opened now, and found from inside of containers, too
            (_REGISTER / "register").write_text(f":{_NAME}:M::{magic}:{mask}:{_QEMU}:F")
        except OSError as error:
            raise UnavailableError(f"the kernel registers no formats: {error}") from None
        try:
            yield
        finally:
            own.write_text("-1")


@contextlib.contextmanager
def not_emulated() -> Iterator[None]:
    """Have this kernel execute no program for linux/arm64, whoever wants it to."""
    _require_another_machine()
    with FileLock(_LOCK):
        enabled = [one for one in _handlers() if one.read_text().startswith("enabled")]
        if enabled and os.getuid() != 0:
            raise UnavailableError("only root can switch this machine's emulation of arm64 off")
        for one in enabled:
            one.write_text("0")
        try:
            yield
        finally:
            for one in enabled:
                one.write_text("1")


def _handlers() -> list[Path]:
    machine = f"magic {_MAGIC.hex()}"
    given = [one for one in _REGISTER.glob("*") if one.name not in {"register", "status"}]
    return [one for one in given if machine in one.read_text()]


def _require_another_machine() -> None:
    if platform.machine() in {"aarch64", "arm64"}:
        raise UnavailableError("this machine needs no emulation of arm64")


def _mount() -> None:
    if (_REGISTER / "register").exists():
        return
    words = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_REGISTER)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"the kernel registers no formats of programs: {done.stderr}")
