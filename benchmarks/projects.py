"""The projects that are built: variants of one, each with its locks, its model and git."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import measure
import tomlkit

from packager import pip

INPUTS = Path(__file__).resolve().parent / "inputs"
_MB = 1_000_000
_GIT = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.org")


@dataclass(frozen=True)
class Variant:
    """In what a project differs from the one in `inputs`.

    `add` and `drop` are dependencies; `model_mb` puts random bytes in the place of the model.
    """

    key: str
    name: str = "peers"
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    bytecode: bool = False
    model_mb: int = 0
    served: str = ""  # the index on loopback that has what the user's index lacks

    @property
    def model(self) -> str:
        """Where the model is, in the project."""
        return "models/model.bin" if self.model_mb else "models/model.skops"


@dataclass(frozen=True)
class Indexes:
    """Where wheels are found: the user's own settings, as far as a container can follow them."""

    first: str
    others: tuple[str, ...]

    @classmethod
    def of_user(cls) -> Indexes:
        """Read pip's settings; folders of this machine are nothing to a container."""
        urls = [url for url in pip.settings().index_urls if url.startswith("http")]
        return cls(urls[0], tuple(urls[1:]))

    def for_packager(self) -> Mapping[str, str]:
        """Write them as variables."""
        return {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": "",
            "PIP_INDEX_URL": self.first,
            "PIP_EXTRA_INDEX_URL": " ".join(self.others),
        }

    def for_uv(self) -> str:
        """Write them as uv.toml."""
        return tomlkit.dumps(
            {"pip": {"index-url": self.first, "extra-index-url": list(self.others)}}
        )

    def for_pip(self) -> str:
        """Write them as pip.conf."""
        return f"[global]\nindex-url = {self.first}\nextra-index-url = {' '.join(self.others)}\n"


@dataclass(frozen=True)
class Project:
    """A variant in a folder, locked and under git."""

    variant: Variant
    root: Path
    indexes: Indexes
    tag: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", f"{self.variant.name}:{self.variant.key}")

    def pins(self) -> list[str]:
        """Give the names and releases of what it needs, without hashes."""
        lines = (self.root / "requirements.txt").read_text().splitlines()
        return [line.split()[0] for line in lines if line[:1].isalnum()]

    def change_code(self) -> None:
        """Edit a module."""
        module = self.root / "src" / "peers" / "__init__.py"
        module.write_text(f'"""A model that several tools pack: {secrets.token_hex(8)}."""\n')

    def change_model(self) -> None:
        """Give the model other bytes: random ones, or a comment that does not matter to it."""
        path = self.root / self.variant.model
        if self.variant.model_mb:
            with path.open("r+b") as stream:
                stream.write(os.urandom(_MB))
        else:
            with zipfile.ZipFile(path, "a") as archive:
                archive.comment = secrets.token_hex(8).encode()


def make(variant: Variant, folder: Path, model: Path, indexes: Indexes, packager: Path) -> Project:
    """Write a variant into a folder of its own, lock it as its user would, commit it."""
    project = Project(variant, folder / variant.key, indexes)
    root = project.root
    kept = _locks_of(root, _pyproject(variant))
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(INPUTS / "src", root / "src")
    for name in ("service.py", "bentofile.yaml"):
        shutil.copyfile(INPUTS / name, root / name)
    (root / "pyproject.toml").write_text(_pyproject(variant))
    (root / ".dockerignore").write_text((INPUTS / "dockerignore").read_text())
    (root / ".gitignore").write_text("models/*.bin\n")  # git would take minutes for a gigabyte
    (root / "uv.toml").write_text(indexes.for_uv())
    (root / "models").mkdir()
    if variant.model_mb:
        with (root / variant.model).open("wb") as stream:
            stream.writelines(_random(variant.model_mb))
    else:
        shutil.copyfile(model, root / variant.model)
    project.change_model()  # no two variants share it
    if not variant.served:
        shutil.copyfile(INPUTS / "requirements.txt", root / "requirements.txt")
    for name, data in kept.items():
        (root / name).write_bytes(data)
    _lock(root, packager, indexes)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "A project"]):
        subprocess.run(["git", *_GIT, *words], cwd=root, check=True)
    return project


def _pyproject(variant: Variant) -> str:
    document = tomlkit.parse((INPUTS / "pyproject.toml").read_text())
    project, settings = document["project"], document["tool"]["packager"]
    project["name"] = variant.name
    for name in variant.drop:
        kept = [one for one in project["dependencies"] if one.partition("==")[0] != name]
        project["dependencies"] = kept
    project["dependencies"].extend(variant.add)
    settings["bytecode"] = variant.bytecode
    settings["model"] = variant.model
    if variant.model_mb:
        settings["predictor"] = "peers.first:load"
    return tomlkit.dumps(document)


def _random(megabytes: int) -> Iterator[bytes]:
    return (os.urandom(_MB) for _ in range(megabytes))


def _locks_of(root: Path, pyproject: str) -> dict[str, bytes]:
    """Recall the locks of an earlier run, if they are for the same wishes."""
    made_for = root / "pyproject.toml"
    if not made_for.exists() or made_for.read_text() != pyproject:
        return {}
    paths = [*root.glob("requirements*.txt"), root / "packager.lock"]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _lock(root: Path, packager: Path, indexes: Indexes) -> None:
    env = {**os.environ, **indexes.for_packager()}
    checked = subprocess.run(
        [packager, "lock", "--check"], cwd=root, env=env, check=False, capture_output=True
    )
    if checked.returncode:
        measure.run([packager, "lock"], root, env)
