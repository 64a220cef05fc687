"""What a person sees on a terminal, what a log gets, and what a script reads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from packager.reporter import human_size, printable

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.status import Status

    from packager.diff import Difference, LayerDifference
    from packager.proof import Verdict
    from packager.verify import Verification

__all__ = [
    "ConsoleReporter",
    "print_build",
    "print_difference",
    "print_info",
    "print_replay",
    "print_verification",
]

_STATE_STYLES = {
    "passed": "green",
    "passed before": "green",
    "same": "green",
    "cached": "dim",
    "loaded": "yellow",
    "not compared": "yellow",
    "changed": "red",
}
_LONGEST_VALUE = 160
_MOST_KEYS = 12
_MOST_PATHS = 4
_TITLES = {
    "org.opencontainers.image.title": "name",
    "org.opencontainers.image.version": "version",
    "org.opencontainers.image.description": "description",
    "org.opencontainers.image.licenses": "licence",
    "org.opencontainers.image.source": "source",
    "org.opencontainers.image.base.name": "base",
    "org.model-packager.model": "model",
    "org.model-packager.inputs": "built from",
    "org.model-packager.reproducible": "reproducible",
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
        """Show a spinner until the step's row is printed, or the bar moves."""
        if self._quiet or not self._console.is_terminal:
            return
        with self._lock:
            self._stop_status()
            if self._progress is None:  # a bar that moves says enough
                self._status = self._console.status(f"{step:<12}{what}")
                self._status.start()

    def advance(self, step: str, amount: int, total: int) -> None:
        """Move the bar of a step; it goes when all is there."""
        if self._quiet or not self._console.is_terminal:
            return
        with self._lock:
            if self._progress is None:
                self._stop_status()
                self._progress = _bar(self._console)
                self._progress.start()
            if step not in self._tasks:
                self._tasks[step] = self._progress.add_task(step, total=total or None)
            self._progress.advance(self._tasks[step], amount)
            if self._progress.finished:
                self._stop_progress()

    def title(self, told: Mapping[str, Any]) -> None:
        """Print what is being built, by the keys of `build.summary`."""
        if not self._quiet:
            named = f"{told['name']} {told['version']} · {told['platform']}"
            line = f"{named} · CPython {told['python']} · {told['base']}"
            self._console.print(Text(printable(line)), soft_wrap=True)

    def row(self, step: str, what: str, size: str, state: str) -> None:
        """Print the row of a finished step."""
        with self._lock:
            self._stop_status()
        if self._quiet:
            return
        line = Text(f"  {step:<12}{_shown(what):<46}{size:>8}  ")
        line.append(state, style=_STATE_STYLES.get(state, ""))
        line.rstrip()
        self._console.print(line, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a remark."""
        if not self._quiet:
            self._console.print(Text(f"  {printable(text)}", style="dim"), soft_wrap=True)

    def close(self) -> None:
        """Take bar and spinner away."""
        with self._lock:
            self._stop_status()
            self._stop_progress()

    def _stop_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress, self._tasks = None, {}

    def _stop_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def _bar(console: Console) -> Progress:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("  {task.description:<11}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def print_build(console: Console, told: Mapping[str, Any]) -> None:
    """Print what a build made: its layers, and the names it can be called by.

    Parameters
    ----------
    console : Console
        Where to.
    told : mapping
        From `build.summary`.
    """
    if examples := told["examples"]:
        licence = examples["license"] or "no licence given"
        _say(console, f"  {examples['rows']} data rows are in the image ({licence})")
    layers = [
        (one["role"], one["what"], one["size"], one["diff_id"].removeprefix("sha256:"))
        for one in told["layers"]
    ]
    _say(console)
    console.print(_layer_table(layers))
    _say(console)
    if told["commit"]:
        dirty = ", and inputs differ from it" if told["dirty"] else ""
        _say(console, f"commit    {told['commit'][:12]}{dirty}")
    if told["archive"]:
        _say(console, f"archive   {told['archive']}")
        _say(console, f"manifest  {told['manifest']}")
    _say(console, f"image     {told['reference']}  {told['id']}  {human_size(told['size'])}")


def print_info(console: Console, described: dict[str, Any]) -> None:
    """Print what is inside an image.

    Parameters
    ----------
    console : Console
        Where to.
    described : dict
        From `info.of_image` or `info.of_file`.
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
    if verdict.refused is not None:
        seconds = verdict.seconds["serve"]
        told = f"the same over HTTP in {seconds:.1f} s, {verdict.refused} wrong requests refused"
        _say(console, f"served: {told}")


def print_verification(console: Console, done: Verification, report: Path) -> None:
    """Print what came of verifying an image.

    Parameters
    ----------
    console : Console
        Where to.
    done : Verification
        From `verify.verify`.
    report : Path
        Where its report was written.
    """
    if done.difference:
        _say(console)
        print_difference(console, done.difference)
    _say(console)
    if done.reproduced:
        model = done.sources.inputs.model.digest
        _say(console, f"image reproduced: {done.image.id}")
        _say(console, f"  from the model {model}; no model was retrained")
    else:
        changed = ", ".join(level.name for level in done.levels if level.verdict == "changed")
        _say(console, f"image changed ({changed}): {_shown(done.image.name)}")
        for level in done.levels:
            if level.verdict == "changed" and level.expected != level.found:
                _say(console, f"  {level.name:<10}it is    {level.expected}")
                _say(console, f"  {'':<10}rebuilt  {level.found}")
    _say(console, f"report    {report}")


def print_difference(console: Console, difference: Difference) -> None:
    """Print why two images differ: of each layer the first paths, and how many follow.

    Parameters
    ----------
    console : Console
        Where to.
    difference : Difference
        From `diff.compare`.
    """
    for name, side in (("A", difference.a), ("B", difference.b)):
        _say(console, f"{name}  {_shown(side.name)}  {side.kind}, {side.platform}, {side.id}")
        if side.manifest:
            _say(console, f"   manifest {side.manifest}")
    for title, keys in (("config", difference.config), ("manifest", difference.manifest)):
        if keys:
            _say(console, f"\n{title}")
        for key in keys[:_MOST_KEYS]:
            _say(console, f"  {_shown(key.key)}")
            _both(console, key.a, key.b)
        if keys[_MOST_KEYS:]:
            _say(console, f"  and {len(keys) - _MOST_KEYS} more")
    for layer in difference.layers:
        _say(console, f"\n{_shown(_layer_title(layer))}")
        _paths(console, layer)
    if inside := difference.inside:
        where = f"/{_shown(inside.path)}: differs from byte {inside.first_byte} on"
        _say(console, f"\ninside {where}")
        for line in inside.text.splitlines():
            _say(console, f"  {_shown(line.expandtabs())}")
    _say(console, f"\n{_judgement(difference)}")


def _layer_title(layer: LayerDifference) -> str:
    if layer.a is None or layer.b is None:
        one, side = (layer.a, "A") if layer.a else (layer.b, "B")
        assert one is not None
        return f"layer {one.position}, only in {side}: {one.what or one.diff_id}"
    positions = dict.fromkeys(str(one.position) for one in (layer.a, layer.b))
    names = dict.fromkeys(one.what or one.diff_id for one in (layer.a, layer.b))
    moved = ", the same elsewhere" if layer.a.diff_id == layer.b.diff_id else ""
    return f"layer {' → '.join(positions)}{moved}: {' → '.join(names)}"


def _paths(console: Console, layer: LayerDifference) -> None:
    if not layer.paths:
        return
    path = layer.paths[0].path
    for one in layer.paths:
        if one.path == path:
            owner = f"  ({_shown(one.owner)})" if one.owner else ""
            _say(console, f"  {one.kind:<11}/{_shown(path)}{owner}")
            _both(console, one.a, one.b)
    further = [one for one in layer.paths if one.path != path]
    for one in further[:_MOST_PATHS]:
        owner = f"  ({_shown(one.owner)})" if one.owner else ""
        _say(console, f"  {one.kind:<11}/{_shown(one.path)}{owner}")
    if rest := further[_MOST_PATHS:]:
        kinds = Counter(one.kind for one in rest)
        told = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        _say(console, f"  and {len({one.path for one in rest})} more: {told}")


def _both(console: Console, a: str | None, b: str | None) -> None:
    for side, value in (("A", a), ("B", b)):
        text = "-" if value is None else _shown(value)
        cut = text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
        _say(console, f"    {side}  {cut}")


def _judgement(difference: Difference) -> str:
    if difference.same:
        both = difference.a.manifest and difference.b.manifest
        return "The same image" + (", and the same manifest." if both else ".")
    parts = {
        "keys of the config": len(difference.config),
        "layers": len(difference.layers),
        "keys of the manifest": len(difference.manifest),
    }
    told = ", ".join(f"{part} {count}" for part, count in parts.items() if count)
    same = "" if difference.a.id != difference.b.id else "The image is the same.  "
    return f"{same}What differs: {told}."


def _shown(text: str) -> str:
    """Keep what an image says on one line, and from steering a terminal."""
    return printable(text.replace("\n", "\\n"))


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
