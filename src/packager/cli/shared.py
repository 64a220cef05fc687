"""What every command shares: the folder, the colours, and options of one meaning."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

if TYPE_CHECKING:
    from packager.console import ConsoleReporter, Out
    from packager.project import Project
    from packager.store import Store

__all__ = ["Context", "json_option", "limits_options"]

_DAY = 86_400

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead."
)


class Context:
    """What the words before the command say, and what is made of it."""

    def __init__(self, folder: Path, *, color: bool) -> None:
        self.folder = folder
        self.color = color

    def root(self) -> Path:
        """Find the repository's root."""
        from packager import project

        return project.find_root(self.folder.resolve())

    def project(self, store: Store | None = None) -> Project:
        """Read the project; a store remembers what was read."""
        from packager import project

        return project.load(self.root(), store)

    def out(self, *, error: bool = False) -> Out:
        """Give standard output, or standard error."""
        from packager.console import Out

        return Out(error=error, color=self.color)

    def reporter(self, *, quiet: bool, stderr: bool = False) -> ConsoleReporter:
        """Give what shows progress."""
        from packager.console import ConsoleReporter

        return ConsoleReporter(self.out(error=stderr), quiet=quiet)

    def own_image(self) -> str:
        """Name the image that this project builds."""
        from packager.reference import Reference

        project = self.project()
        return str(Reference.of(project.name, project.version))


class _Memory(click.ParamType[str]):
    """An amount of memory as engines write it: ``512m``, ``1.5g``."""

    name = "size"
    _units: ClassVar = {"": 0, "k": 10, "m": 20, "g": 30}
    _least = 6 << 20  # engines refuse less

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it; the engine reads it itself."""
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmg]?)b?", value, re.IGNORECASE)
        if not found:
            self.fail(f"{value!r} is no size; 4g or 512m are.", param, ctx)
        if float(found[1]) * (1 << self._units[found[2].lower()]) < self._least:
            self.fail(f"{value!r} is less than any engine accepts, 6m.", param, ctx)
        return value


def limits_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that bound a sealed container."""

    def wrapped(*args: Any, timeout: int, memory: str, **kwargs: Any) -> Any:
        from packager.proof import Limits

        return command(*args, limits=Limits(seconds=timeout, memory=memory), **kwargs)

    update_wrapper(wrapped, command)
    memory = click.option(
        "--memory", type=_Memory(), default="4g", show_default=True, help="For the container."
    )
    seconds = click.option(
        "--timeout",
        type=click.IntRange(1, _DAY),
        default=300,
        show_default=True,
        help="Seconds for the container to answer.",
    )
    return seconds(memory(wrapped))
