"""Claims about networks as people have them: a proxy that wants a login, a CA of the lab's own,
a private index beside the public one, both behind paths, a mirror of Debian; and none at all.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lab
import pytest
from conftest import git, write_tiny, write_wheel
from registries import serving

from packager import net
from packager.errors import HostError
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
