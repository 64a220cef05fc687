"""What a person sees on a terminal, what a log gets, and what a script reads."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packager.reporter import human_size, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.status import Status

    from packager.diff import Difference, LayerDifference
    from packager.proof import Verdict
    from packager.verify import Verification

__all__ = [
    "ConsoleReporter",
    "Out",
    "print_build",
    "print_difference",
    "print_info",
    "print_replay",
    "print_verification",
]

_STATE_STYLES: dict[str, dict[str, Any]] = {
    "passed": {"fg": "green"},
    "passed before": {"fg": "green"},
    "same": {"fg": "green"},
    "cached": {"dim": True},
    "loaded": {"fg": "yellow"},
    "not run": {"fg": "yellow"},
    "not compared": {"fg": "yellow"},
    "changed": {"fg": "red"},
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


class Out:
    """Lines for a person, on standard output or error.

    Rich is imported only where something moves: it takes longer than a build that changes nothing.

    Parameters
    ----------
    error : bool
        Whether it is standard error.
    color : bool
        Whether a terminal gets colours.
    """

    def __init__(self, *, error: bool = False, color: bool = True) -> None:
        self._error = error
        self._plain = not color or bool(os.environ.get("NO_COLOR"))

    @property
    def is_terminal(self) -> bool:
        """Whether somebody sees what moves."""
        stream = sys.stderr if self._error else sys.stdout
        return stream is not None and stream.isatty()

    def say(self, line: str = "", **style: Any) -> None:
        """Print a line, in the style of `click.style`."""
        styled = click.style(line, **style) if any(style.values()) else line
        click.echo(styled, err=self._error, color=False if self._plain else None)

    def moving(self) -> Console:
        """Give what bars and spinners are shown on."""
        from rich.console import Console

        return Console(stderr=self._error, no_color=self._plain or None, highlight=False)


class ConsoleReporter:
    """Prints rows as steps finish, and a bar below them while bytes move.

    Without a terminal the same rows are plain lines and there is no bar.
    """

    def __init__(self, out: Out, *, quiet: bool = False) -> None:
        self._out = out
        self._quiet = quiet
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._status: Status | None = None

    def begin(self, step: str, what: str) -> None:
        """Show a spinner until the step's row is printed, or the bar moves."""
        if self._quiet or not self._out.is_terminal:
            return
        with self._lock:
            self._stop_status()
            if self._progress is None:  # a bar that moves says enough
                self._status = self._out.moving().status(f"{step:<12}{what}")
                self._status.start()

    def advance(self, step: str, amount: int, total: int) -> None:
        """Move the bar of a step; it goes when all is there."""
        if self._quiet or not self._out.is_terminal:
            return
        with self._lock:
            if self._progress is None:
                self._stop_status()
                self._progress = _bar(self._out.moving())
                self._progress.start()
            if step not in self._tasks:
                self._tasks[step] = self._progress.add_task(step, total=total or None)
            self._progress.advance(self._tasks[step], amount)
            if self._progress.finished:
                self._stop_progress()

    def title(self, told: Mapping[str, Any]) -> None:
        """Print what is being built, by the keys of `build.summary`."""
        named = f"{told['name']} {told['version']} · {told['platform']}"
        self._say(printable(f"{named} · CPython {told['python']} · {told['base']}"))

    def row(self, step: str, what: str, size: str, state: str) -> None:
        """Print the row of a finished step."""
        with self._lock:
            self._stop_status()
        line = f"  {step:<12}{_shown(what):<46}{size:>8}  "
        styled = click.style(state, **style) if (style := _STATE_STYLES.get(state)) else state
        self._say(line + styled if state else line.rstrip())

    def note(self, text: str) -> None:
        """Print a remark."""
        self._say(click.style(f"  {printable(text)}", dim=True))

    def _say(self, line: str) -> None:
        if self._quiet:
            return
        if moving := self._progress or self._status:
            from rich.text import Text

            moving.console.print(Text.from_ansi(line), soft_wrap=True)  # above it
        else:
            self._out.say(line)

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


