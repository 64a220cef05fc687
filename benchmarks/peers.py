"""Who builds: each peer knows how it builds a project, and how it is made to forget."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path

import docker
import engine
import measure
from measure import Sample
from projects import INPUTS, Project

BASE, BASE_BYTECODE, BASE_PIP = "benchmark-base", "benchmark-base-bytecode", "benchmark-base-pip"
TOOLS = "benchmark-tools"
SEALED = ("--network", "none", "--read-only", "--tmpfs", "/tmp")  # noqa: S108
PYTHON = "/usr/bin/python3.11"
_KEPT = "kept:"
_SETTLED = 2.5  # seconds


class Peer(ABC):
    """Somebody who builds images."""

    name: str
    model_folder: str
    before: Project
    """What was built before the rounds of a case, if anything was."""

    @abstractmethod
    def build(self, project: Project) -> Sample:
        """Build a project, or build it again."""

    @abstractmethod
    def forget_all(self) -> None:
        """Go back to where only the base is there: nothing fetched, nothing built."""

    @abstractmethod
    def remember(self, project: Project) -> None:
        """Note what is there now, `project` being built."""

    @abstractmethod
    def forget_since(self, project: Project, package: str) -> None:
        """Go back to what was noted: `project` was never built, `package` never fetched."""

    @abstractmethod
    def base_size(self, project: Project) -> int:
        """Give the bytes of the base that a project's image starts from."""

    def assemble(self, project: Project) -> Sample:
        """Make a project's layers out of what was fetched."""
        raise NotImplementedError

    def load(self, project: Project) -> Sample:
        """Give the engine what is assembled."""
        raise NotImplementedError

    def load_one(self, project: Project) -> Sample:
        """Give the engine one tiny layer that it has not seen."""
        raise NotImplementedError

    def load_changed(self, project: Project) -> Sample:
        """Give the engine those layers of a project that the one before does not have."""
        raise NotImplementedError

    def compile(self, project: Project) -> Sample:
        """Compile a project's modules, among other things or alone."""
        raise NotImplementedError

    def smoke(self, project: Project) -> Sample:
        """Test an image."""
        raise NotImplementedError

    def push(self, project: Project, address: str) -> Sample:
        """Push a built project to a registry without TLS."""
        raise NotImplementedError

    def tag(self, project: Project) -> str:
        """Name a project's image."""
        return f"{self.name}-{project.tag}"

    def size(self, project: Project) -> Sample:
        """Measure a project's image less its base, in MB."""
        return Sample((size(self.tag(project)) - self.base_size(project)) / 1e6, 0.0)

    def first_prediction(self, project: Project) -> Sample:
        """Start a project's image sealed, and take the time to its first prediction."""
        model = f"{self.model_folder}/{Path(project.variant.model).name}"
        command = ["docker", "run", "--rm", *SEALED, "--entrypoint", PYTHON, self.tag(project)]
        return measure.first_line([*command, "-m", "peers.first", model])

    def remove(self, project: Project) -> None:
        """Take a project's image out of the engine, if it is there."""
        if engine.docker("images", "-q", self.tag(project)):
            engine.docker("rmi", "-f", self.tag(project))


