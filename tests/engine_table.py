"""What is asked of each engine: the rows and columns of docs/engines.md.

A row is an engine and a way to it; a column is a claim that is tried there, in the table's order,
on one project.  `make test` tries the rows that are quick to be had, the script all of them.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import chroots
import docker
import engines
from chroots import Chroot
from engines import Running
from registries import certified

Way = Callable[[Running, Chroot, Path], contextlib.AbstractContextManager[dict[str, str]]]

_TAG = "tiny:0.1.0"
_ASK = """
import json, sys, urllib.request
tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [2]}
body = json.dumps({"inputs": [tensor]}).encode()
request = urllib.request.Request(sys.argv[1], body, {"content-type": "application/json"})
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read().decode())
"""


@contextlib.contextmanager
def socket(engine: Running, _: Chroot, __: Path) -> Iterator[dict[str, str]]:
    """Reach an engine by its socket."""
    yield {"DOCKER_HOST": engine.host}


@contextlib.contextmanager
def tls(_: Running, __: Chroot, folder: Path) -> Iterator[dict[str, str]]:
    """Reach an engine over TLS, as the environment says it."""
    where = {"DOCKER_HOST": engines.TLS_HOST, "DOCKER_CERT_PATH": str(folder / "client")}
    yield {**where, "DOCKER_TLS_VERIFY": "1"}


@contextlib.contextmanager
def context(_: Running, root: Chroot, folder: Path) -> Iterator[dict[str, str]]:
    """Reach an engine over TLS, by a context that docker's own client made."""
    client = folder / "client"
    files = ",".join(f"{name}={client}/{name}.pem" for name in ("ca", "cert", "key"))
    where = f"host={engines.TLS_HOST},{files}"
    config = {"DOCKER_CONFIG": f"{folder}/config"}
    make = ["docker", "context", "create", "elsewhere", "--docker", where]
    root.run(make, shared=[folder], environment=config)
    yield {"DOCKER_HOST": "", "DOCKER_CONTEXT": "elsewhere", **config}


@contextlib.contextmanager
def ssh(engine: Running, root: Chroot, _: Path) -> Iterator[dict[str, str]]:
    """Reach an engine over ssh."""
    with engines.ssh(engine, root) as environment:
        yield environment


@dataclass(frozen=True)
class Row:
    """An engine, and a way to it."""

    title: str
    suite: str
    way: Way = socket
    podman: bool = False
    containerd: bool = False

    @property
    def name(self) -> str:
        """Say it in one line."""
        return f"{self.title}, {self.suite}, {self.way.__name__}"

    @property
    def identity(self) -> str:
        """Say what the engine has to call the image."""
        if self.containerd:
            return "ID = manifest, digest = manifest"
        return "ID = config, digest = manifest" if self.podman else "ID = config"

    @contextlib.contextmanager
    def trial(self, project: Path, store: Path, folder: Path) -> Iterator[Trial]:
        """Start the engine for one project, which may be changed, in a folder for what it takes."""
        certificate = None
        if self.way in {tls, context}:
            certificate = certified(folder)
            (folder / "client").mkdir()
            engines.certificate_files(certificate, folder / "client")
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(chroots.engines(self.suite))
            if self.podman:
                start = engines.podman(root)
            else:
                start = engines.docker(root, containerd=self.containerd, certificate=certificate)
            engine = stack.enter_context(start)
            way = stack.enter_context(self.way(engine, root, folder))
            yield Trial(engine, way, project, store)


