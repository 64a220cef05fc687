"""The command line: words in, words out, no logic.

Rooms are imported by the commands that use them, so that ``packager --help`` is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from packager import __version__
from packager.errors import PackagerError

if TYPE_CHECKING:
    from rich.console import Console

    from packager.build import Built
    from packager.console import ConsoleReporter
    from packager.project import Project
    from packager.smoke import Limits

__all__ = ["main"]

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_INTERRUPTED = 130


class _Context:
    """What every command shares."""

    def __init__(self, folder: Path, *, color: bool) -> None:
        self.folder = folder
        self.color = color

    def project(self) -> Project:
        from packager import project

        return project.load(project.find_root(self.folder.resolve()))

    def console(self, *, stderr: bool = False) -> Console:
        from rich.console import Console

        return Console(stderr=stderr, no_color=not self.color or None, highlight=False)

    def reporter(self, *, quiet: bool) -> ConsoleReporter:
        from packager.console import ConsoleReporter

        return ConsoleReporter(self.console(), quiet=quiet)


@click.group(context_settings=_HELP)
@click.version_option(__version__, prog_name="packager", message="%(prog)s %(version)s")
@click.option(
    "-C",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="The repository, or a folder below its root.",
)
@click.option("--color/--no-color", default=True, help="Colours; NO_COLOR switches them off, too.")
@click.pass_context
def cli(context: click.Context, folder: Path, color: bool) -> None:
    """Seal a trained model and its locked dependencies into a reproducible image.

    \b
    A first time:            Afterwards:
      packager init            packager build
      packager lock            docker run --rm NAME:VERSION info
      packager build           docker run --rm -i NAME:VERSION predict < rows.csv

    Exit codes: 0 done, 1 the project fails a claim of its own (stale lock, wrong digest,
    wrong prediction), 2 usage or configuration, 3 the surroundings (engine, network, disk).

    Tab completion: packager completion --help.
    """
    context.obj = _Context(folder, color=color)


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that bound a sealed container."""

    def wrapped(*args: Any, timeout: float, memory: str, **kwargs: Any) -> Any:
        from packager.smoke import Limits

        return command(*args, limits=Limits(seconds=timeout, memory=memory), **kwargs)

    update_wrapper(wrapped, command)
    memory = click.option("--memory", default="4g", show_default=True, help="For the smoke test.")
    seconds = click.option(
        "--timeout", type=float, default=300, show_default=True, help="Seconds for the smoke test."
    )
    return seconds(memory(wrapped))


@cli.command()
@click.option("--model", help="The model to adopt, where there are several.")
@click.pass_obj
def init(context: _Context, model: str | None) -> None:
    """Adopt a repository that has a model: write [tool.packager].

    Looks for a model file (skops, joblib, ONNX), for requirements and for a function that
    predicts; asks nothing that it can find out.
    """
    from packager import init as adopting

    report = adopting.adopt(context.folder.resolve(), model=model)
    click.echo(adopting.render(report))


@cli.command()
@click.option("--check", is_flag=True, help="Only check, offline; exit 1 where a lock is stale.")
@click.option(
    "--upgrade",
    multiple=True,
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Move the pin of NAME, or every pin. May be repeated.",
)
@click.pass_obj
def lock(context: _Context, check: bool, upgrade: tuple[str, ...]) -> None:
    """Resolve dependencies to exact bytes: requirements*.txt and packager.lock.

    Existing pins stay while they fit. Uses pip-tools where this interpreter and system are
    the image's, uv elsewhere, and says which.
    """
    from packager import locking
    from packager.store import Store

    project = context.project()
    if check:
        locking.check(project)
        click.echo("The locks are fresh.")
        return
    reporter = context.reporter(quiet=False)
    moved: Sequence[str] | None = [name for name in upgrade if name] if upgrade else None
    try:
        lines = locking.make(project, Store(reporter=reporter), reporter, upgrade=moved)
    finally:
        reporter.close()
    for line in lines:
        click.echo(f"  {line}")


@cli.command()
@click.option("-t", "--tag", help="Its name; by default NAME:VERSION of the project.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write an archive, too (OCI layout and docker archive in one).",
)
@click.option("--load/--no-load", default=True, help="Load it into the engine.")
@click.option("--smoke/--no-smoke", default=True, help="Replay the recorded examples, sealed.")
@click.option("--platform", help="One of the lock's platforms; by default the first.")
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Use this store.")
@_limits
@_json
@click.pass_obj
def build(context: _Context, /, as_json: bool, limits: Limits, **options: Any) -> None:
    """Build the image from locked bytes, load it, smoke-test it, tag it.

    Nothing is resolved and no container runs while the image is made. A failed smoke test
    leaves no tag. Without an engine: packager build -o image.tar --no-load.
    """
    from packager import build as building
    from packager.outputs import engine as engines
    from packager.store import Store

    project = context.project()
    reporter = context.reporter(quiet=as_json)
    if not options["load"] and not options["output"]:
        raise click.UsageError("--no-load without -o FILE would make nothing.")
    # Before minutes of work: is there an engine at all?
    engine = engines.connect() if options["load"] else None
    store = Store(options["store"], reporter)
    platform = options["platform"] or project.platforms[0]
    if not as_json:
        click.echo(_title(project, platform))
    try:
        built = building.assemble(project, platform, store, reporter)
        tag = options["tag"] or built.image.reference
        verdict = None
        if engine:
            verdict = building.deliver(
                built, engine, tag, limits if options["smoke"] else None, reporter
            )
        digest = None
        if options["output"]:
            reporter.begin("archive", str(options["output"]))
            digest = building.write_archive(built, options["output"], tag, store)
    finally:
        reporter.close()
    result = {
        **building.summary(built),
        "tag": tag if engine else None,
        "archive": str(options["output"]) if options["output"] else None,
        "manifest": digest,
        "smoke": verdict and {"examples": verdict.examples, "outputs": verdict.outputs},
    }
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        _print_build(context, built, result)


