"""Claims about networks as people have them: a proxy that wants a login, a CA of the lab's own,
a private index beside the public one, both behind paths, a mirror of Debian; and none at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lab
import pytest
from conftest import git, write_tiny, write_wheel
from registries import Certificate, Running, basic, running, serving

from packager import net
from packager.errors import ClaimError, HostError, UsageError
from packager.lock import debian, places
from packager.store import Store

if TYPE_CHECKING:
    from debian_fixtures import Mirror

pytest_plugins = ["debian_fixtures"]
pytestmark = pytest.mark.xdist_group("networks")

LOCKS = ("requirements.txt", "packager.lock")
OF_THIS_MACHINE = ("PIP_", "UV_", "XDG_", "SSL_", "REQUESTS_", "CURL_")
UNSEEN = (b"Kanarie", lab.DOMAIN.encode(), b"127.0.0.1")
"""What only the lab's settings say: passwords, names and addresses."""

WATCH = """\
import sys

def watch(event, given):
    if event.startswith(("socket.connect", "socket.get")) or (
        event == "subprocess.Popen" and "pip" in given[1]
    ):
        with open({log!r}, "a") as log:
            print(event, *given, file=log)

sys.addaudithook(watch)
"""


# --- The lab ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A project, and what its user has set."""

    root: Path
    store: Path
    environment: Mapping[str, str]
    prefix: tuple[str, ...] = ()

    def run(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        run = subprocess.run(
            [*self.prefix, sys.executable, "-m", "packager", *words],
            cwd=self.root,
            env={**self.environment, "PACKAGER_CACHE": str(self.store), **changed},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in run.stderr
        assert "Kanarie" not in run.stdout + run.stderr
        return run

    def built(self, *words: str, **changed: str) -> dict[str, object]:
        run = self.run("build", "--json", "--no-load", *words, **changed)
        assert run.returncode == 0, run.stderr
        told: dict[str, object] = json.loads(run.stdout)
        return told


def nobodys(home: Path) -> dict[str, str]:
    """Make the environment of somebody who has set nothing."""
    home.mkdir()
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OF_THIS_MACHINE) and not name.lower().endswith("_proxy")
    }
    return own | {"HOME": str(home), "PIP_CONFIG_FILE": "/dev/null", "NO_COLOR": "1"}


def watched(folder: Path) -> tuple[dict[str, str], Path]:
    """Have a Python note whom it calls, and when it runs pip."""
    log = folder / "called"
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH.format(log=str(log)))
    return {"PYTHONPATH": str(folder / "watch")}, log


@pytest.fixture(scope="module")
def archive(recorded: Mapping[str, bytes], shared_store: Path) -> Iterator[Mirror]:
    """A mirror of Debian that has the packages, too."""
    from debian_fixtures import Mirror

    made = Mirror()
    made.bodies.update(recorded)
    with serving(made.server):
        session = net.session()
        pins = debian.resolve("bookworm", "amd64", [], session=session, mirror=made.address)
        blobs = Store(shared_store).fetch(places.packages(pins, ""))
        for pin in pins.packages:
            made.bodies[f"/{pin.file}"] = blobs[pin.sha256].path.read_bytes()
        yield made