def print_build(out: Out, told: Mapping[str, Any]) -> None:
    """Print what a build made: its layers, and the names it can be called by.

    Parameters
    ----------
    out : Out
        Where to.
    told : mapping
        From `build.summary`.
    """
    if examples := told["examples"]:
        licence = examples["license"] or "no licence given"
        out.say(f"  {examples['rows']} data rows are in the image ({licence})")
    layers = [
        (one["role"], one["what"], one["size"], one["diff_id"].removeprefix("sha256:"))
        for one in told["layers"]
    ]
    out.say()
    _print_layers(out, layers)
    out.say()
    if told["commit"]:
        dirty = ", and inputs differ from it" if told["dirty"] else ""
        out.say(f"commit    {told['commit'][:12]}{dirty}")
    if told["archive"]:
        out.say(f"archive   {told['archive']}")
    if told["manifest"] and not told.get("pushed"):
        out.say(f"manifest  {told['manifest']}")
    out.say(f"image     {told['reference']}  {told['id']}  {human_size(told['size'])}")
    if pushed := told.get("pushed"):
        out.say(f"pushed    {pushed['reference']}  {pushed['manifest']}")


def print_info(out: Out, described: dict[str, Any]) -> None:
    """Print what is inside an image.

    Parameters
    ----------
    out : Out
        Where to.
    described : dict
        From `info.of_image` or `info.of_file`.
    """
    out.say(f"{described['image']}  {described['id']}")
    labels = described["labels"]
    known = [(title, labels[key]) for key, title in _TITLES.items() if key in labels]
    others = [(key, value) for key, value in sorted(labels.items()) if key not in _TITLES]
    for title, value in known + others:
        out.say(f"  {title:<13}{value}")
    signature = (described.get("facts") or {}).get("signature") or {}
    for side in ("inputs", "outputs"):
        for tensor in signature.get(side) or []:
            told = f"{tensor['name']}: {tensor['datatype']} {tensor['shape']}"
            out.say(f"  {side[:-1]:<13}{told}")
    out.say()
    layers = []
    for layer in described["layers"]:
        role, _, what = layer["what"].partition(": ")
        layers.append((role, what, layer["size"], layer["diff_id"].removeprefix("sha256:")))
    _print_layers(out, layers)


def print_replay(out: Out, verdict: Verdict) -> None:
    """Print what was replayed and how far off it was.

    Parameters
    ----------
    out : Out
        Where to.
    verdict : Verdict
        From `smoke.replay`.
    """
    times = f"model loaded in {verdict.seconds['load']:.1f} s"
    if not verdict.examples:
        out.say(f"loaded, but no examples are recorded: nothing was replayed; {times}")
        return
    _print_outputs(out, verdict.outputs)
    times += f", predicted in {verdict.seconds['predict']:.1f} s"
    times += f", {verdict.seconds['container']:.1f} s in all"
    out.say(f"passed: {verdict.examples} examples replayed, sealed; {times}")
    if verdict.refused is not None:
        seconds = verdict.seconds["serve"]
        told = f"the same over HTTP in {seconds:.1f} s, {verdict.refused} wrong requests refused"
        out.say(f"served: {told}")


def print_verification(out: Out, done: Verification, report: Path) -> None:
    """Print what came of verifying an image.

    Parameters
    ----------
    out : Out
        Where to.
    done : Verification
        From `verify.verify`.
    report : Path
        Where its report was written.
    """
    if done.difference:
        out.say()
        print_difference(out, done.difference)
    out.say()
    if done.reproduced:
        model = done.sources.inputs.model.digest
        out.say(f"image reproduced: {done.image.id}")
        out.say(f"  from the model {model}; no model was retrained")
    else:
        changed = ", ".join(level.name for level in done.levels if level.verdict == "changed")
        out.say(f"image changed ({changed}): {_shown(done.image.name)}")
        for level in done.levels:
            if level.verdict == "changed" and level.expected != level.found:
                out.say(f"  {level.name:<10}it is    {level.expected}")
                out.say(f"  {'':<10}rebuilt  {level.found}")
    out.say(f"report    {report}")


