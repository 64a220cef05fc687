"""Claims about other engines than this host's: containerd's store, podman, TLS, contexts, ssh.

The rows are those of docs/engines.md; Debian's trixie is unpacked for them in build/chroots.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import chroots
import docker
import engines
import pytest
from chroots import Chroot, or_skip
from conftest import Tiny
from engine_table import COLUMNS, ROWS, Row, context, ssh
from engines import Running
from registries import certified

from packager.errors import ClaimError, HostError
from packager.image import Image, bare
from packager.layers import tar
from packager.layers.making import Layer
from packager.outputs import packing
from packager.outputs.engine import Engine, connect
from packager.outputs.wire import RefusedError
from packager.store import Store

pytestmark = pytest.mark.xdist_group("engines")

QUICK = {
    "Docker, containerd's store, trixie, socket",
    "Docker, containerd's store, trixie, ssh",
    "Docker, classic store, trixie, context",
    "podman, trixie, socket",
}
OF_ALL = [
    pytest.param(row, id=row.name, marks=[] if row.name in QUICK else pytest.mark.whole)
    for row in ROWS
]


@pytest.mark.parametrize("row", OF_ALL)
def test_an_engine_does_what_is_asked(row: Row, tiny: Tiny, tmp_path: Path) -> None:
    expected = {
        "load": "yes",
        "partial load": "1 of 5 layers",
        "verify": "with its manifest" if row.containerd else "yes",
        "smoke": "passed anew" if row.podman else "passed before",
        "identity": row.identity,
        "predict": "yes",
    }
    if row.way in {context, ssh}:  # for the rest, the way makes no difference
        expected = {name: expected[name] for name in ("load", "predict")}
    with or_skip(), row.trial(tiny.root, tiny.store, tmp_path) as trial:
        assert {name: COLUMNS[name](trial) for name in expected} == expected


@pytest.fixture(scope="module")
def root() -> Iterator[Chroot]:
    with or_skip(), chroots.engines("trixie") as made:
        yield made


# --- containerd's store --------------------------------------------------------------------


@pytest.fixture(scope="module")
def containerd(root: Chroot) -> Iterator[Running]:
    with engines.docker(root, containerd=True) as running:
        yield running


@pytest.fixture
def there(containerd: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("DOCKER_HOST", containerd.host)
    return connect(Store(tmp_path / "store"))


def layer(store: Store, name: str) -> Layer:
    entry = tar.data_entry(name, secrets.token_bytes(1000))
    blob = store.add(lambda out: tar.write(tar.merge([entry]), out))
    return Layer("wheels", name, 1, blob, cached=False)


def layers_held(engine: Engine, image: Image, folder: Path) -> int:
    """Count the layers that an engine gives back, which alone shows what it has."""
    path = folder / "saved.tar"
    path.write_bytes(b"".join(engine.save(engine.id_of(image))))
    blobs = {f"blobs/sha256/{blob.sha256}" for blob in engine._packed(image).layers}
    return len(blobs & {member.name for member in tar.members(path, "it")})


def test_an_image_without_its_layers_is_not_believed(there: Engine, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    image = bare([layer(store, "a"), layer(store, "b")], "linux/amd64")
    with pytest.raises(RefusedError):
        there._wire.load(there._packed(image).stream(1))
    assert there.find(there.id_of(image))
    assert layers_held(there, image, tmp_path) < 2
    loaded = there.load(image)
    assert (loaded.sent, loaded.existed) == (2, True)
    assert layers_held(there, image, tmp_path) == 2
    assert there.load(image).sent == 0


def test_an_image_whose_layers_went_while_it_came_is_sent_whole(
    there: Engine, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    below = [layer(store, "a"), layer(store, "b")]
    lower, whole = bare(below, "linux/amd64"), bare([*below, layer(store, "c")], "linux/amd64")

    class Turn:
        """The moment at which all but the end of the archive is sent."""

        def wait(self) -> None:
            there.remove(there.id_of(lower))

    there.load(lower)
    # In the same chain, from somebody whose compressor is another: the engine misses nothing.
    there._wire.load(packing.for_classic(bare(below, "linux/amd64"), None).stream(0))
    assert there.known(whole) == 2
    loaded = there.load(whole, turn=Turn())  # type: ignore[arg-type]
    assert loaded.sent == 3
    assert layers_held(there, whole, tmp_path) == 3


def test_an_image_that_predicts_wrongly_is_gone_again(
    containerd: Running, tiny: Tiny, tmp_path: Path
) -> None:
    tiny.edit("pyproject.toml", 'description = "A factor"', f'description = "{tmp_path}"')
    tiny.edit("models/examples.json", "-5.0", "-5.5")
    done = containerd.packager(tiny.root, tiny.store, "build", "-t", "wrong:1")
    assert done.returncode == ClaimError.exit_code
    assert "does not predict what was recorded" in done.stderr
    with contextlib.closing(docker.DockerClient(base_url=containerd.host)) as client:
        for one in client.images.list(all=True):
            assert one.labels.get("org.opencontainers.image.description") != str(tmp_path)
            assert "wrong:1" not in one.tags


# --- Ways ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(root: Chroot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An engine that shows and wants a certificate."""
    own = certified(tmp_path_factory.mktemp("own"))
    with engines.docker(root, certificate=own) as running:
        yield running


def test_a_certificate_of_somebody_else_opens_nothing(
    guarded: Running, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "client").mkdir()
    engines.certificate_files(certified(tmp_path), tmp_path / "client")
    way = {"DOCKER_HOST": engines.TLS_HOST, "DOCKER_CERT_PATH": str(tmp_path / "client")}
    for verify, why in (("1", "CERTIFICATE_VERIFY_FAILED"), ("", "alert")):
        done = guarded.packager(
            tiny.root, tiny.store, "info", "tiny:1", DOCKER_TLS_VERIFY=verify, **way
        )
        assert done.returncode == HostError.exit_code
        assert why in done.stderr
        assert "Traceback" not in done.stderr


def test_whom_ssh_does_not_let_in_is_said_in_its_words(
    guarded: Running, root: Chroot, tiny: Tiny
) -> None:
    with engines.ssh(guarded, root) as way:
        way["DOCKER_HOST"] = way["DOCKER_HOST"].replace("root@", "sshd@")
        done = guarded.packager(tiny.root, tiny.store, "info", "tiny:1", **way)
    assert done.returncode == HostError.exit_code
    assert "DOCKER_HOST: " in done.stderr
    assert "Permission denied" in done.stderr