def _title(project: Project, platform: str) -> str:
    python = f"CPython {project.python}"
    return f"{project.name} {project.version} · {platform} · {python} · {project.base}"


def _print_build(context: _Context, built: Built, result: dict[str, Any]) -> None:
    from packager.build import human_size
    from packager.console import layer_table

    if built.examples:
        licence = built.examples.license or "no licence given"
        click.echo(f"  {built.examples.rows} data rows are in the image ({licence})")
    click.echo()
    context.console().print(layer_table(result["layers"], human_size))
    click.echo()
    if built.commit:
        dirty = ", and inputs differ from it" if built.dirty else ""
        click.echo(f"commit    {built.commit[:12]}{dirty}")
    if result["archive"]:
        click.echo(f"archive   {result['archive']}")
        click.echo(f"manifest  {result['manifest']}")
    name = result["tag"] or built.image.reference
    click.echo(f"image     {name}  {built.image.id}  {human_size(built.image.size)}")


@cli.command()
@click.argument("image", required=False)
@_limits
@_json
@click.pass_obj
def smoke(context: _Context, image: str | None, limits: Limits, as_json: bool) -> None:
    """Start IMAGE sealed off and replay the recorded examples.

    IMAGE is by default the one that this project builds. Sealed means: no network,
    read-only, no capabilities, no new privileges, not root, bounded memory and processes.
    """
    from packager import smoke as smoking
    from packager.console import replay_table
    from packager.outputs import engine as engines

    engine = engines.connect()
    verdict = smoking.replay(engine, image or _own_image(context), limits)
    if as_json:
        report = {"examples": verdict.examples, "outputs": verdict.outputs}
        click.echo(json.dumps({**report, "seconds": verdict.seconds}, indent=1))
        return
    context.console().print(replay_table(verdict.outputs))
    load, predict = verdict.seconds["load"], verdict.seconds["predict"]
    times = f"model loaded in {load:.1f} s, predicted in {predict:.1f} s"
    if verdict.examples:
        click.echo(f"passed: {verdict.examples} examples replayed, sealed; {times}")
    else:
        click.echo(f"loaded, but no examples are recorded: nothing was replayed; {times}")


def _own_image(context: _Context) -> str:
    from packager.image import reference

    project = context.project()
    return reference(project.name, project.version)


@cli.command()
@click.argument("image", required=False)
@_json
@click.pass_obj
def info(context: _Context, image: str | None, as_json: bool) -> None:
    """Say what is inside IMAGE, from whom, with which digests.

    IMAGE is a tag or ID in the engine, or an archive that packager build -o wrote; by
    default the image that this project builds.
    """
    from packager import info as informing
    from packager.outputs import engine as engines

    name = image or _own_image(context)
    if Path(name).is_file():
        described = informing.of_archive(Path(name))
    else:
        described = informing.of_image(engines.connect(), name)
    if as_json:
        click.echo(json.dumps(described, indent=1))
        return
    _print_info(context, described)


def _print_info(context: _Context, described: dict[str, Any]) -> None:
    from packager.build import human_size
    from packager.console import layer_table

    click.echo(f"{described['image']}  {described['id']}")
    for key, value in sorted(described["labels"].items()):
        click.echo(f"  {key.rpartition('.')[2]:<12}{value}")
    facts = described.get("facts") or {}
    for side in ("inputs", "outputs"):
        for tensor in facts.get("signature", {}).get(side, []):
            click.echo(f"  {side[:-1]:<12}{tensor['name']}: {tensor['datatype']} {tensor['shape']}")
    click.echo()
    layers = []
    for layer in described["layers"]:
        role, _, what = layer["what"].partition(": ")
        layers.append({**layer, "role": role, "what": what})
    context.console().print(layer_table(layers, human_size))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the tab completion for SHELL.

    \b
    bash: packager completion bash > ~/.local/share/bash-completion/completions/packager
    zsh:  packager completion zsh > "${fpath[1]}/_packager"
    fish: packager completion fish > ~/.config/fish/completions/packager.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "packager", "_PACKAGER_COMPLETE").source())


def main() -> NoReturn:
    """Run the command line; errors made for users end here, in a message and an exit code."""
    as_json = "--json" in sys.argv
    try:
        cli(standalone_mode=False)
    except PackagerError as error:
        if as_json:
            body = {"what": error.what, "where": error.where, "hint": error.hint}
            click.echo(json.dumps({"error": body}, indent=1))
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(0)
