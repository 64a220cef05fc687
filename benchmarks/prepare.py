"""Make ready what the cases need: packager as a user has it, base images, projects, peers."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import time
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cases
import engine
import frameworks
import index
import measure
import peers
import projects
from peers import Floor, Packager, Peer, Pip, Uv
from projects import Indexes, Project, Variant

REPOSITORY = Path(__file__).resolve().parent.parent
WORK = REPOSITORY / "build" / "benchmark"
INDEX = WORK / "index"
MODEL = WORK / "model.skops"
LEFT_OUT = {
    "repo2docker": "it needs conda's hosts",
    "cog": "there is no command of it on PyPI",
}
_PATH = "ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8"


@dataclass(frozen=True)
class Ready:
    """All that was prepared, and whom it could not be prepared for, and why."""

    peers: dict[str, Peer]
    projects: dict[Variant, Project]
    left_out: dict[str, str]


def prepare(wanted: Iterable[Variant], names: set[str], loopback: str) -> Ready:
    """Prepare for some variants and some peers; the engine and the index on loopback run."""
    say("packager, as a user has it")
    command = packager()
    if not MODEL.exists():
        measure.run([sys.executable, projects.INPUTS / "model.py", MODEL])
    user = Indexes.of_user()
    made = {}
    for variant in {cases.EMPTY, cases.EMPTY_COMPILED, *wanted}:
        say(f"project {variant.key}")
        made[variant] = project(variant, command, user, loopback)
    say("the base")
    seeds = {False: made[cases.EMPTY], True: made[cases.EMPTY_COMPILED]}
    ours = Packager(command, WORK / "disk" / "store", seeds)
    base_images(ours, user)
    others, left_out = frameworks.prepare(names, WORK, user, authorities())
    everybody: list[Peer] = [ours, Uv(), Pip(), Floor(ours, WORK / "floor"), *others]
    taking_part = {one.name: one for one in everybody if one.name in names}
    return Ready(taking_part, made, LEFT_OUT | left_out)


def project(variant: Variant, command: Path, user: Indexes, loopback: str) -> Project:
    """Make a variant, and an index for what it needs and the user's index lacks."""
    if variant is cases.PENGUINS:
        import penguins

        shutil.rmtree(WORK / "projects" / "penguins", ignore_errors=True)
        return Project(variant, penguins.project(WORK / "projects"), user)
    indexes = user
    if variant.served == "torch":
        index.fetch(INDEX / "torch", *variant.add)
        indexes = Indexes(user.first, (*user.others, f"{loopback}/torch"))
    elif variant.served:
        index.make_up(INDEX / variant.served, len(variant.add))
        indexes = Indexes(f"{loopback}/{variant.served}", ())
    return projects.make(variant, WORK / "projects", MODEL, indexes, command)


def say(what: str) -> None:
    """Tell what is being done, on the screen only."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)  # noqa: T201


def packager() -> Path:
    """Install this packager, from a wheel, into an environment that holds nothing else."""
    folder, wheels = WORK / "packager", WORK / "wheels"
    python = folder / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if not python.exists():
        venv.create(folder, with_pip=True)
    pins = WORK / "constraints.txt"
    lines = (REPOSITORY / "requirements-dev.txt").read_text().splitlines()
    pins.write_text("\n".join(line.split()[0] for line in lines if line[:1].isalnum()) + "\n")
    shutil.rmtree(wheels, ignore_errors=True)
    hatchling: list[str | Path] = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        wheels,
    ]
    measure.run(hatchling, REPOSITORY)
    (wheel,) = wheels.iterdir()
    for words in (["-c", pins, wheel], ["--force-reinstall", "--no-deps", wheel]):
        measure.run([*pip, *words])
    return folder / "bin" / "packager"


def base_images(ours: Packager, indexes: Indexes) -> None:
    """Import packager's own base layers as the images that the others build on."""
    plain, compiled = ours.seeds[False], ours.seeds[True]
    base, *_ = ours.layers(plain, plain.tag)
    _, bytecode, *_ = ours.layers(compiled, compiled.tag)
    engine.docker("import", "-c", _PATH, base, peers.BASE)
    add = f"FROM {peers.BASE}\nADD layer.tar /\n"
    engine.build_from(add, {"layer.tar": bytecode.read_bytes()}, peers.BASE_BYTECODE)
    tools = WORK / "tools"
    tools.mkdir(exist_ok=True)
    shutil.copyfile(authorities(), tools / "ca.crt")
    shutil.copy(Path(sys.executable).parent / "uv", tools / "uv")
    engine.docker("import", "-", peers.TOOLS, data=_archive(tools))
    tools = WORK / "tools-pip"
    pip = f"pip=={version('pip')}"
    measure.run([sys.executable, "-m", "pip", "install", "-q", "--upgrade", "-t", tools, pip])
    shutil.copyfile(authorities(), tools / "ca.crt")
    (tools / "pip.conf").write_text(indexes.for_pip())
    add = f"FROM {peers.BASE_BYTECODE}\nADD tools.tar /tools\n"
    engine.build_from(add, {"tools.tar": _archive(tools)}, peers.BASE_PIP)


def _archive(folder: Path) -> bytes:
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.add(folder, ".")
        return out.getvalue()


def authorities() -> str:
    """Find the certificates that this host trusts."""
    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        if path := os.environ.get(name):
            return path
    import requests.certs

    return str(requests.certs.where())
