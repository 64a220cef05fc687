"""What several test modules share: an engine, a store, tiny projects, made-up wheels."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from packager.outputs import engine as engines
from packager.outputs.engine import Engine

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell that starts the tests in the background has Ctrl-C ignored, by all their children too.
signal.signal(signal.SIGINT, signal.default_int_handler)

COUNTED = pytest.StashKey[Counter[str]]()
"""How many bakes and gates of the template were run: `make test-all` prints it."""

TINY_PREDICTOR = '''\
"""A model without any dependency: a factor read from a file."""

from pathlib import Path


class Model:
    def __init__(self, factor):
        self.factor = factor

    def predict(self, inputs):
        return {"y": [value * self.factor for value in inputs["x"]]}


def load(path: Path) -> Model:
    return Model(float(path.read_text()))
'''


# Here and not beside the tests that count, because pytest-xdist's controller reads no deeper
# conftest: the workers hand it their counts.


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTED] = Counter()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["counted"] = dict(session.config.stash[COUNTED])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # A worker that crashed has handed over nothing.
    node.config.stash[COUNTED].update(getattr(node, "workeroutput", {}).get("counted", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counted = config.stash[COUNTED]
    if counted:
        terminalreporter.write_line(
            f"template: {counted['bakes']} bakes, {counted['gates']} gates run in them"
        )


@dataclass
class Tiny:
    """A project that needs nothing but the base: quick to lock and to build."""

    root: Path
    store: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run packager in the project, as a user would."""
        return run_packager(self.root, self.store, *arguments, **environment)

    def built(self, *arguments: str, **environment: str) -> dict[str, object]:
        """Build, and read the result."""
        run = self.run("build", "--json", *arguments, **environment)
        assert run.returncode == 0, run.stderr
        result: dict[str, object] = json.loads(run.stdout)
        return result

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a piece of text that must be there."""
        path = self.root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def run_packager(
    root: Path, store: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the installed command line with a store of the tests' own."""
    return subprocess.run(
        [sys.executable, "-m", "packager", *arguments],
        cwd=root,
        env={**os.environ, "PACKAGER_CACHE": str(store), "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def git(root: Path, *command: str) -> str:
    """Run git in a folder, as somebody that no configuration knows."""
    who = ["-c", "user.name=A Tester", "-c", "user.email=tester@example.org"]
    run = subprocess.run(
        ["git", *who, *command], cwd=root, check=True, capture_output=True, text=True
    )
    return run.stdout


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The real engine; its absence is a failure, not a reason to skip."""
    return engines.connect()


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the whole run, all workers: what was fetched once stays."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "store"


def copy_store(store: Path, copy: Path) -> Path:
    """Copy what a store keeps, and not what other tests are at work on in it."""
    for kept in ("blobs", "notes", "seen"):
        shutil.copytree(store / kept, copy / kept)
    return copy


def write_tiny(root: Path, name: str = "tiny") -> None:
    """Write the smallest project that has everything: code, model, examples."""
    (root / "src" / name).mkdir(parents=True)
    (root / "models").mkdir()
    (root / "src" / name / "__init__.py").write_text('"""Tiny."""\n')
    (root / "src" / name / "predict.py").write_text(TINY_PREDICTOR)
    model = b"2.5\n"
    (root / "models" / "model.txt").write_bytes(model)
    (root / "models" / "examples.json").write_text(json.dumps(tiny_examples(model)))
    (root / "README.md").write_text("# Tiny\n")
    # A model is bytes, even where it happens to be text.
    (root / ".gitattributes").write_text("models/* -text\n")
    (root / "pyproject.toml").write_text(f"""\
[project]
name = "{name}"
version = "0.1.0"
description = "A factor"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = []

[tool.packager]
base = "debian:bookworm"
model = "models/model.txt"
examples = "models/examples.json"
predictor = "{name}.predict:load"
""")


def tiny_examples(model: bytes) -> dict[str, object]:
    """Record what the tiny model predicts."""
    return {
        "format": 1,
        "model": f"sha256:{hashlib.sha256(model).hexdigest()}",
        "signature": {
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
            "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
        },
        "tolerance": {"rtol": 1e-9, "atol": 1e-12},
        "data": {"rows": 3, "source": "made up", "license": "CC0-1.0"},
        "inputs": {"x": [1.0, -2.0, 4.0]},
        "outputs": {"y": [2.5, -5.0, 10.0]},
    }


@pytest.fixture(scope="session")
def locked_tiny(tmp_path_factory: pytest.TempPathFactory, shared_store: Path) -> Path:
    """A tiny project with its lock, resolved for real; to be copied, not changed."""
    root = tmp_path_factory.mktemp("tiny")
    write_tiny(root)
    run = run_packager(root, shared_store, "lock")
    assert run.returncode == 0, run.stderr
    return root


@pytest.fixture
def tiny(locked_tiny: Path, tmp_path: Path, shared_store: Path) -> Tiny:
    """A copy of the locked tiny project, under git, for one test."""
    root = tmp_path / "tiny"
    subprocess.run(["cp", "-r", str(locked_tiny), str(root)], check=True)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Tiny")
    return Tiny(root, shared_store)


WheelMaker = Callable[..., Path]


def write_wheel(
    name: str,
    version: str = "1.0",
    files: Mapping[str, bytes] | None = None,
    *,
    executable: tuple[str, ...] = (),
    requires: tuple[str, ...] = (),
    tag: str = "py3-none-any",
    folder: Path,
) -> Path:
    """Write a real wheel out of a mapping of paths to bytes."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    members = {
        **(files or {f"{name.replace('-', '_')}/__init__.py": b""}),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        f"Tag: {tag}\n".encode(),
    }
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for path, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        writer.writerow([path, f"sha256={digest}", len(data)])
    writer.writerow([f"{info}/RECORD", "", ""])
    members[f"{info}/RECORD"] = rows.getvalue().encode()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in members.items():
            member = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
            member.external_attr = (0o100755 if path in executable else 0o100644) << 16
            archive.writestr(member, data)
    return target


@pytest.fixture
def make_wheel(tmp_path: Path) -> WheelMaker:
    """Write real wheels, into the test's own folder where no other is named."""
    return partial(write_wheel, folder=tmp_path)