@dataclass(frozen=True)
class Lab:
    """A locked project in a lab."""

    place: Place
    proxy: lab.Proxy
    authority: lab.Authority
    settings: Path

    def changed(self, folder: Path, old: str, new: str) -> dict[str, str]:
        """Change pip's settings."""
        text = self.settings.read_text()
        assert old in text
        (folder / "pip.conf").write_text(text.replace(old, new))
        return {"PIP_CONFIG_FILE": str(folder / "pip.conf")}

    def unresolved(self, folder: Path) -> Place:
        """Copy the project, its base locked and its requirements to be found anew."""
        root = folder / "project"
        shutil.copytree(self.place.root, root)
        (root / "requirements.txt").unlink()
        quick = {"PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0"}
        return Place(root, self.place.store, {**self.place.environment, **quick})


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, archive: Mirror) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    authority = lab.Authority.made(folder / "ca")
    write_wheel("labdep", folder=folder / "public")
    write_wheel("labtool", requires=("labdep",), folder=folder / "private")
    root, settings = folder / "project", folder / "pip.conf"
    write_tiny(root, "tinylab")
    with (
        lab.indexes(authority, folder / "public", folder / "private") as port,
        lab.proxy(folder / "proxy") as proxy,
    ):
        settings.write_text(f"""\
[global]
index-url = https://index.{lab.DOMAIN}:{port}/public/pypi/simple/
extra-index-url = https://{lab.LOGIN}team.{lab.DOMAIN}:{port}/team/a/simple/
find-links =
proxy = {proxy.address()}
cert = {authority.certificate}
""")
        address = f"http://archive.{lab.DOMAIN}:{archive.server.server_port}/mirrors/debian"
        text = (root / "pyproject.toml").read_text()
        text = text.replace("dependencies = []", 'dependencies = ["labtool"]')
        (root / "pyproject.toml").write_text(f'{text}debian-mirror = "{address}"\n')
        # What is set for all programs leads nowhere; what is set for pip counts more.
        nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
        environment = nobodys(folder / "home") | nowhere | {"PIP_CONFIG_FILE": str(settings)}
        place = Place(root, folder / "store", environment)
        run = place.run("lock")
        assert run.returncode == 0, run.stderr
        git(root, "init", "-q")
        git(root, "add", "-A")
        git(root, "commit", "-qm", "Tiny, locked in a lab")
        yield Lab(place, proxy, authority, settings)


def test_all_that_a_lock_names_is_found_through_the_proxy(network: Lab) -> None:
    lock = (network.place.root / "packager.lock").read_text()
    assert 'file = "labtool-1.0-py3-none-any.whl"' in lock
    assert 'file = "labdep-1.0-py3-none-any.whl"' in lock
    log = network.proxy.log.read_text()
    assert {*re.findall(r"(?:CONNECT |GET )([\w.]+):", log)} == {
        f"{name}.{lab.DOMAIN}" for name in ("index", "team", "archive")
    }
    assert "/mirrors/debian-security/pool/updates/" in log
    for name in LOCKS:
        data = (network.place.root / name).read_bytes()
        assert not [one for one in UNSEEN if one in data]


@pytest.mark.parametrize("resolver", ["pip-tools", "uv"])
def test_pips_certificates_are_trusted_beside_the_systems(
    resolver: str, network: Lab, tmp_path: Path
) -> None:
    place = network.unresolved(tmp_path)
    with (place.root / "pyproject.toml").open("a") as file:
        file.write(f'resolver = "{resolver}"\n')
    other = lab.Authority.made(tmp_path / "other").certificate
    (tmp_path / "home").mkdir()
    other.rename(tmp_path / "home" / "ca.pem")
    settings = network.changed(tmp_path, str(network.authority.certificate), "~/ca.pem")
    settings |= {"HOME": str(tmp_path / "home")}
    run = place.run("lock", **settings, SSL_CERT_FILE=str(network.authority.certificate))
    assert run.returncode == 0, run.stderr
    for name in LOCKS:
        assert (place.root / name).read_text() == (network.place.root / name).read_text()


Change = Callable[[Lab, Path], dict[str, str]]


def without_ca(network: Lab, folder: Path) -> dict[str, str]:
    return network.changed(folder, f"cert = {network.authority.certificate}", "cert =")


def with_a_wrong_ca(network: Lab, folder: Path) -> dict[str, str]:
    return network.changed(folder, str(network.authority.certificate), str(network.settings))


def with_no_file_for_a_ca(network: Lab, folder: Path) -> dict[str, str]:
    return network.changed(folder, str(network.authority.certificate), "/nowhere/ca.pem")


def without_login(network: Lab, folder: Path) -> dict[str, str]:
    return network.changed(folder, lab.LOGIN, "")


def with_a_wrong_login_at_the_proxy(network: Lab, folder: Path) -> dict[str, str]:
    right = network.proxy.address()
    return network.changed(folder, right, network.proxy.address("Kanarie, but another"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_ca, f"index.{lab.DOMAIN}.*certificate verify failed"),
        (with_a_wrong_ca, "pip.conf: no certificates can be read from it"),
        (with_no_file_for_a_ca, "pip's setting cert: there is no file /nowhere/ca.pem"),
        (without_login, f"https://team.{lab.DOMAIN}.*401"),
        (with_a_wrong_login_at_the_proxy, "407 Proxy Authentication Required"),
    ],
)
def test_what_is_not_let_through_says_who_refuses(
    change: Change, says: str, network: Lab, tmp_path: Path
) -> None:
    place = network.unresolved(tmp_path)
    run = place.run("lock", **change(network, tmp_path))
    assert run.returncode == HostError.exit_code, run.stderr
    assert re.search(says, run.stderr), run.stderr
    assert not (place.root / "requirements.txt").exists()


