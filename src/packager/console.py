"""What a person sees on a terminal, what a log gets, and what a script reads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.status import Status
from rich.table import Table
from rich.text import Text

from packager.build import Result
from packager.reporter import human_size
from packager.smoke import Verdict

__all__ = ["ConsoleReporter", "print_build", "print_info", "print_replay"]

_STATE_STYLES = {"passed": "green", "cached": "dim", "loaded": "yellow"}
_TITLES = {
    "org.opencontainers.image.title": "name",
    "org.opencontainers.image.version": "version",
    "org.opencontainers.image.description": "description",
    "org.opencontainers.image.licenses": "licence",
    "org.opencontainers.image.source": "source",
    "org.opencontainers.image.base.name": "base",
    "org.model-packager.model": "model",
    "org.model-packager.inputs": "built from",
}


class ConsoleReporter:
    """Prints rows as steps finish, and a bar below them while bytes move.

    Without a terminal the same rows are plain lines and there is no bar.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._status: Status | None = None

    def begin(self, step: str, what: str) -> None:
        """Show a spinner until the step's row is printed."""
        self.close()
        if not self._quiet and self._console.is_terminal:
            self._status = self._console.status(f"{step:<12}{what}")
            self._status.start()

    def advance(self, step: str, amount: int, total: int) -> None:
        """Move the bar of a step."""
        if self._quiet or not self._console.is_terminal:
            return
        with self._lock:
            if self._progress is None:
                self._stop_status()
                self._progress = Progress(
                    TextColumn("  {task.description:<11}"),
                    BarColumn(),
                    DownloadColumn(),
                    TransferSpeedColumn(),
                    TimeRemainingColumn(),
                    console=self._console,
                    transient=True,
                )
                self._progress.start()
            if step not in self._tasks:
                self._tasks[step] = self._progress.add_task(step, total=total or None)
            self._progress.advance(self._tasks[step], amount)

    def row(self, step: str, what: str, size: str, state: str) -> None:
        """Print the row of a finished step."""
        self.close()
        if self._quiet:
            return
        line = Text(f"  {step:<12}{what:<46}{size:>8}  ")
        line.append(state, style=_STATE_STYLES.get(state, ""))
        line.rstrip()
        self._console.print(line, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a remark."""
        if not self._quiet:
            self._console.print(Text(f"  {text}", style="dim"), soft_wrap=True)

    def close(self) -> None:
        """Take bar and spinner away."""
        with self._lock:
            self._stop_status()
            if self._progress is not None:
                self._progress.stop()
                self._progress, self._tasks = None, {}

    def _stop_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def print_build(console: Console, result: Result) -> None:
    """Print what a build made: its layers, and the names it can be called by.

    Parameters
    ----------
    console : Console
        Where to.
    result : Result
        From `build.build`.
    """
    built = result.built
    if built.examples:
        licence = built.examples.license or "no licence given"
        _say(console, f"  {built.examples.rows} data rows are in the image ({licence})")
    layers = [
        (layer.role, layer.what, layer.blob.size, layer.blob.sha256) for layer in built.image.layers
    ]
    _say(console)
    console.print(_layer_table(layers))
    _say(console)
    if built.commit:
        dirty = ", and inputs differ from it" if built.dirty else ""
        _say(console, f"commit    {built.commit[:12]}{dirty}")
    if result.order.output:
        _say(console, f"archive   {result.order.output}")
        _say(console, f"manifest  {result.manifest}")
    size = human_size(built.image.size)
    _say(console, f"image     {result.order.reference}  {built.image.id}  {size}")


def print_info(console: Console, described: dict[str, Any]) -> None:
    """Print what is inside an image.

    Parameters
    ----------
    console : Console
        Where to.
    described : dict
        From `info.of_image` or `info.of_archive`.
    """
    _say(console, f"{described['image']}  {described['id']}")
    labels = described["labels"]
    known = [(title, labels[key]) for key, title in _TITLES.items() if key in labels]
    others = [(key, value) for key, value in sorted(labels.items()) if key not in _TITLES]
    for title, value in known + others:
        _say(console, f"  {title:<13}{value}")
    signature = (described.get("facts") or {}).get("signature") or {}
    for side in ("inputs", "outputs"):
        for tensor in signature.get(side) or []:
            told = f"{tensor['name']}: {tensor['datatype']} {tensor['shape']}"
            _say(console, f"  {side[:-1]:<13}{told}")
    _say(console)
    layers = []
    for layer in described["layers"]:
        role, _, what = layer["what"].partition(": ")
        layers.append((role, what, layer["size"], layer["diff_id"].removeprefix("sha256:")))
    console.print(_layer_table(layers))


def print_replay(console: Console, verdict: Verdict) -> None:
    """Print what was replayed and how far off it was.

    Parameters
    ----------
    console : Console
        Where to.
    verdict : Verdict
        From `smoke.replay`.
    """
    times = f"model loaded in {verdict.seconds['load']:.1f} s"
    if not verdict.examples:
        _say(console, f"loaded, but no examples are recorded: nothing was replayed; {times}")
        return
    console.print(_replay_table(verdict.outputs))
    times += f", predicted in {verdict.seconds['predict']:.1f} s"
    _say(console, f"passed: {verdict.examples} examples replayed, sealed; {times}")


def _say(console: Console, line: str = "") -> None:
    console.print(Text(line), soft_wrap=True)


def _layer_table(layers: Sequence[tuple[str, str, int, str]]) -> Table:
    table = _table("layer", "what")
    table.add_column("size", justify="right")
    table.add_column("diff ID")
    for role, what, size, digest in layers:
        table.add_row(role, Text(what), human_size(size), digest[:12])
    return table


def _replay_table(outputs: list[dict[str, Any]]) -> Table:
    table = _table("output")
    for column in ("compared", "differ", "largest difference"):
        table.add_column(column, justify="right")
    for one in outputs:
        largest = "" if one["largest_difference"] is None else f"{one['largest_difference']:.2g}"
        name = Text(one["name"])
        table.add_row(name, str(one["compared"]), str(one["mismatched"]), largest)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="bold")
    for column in columns:
        table.add_column(column)
    return table
