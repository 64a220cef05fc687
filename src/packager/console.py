"""What a person sees on a terminal, what a log gets, and what a script reads."""

from __future__ import annotations

import threading
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

__all__ = ["ConsoleReporter", "layer_table", "replay_table"]

_STATE_STYLES = {"passed": "green", "cached": "dim", "loaded": "yellow"}


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


def layer_table(layers: list[dict[str, Any]], size_of: Any) -> Table:
    """Make the table of an image's layers, bottom first."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="bold")
    table.add_column("layer")
    table.add_column("what")
    table.add_column("size", justify="right")
    table.add_column("diff ID")
    for layer in layers:
        digest = layer["diff_id"].removeprefix("sha256:")[:12]
        table.add_row(layer["role"], layer["what"], size_of(layer["size"]), digest)
    return table


def replay_table(outputs: list[dict[str, Any]]) -> Table:
    """Make the table of what was replayed and how far off it was."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="bold")
    table.add_column("output")
    for column in ("compared", "differ", "largest difference"):
        table.add_column(column, justify="right")
    for one in outputs:
        largest = "" if one["largest_difference"] is None else f"{one['largest_difference']:.2g}"
        table.add_row(one["name"], str(one["compared"]), str(one["mismatched"]), largest)
    return table