def test_nobody_waits_for_a_login_that_nobody_was_asked_for(network: Lab, tmp_path: Path) -> None:
    """Pip would ask on standard output, which is read by packager, and wait for an answer."""
    place = network.unresolved(tmp_path)
    master, terminal = pty.openpty()
    try:
        run = subprocess.run(
            [sys.executable, "-m", "packager", "lock"],
            cwd=place.root,
            env={
                **place.environment,
                **without_login(network, tmp_path),
                "PACKAGER_CACHE": str(place.store),
            },
            stdin=terminal,
            capture_output=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert run.returncode == HostError.exit_code
    assert b"401" in run.stderr


# --- No network at all ------------------------------------------------------------------------


@dataclass(frozen=True)
class Carried:
    """What was built in the lab, its wheels fetched once more, and what is carried away."""

    built: Mapping[str, object]
    bundle: Path


@pytest.fixture(scope="module")
def carried(network: Lab, tmp_path_factory: pytest.TempPathFactory) -> Carried:
    folder = tmp_path_factory.mktemp("carried")
    watch, log = watched(folder)
    for pin in re.findall(r'whl"\nsize = \d+\nsha256 = "(\w+)"', lock_of(network.place)):
        (network.place.store / "blobs" / pin).unlink()
    built = network.place.built("-o", str(folder / "image.tar"), **watch)
    called = log.read_text()  # who watches, sees
    assert "socket.connect" in called
    assert "subprocess.Popen" in called
    bundle = folder / "stick.tar"
    run = network.place.run("bundle", "-o", str(bundle))
    assert run.returncode == 0, run.stderr
    assert "55 files for linux/amd64" in run.stdout
    return Carried(built, bundle)


def test_a_push_goes_through_the_lab_too(carried: Carried, network: Lab, tmp_path: Path) -> None:
    certificate = Certificate(network.authority.key, network.authority.chain)
    with running(tmp_path / "registry", certificate, basic(tmp_path)) as answering:
        name = f"registry.{lab.DOMAIN}:{answering.address.partition(':')[2]}"
        registry = Running(name, answering.folder, certificate)
        registry.log_in()
        push = ("push", "--no-smoke", "--json", f"{name}/lab/tiny:1")
        login = {"DOCKER_CONFIG": registry.environment["DOCKER_CONFIG"]}
        wrong = with_a_wrong_login_at_the_proxy(network, tmp_path)
        refused = network.place.run(*push, **login, **wrong)
        assert refused.returncode == HostError.exit_code
        assert "407 Proxy Authentication Required" in refused.stderr
        run = network.place.run(*push, **login)
        assert run.returncode == 0, run.stderr
        manifest = json.loads(run.stdout)["pushed"]["manifest"]
        assert manifest == carried.built["manifest"]
        assert registry.blob(manifest.removeprefix("sha256:")).exists()


def lock_of(place: Place) -> str:
    return (place.root / "packager.lock").read_text()


@pytest.fixture
def nowhere(network: Lab, tmp_path: Path) -> Place:
    """A clone, where there is no route to anybody, and nothing was ever fetched or set."""
    prefix = ("unshare", *(() if os.getuid() == 0 else ("--map-root-user",)), "--net")
    can = shutil.which("unshare") and not subprocess.run([*prefix, "true"], check=False).returncode
    if not can and "CI" not in os.environ:
        pytest.skip("no network namespace can be made here")
    call = f"import socket; socket.create_connection(('127.0.0.1', {network.proxy.port}))"
    subprocess.run([sys.executable, "-c", call], check=True)
    called = subprocess.run([*prefix, sys.executable, "-c", call], capture_output=True, check=False)
    assert b"Network is unreachable" in called.stderr
    git(tmp_path, "clone", "-q", str(network.place.root), "clone")
    return Place(tmp_path / "clone", tmp_path / "store", nobodys(tmp_path / "home"), prefix)


def test_a_bundle_is_a_function_of_the_lock_and_holds_nothing_else(
    carried: Carried, network: Lab, tmp_path: Path
) -> None:
    again = tmp_path / "again.tar"
    told = json.loads(network.place.run("bundle", "--json", "-o", str(again)).stdout)
    assert told == {
        "bundle": str(again),
        "files": 55,
        "size": again.stat().st_size,
        "platforms": ["linux/amd64"],
    }
    assert again.read_bytes() == carried.bundle.read_bytes()
    with tarfile.open(again) as tar:
        files = {one.name: tar.extractfile(one).read() for one in tar if one.isreg()}  # type: ignore[union-attr]
    assert sorted(files) == sorted(
        f"blobs/sha256/{one}"
        for one in re.findall(r'^sha256 = "(\w+)"', lock_of(network.place), re.MULTILINE)
    )
    for name, data in files.items():
        assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    assert not [one for one in UNSEEN if one in again.read_bytes()]


def test_without_a_network_a_bundle_gives_the_same_image(
    carried: Carried, nowhere: Place, tmp_path: Path
) -> None:
    watch, log = watched(tmp_path)
    image = str(tmp_path / "image.tar")
    refused = nowhere.run("build", "--offline", "--no-load", "-o", image, **watch)
    assert refused.returncode == HostError.exit_code
    assert "base-files_" in refused.stderr
    assert "50 more" in refused.stderr
    assert "packager bundle" in refused.stderr
    assert not Path(image).exists()
    there = nowhere.built("--bundle", str(carried.bundle), "-o", image, **watch)
    assert (there["id"], there["manifest"]) == (carried.built["id"], carried.built["manifest"])
    again = nowhere.built("--offline", "-o", image, **watch)
    assert again["manifest"] == carried.built["manifest"]
    assert not log.exists(), log.read_text()
    verified = nowhere.run("verify", image)
    assert verified.returncode == 0, verified.stderr


def change_a_byte(bundle: bytes) -> bytes:
    middle = len(bundle) // 2
    return bundle[:middle] + bytes([bundle[middle] ^ 1]) + bundle[middle + 1 :]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_a_byte, "holds other bytes than the lock names"),
        (lambda bundle: bundle[: len(bundle) // 2], "a tar that is damaged"),
        (lambda _: b"", "a tar that is damaged"),
    ],
)
def test_a_damaged_bundle_is_refused(
    change: Callable[[bytes], bytes],
    says: str,
    carried: Carried,
    nowhere: Place,
    tmp_path: Path,
) -> None:
    bundle, image = tmp_path / "stick.tar", tmp_path / "image.tar"
    bundle.write_bytes(change(carried.bundle.read_bytes()))
    run = nowhere.run("build", "--bundle", str(bundle), "--no-load", "-o", str(image))
    assert run.returncode == ClaimError.exit_code, run.stderr
    assert says in run.stderr
    assert not image.exists()


