"""Third-party readers take the archive, and say the digests that packager said.

Each comes from a Debian release in a chroot: of bookworm engine 20.10, podman 4 and skopeo
1.9, of trixie engine 26, podman 5 and skopeo 1.18, of forky later ones.  The quick part of the
claim, this host's own engine and the layout's digests, is in `test_build.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import engines
import pytest
from chroots import Chroot, chroot, or_skip
from conftest import run_packager

from packager.layers import tar

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("chroots")]

SUITES = {"bookworm": 20, "trixie": 26, "forky": 28}
STORES = [
    pytest.param(suite, store, id=f"{suite}-{store}")
    for suite, major in SUITES.items()
    for store in ("classic", "containerd")
    if store == "classic" or major >= 26
]


@dataclass
class Archive:
    """What packager wrote, what it said of it, and a twin with one byte flipped in a layer."""

    path: Path
    damaged: Path
    id: str
    manifest: str
    folder: Path


@pytest.fixture(scope="module")
def archive(
    locked_tiny: Path, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Archive:
    folder = tmp_path_factory.mktemp("archive")
    path, damaged = folder / "image.tar", folder / "damaged.tar"
    words = ("build", "--json", "--no-load", "-o", str(path))
    run = run_packager(locked_tiny, shared_store, *words)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    shutil.copy(path, damaged)
    with tarfile.open(path) as members, damaged.open("r+b") as stream:
        largest = max(members, key=lambda member: member.size)
        stream.seek(largest.offset_data + largest.size // 2)
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))
    return Archive(path, damaged, told["id"], told["manifest"], folder)


@pytest.fixture(scope="module", params=SUITES)
def root(request: pytest.FixtureRequest) -> Iterator[Chroot]:
    with or_skip(), chroot(request.param) as made:
        yield made


def said(root: Chroot, archive: Archive, *command: str) -> str:
    return root.run(command, shared=[archive.folder], cwd=archive.folder).stdout


def refused(root: Chroot, archive: Archive, *command: str) -> bool:
    done = root.run(command, shared=[archive.folder], cwd=archive.folder, check=False)
    return done.returncode != 0


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture
def target(archive: Archive) -> Iterator[Path]:
    """A folder that a reader may fill."""
    folder = archive.folder / "target"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


# --- skopeo ----------------------------------------------------------------------------------

SKOPEO = ("skopeo", "--insecure-policy", "copy", "--preserve-digests")


def test_skopeo_inspects_it(root: Chroot, archive: Archive) -> None:
    told = json.loads(said(root, archive, "skopeo", "inspect", f"oci-archive:{archive.path}"))
    assert told["Digest"] == archive.manifest
    raw = ("skopeo", "inspect", "--config", "--raw")
    for kind in ("oci-archive", "docker-archive"):
        config = said(root, archive, *raw, f"{kind}:{archive.path}")
        assert f"sha256:{hashlib.sha256(config.encode()).hexdigest()}" == archive.id


def test_skopeo_copies_it_and_keeps_its_digests(
    root: Chroot, archive: Archive, target: Path
) -> None:
    source = f"oci-archive:{archive.path}"
    said(root, archive, *SKOPEO, source, f"dir:{target}")
    assert sha256(target / "manifest.json") == archive.manifest
    shutil.rmtree(target)
    said(root, archive, *SKOPEO, source, f"oci:{target}:copy")
    (entry,) = json.loads((target / "index.json").read_text())["manifests"]
    assert entry["digest"] == archive.manifest


def test_skopeo_copies_the_docker_archive_in_it(
    root: Chroot, archive: Archive, target: Path
) -> None:
    """That form has no manifest, so the image ID is what can be kept."""
    said(root, archive, *SKOPEO, f"docker-archive:{archive.path}", f"dir:{target}")
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["config"]["digest"] == archive.id


def test_skopeo_refuses_a_damaged_one(root: Chroot, archive: Archive, target: Path) -> None:
    assert refused(root, archive, *SKOPEO, f"oci-archive:{archive.damaged}", f"dir:{target}")


# --- umoci -----------------------------------------------------------------------------------


def unpacked(archive: Path, folder: Path) -> str:
    with tarfile.open(archive) as members:
        members.extractall(folder, filter="data")
    return f"{folder}:0.1.0"


def test_umoci_unpacks_it(root: Chroot, archive: Archive, target: Path) -> None:
    layout = unpacked(archive.path, target / "layout")
    said(root, archive, "umoci", "unpack", "--image", layout, str(target / "bundle"))
    model = target / "bundle/rootfs/srv/packager/model/model.txt"
    assert model.read_bytes() == b"2.5\n"
    assert (model.stat().st_uid, model.stat().st_mtime) == (0, tar.MTIME)
    assert (target / "bundle/rootfs/bin").readlink() == Path("usr/bin")
    assert list((target / "bundle").glob(f"{archive.manifest.replace(':', '_')}*.mtree"))


def test_umoci_refuses_a_damaged_one(root: Chroot, archive: Archive, target: Path) -> None:
    layout = unpacked(archive.damaged, target / "layout")
    assert refused(root, archive, "umoci", "unpack", "--image", layout, str(target / "bundle"))


# --- podman ----------------------------------------------------------------------------------


def podman(folder: Path) -> tuple[str, ...]:
    """Give podman a store of its own; and runc: crun refuses hosts with both cgroup versions."""
    # Of the chroot's own, for podman 4.3 takes no path of more than 50 characters.
    running = f"/run/{hashlib.sha256(bytes(folder)).hexdigest()[:8]}"
    stores = ("--root", f"{folder}/root", "--runroot", running, "--storage-driver", "vfs")
    return ("podman", *stores, "--runtime", "runc")


def test_podman_loads_and_runs_it(root: Chroot, archive: Archive, target: Path) -> None:
    said(root, archive, *podman(target), "load", "-i", str(archive.path))
    inspect = ("image", "inspect", "--format", "{{.Id}} {{.Digest}}", "tiny:0.1.0")
    name, digest = said(root, archive, *podman(target), *inspect).split()
    assert (f"sha256:{name.removeprefix('sha256:')}", digest) == (archive.id, archive.manifest)
    sealed = ("run", "--rm", "--network=none", "--read-only")
    assert "passed" in said(root, archive, *podman(target), *sealed, "tiny:0.1.0", "selftest")


def test_podman_refuses_a_damaged_one(root: Chroot, archive: Archive, target: Path) -> None:
    assert refused(root, archive, *podman(target), "load", "-i", str(archive.damaged))


# --- Docker ----------------------------------------------------------------------------------


def uses_containerd(client: docker.DockerClient) -> bool:
    return ["driver-type", "io.containerd.snapshotter.v1"] in client.info()["DriverStatus"]


@pytest.mark.parametrize(("root", "store"), STORES, indirect=["root"])
def test_docker_loads_and_runs_it(root: Chroot, store: str, archive: Archive) -> None:
    containerd = store == "containerd"
    with (
        engines.docker(root, containerd=containerd) as engine,
        contextlib.closing(docker.DockerClient(base_url=engine.host)) as client,
    ):
        assert int(client.version()["Version"].split(".")[0]) >= SUITES[root.suite]
        assert uses_containerd(client) is containerd
        assert proved(client, archive.damaged) is None
        image = proved(client, archive.path)
        assert image is not None
        # On containerd's store an image is known by its manifest, on the classic one by its config.
        assert image.id == (archive.manifest if containerd else archive.id)
        digests = [f"tiny@{archive.manifest}"] if containerd else []
        assert image.attrs["RepoDigests"] == digests


def proved(client: docker.DockerClient, archive: Path) -> Any:
    """Load an archive and run its image; None where the engine refuses the one or the other."""
    refusals = (docker.errors.APIError, docker.errors.ImageLoadError)
    with contextlib.suppress(*refusals), archive.open("rb") as stream:
        client.images.load(stream)
    # Newer engines keep the name of an image on containerd's store that they could not unpack.
    for image in client.images.list(name="tiny:0.1.0"):
        sealed: dict[str, Any] = {"network_mode": "none", "read_only": True, "remove": True}
        with contextlib.suppress(*refusals):
            assert b"passed" in client.containers.run("tiny:0.1.0", "selftest", **sealed)
            return image
    return None
