"""pip's own settings, which say where wheels are and how to get there."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packager.errors import HostError

__all__ = ["Settings", "ask", "forget", "settings"]

_once = threading.Lock()  # many threads ask, and one answer is enough


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of pip's own configuration that says where wheels are and how to get there."""

    index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    cert: str
    client_cert: str
    proxy: str
    trusted_hosts: frozenset[str]


@functools.cache
def ask() -> subprocess.Popen[str]:
    """Have pip read its settings, which takes it a while: `settings` waits for what it says."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def settings() -> Settings:
    """Give pip's configuration (files and environment), as pip itself resolves it.

    Raises
    ------
    HostError
        When pip cannot read its own configuration.
    """
    with _once:
        return _settings()


@functools.cache
def _settings() -> Settings:
    from pip._internal.models.index import PyPI

    run = ask()
    told, said = run.communicate()
    if run.returncode:
        # pip quotes the line that it cannot read, which may hold a password.
        reason, *_ = [*said.splitlines(), ""]
        raise HostError(f"pip cannot read its settings: {reason}", hint="pip config list tells.")
    values: dict[str, str] = {}
    # pip prints files first and the environment last; `install` is what a user would set
    # for installing alone, so it counts over `global`.
    for section in ("global.", "install.", ":env:."):
        values.update(_section(told, section))
    first = values.get("index-url", PyPI.simple_url)
    indexes = (first, *values.get("extra-index-url", "").split())
    return Settings(
        index_urls=() if values.get("no-index", "") in {"1", "true", "yes"} else indexes,
        find_links=tuple(values.get("find-links", "").split()),
        cert=_file(values, "cert"),
        client_cert=_file(values, "client-cert"),
        proxy=values.get("proxy", ""),
        trusted_hosts=frozenset(values.get("trusted-host", "").lower().split()),
    )


def _file(values: Mapping[str, str], key: str) -> str:
    """Give what a setting names, if it does; as in pip, that may be below ``~``."""
    if not (named := values.get(key)):
        return ""
    path = Path(named).expanduser()
    if not path.exists():
        raise HostError(
            f"there is no file {path}",
            where=f"pip's setting {key}",
            hint="pip config debug tells where it is set.",
        )
    return str(path)


def forget() -> None:
    """Ask anew next time."""
    ask.cache_clear()
    _settings.cache_clear()


def _section(listing: str, prefix: str) -> Iterator[tuple[str, str]]:
    for line in listing.splitlines():
        key, separator, value = line.partition("=")
        if separator and key.startswith(prefix):
            yield key.removeprefix(prefix), str(ast.literal_eval(value))