@dataclass
class Trial:
    """One project in one engine; the columns are methods, which raise where a claim is false."""

    engine: Running
    way: Mapping[str, str]
    project: Path
    store: Path
    said: str = field(default="", init=False)

    def run(self, *arguments: str) -> str:
        """Run packager, which must succeed."""
        done = self.engine.packager(self.project, self.store, *arguments, **self.way)
        assert done.returncode == 0, done.stderr
        self.said = done.stdout
        return done.stdout

    def row(self, title: str) -> str:
        """Find what a row of the last command said."""
        found = re.search(rf"^  {title} +(\S.*?)(?:  |$)", self.said, re.MULTILINE)
        assert found, self.said
        return found[1]

    def version(self) -> str:
        """Ask the engine what it is."""
        with contextlib.closing(docker.DockerClient(base_url=self.engine.host)) as client:
            return str(client.version()["Version"])

    def load(self) -> str:
        """Build; the engine has nothing, so all layers are sent."""
        self.run("build")
        sent, total = re.findall(r"\d+", self.row("load"))
        assert sent == total, self.said
        return "yes"

    def partial_load(self) -> str:
        """Change the code and build: its layer is sent alone."""
        source = self.project / "src/tiny/__init__.py"
        source.write_text(source.read_text() + "# changed\n")
        self.run("build")
        sent, total = re.findall(r"\d+", self.row("load"))
        assert sent == "1", self.said
        return f"{sent} of {total} layers"

    def verify(self) -> str:
        """Compare it on all levels that there are, what the engine gives back in any case."""
        levels = self.levels()
        assert levels["image"] == levels["engine"] == "same", levels
        return "with its manifest" if levels["manifest"] == "same" else "yes"

    def levels(self, *image: str) -> dict[str, str]:
        """Verify, and say how each comparison ended."""
        told = json.loads(self.run("verify", "--json", *image))
        return {one["name"]: one["verdict"] for one in told["levels"]}

    def smoke(self) -> str:
        """Prove the image by itself, and build again, which recalls that if it can."""
        assert "passed" in self.run("smoke")
        again = self.run("build")
        assert "the engine has it" in again
        return "passed before" if "passed before" in again else "passed anew"

    def identity(self) -> str:
        """Compare what the engine calls the image with what packager does, in an archive too."""
        archive = self.project / "image.tar"
        told = json.loads(self.run("build", "--json", "--no-load", "-o", str(archive)))
        assert self.levels(str(archive))["engine"] == "same", "the engine does not know the archive"
        archive.unlink()
        with contextlib.closing(docker.DockerClient(base_url=self.engine.host)) as client:
            found = client.images.get(_TAG).attrs
        kinds = {told["id"]: "config", told["manifest"]: "manifest"}
        said = [f"ID = {kinds[found['Id']]}"]
        if f"@{told['manifest']}" in "".join(found["RepoDigests"]):
            said.append("digest = manifest")
        return ", ".join(said)

    def predict(self) -> str:
        """Predict a table, line by line."""
        table = self.project / "rows.csv"
        table.write_text("x\n2\n")
        assert self.run("predict", str(table), _TAG).splitlines()[1].startswith("5.0,")
        table.unlink()
        return "yes"

    def serve(self) -> str:
        """Start the server, ask it, and interrupt it."""
        words = ["serve", _TAG, "--port", "0"]
        with self.engine.started(self.project, self.store, *words, **self.way) as process:
            assert process.stdout
            greeting = "".join(process.stdout.readline() for _ in range(3))
            address = re.search(r"http://127\S+/infer", greeting)
            assert address, greeting
            ask = [*self.engine.inside, sys.executable, "-c", _ASK, address[0]]
            answer = subprocess.run(ask, check=True, capture_output=True, text=True).stdout
            assert json.loads(answer)["outputs"][0]["data"] == [5.0]
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        return "yes"


COLUMNS: dict[str, Callable[[Trial], str]] = {
    "version": Trial.version,
    "load": Trial.load,
    "partial load": Trial.partial_load,
    "verify": Trial.verify,
    "smoke": Trial.smoke,
    "identity": Trial.identity,
    "predict": Trial.predict,
    "serve": Trial.serve,
}


ROWS = (
    Row("Docker, classic store", "bookworm"),
    Row("Docker, classic store", "bookworm", tls),
    Row("Docker, classic store", "bookworm", ssh),
    Row("Docker, classic store", "trixie"),
    Row("Docker, classic store", "trixie", context),
    Row("Docker, containerd's store", "trixie", containerd=True),
    Row("Docker, containerd's store", "trixie", tls, containerd=True),
    Row("Docker, containerd's store", "trixie", ssh, containerd=True),
    Row("Docker, classic store", "forky"),
    Row("Docker, containerd's store", "forky", containerd=True),
    Row("podman", "trixie", podman=True),
    Row("podman", "trixie", ssh, podman=True),
    Row("podman", "forky", podman=True),
)
