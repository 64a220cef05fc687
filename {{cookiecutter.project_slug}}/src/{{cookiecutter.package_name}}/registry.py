"""Registered files: where each comes from, who may use it, and the digest that proves it.

`data/registry.toml` names the data, `models/registry.toml` a model too large for git.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch

from .settings import ROOT

__all__ = ["Entry", "RegistryError", "entry", "fetch", "main"]


class RegistryError(ValueError):
    """A registered file is missing, or is not the file that the registry describes."""


@dataclass(frozen=True)
class Entry:
    """What a registry says about a file.

    Attributes
    ----------
    path : Path
        Where the file stands, or will stand once it is fetched.
    sha256 : str
        Its digest, 64 hexadecimal digits.
    source : str
        Where it was published, for people.
    license : str
        Under which licence, as an SPDX identifier where there is one.
    url : str
        Where it is fetched from if it is not there; empty where it is part of the repository.
    """

    path: Path
    sha256: str
    source: str
    license: str
    url: str = ""


def entry(name: str, folder: Path = ROOT / "data") -> Entry:
    """Look a file up.

    Parameters
    ----------
    name : str
        The table of the registry.
    folder : Path
        Holds ``registry.toml``; files are named relative to it.

    Returns
    -------
    Entry
        Every key is there; nothing is known yet about the file itself.

    Raises
    ------
    RegistryError
        When there is no such registry or entry, or the entry lacks a key.
    """
    path = folder / "registry.toml"
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
        if name not in tables:
            known_names = ", ".join(tables) or "none"
            raise RegistryError(f"{path} has no table [{name}]; it has {known_names}")
        table = tables[name]
        known = {key: str(table[key]) for key in ("sha256", "source", "license")}
        known["sha256"] = known["sha256"].lower()
        place = PurePosixPath(table["file"])
        if place.is_absolute() or ".." in place.parts or not place.name:
            raise ValueError(f"file = {table['file']!r} is no path inside this folder")
        return Entry(path=folder / place, url=str(table.get("url", "")), **known)
    except FileNotFoundError:
        raise RegistryError(f"{path} is missing") from None
    except KeyError as error:
        raise RegistryError(f"{path}: [{name}] lacks {error}") from None
    except RegistryError:
        raise
    except (ValueError, TypeError) as error:
        raise RegistryError(f"{path}: {error}") from None


def fetch(wanted: Entry) -> Path:
    """Make sure that a file is there and is the right one.

    Parameters
    ----------
    wanted : Entry
        What the registry says.

    Returns
    -------
    Path
        The file; it is never written to if it was there.

    Raises
    ------
    RegistryError
        When it can't be had, or has another digest.
    """
    path = wanted.path
    if not path.is_file():
        if not wanted.url:
            raise RegistryError(f"{path} is missing: get it from {wanted.source}")
        return _download(wanted)
    digest = pooch.file_hash(str(path), alg="sha256")
    if digest != wanted.sha256:
        raise RegistryError(
            f"{path} is not the file it should be: its SHA-256 is {digest}, the registry says "
            f"{wanted.sha256}\n  Restore it, or state the new digest in registry.toml."
        )
    return path


def _download(wanted: Entry) -> Path:
    try:
        # Written beside and renamed once the digest is right.
        pooch.retrieve(
            wanted.url,
            known_hash=f"sha256:{wanted.sha256}",
            fname=wanted.path.name,
            path=wanted.path.parent,
        )
    except (OSError, ValueError) as error:
        raise RegistryError(f"{wanted.path} could not be fetched: {error}") from None
    return wanted.path


def main() -> None:
    """Fetch the model that ``models/registry.toml`` names."""
    try:
        print(fetch(entry("model", ROOT / "models")))
    except RegistryError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
