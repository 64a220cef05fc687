"""Run by the image's own Python: sources to a wheel, by the build backend that they name (PEP 517).

The arguments are an archive, where the answer goes, and the requirements that are installed.  The
answer is a tar: ``log``, what was said meanwhile, and either ``requires``, a JSON list of what must
be installed besides, or the wheel; neither, if the build failed.
"""

import importlib
import json
import os
import shutil
import sys
import tarfile
import tomllib
import traceback
from functools import reduce
from typing import Any

TEMPORARY = "/tmp"  # noqa: S108 - a container's own
FIXED = {
    "SOURCE_DATE_EPOCH": "315619200",
    "PYTHONHASHSEED": "0",
    "HOME": TEMPORARY,
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
"""What decides a wheel's bytes, or could, besides its sources and what is installed."""


def main() -> None:
    """Do as the arguments say."""
    archive, answer, *installed = sys.argv[1:]
    log = os.open(f"{answer}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    with tarfile.open(answer, "w") as out:
        try:
            made = build(archive, installed)
            out.add(made, made.rpartition("/")[2])
        except BaseException:  # noqa: BLE001 - a backend may well exit
            traceback.print_exc()
        sys.stdout.flush()
        out.add(f"{answer}.log", "log")


def build(archive: str, installed: list[str]) -> str:
    """Give the path of a wheel, or of a list of requirements that are not installed yet."""
    shutil.unpack_archive(archive, f"{TEMPORARY}/unpacked")
    (folder,) = os.listdir(f"{TEMPORARY}/unpacked")  # noqa: PTH208
    os.chdir(f"{TEMPORARY}/unpacked/{folder}")
    system = build_system()
    if missing := [one for one in system["requires"] if one not in installed]:
        return required(missing)
    sys.path[:0] = map(os.path.abspath, system.get("backend-path", []))
    module, _, names = system.get("build-backend", "setuptools.build_meta:__legacy__").partition(
        ":"
    )
    backend = reduce(getattr, filter(None, names.split(".")), importlib.import_module(module))
    asked: list[str] = getattr(backend, "get_requires_for_build_wheel", list)()
    if missing := [one for one in asked if one not in installed]:
        return required(missing)
    os.mkdir(f"{TEMPORARY}/made")  # noqa: PTH102
    return f"{TEMPORARY}/made/{backend.build_wheel(f'{TEMPORARY}/made')}"


def build_system() -> dict[str, Any]:
    """Read what the sources say of their build; setuptools is what they mean if they do not."""
    said: dict[str, Any] = {}
    if os.path.exists("pyproject.toml"):  # noqa: PTH110
        with open("pyproject.toml", "rb") as file:  # noqa: PTH123
            said = tomllib.load(file).get("build-system", {})
    return said or {"requires": ["setuptools>=40.8.0"]}


def required(names: list[str]) -> str:
    """Write down what must be installed."""
    with open(f"{TEMPORARY}/requires", "w", encoding="utf-8") as out:  # noqa: PTH123
        json.dump(names, out)
    return f"{TEMPORARY}/requires"


if __name__ == "__main__":
    if "SOURCE_DATE_EPOCH" not in os.environ:  # the seed of hashes is read once, in the beginning
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], FIXED)  # noqa: S606
    main()
