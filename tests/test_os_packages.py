"""Claims about Debian packages on top of bases that are images."""

from __future__ import annotations

import re
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bases import ENV, image_of, stand_on, tar_blob
from conftest import Tiny
from debian.debian_support import Version

from packager.errors import ClaimError, UsageError
from packager.image import Image
from packager.layers import debian_installed
from packager.layers.tar import data_entry
from packager.lock.debian_index import Package, refuse_unmet
from packager.outputs.engine import Engine
from packager.store import Blob, Store

pytest_plugins = ["base_fixtures"]
pytestmark = pytest.mark.xdist_group("push")  # the base's layers are made once

# What images with CUDA tell an engine that lends a graphics card.
CUDA = ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_REQUIRE_CUDA=cuda>=12.4"]

Place = Callable[[Image, str], str]


def wanting(project: Tiny, place: Place, layers: list[Blob], *packages: str) -> Tiny:
    """Have a project stand on an image of the engine, with packages on top."""
    base = place(image_of("base", layers, env=[*ENV, *CUDA]), "docker-daemon")
    stand_on(project, f"docker-daemon:{base}")
    project.edit("pyproject.toml", "bytecode = false", f"os-packages = {list(packages)}")
    return project


def added(project: Tiny) -> list[str]:
    """Name the packages that a lock puts on top."""
    lock: dict[str, Any] = tomllib.loads((project.root / "packager.lock").read_text())
    assert {pin["role"] for pin in lock["debian"][0]["package"]} <= {"extra"}
    return [pin["name"] for pin in lock["debian"][0]["package"]]


def refused(project: Tiny) -> str:
    run = project.run("lock")
    assert run.returncode in {1, 2}, run.stderr
    assert "[tool.packager] os-packages" in run.stderr
    assert not (project.root / "packager.lock").exists()
    return run.stderr


def status(layer: Blob, *, old: str = "", more: str = "") -> str:
    """Write dpkg's database, of the records that a layer of Debian's packages has."""
    stanzas = []
    with tarfile.open(layer.path) as archive:
        for one in archive:
            stream = archive.extractfile(one) if "/status.d/" in one.name else None
            if stream and not one.name.endswith(".md5sums"):
                stanza = stream.read().decode().strip()
                if stanza.startswith(f"Package: {old}\n"):
                    stanza = re.sub(r"(?m)^Version: .*", "Version: 1.0", stanza)
                stanzas.append(f"{stanza}\nStatus: install ok installed")
    return "\n\n".join([*stanzas, more]) + "\n"


def test_what_a_base_lacks_is_put_on_top(
    project: Tiny, place: Place, debian: Blob, engine: Engine
) -> None:
    wanting(project, place, [debian], "libgomp1", "libc6")
    load = 'import ctypes\nfrom pathlib import Path\n\nctypes.CDLL("libgomp.so.1")'
    project.edit("src/local/predict.py", "from pathlib import Path", load)
    run = project.run("lock")
    assert run.returncode == 0, run.stderr
    assert "1 layers of docker-daemon:packager-tests-base:1, 1 packages" in run.stdout
    assert added(project) == ["libgomp1"]
    told: Any = project.built()
    try:
        assert [layer["role"] for layer in told["layers"][:3]] == [
            "base",
            "bytecode",
            "os-packages",
        ]
        assert told["smoke"]["examples"] == 3
        assert {*CUDA} <= {*engine.get(told["id"])["Config"]["Env"]}
    finally:
        engine.client.images.remove(told["id"], force=True)
    # Without it the model does not load.
    project.edit("pyproject.toml", "'libgomp1', ", "")
    assert project.run("lock").returncode == 0
    assert added(project) == []
    run = project.run("build")
    assert run.returncode == 1
    assert "libgomp.so.1" in run.stderr


@pytest.mark.whole
def test_dpkgs_own_list_tells_what_is_there(
    project: Tiny, place: Place, debian: Blob, shared_store: Path
) -> None:
    gone = ("var/lib/dpkg/.wh.status.d", b"", 0o644)
    there = "Package: libgomp1\nVersion: 99\nArchitecture: amd64\nStatus: install ok installed"

    def base(text: str) -> list[Blob]:
        database = ("var/lib/dpkg/status", text.encode(), 0o644)
        return [debian, tar_blob(Store(shared_store), [gone, database])]

    wanting(project, place, base(status(debian, old="gcc-12-base")), "libgomp1")
    assert "needs gcc-12-base (= 12." in (said := refused(project))
    assert "the base has gcc-12-base 1.0" in said
    place(image_of("base", base(status(debian, more=there))), "docker-daemon")
    assert project.run("lock").returncode == 0
    assert added(project) == []
    # One that was removed, and left its settings, is not there.
    left = there.replace("install ok installed", "deinstall ok config-files")
    place(image_of("base", base(status(debian, more=left))), "docker-daemon")
    assert project.run("lock", "--upgrade").returncode == 0
    assert added(project) == ["libgomp1"]


@pytest.mark.parametrize(
    ("release", "why"),
    [
        ("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n", "is ubuntu noble, by its os-rel"),
        pytest.param("ID=debian\nVERSION_CODENAME=sid\n", "is debian sid", marks=pytest.mark.whole),
    ],
)
def test_packages_are_not_added_to_what_is_another_system(
    project: Tiny, place: Place, debian: Blob, shared_store: Path, release: str, why: str
) -> None:
    other = tar_blob(Store(shared_store), [("usr/lib/os-release", release.encode(), 0o644)])
    assert why in refused(wanting(project, place, [debian, other], "libgomp1"))


STATUS = """\
Package: here
Version: 1.0
Status: install ok installed

Package: left
Version: 1.0
Status: deinstall ok config-files
"""


def test_what_is_installed_is_read_where_dpkg_and_others_write_it() -> None:
    record = b"Package: recorded\nVersion: 2:1.0-1\n"
    files = {
        "var/lib/dpkg/status": STATUS.encode(),
        "var/lib/dpkg/status.d/recorded": record,
        "var/lib/dpkg/status.d/recorded.md5sums": b"Package: sums\nVersion: 1\n",
    }
    found = {path: data_entry(path, data) for path, data in files.items()}
    assert {*debian_installed.installed(found, "base")} == {"here", "recorded"}
    for wrong, why in ((b"Package: x\n", "is damaged"), (b"", "does not say which")):
        with pytest.raises(ClaimError, match=why):
            debian_installed.installed({"var/lib/dpkg/status": data_entry("status", wrong)}, "base")


def test_another_version_than_the_bases_is_not_put_over_it() -> None:
    here = Package("here", Version("1.0"), {})
    for relation, fits in (("here", True), ("here (>= 1.0)", True), ("here (= 1.1)", False)):
        added = {"new": Package("new", Version("3"), {"Depends": relation})}
        if fits:
            refuse_unmet(added, {"here": here})
            continue
        with pytest.raises(UsageError, match=r"new 3 needs here \(= 1.1\), .* has here 1.0"):
            refuse_unmet(added, {"here": here})