class Packager(Peer):
    """The packager of this repository, installed as a user has it."""

    name = "packager"
    model_folder = "/srv/packager/model"

    def __init__(self, command: Path, store: Path, seeds: Mapping[bool, Project]) -> None:
        self.command = command
        self.store = store
        self.seeds = seeds  # without and with bytecode: projects without dependencies
        known = store.parent / "base-files.json"  # an earlier run's fetches are not repeated
        self._back_to(
            {Path(one) for one in json.loads(known.read_text())} if known.exists() else set()
        )
        for seed in seeds.values():
            self._build(seed, seed.tag)
        self._settle(seeds.values())
        self.base_files = self._files()
        known.write_text(json.dumps(sorted(map(str, self.base_files))))
        self.noted = self.base_files

    def build(self, project: Project) -> Sample:
        """Build without the smoke test: the others test nothing."""
        return self._build(project, self.tag(project))

    def _build(self, project: Project, tag: str) -> Sample:
        words = ["build", "--no-smoke", "-t", tag]
        env = {**project.indexes.for_packager(), "PACKAGER_CACHE": str(self.store)}
        return measure.run([self.command, *words], project.root, env)

    def _settle(self, projects: Iterable[Project]) -> None:
        """Rest and build again: the store hashes files twice that were young when it did."""
        time.sleep(_SETTLED)
        for project in projects:
            self._build(project, project.tag)

    def forget_all(self) -> None:
        """Empty store and engine of all but the base."""
        self._back_to(self.base_files)
        self.forget_images()

    def forget_images(self) -> None:
        """Empty the engine of all but the base."""
        engine.remove_images(f"{self.name}-", _KEPT)

    def remember(self, project: Project) -> None:
        """Settle, keep the image under another name, and list the store."""
        time.sleep(_SETTLED)
        self.build(project)
        engine.docker("tag", self.tag(project), f"{_KEPT}{project.variant.key}")
        self.noted = self._files()

    def forget_since(self, project: Project, package: str) -> None:  # noqa: ARG002
        """Remove the files that came, the package's wheel among them."""
        self._back_to(self.noted)
        self.remove(project)

    def base_size(self, project: Project) -> int:
        """Give the size of the layers that every image shares."""
        return size(BASE_BYTECODE if project.variant.bytecode else BASE)

    def layers(self, project: Project, tag: str) -> list[Path]:
        """Find a built project's layers in the store, the base first."""
        said = subprocess.run(
            [self.command, "build", "--no-smoke", "--json", "-t", tag],
            cwd=project.root,
            env={**os.environ, "PACKAGER_CACHE": str(self.store)},
            check=True,
            stdout=subprocess.PIPE,
        )
        digests = [
            one["diff_id"].removeprefix("sha256:") for one in json.loads(said.stdout)["layers"]
        ]
        return [self.store / "blobs" / digest for digest in digests]

    def assemble(self, project: Project) -> Sample:
        """Keep the base and the wheels, and time what makes layers, without its start."""
        lock = tomllib.loads((project.root / "packager.lock").read_text())
        wheels = [one["sha256"] for one in lock["wheel"]]
        fetched = {path for path in self._files() if any(one in path.name for one in wheels)}
        self._back_to(self.base_files | fetched)
        script = Path(__file__).with_name("assemble.py")
        python = self.command.with_name("python")
        os.sync()
        said = subprocess.run(
            [python, script, project.root, self.store], check=True, stdout=subprocess.PIPE
        )
        return Sample(float(said.stdout), 0.0)

    def load(self, project: Project) -> Sample:
        """Build what is in the store and not in the engine."""
        self.forget_images()
        return self.build(project)

    def load_one(self, project: Project) -> Sample:
        """Build what has other code."""
        return self.build(project)

    def load_changed(self, project: Project) -> Sample:
        """Build it: the rest is there."""
        return self.build(project)

    def compile(self, project: Project) -> Sample:
        """Build with nothing to start from."""
        self.forget_all()
        return self.build(project)

    def smoke(self, project: Project) -> Sample:
        """Have the command tell how long it was from the container's start to the verdict."""
        words = [self.command, "smoke", "--json", self.tag(project)]
        said = subprocess.run(words, cwd=project.root, check=True, stdout=subprocess.PIPE)
        return Sample(json.loads(said.stdout)["seconds"]["container"], 0.0)

    def push(self, project: Project, address: str) -> Sample:
        """Push from the store, not from the engine."""
        words = ["push", "--no-smoke", "--insecure", f"{address}/pushed:{project.variant.key}"]
        env = {"PACKAGER_CACHE": str(self.store)}
        return measure.run([self.command, *words], project.root, env)

    def _files(self) -> set[Path]:
        return {path for path in self.store.rglob("*") if path.is_file()}

    def _back_to(self, files: set[Path]) -> None:
        for path in self._files() - files:
            path.unlink()


class Uv(Peer):
    """A Dockerfile by a skilled hand: BuildKit, uv inside, hashes, a cache mount."""

    name = "uv"
    model_folder = "/opt/models"

    def __init__(self) -> None:
        self.command = engine.builder()
        self.round = 0

    def build(self, project: Project) -> Sample:
        """Build its Dockerfile."""
        return self._docker_build("Dockerfile.uv", project.root, self._arguments(project), project)

    def _arguments(self, project: Project) -> dict[str, str]:
        if project.variant.bytecode:
            return {"BASE": BASE_BYTECODE, "BYTECODE": "--compile-bytecode"}
        return {}

    def _docker_build(
        self, file: str, context: Path, arguments: Mapping[str, str], project: Project | None
    ) -> Sample:
        words: list[str | Path] = ["build", "-q", "--network", "host", "-f", INPUTS / file]
        words += ["-t", self.tag(project)] if project else []
        for name, value in {"ROUND": str(self.round), **arguments}.items():
            words += ["--build-arg", f"{name}={value}"]
        return measure.run([self.command, *words, context], env={"DOCKER_BUILDKIT": "1"})

    def push(self, project: Project, address: str) -> Sample:
        """Have the engine push."""
        name = f"{address}/pushed:{project.variant.key}"
        engine.docker("tag", self.tag(project), name)
        took = measure.run(["docker", "push", "-q", name])
        engine.docker("rmi", name)
        return took

    def forget_all(self) -> None:
        """Empty the engine of its images, and the builder's cache."""
        engine.remove_images(f"{self.name}-")
        engine.docker("builder", "prune", "-af")

    def remember(self, project: Project) -> None:
        """Do nothing: BuildKit keeps what it knows."""

    def forget_since(self, project: Project, package: str) -> None:
        """Make its steps new ones, and take the package out of uv's cache."""
        self.round += 1
        self._docker_build("Dockerfile.forget", INPUTS, {"PACKAGE": package}, None)
        self.remove(project)

    def base_size(self, project: Project) -> int:
        """Give the size of the image that it builds on."""
        return size(BASE_BYTECODE if project.variant.bytecode else BASE)


