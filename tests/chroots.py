"""Other Debian releases in a folder, each with this checkout's packager in its own Python.

    with chroot("trixie") as root:
        done = root.run([root.packager, "verify", "image.tar"], cwd=folder, shared=[folder])

`shared` folders appear inside under the paths that they have outside.  Everything is mounted
in a namespace of the one command (unshare(1)), so that no mount and no process is left behind,
however it ends.  Needs root on Debian; raises `UnavailableError` elsewhere, which `or_skip` turns
into a skipped test.  The chroots lie in build/chroots, each in one process's use at a time.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from packager import net
from packager.lock import apt_sources

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "build" / "chroots"

_PACKAGES = "ca-certificates docker.io git podman python3-venv runc skopeo umoci"
_ENGINES = (
    "bash ca-certificates coreutils docker.io iptables netavark nftables openssh-server podman runc"
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VENV = "/opt/packager"
_USERS = {
    "passwd": "root:x:0:0::/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
}

# What this host needs in order to reach the network is needed inside, too.
_SURROUNDINGS = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"),
    *("~/.config/pip/pip.conf", "~/.pip/pip.conf", "~/.netrc"),
)

# $1 is the root, then come shared paths up to --, then the command.  The root has to be a
# mount point itself, or containers started inside fail to pivot.
_ENTER = """
set -e
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$1"; else mkdir -p "$root${1%/*}"; touch "$root$1"; fi
    mount --bind "$1" "$root$1"; shift
done
shift
exec chroot "$root" "$@"
"""

# --kill-child and the namespace end what the command started; --pdeathsig ends the command
# with whoever started it.
CONTAINED = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
CONTAINED += ["--pid", "--fork", "--kill-child"]


class UnavailableError(Exception):
    """This host cannot provide what was asked for; the message says why."""


@dataclass(frozen=True)
class Chroot:
    """A Debian release in a folder; `packager` and `python` are paths inside."""

    suite: str
    root: Path
    packager: str = f"{_VENV}/bin/packager"
    python: str = f"{_VENV}/bin/python"

    def entering(self, shared: Sequence[Path] = ()) -> list[str]:
        """Give the words that, put before a command, run it inside."""
        given = [str(path) for path in shared]
        surroundings = (Path(one).expanduser() for one in _SURROUNDINGS)
        given += [str(path) for path in surroundings if path.is_file()]
        return [*CONTAINED, "sh", "-c", _ENTER, "sh", str(self.root), *given, "--"]

    def run(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path | str = "/",
        shared: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root and keep what it says."""
        words = [*self.entering(shared), "env", f"--chdir={cwd}", *map(str, command)]
        done = subprocess.run(
            words,
            env={**inner_environment(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command} in {self.suite}: {done.stdout}{done.stderr}")
        return done


@contextlib.contextmanager
def chroot(suite: str) -> Iterator[Chroot]:
    """Give a Debian release, made if it is not there, with the checkout's packager of now."""
    require_root_on_debian()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / f"{suite}.lock"):
        made = Chroot(suite, FOLDER / suite)
        bootstrap(made, _PACKAGES)
        _install_packager(made)
        yield made


@contextlib.contextmanager
def engines(suite: str) -> Iterator[Chroot]:
    """Give a release's engines alone: unpacked and not set up, in a quarter of the time."""
    require_root_on_debian()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / f"{suite}-engines.lock"):
        made = Chroot(suite, FOLDER / f"{suite}-engines")
        # Until bookworm, docker.io had the client in it.
        bootstrap(made, _ENGINES + " docker-cli" * (suite != "bookworm"), "extract")
        for name, users in _USERS.items():
            (made.root / "etc" / name).write_text(users)
        yield made


@contextlib.contextmanager
def or_skip() -> Iterator[None]:
    """Skip the test where this host cannot provide what it needs."""
    try:
        yield
    except UnavailableError as why:
        pytest.skip(str(why))


def require_root_on_debian() -> None:
    """Raise `UnavailableError` anywhere else."""
    if platform.system() != "Linux" or os.getuid() != 0:
        raise UnavailableError("only root on Linux can make a chroot")
    release = platform.freedesktop_os_release()
    if not {"debian", "ubuntu"} & {release["ID"], *release.get("ID_LIKE", "").split()}:
        raise UnavailableError("only on Debian or Ubuntu is anything installed for a test")


def install(package: str, *, needed: str = "") -> None:
    """Install one of the host's own packages where its command, or the file needed, is missing."""
    if shutil.which(package) or Path(needed or os.devnull).is_file():
        return
    require_root_on_debian()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    quiet = ["apt-get", "-y", "-qq", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300"]
    for words in (["update"], ["install", "--no-install-recommends", package]):
        done = subprocess.run(
            [*quiet, *words], env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise UnavailableError(f"{package} could not be installed: {done.stderr.strip()}")


def inner_environment() -> dict[str, str]:
    """Give this environment without what speaks of this host's Python, and the usual PATH."""
    unwanted = ("PYTHON", "VIRTUAL_ENV", "PYENV", "LD_", "PYTEST_", "DOCKER_", "XDG_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    return {**kept, "PATH": _PATH}


def bootstrap(made: Chroot, packages: str, variant: str = "apt") -> None:
    """Make a release with these packages, if it is not there; the variant is mmdebstrap's."""
    stamp = made.root.with_suffix(".made-from")
    if made.root.exists() and stamp.exists() and stamp.read_text() == packages:
        return
    install("mmdebstrap")
    shutil.rmtree(made.root, ignore_errors=True)
    wanted = f"--include={','.join(packages.split())}"
    apt = subprocess.run(
        ["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"], capture_output=True, check=True
    )
    options = made.root.with_suffix(".apt.conf")
    options.write_bytes(apt.stdout)
    done = subprocess.run(
        [
            *("mmdebstrap", f"--variant={variant}", wanted, f"--aptopt={options}"),
            *(made.suite, str(made.root), _archive_with(made.suite)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UnavailableError(f"mmdebstrap {made.suite} failed: {done.stderr.strip()[-500:]}")
    stamp.write_text(packages)


def _archive_with(suite: str) -> str:
    """Find a release where this host's own packages come from."""
    session = net.session()
    for archive in apt_sources.archives():
        if session.get(f"{archive}/dists/{suite}/InRelease").ok:
            return archive
    raise UnavailableError(f"none of this host's apt sources has {suite}")


def _install_packager(made: Chroot) -> None:
    if not (made.root / _VENV.lstrip("/") / "bin" / "python").is_symlink():
        made.run(["python3", "-m", "venv", _VENV])
    pip = [made.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    made.run([*pip, REPOSITORY], shared=[REPOSITORY])