def test_a_bundle_of_another_lock_is_said_to_lack_what_it_lacks(
    carried: Carried, nowhere: Place
) -> None:
    lock = lock_of(nowhere)
    start = lock.index("sha256 = ", lock.index('name = "bash"')) + len('sha256 = "')
    (nowhere.root / "packager.lock").write_text(lock[:start] + "0" * 64 + lock[start + 64 :])
    run = nowhere.run("build", "--bundle", str(carried.bundle), "--no-load", "-o", "image.tar")
    assert run.returncode == HostError.exit_code
    assert "54 of the lock's 55 files" in run.stdout
    assert re.search(r"asked for it: bash_\S+$", run.stderr, re.MULTILINE), run.stderr


def test_a_bundle_is_for_platforms_of_the_lock(network: Lab, tmp_path: Path) -> None:
    bundle = tmp_path / "stick.tar"
    run = network.place.run("bundle", "--platform", "linux/arm64", "-o", str(bundle))
    assert run.returncode == UsageError.exit_code
    assert "the lock is for linux/amd64" in run.stderr
    assert not bundle.exists()


@pytest.mark.parametrize("word", ["--offline", "--bundle=pyproject.toml"])
def test_what_a_dockerfile_asks_for_cannot_be_kept_offline(word: str, network: Lab) -> None:
    run = network.place.run("build", "--dockerfile", word)
    assert run.returncode == UsageError.exit_code
    assert "not for --dockerfile" in run.stderr