class Pip(Peer):
    """A Dockerfile as most write it: the engine's old builder, through its SDK, and pip."""

    name = "pip"
    model_folder = "/opt/models"

    def __init__(self) -> None:
        self.client = docker.from_env(timeout=600).api

    def build(self, project: Project) -> Sample:
        """Build its Dockerfile; pip compiles bytecode, asked or not."""
        os.sync()
        begin = time.monotonic()
        for line in self.client.build(
            path=str(project.root),
            dockerfile=str(INPUTS / "Dockerfile.pip"),
            tag=self.tag(project),
            network_mode="host",
            rm=True,
            decode=True,
        ):
            if "error" in line:
                raise measure.FailedError(line["error"])
        return Sample(time.monotonic() - begin, 0.0)

    def forget_all(self) -> None:
        """Remove its images, and those without a name that served as a cache."""
        engine.remove_images(f"{self.name}-")
        engine.docker("image", "prune", "-f")

    def remember(self, project: Project) -> None:
        """Do nothing: the engine keeps what it knows."""

    def forget_since(self, project: Project, package: str) -> None:
        """Do nothing: it has no cache of packages, and takes no part where that counts."""

    def base_size(self, project: Project) -> int:  # noqa: ARG002
        """Give the size of the image that it builds on."""
        return size(BASE_PIP)


class Floor(Peer):
    """What tar, sha256sum and the engine need for the same bytes."""

    name = "floor"

    def __init__(self, ours: Packager, folder: Path) -> None:
        self.ours = ours
        self.tree, self.archive, self.out = (folder / one for one in ("tree", "image", "out"))
        self.changed = folder / "changed"

    def build(self, project: Project) -> Sample:  # noqa: ARG002
        """Build nothing."""
        return Sample(0.0, 0.0)

    def forget_all(self) -> None:
        """Remove what was unpacked."""
        shutil.rmtree(self.tree.parent, ignore_errors=True)

    def remember(self, project: Project) -> None:
        """Unpack packager's layers, and save its image."""
        self.tree.mkdir(parents=True)
        _, *layers = self.ours.layers(project, self.ours.tag(project))
        for layer in layers:
            measure.run(["tar", "-xf", layer, "-C", self.tree])
        engine.docker("save", "-o", self.archive, self.ours.tag(project))

    def forget_since(self, project: Project, package: str) -> None:
        """Do nothing: it takes no part where that counts."""

    def base_size(self, project: Project) -> int:  # noqa: ARG002
        """Give nothing."""
        return 0

    def assemble(self, project: Project) -> Sample:  # noqa: ARG002
        """Write a tar of the files, and hash it while it is written."""
        self.out.unlink(missing_ok=True)
        tar = f"tar -cf - -C '{self.tree}' . | tee '{self.out}' | sha256sum"
        return measure.run(["sh", "-c", tar])

    def load(self, project: Project) -> Sample:  # noqa: ARG002
        """Load the whole image; the engine has the base."""
        self.ours.forget_images()
        return measure.run(["docker", "load", "-q", "-i", self.archive])

    def load_one(self, project: Project) -> Sample:  # noqa: ARG002
        """Load an image that is nothing but such a layer."""
        self.out.write_bytes(engine.archive_of(os.urandom(9), {"floor:one": 1}))
        return measure.run(["docker", "load", "-q", "-i", self.out])

    def load_changed(self, project: Project) -> Sample:
        """Load an archive that leaves out what the engine has."""
        if not self.changed.exists():
            self._save_changed(project)
        self.ours.remove(project)
        return measure.run(["docker", "load", "-q", "-i", self.changed])

    def _save_changed(self, project: Project) -> None:
        self.ours.build(project)
        engine.docker("save", "-o", self.archive, self.ours.tag(project))
        before, after = (engine.layers(self.ours.tag(one)) for one in (self.before, project))
        pairs = zip(before, after, strict=False)
        known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        with tarfile.open(self.archive) as saved, tarfile.open(self.changed, "w") as changed:
            (image,) = json.load(saved.extractfile("manifest.json"))  # type: ignore[arg-type]
            for member in saved:
                if member.name not in image["Layers"][:known]:
                    changed.addfile(member, saved.extractfile(member))

    def compile(self, project: Project) -> Sample:  # noqa: ARG002
        """Compile what lies in the tree, tests left out, two modules at a time."""
        for folder in [*self.tree.rglob("__pycache__")]:
            shutil.rmtree(folder)
        # It fails where one module does, a template for example.
        compileall = f"{sys.executable} -m compileall -q -j 2 -x '/tests?/'"
        words = f"{compileall} --invalidation-mode unchecked-hash {self.tree} || true"
        return measure.run(["sh", "-c", words])


def size(tag: str) -> int:
    """Give the bytes of an image."""
    return int(engine.docker("image", "inspect", "-f", "{{.Size}}", tag))
