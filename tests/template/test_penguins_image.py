"""What is true of the image that a baked repository builds: real wheels, a real engine.

The first build and the one from nothing are made once; every test that changes something does
so in a copy or a clone with a version, and so a tag, of its own.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import tomllib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import docker
import pytest
from conftest import git
from packaging.utils import canonicalize_name

from packager.errors import ClaimError
from packager.lock.resolve import read_requirements
from packager.outputs.engine import Engine

from .conftest import ANSWERS, ONE_WORKER, Make

pytestmark = ONE_WORKER

WHEEL = "threadpoolctl"  # a small one: it is fetched again and again here
SEALED = {
    "network_mode": "none",
    "read_only": True,
    "tmpfs": {"/tmp": ""},
    "cap_drop": ["ALL"],
    "user": "65532",
}


@dataclass
class Repository:
    """A trained and locked repository; its packager is the one that `make setup` installed."""

    root: Path
    packager: Path
    environment: dict[str, str]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.packager, *arguments],
            cwd=self.root,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def built(self, *arguments: str, **environment: str) -> dict[str, Any]:
        done = self.run("build", "--json", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")

    def clone(self, folder: Path) -> Repository:
        git(self.root, "clone", "-q", ".", str(folder))
        return Repository(folder, self.packager, self.environment)

    def with_tools(self, project: Path) -> Repository:
        """Lend it the environment of the repository that was set up: a new one takes a minute."""
        (self.root / ".venv").symlink_to(project / ".venv")
        os.utime(self.root / "requirements-dev.txt", (0, 0))
        return self

    @property
    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "pyproject.toml").read_text("utf-8"))

    @property
    def version(self) -> str:
        return str(self.pyproject["project"]["version"])

    @property
    def lock(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "packager.lock").read_text("utf-8"))

    @property
    def examples(self) -> dict[str, Any]:
        recorded: dict[str, Any] = json.loads((self.root / "models/examples.json").read_bytes())
        return recorded

    def record(self, change: Callable[[dict[str, Any]], object]) -> None:
        recorded = self.examples
        change(recorded["outputs"])
        (self.root / "models/examples.json").write_text(json.dumps(recorded), "utf-8")


def images_of(client: docker.DockerClient, version: str) -> list[Any]:
    """List every image of a version, tagged or not."""
    return list(
        client.images.list(filters={"label": f"org.opencontainers.image.version={version}"})
    )


Copies = Callable[[Path], Repository]


@pytest.fixture(scope="module")
def client(engine: Engine) -> docker.DockerClient:
    return engine.client


@pytest.fixture(scope="module")
def copies(
    trained: Path, clean_environment: dict[str, str], client: docker.DockerClient
) -> Iterator[Copies]:
    """Copy the repository, everything committed, under a new version; remove its images later."""
    versions = []

    def copy(folder: Path) -> Repository:
        project = trained.parent
        unwanted = ignore_patterns(".venv", ".packager", "__pycache__", ".*_cache", "build")
        copytree(project, folder, ignore=unwanted)
        made = Repository(folder, project / ".packager/bin/packager", clean_environment)
        versions.append(f"0.1.{uuid.uuid4().int % 10**12}")
        made.edit("pyproject.toml", 'version = "0.1.0"', f'version = "{versions[-1]}"')
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "Train and lock")
        return made

    yield copy
    for version in versions:
        for image in images_of(client, version):
            client.images.remove(image.id, force=True)


@pytest.fixture
def copy(copies: Copies, tmp_path: Path) -> Repository:
    return copies(tmp_path / "copy")


@dataclass
class First:
    """The first build: loaded, smoke-tested, and written to an archive."""

    repository: Repository
    result: dict[str, Any]


@pytest.fixture(scope="module")
def first(copies: Copies, tmp_path_factory: pytest.TempPathFactory) -> First:
    folder = tmp_path_factory.mktemp("first")
    repository = copies(folder / "penguins")
    return First(repository, repository.built("-o", str(folder / "image.tar")))


@dataclass
class FromNothing:
    """A build elsewhere, from a store that was empty, and its peak of memory in bytes."""

    repository: Repository
    store: Path
    archive: Path
    result: dict[str, Any]
    peak: int


@pytest.fixture(scope="module")
def from_nothing(first: First, tmp_path_factory: pytest.TempPathFactory) -> FromNothing:
    folder = tmp_path_factory.mktemp("from-nothing")
    clone = first.repository.clone(folder / "another name")
    clone.edit("README.md", "## Steps", "## The steps")
    git(clone.root, "commit", "-qam", "Only the README")
    store, archive = folder / "store", folder / "image.tar"
    build = ["build", "--json", "--no-load", "-o", str(archive)]
    # A process starts with the peak of the one that forked it, and pytest is a large one.
    measure = (
        "import os, resource, subprocess, sys; os.umask(0o077);"
        "subprocess.run(sys.argv[1:], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", measure, str(clone.packager), *build],
        cwd=clone.root,
        env={
            **clone.environment,
            "PACKAGER_CACHE": str(store),
            "TZ": "Asia/Kathmandu",
            # Without the other two, Python replaces C by a locale that knows UTF-8.
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stderr.splitlines()[-1]) * 1024
    return FromNothing(clone, store, archive, json.loads(done.stdout), peak)


@dataclass
class Output:
    """What a container printed, and how it ended."""

    exit_code: int
    text: str


def run_sealed(
    client: docker.DockerClient, image: str, *command: str, stdin: bytes = b"", **how: Any
) -> Output:
    """Run a command in an image, sealed, with something on its standard input."""
    container = client.containers.create(image, list(command), stdin_open=True, **SEALED, **how)
    try:
        attached = container.attach_socket(params={"stdin": 1, "stream": 1})
        stream = getattr(attached, "_sock", attached)
        container.start()
        stream.sendall(stdin)
        stream.shutdown(socket.SHUT_WR)
        code = container.wait(timeout=120)["StatusCode"]
        attached.close()
        return Output(code, container.logs(stdout=True, stderr=False).decode())
    finally:
        container.remove(force=True)


def train(repository: Repository) -> None:
    """Train with tools that were lent: they are told where the code is."""
    subprocess.run(
        [".venv/bin/python", "-m", "birds.train"],
        cwd=repository.root,
        env={**repository.environment, "PYTHONPATH": str(repository.root / "src")},
        check=True,
    )


def sample(repository: Repository) -> bytes:
    return (repository.root / "models/sample.csv").read_bytes()


# --- The same model, hence the same image --------------------------------------------------


def test_training_again_elsewhere_gives_the_same_model_hence_the_same_image(
    first: First, project: Path, make: Make, tmp_path: Path
) -> None:
    again = first.repository.clone(tmp_path / "yet another name").with_tools(project)
    committed = (again.root / "models/model.skops").read_bytes()
    for seed in ("1", "2"):
        for file in (again.root / "models").iterdir():
            file.unlink()
        path = f"PYTHONPATH={again.root / 'src'}"
        done = make(again.root, "train", f"PYTHONHASHSEED={seed}", path)
        assert done.returncode == 0, done.stdout
        assert (again.root / "models/model.skops").read_bytes() == committed
    assert again.built("--no-load", "-o", str(tmp_path / "a.tar"))["id"] == first.result["id"]


def test_another_seed_gives_another_model_hence_another_image(
    first: First, project: Path, tmp_path: Path
) -> None:
    other = first.repository.clone(tmp_path / "other").with_tools(project)
    committed = (other.root / "models/model.skops").read_bytes()
    other.edit("experiment.toml", "seed = 0", "seed = 1")
    train(other)
    assert (other.root / "models/model.skops").read_bytes() != committed
    assert other.built("--no-load", "-o", str(tmp_path / "a.tar"))["id"] != first.result["id"]


# --- What the image does, and what is in it ------------------------------------------------


def test_the_sealed_image_predicts_all_recorded_examples_within_the_tolerance(
    first: First, client: docker.DockerClient
) -> None:
    recorded = first.repository.examples
    given = json.dumps(recorded["inputs"]).encode()
    done = run_sealed(client, first.result["tag"], "predict", "--from", "json", stdin=given)
    got = [json.loads(line) for line in done.text.splitlines()]
    assert len(got) == recorded["data"]["rows"] == 69
    assert [row["species"] for row in got] == recorded["outputs"]["species"]
    absolute, relative = recorded["tolerance"]["atol"], recorded["tolerance"]["rtol"]
    for row, expected in zip(got, recorded["outputs"]["probability"], strict=True):
        assert row["probability"] == pytest.approx(expected, rel=relative, abs=absolute)


def test_the_sealed_image_says_what_it_is(first: First, client: docker.DockerClient) -> None:
    done = run_sealed(client, first.result["tag"], "info")
    recorded = first.repository.examples
    labels = client.images.get(first.result["tag"]).labels
    expected = [
        f"{ANSWERS['project_slug']} {first.repository.version}",
        ANSWERS["description"],
        "model.skops",
        recorded["model"],
        labels["org.model-packager.inputs"],
        ANSWERS["license"],
        f"69 rows in this image, licence {recorded['data']['license']}",
    ]
    assert done.exit_code == 0
    assert [one for one in expected if one not in done.text] == []
    takes, gives = done.text.split("\ntakes\n")[1].split("\ngives\n")
    for side, told in (("inputs", takes), ("outputs", gives)):
        tensors = recorded["signature"][side]
        found = [line.split()[:2] for line in told.splitlines() if line]
        assert found == [[one["name"], one["datatype"]] for one in tensors]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_the_sealed_image_predicts_each_row_of_a_table(
    form: str, first: First, client: docker.DockerClient
) -> None:
    table = sample(first.repository)
    done = run_sealed(client, first.result["tag"], "predict", "--to", form, stdin=table)
    if form == "csv":
        got = list(csv.DictReader(io.StringIO(done.text)))
    else:
        got = [json.loads(line) for line in done.text.splitlines()]
    assert done.exit_code == 0
    assert len(got) == len(table.splitlines()) - 1 > 0
    recorded = first.repository.examples["outputs"]["species"]
    assert [row["species"] for row in got] == recorded[: len(got)]


def test_the_image_holds_the_pinned_distributions_and_no_other(
    first: First, client: docker.DockerClient
) -> None:
    script = (
        "import importlib.metadata as m\n"
        "for one in m.distributions(): print(one.name, one.version)"
    )
    tag = first.result["tag"]
    done = run_sealed(client, tag, "-c", script, entrypoint=["/usr/bin/python3"])
    found = [line.split() for line in done.text.splitlines()]
    pins = read_requirements(
        (first.repository.root / "requirements.txt").read_bytes(), "requirements.txt"
    )
    expected = [(pin.name, pin.version) for pin in pins]
    expected.append((canonicalize_name(ANSWERS["project_slug"]), first.repository.version))
    assert sorted((canonicalize_name(name), version) for name, version in found) == sorted(expected)


# --- From nothing, elsewhere ---------------------------------------------------------------


def test_a_build_elsewhere_from_nothing_gives_the_same_image(
    first: First, from_nothing: FromNothing
) -> None:
    again = from_nothing.result
    assert not any(layer["cached"] for layer in again["layers"])
    assert again["id"] == first.result["id"]
    assert again["manifest"] == first.result["manifest"]
    assert again["commit"] != first.result["commit"]
    assert again["dirty"] is first.result["dirty"] is False


def test_memory_of_a_build_from_nothing_stays_under_200_mb(from_nothing: FromNothing) -> None:
    assert from_nothing.peak < 200_000_000


@pytest.mark.parametrize(
    "damaged",
    [["layer"], ["wheel", "layer"]],  # a wheel whose layer is there is not looked at
    ids=["its layer", "the wheel and its layer"],
)
def test_a_flipped_byte_of_a_wheel_is_healed_said_once_and_changes_nothing(
    damaged: list[str], from_nothing: FromNothing, tmp_path: Path
) -> None:
    built, store = from_nothing, from_nothing.store
    layers = [one for one in built.result["layers"] if one["role"] == "wheels"]
    (layer,) = (one for one in layers if one["what"].endswith("small wheels"))
    digests = {
        "wheel": pin_of(built.repository, WHEEL)["sha256"],
        "layer": layer["diff_id"].removeprefix("sha256:"),
    }
    for victim in damaged:
        flip(store / "blobs" / digests[victim])
    build = ["build", "--no-load", "-o", str(tmp_path / "image.tar")]
    done = built.repository.run(*build, PACKAGER_CACHE=str(store))
    assert done.returncode == 0, done.stderr
    healed = re.findall(r"sha256:([0-9a-f]{12})… was damaged: healed", done.stdout)
    assert sorted(healed) == sorted(digests[victim][:12] for victim in damaged)
    assert (tmp_path / "image.tar").read_bytes() == built.archive.read_bytes()
    again = built.repository.run(*build, PACKAGER_CACHE=str(store))
    assert "healed" not in again.stdout


def pin_of(repository: Repository, name: str) -> dict[str, Any]:
    (pin,) = (wheel for wheel in repository.lock["wheel"] if wheel["name"] == name)
    return dict(pin)


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file, size and modification time kept."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# --- What does not agree -------------------------------------------------------------------


def other_hash(digest: str) -> str:
    return ("0" if digest[0] != "0" else "1") + digest[1:]


def digest_of_requirements(repository: Repository) -> str:
    content = (repository.root / "requirements.txt").read_bytes()
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def refused(repository: Repository, client: docker.DockerClient) -> str:
    """Build what must be refused, leaving nothing in the engine; return what was said."""
    done = repository.run("build")
    assert done.returncode == ClaimError.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert images_of(client, repository.version) == []
    return done.stderr


def test_a_wheel_whose_hash_is_not_the_required_one_is_named_and_leaves_no_tag(
    copy: Repository, client: docker.DockerClient
) -> None:
    wheel = pin_of(copy, WHEEL)
    copy.edit("packager.lock", wheel["sha256"], other_hash(wheel["sha256"]))
    said = refused(copy, client)
    assert f"{wheel['file']} is not among those of requirements.txt" in said


def test_a_wheel_that_no_index_has_is_named_and_leaves_no_tag(
    copy: Repository, client: docker.DockerClient
) -> None:
    wheel, before = pin_of(copy, WHEEL), digest_of_requirements(copy)
    for file in ("requirements.txt", "packager.lock"):
        copy.edit(file, wheel["sha256"], other_hash(wheel["sha256"]))
    copy.edit("packager.lock", before, digest_of_requirements(copy))
    said = refused(copy, client)
    assert f"packager.lock: {wheel['file']}: the lock says sha256 " in said
    assert f"has other bytes: sha256 {wheel['sha256']}" in said


def relabel(outputs: dict[str, Any]) -> None:
    outputs["species"][3] = "Gentoo" if outputs["species"][3] != "Gentoo" else "Adelie"


def shift(outputs: dict[str, Any], difference: float) -> None:
    row = outputs["probability"][10]
    row[row.index(max(row))] += difference


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (relabel, "output 'species': 1 of 69 differ, the first in row 4: recorded "),
        (
            lambda outputs: shift(outputs, 1e-8),
            "output 'probability': 1 of 69 differ, the first in row 11: recorded ",
        ),
    ],
    ids=["another species", "a probability beyond the tolerance"],
)
def test_another_prediction_is_named_by_output_and_row_and_leaves_no_tag(
    change: Callable[[dict[str, Any]], object],
    said: str,
    copy: Repository,
    client: docker.DockerClient,
) -> None:
    copy.record(change)
    assert said in refused(copy, client)


def test_a_prediction_within_the_tolerance_passes(
    copy: Repository, client: docker.DockerClient
) -> None:
    copy.record(lambda outputs: shift(outputs, 1e-10))
    result = copy.built()
    species, probability = result["smoke"]["outputs"]
    assert (species["mismatched"], probability["mismatched"]) == (0, 0)
    assert probability["largest_difference"] == pytest.approx(1e-10, rel=1e-3)
    assert client.images.get(result["tag"]).id == result["id"]


# --- Examples of one's own -----------------------------------------------------------------


def test_examples_of_ones_own_travel_alone_and_build_says_so(
    copy: Repository, project: Path, tmp_path: Path
) -> None:
    copy.with_tools(project)
    own = tmp_path / "own.csv"
    own.write_text(
        "island,culmen_length_mm,culmen_depth_mm,flipper_length_mm,sex\n"
        "Secret,40.5,18.5,191.5,FEMALE\nSecret,47.5,,217.5,\n"
    )
    named = f'[data]\nexamples = "{own}"\nexamples_license = "CC-BY-4.0"\n'
    copy.edit("experiment.toml", "[data]\n", named)
    train(copy)
    archive = tmp_path / "image.tar"
    done = copy.run("build", "--no-load", "-o", str(archive))
    assert done.returncode == 0, done.stderr
    assert "2 data rows are in the image (CC-BY-4.0)" in done.stdout
    in_image = json.loads(read_from(archive, "srv/packager/examples.json"))
    assert in_image["inputs"] == {
        "culmen_length_mm": [40.5, 47.5],
        "culmen_depth_mm": [18.5, None],
        "flipper_length_mm": [191.5, 217.5],
        "sex": ["FEMALE", None],
    }


def read_from(archive: Path, path: str) -> bytes:
    """Read a file out of the last layer of an image in an archive."""

    def member(bundle: tarfile.TarFile, name: str) -> bytes:
        stream = bundle.extractfile(name)
        assert stream is not None
        return stream.read()

    with tarfile.open(archive) as image:
        (manifest,) = json.loads(member(image, "manifest.json"))
        last = gzip.decompress(member(image, manifest["Layers"][-1]))
    with tarfile.open(fileobj=io.BytesIO(last)) as layer:
        return member(layer, path)


# --- Two resolvers -------------------------------------------------------------------------


def test_uv_locks_what_pip_tools_locked(copy: Repository) -> None:
    which = (
        "from pathlib import Path; from packager import project; from packager.lock import resolve;"
        "print(resolve.choose_resolver(project.load(Path.cwd()))[0])"
    )
    python = copy.packager.with_name("python")
    chosen = subprocess.run(
        [python, "-c", which], cwd=copy.root, capture_output=True, text=True, check=True
    )
    if chosen.stdout.strip() != "pip-tools":
        pytest.skip("pip-tools cannot resolve for the image from this Python or system")
    locks = ["requirements.txt", "requirements-dev.txt"]
    before = {name: read_requirements((copy.root / name).read_bytes(), name) for name in locks}
    wheels = copy.lock["wheel"]
    for name in (*locks, "packager.lock"):
        (copy.root / name).unlink()
    copy.edit("pyproject.toml", "[tool.packager]\n", '[tool.packager]\nresolver = "uv"\n')
    done = copy.run("lock")
    assert done.returncode == 0, done.stderr
    assert "resolving with uv" in done.stdout
    for name in locks:
        for by_pip_tools, by_uv in zip(
            before[name], read_requirements((copy.root / name).read_bytes(), name), strict=True
        ):
            assert (by_uv.name, by_uv.version) == (by_pip_tools.name, by_pip_tools.version)
            # uv lists the hashes of sdists, too, even where only wheels may be chosen.
            assert by_uv.hashes >= by_pip_tools.hashes
    assert copy.lock["wheel"] == wheels
