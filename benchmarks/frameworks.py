"""MLflow and BentoML: frameworks that bring a way to make images along, on a base with apt."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import venv
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

import engine
import measure
from measure import FailedError, Sample
from peers import Peer, size
from projects import INPUTS, Indexes, Project

SLIM = "benchmark-slim"
SUITE = "bookworm"
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
_UNPINNED = ("opentelemetry-api",)  # BentoML's own requirements want another release of it
_DOCKERFILE = f"""\
FROM {SLIM}-bare
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY pip.conf /etc/pip.conf
COPY uv.toml /etc/uv/uv.toml
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
RUN ln -s python3 /usr/bin/python
"""
_PIP = "break-system-packages = true\nroot-user-action = ignore\n"


class Framework(Peer):
    """A framework in an environment of its own."""

    name: str

    def __init__(self, folder: Path) -> None:
        """Install it; its docker command is one that lets builds use the host's network."""
        self.folder = folder / self.name
        self.bin = self.folder / "environment" / "bin"
        wishes = INPUTS.parent / f"requirements-{self.name}.txt"
        made_from = self.folder / "made-from"
        if not made_from.exists() or made_from.read_text() != wishes.read_text():
            venv.create(self.bin.parent, clear=True, with_pip=True)
            quiet = ("-q", "--disable-pip-version-check")
            measure.run([self.bin / "python", "-m", "pip", "install", *quiet, "-r", wishes])
            made_from.write_text(wishes.read_text())
        wrapper = self.folder / "docker"
        shutil.copyfile(INPUTS / "docker", wrapper)
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        self.env = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "BENCHMARK_DOCKER": engine.builder(),
        }

    @abstractmethod
    def build(self, project: Project) -> Sample:
        """Build as its manual says."""

    def _run(self, *command: str | Path, cwd: Path) -> float:
        return measure.run([self.bin / command[0], *command[1:]], cwd, self.env).value

    def forget_all(self) -> None:
        """Remove its images, and what the builder remembers."""
        engine.remove_images(f"{self.name}-")
        engine.docker("builder", "prune", "-af")

    def remember(self, project: Project) -> None:
        """Do nothing: the builder keeps what it knows."""

    def forget_since(self, project: Project, package: str) -> None:
        """Do nothing: it takes no part where that counts."""

    def base_size(self, project: Project) -> int:  # noqa: ARG002
        """Give the size of the image that it builds on."""
        return size(SLIM)


class MLflow(Framework):
    """MLflow: a model is saved in its format, `mlflow models build-docker` makes the image."""

    name = "mlflow"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.saved: dict[Path, str] = {}

    def forget_all(self) -> None:
        """Forget what was saved, too."""
        super().forget_all()
        self.saved.clear()

    def build(self, project: Project) -> Sample:
        """Save the model if it is another one, and build."""
        model, target = project.root / project.variant.model, self.folder / project.variant.key
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        took = 0.0
        if self.saved.get(target) != digest:
            shutil.rmtree(target, ignore_errors=True)
            script, pins = INPUTS / "save.py", project.root / "requirements.txt"
            took += self._run("python", script, model, pins, target, cwd=self.folder)
            self.saved[target] = digest
        words = ("models", "build-docker", "--env-manager", "local", "-m", target)
        return Sample(
            took + self._run("mlflow", *words, "-n", self.tag(project), cwd=self.folder), 0.0
        )


class BentoML(Framework):
    """BentoML: `bentoml build` collects a bento, `bentoml containerize` makes the image."""

    name = "bentoml"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env |= {"BENTOML_HOME": str(self.folder / "home"), "BENTOML_DO_NOT_TRACK": "true"}

    def build(self, project: Project) -> Sample:
        """Build the bento, and its image."""
        root = project.root
        pins = [one for one in project.pins() if one.partition("==")[0] not in _UNPINNED]
        (root / "requirements-bentoml.txt").write_text("\n".join(pins) + "\n")
        took = self._run("bentoml", "build", cwd=root)
        words = ("bentoml", "containerize", "peers:latest", "-t", self.tag(project))
        return Sample(took + self._run(*words, cwd=root), 0.0)


def pins() -> dict[str, str]:
    """Give the releases that are compared."""
    found = {}
    for kind in (MLflow, BentoML):
        first, *_ = (INPUTS.parent / f"requirements-{kind.name}.txt").read_text().splitlines()
        found[kind.__name__] = first.partition("==")[2]
    return found


def prepare(
    names: Iterable[str], folder: Path, indexes: Indexes, authorities: str
) -> tuple[list[Framework], dict[str, str]]:
    """Make the base with apt and the environments; give those that work, and why others do not."""
    made: list[Framework] = []
    left_out = {}
    for kind in (MLflow, BentoML):
        if kind.name in names:
            try:
                if not engine.docker("images", "-q", SLIM):
                    _slim(folder, indexes, authorities)
                made.append(kind(folder))
            except (FailedError, FileNotFoundError) as error:
                left_out[kind.__name__] = str(error).splitlines()[-1]
    return made, left_out


def _slim(folder: Path, indexes: Indexes, authorities: str) -> None:
    """Make what a hub has as python:3.11-slim, with mmdebstrap."""
    bare = folder / "slim.tar"
    if not bare.exists():
        words: list[str | Path] = ["--variant=minbase", f"--include={PACKAGES}", SUITE, bare]
        measure.run(["mmdebstrap", *words])
    engine.docker("import", bare, f"{SLIM}-bare")
    files = {
        "ca.crt": Path(authorities).read_bytes(),
        "pip.conf": (indexes.for_pip() + _PIP).encode(),
        "uv.toml": indexes.for_uv().encode(),
    }
    engine.build_from(_DOCKERFILE, files, SLIM)
    engine.docker("tag", SLIM, f"python:{platform.python_version()}-slim")