def print_difference(out: Out, difference: Difference) -> None:
    """Print why two images differ: of each layer the first paths, and how many follow.

    Parameters
    ----------
    out : Out
        Where to.
    difference : Difference
        From `diff.compare`.
    """
    for name, side in (("A", difference.a), ("B", difference.b)):
        out.say(f"{name}  {_shown(side.name)}  {side.kind}, {side.platform}, {side.id}")
        if side.manifest:
            out.say(f"   manifest {side.manifest}")
    for title, keys in (("config", difference.config), ("manifest", difference.manifest)):
        if keys:
            out.say(f"\n{title}")
        for key in keys[:_MOST_KEYS]:
            out.say(f"  {_shown(key.key)}")
            _both(out, key.a, key.b)
        if keys[_MOST_KEYS:]:
            out.say(f"  and {len(keys) - _MOST_KEYS} more")
    for layer in difference.layers:
        out.say(f"\n{_shown(_layer_title(layer))}")
        _paths(out, layer)
    if inside := difference.inside:
        where = f"/{_shown(inside.path)}: differs from byte {inside.first_byte} on"
        out.say(f"\ninside {where}")
        for line in inside.text.splitlines():
            out.say(f"  {_shown(line.expandtabs())}")
    out.say(f"\n{_judgement(difference)}")


def _layer_title(layer: LayerDifference) -> str:
    if layer.a is None or layer.b is None:
        one, side = (layer.a, "A") if layer.a else (layer.b, "B")
        assert one is not None
        return f"layer {one.position}, only in {side}: {one.what or one.diff_id}"
    positions = dict.fromkeys(str(one.position) for one in (layer.a, layer.b))
    names = dict.fromkeys(one.what or one.diff_id for one in (layer.a, layer.b))
    moved = ", the same elsewhere" if layer.a.diff_id == layer.b.diff_id else ""
    return f"layer {' → '.join(positions)}{moved}: {' → '.join(names)}"


def _paths(out: Out, layer: LayerDifference) -> None:
    if not layer.paths:
        return
    path = layer.paths[0].path
    for one in layer.paths:
        if one.path == path:
            owner = f"  ({_shown(one.owner)})" if one.owner else ""
            out.say(f"  {one.kind:<11}/{_shown(path)}{owner}")
            _both(out, one.a, one.b)
    further = [one for one in layer.paths if one.path != path]
    for one in further[:_MOST_PATHS]:
        owner = f"  ({_shown(one.owner)})" if one.owner else ""
        out.say(f"  {one.kind:<11}/{_shown(one.path)}{owner}")
    if rest := further[_MOST_PATHS:]:
        kinds = Counter(one.kind for one in rest)
        told = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        out.say(f"  and {len({one.path for one in rest})} more: {told}")


def _both(out: Out, a: str | None, b: str | None) -> None:
    for side, value in (("A", a), ("B", b)):
        text = "-" if value is None else _shown(value)
        cut = text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
        out.say(f"    {side}  {cut}")


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


def _print_layers(out: Out, layers: Sequence[tuple[str, str, int, str]]) -> None:
    rows = [
        (role, _shown(what), human_size(size), digest[:12]) for role, what, size, digest in layers
    ]
    _print_table(out, "<<><", ("layer", "what", "size", "diff ID"), rows)


def _print_outputs(out: Out, outputs: list[dict[str, Any]]) -> None:
    rows = []
    for one in outputs:
        largest = "" if one["largest_difference"] is None else f"{one['largest_difference']:.2g}"
        rows.append((_shown(one["name"]), str(one["compared"]), str(one["mismatched"]), largest))
    _print_table(out, "<>>>", ("output", "compared", "differ", "largest difference"), rows)


def _print_table(
    out: Out, sides: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> None:
    """Print columns, each set to its side."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = zip(row, sides, widths, strict=True)
        line = "    ".join(f"{cell:{side}{width}}" for cell, side, width in cells)
        out.say(line.rstrip(), bold=row is header)
