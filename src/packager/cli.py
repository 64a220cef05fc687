"""The command line: words in, words out, no logic.

Rooms are imported by the commands that use them, so that ``packager --help`` is quick.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial, update_wrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, NoReturn

import click

from packager import __version__
from packager.errors import PackagerError
from packager.reporter import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from packager.console import ConsoleReporter, Out
    from packager.project import Project
    from packager.proof import Limits
    from packager.store import Store

__all__ = ["main"]

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_INTERRUPTED = 130
_DAY = 86_400
_M_MMAP_THRESHOLD, _LARGE = -3, 8 << 20  # mallopt(3)
_M_TRIM_THRESHOLD, _SPARE = -1, 32 << 20
_GARBAGE = 100_000  # objects


class _Context:
    """What every command shares."""

    def __init__(self, folder: Path, *, color: bool) -> None:
        self.folder = folder
        self.color = color

    def root(self) -> Path:
        from packager import project

        return project.find_root(self.folder.resolve())

    def project(self, store: Store | None = None) -> Project:
        from packager import project

        return project.load(self.root(), store)

    def out(self, *, error: bool = False) -> Out:
        from packager.console import Out

        return Out(error=error, color=self.color)

    def reporter(self, *, quiet: bool, stderr: bool = False) -> ConsoleReporter:
        from packager.console import ConsoleReporter

        return ConsoleReporter(self.out(error=stderr), quiet=quiet)


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


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
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
    project = context.project()
    if check:
        from packager.lock import lockfile

        lockfile.check(project)
        click.echo("The locks are fresh.")
        return
    from packager import locking
    from packager.store import Store

    moved: Sequence[str] | None = [name for name in upgrade if name] if upgrade else None
    with closing(context.reporter(quiet=False)) as reporter:
        lines = locking.make(project, Store(reporter=reporter), reporter, upgrade=moved)
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
@click.option(
    "--dockerfile",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Let the engine build PATH (by default Dockerfile): not reproducible bit for bit.",
)
@click.option(
    "--build-arg", multiple=True, metavar="NAME[=VALUE]", help="For --dockerfile; may be repeated."
)
@_limits
@_json
@click.pass_obj
def build(
    context: _Context,
    /,
    *,
    store: Path | None,
    smoke: bool,
    limits: Limits,
    as_json: bool,
    dockerfile: str | None,
    build_arg: tuple[str, ...],
    **wishes: Any,
) -> None:
    """Build the image from locked bytes, load it, smoke-test it, tag it.

    Nothing is resolved and no container runs while the image is made. A failed smoke test
    leaves no tag. Without an engine: packager build -o image.tar --no-load.

    With --dockerfile, for steps that no lock can name, the engine builds a Dockerfile in the
    repository. Such an image is smoke-tested, too, but nobody can verify it.
    """
    from packager.store import Store

    if build_arg and dockerfile is None:
        raise click.UsageError("--build-arg is for --dockerfile.")
    bounds = limits if smoke else None
    with closing(context.reporter(quiet=as_json)) as reporter:
        kept = Store(store, reporter)
        if dockerfile is None:
            told = _built(context, wishes, bounds, store=kept, reporter=reporter)
        else:
            from packager import build as building
            from packager import dockerfile as dockerfiles

            project = context.project(kept)
            order = building.order(project, limits=bounds, **wishes)
            file = Path(dockerfile) if dockerfile else project.root / "Dockerfile"
            given = dockerfiles.arguments(build_arg)
            made = dockerfiles.build(project, order, file, kept, reporter, arguments=given)
            told = dockerfiles.summary(made)
    if as_json:
        click.echo(json.dumps(told, indent=1))
    elif dockerfile is None:
        from packager.console import print_build

        print_build(context.out(), told)
    else:
        click.echo(dockerfiles.render(made))


@cli.command()
@click.argument("ref")
@click.option("--smoke/--no-smoke", default=True, help="Replay the recorded examples, sealed.")
@click.option("--platform", help="One of the lock's platforms; by default the first.")
@click.option(
    "--insecure",
    is_flag=True,
    help="Accept a registry without TLS, or with a certificate that nobody vouches for.",
)
@_limits
@_json
@click.pass_obj
def push(
    context: _Context,
    *,
    ref: str,
    smoke: bool,
    platform: str | None,
    insecure: bool,
    limits: Limits,
    as_json: bool,
) -> None:
    """Build the image, smoke-test it, and push it as REF: REGISTRY/NAME:TAG.

    What is built and proved already is not done again, and only what the registry lacks is
    sent. It then holds the manifest that packager build -o writes, by the same digest.
    --no-smoke needs no engine.

    Logins are those of docker login. A registry with a CA of your own: SSL_CERT_FILE, or pip's
    cert setting.
    """
    from packager import build as building
    from packager.console import print_build
    from packager.store import Store

    with closing(context.reporter(quiet=as_json)) as reporter:
        store = Store(reporter=reporter)
        project = context.project(store)
        order = building.order(
            project,
            tag=None,
            output=None,
            load=smoke,
            platform=platform,
            limits=limits if smoke else None,
            push=ref,
            insecure=insecure,
        )
        reporter.title(building.title(project, order))
        told = building.summary(building.build(project, order, store, reporter))
    if as_json:
        click.echo(json.dumps(told, indent=1))
    else:
        print_build(context.out(), told)


def _built(
    context: _Context,
    wishes: dict[str, Any],
    limits: Limits | None,
    *,
    store: Store,
    reporter: ConsoleReporter,
) -> Mapping[str, Any]:
    """Build, or say again what the last build said where nothing has changed since."""
    from packager import unchanged

    asked = {name: str(value) for name, value in wishes.items()}
    if said := unchanged.recall(store, context.root(), asked):
        reporter.title(said)
        if proved := unchanged.proved(said, limits, store=store, reporter=reporter):
            return proved
    from packager import foreseen

    foreseen.begin(context.root(), store)
    from packager import build as building

    project = context.project(store)
    order = building.order(project, limits=limits, **wishes)
    if not said:
        reporter.title(building.title(project, order))
    stamp = unchanged.take(project, asked) if order.load and not order.output else None
    told = building.summary(building.build(project, order, store, reporter))
    if stamp:
        stamp.keep(store, told)
    return told


@cli.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where something is to be done.")
@_json
@click.pass_obj
def cards(context: _Context, *, check: bool, as_json: bool) -> None:
    """Fill the numbers of MODEL_CARD.md and DATASHEET.md in, from metrics.json.

    A number stands between <!-- metrics: PATH --> and <!-- /metrics -->, or in the front
    matter before # metrics: PATH. metrics.json lies beside the model; a PATH is its keys
    with dots between.

    --check finds what was left open, numbers that disagree, cards that are older than the
    model or about other data, and sections, questions and required answers that are missing.
    """
    from packager import cards as writing

    project = context.project()
    report = writing.check(project) if check else writing.fill(project)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=1))
    else:
        click.echo(printable(writing.render(report, checked=check)))
    sys.exit(1 if report.findings else 0)


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
    from packager.console import print_replay
    from packager.outputs import engine as engines

    name = image or _own_image(context)
    verdict = smoking.replay(engines.connect(), name, limits)
    if as_json:
        click.echo(json.dumps(asdict(verdict), indent=1))
    else:
        print_replay(context.out(), verdict)


def _own_image(context: _Context) -> str:
    from packager.reference import Reference

    project = context.project()
    return str(Reference.of(project.name, project.version))


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("image", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Where the predictions go; by default, as for -, standard output.",
)
@click.option(
    "--from",
    "source",
    type=click.Choice(["csv", "json", "jsonl", "parquet"]),
    help="What FILE holds; by default as its name ends.",
)
@click.option(
    "--to",
    "target",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    help="What is written; by default as its name ends, or CSV.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=10_000, show_default=True, help="Rows at a time."
)
@_limits
@_json
@click.pass_obj
def predict(
    context: _Context,
    *,
    file: Path,
    image: str | None,
    output: Path | None,
    source: str | None,
    target: str | None,
    batch: int,
    limits: Limits,
    as_json: bool,
) -> None:
    """Predict the rows of FILE with IMAGE, sealed off.

    IMAGE is by default the one that this project builds. Columns that the model does not take
    come first, unchanged; then its outputs; then confidence (where an output is probabilities),
    outside (inputs beyond the training range) and model (its digest). A blank cell says
    missing. Parquet needs pyarrow.

    A row that is wrong is named, counted from 1 without the header, and leaves no output file.
    """
    from packager import predicting
    from packager.outputs import engine as engines

    to = None if output == Path("-") else output
    if as_json and to is None:
        raise click.UsageError("--json needs --output: standard output is the predictions'.")
    wish = predicting.wish(file, to, source=source, target=target, size=batch)
    name = image or _own_image(context)
    with closing(context.reporter(quiet=as_json, stderr=to is None)) as reporter, _out(to) as out:
        done = predicting.predict(
            engines.connect(), name, wish, out, limits=limits, reporter=reporter
        )
    if as_json:
        click.echo(json.dumps(done.told() | {"output": str(to)}, indent=1))
    elif to is not None:
        click.echo(printable(f"{done.text()}: {to}"))


@contextlib.contextmanager
def _out(path: Path | None) -> Iterator[IO[bytes]]:
    """Give standard output, or a file that is there only if all went well."""
    from packager.files import replacing

    if path is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
    else:
        with replacing(path) as out:
            yield out


@cli.command()
@click.argument("image", required=False)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Of this machine; 0 takes a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address of this machine; 0.0.0.0 lets others in.",
)
@_limits
@click.pass_obj
def serve(context: _Context, image: str | None, port: int, host: str, limits: Limits) -> None:
    """Start the server of IMAGE: a page for people, the Open Inference Protocol for programs.

    IMAGE is by default the one that this project builds. Read-only, no capabilities, no new
    privileges, not root, bounded memory and processes. The server's log goes to standard error.
    Ctrl-C lets the requests that are there be answered, and removes the container.
    """
    from packager import serving
    from packager.outputs import engine as engines

    name = image or _own_image(context)
    serving.serve(
        engines.connect(),
        name,
        (host, port),
        limits,
        tell=click.echo,
        log=partial(click.echo, err=True),
    )


@cli.command()
@click.argument("image", required=False)
@_json
@click.pass_obj
def info(context: _Context, image: str | None, as_json: bool) -> None:
    """Say what is inside IMAGE, from whom, with which digests.

    IMAGE is a tag or ID in the engine, or an archive or OCI layout that packager build -o
    wrote; by default the image that this project builds.
    """
    from packager import info as informing
    from packager.console import print_info
    from packager.outputs import engine as engines

    name = image or _own_image(context)
    if Path(name).exists():
        described = informing.of_file(Path(name))
    else:
        described = informing.of_image(engines.connect(), name)
    if as_json:
        click.echo(json.dumps(described, indent=1))
    else:
        print_info(context.out(), described)


@cli.command()
@click.argument("image", required=False)
@click.option("--empty-store", is_flag=True, help="Fetch every locked byte anew, into a new store.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the report goes; by default NAME-VERSION.verification.json.",
)
@click.option("--by", metavar="NAME", help="Who verifies; by default the name that git knows.")
@_json
@click.pass_obj
def verify(
    context: _Context,
    *,
    image: str | None,
    empty_store: bool,
    report: Path | None,
    by: str | None,
    as_json: bool,
) -> None:
    """Rebuild IMAGE from its lock and sources, and compare the two, bit for bit.

    IMAGE is a tag or ID in the engine, an archive or an OCI layout; by default the image
    that this project builds. Its sources are found by the digest of the inputs that it
    carries: among the commits of this repository, in the working tree, or in an unpacked
    source archive. The image itself is never changed, and no model is retrained.

    Exits 0 where the image was reproduced and 1 where it was not, and writes a report either
    way. Its format is packager/verification.schema.json, told in docs/verifying.md.
    """
    from packager import verify as verifying
    from packager.console import print_verification
    from packager.files import replace_file
    from packager.outputs.opened import opened
    from packager.store import Store

    project = context.project()
    path = report or Path(f"{project.name}-{project.version}.verification.json")
    verifying.check_report(path, image)
    with closing(context.reporter(quiet=as_json)) as reporter:
        store = Store(reporter=reporter)
        with store.scratch() as scratch:
            subject = opened(image or _own_image(context), scratch)
            done = verifying.verify(
                project, subject, store, scratch, reporter, empty_store=empty_store
            )
    told = verifying.report(done, by=by or verifying.author(project.root))
    replace_file(path, json.dumps(told, indent=1).encode() + b"\n")
    if as_json:
        click.echo(json.dumps(told, indent=1))
    else:
        print_verification(context.out(), done, path)
    sys.exit(0 if done.reproduced else 1)


@cli.command()
@click.argument("a")
@click.argument("b")
@_json
@click.pass_obj
def diff(context: _Context, a: str, b: str, as_json: bool) -> None:
    """Say why the images A and B differ: config, layers, paths, and the inside of a file.

    Each is a tag or ID in the engine, an archive (of packager build -o or docker save, gzipped
    or not) or a folder with an OCI layout. They need not be packager's.

    \b
    packager diff penguins:0.1.0 penguins:0.1.1    two images of the engine
    packager diff mine.tar theirs.tar              two archives
    packager diff image.tar penguins:0.1.0         did the engine keep what was built?

    Layers are paired by their digests, then by what the images' histories say of them. Of
    each pair the first path that differs is printed, with the wheel or Debian package that it
    came with, and how many follow; --json prints all of them. A path differs in:

    \b
    presence    it is on one side only       mode, owner, time   as the words say
    type        a file here, a link there    attributes          extended ones
    content     other bytes                  order               its place in the layer
    link        another target               encoding            none of it, but the tar's
                                                                 own bytes

    Of the first file with other bytes the inside is shown: by diffoscope if it is on PATH.
    Manifests are compared where both images have one and the configs are the same.

    Exits 0 where the images are the same, and 1 where they differ.
    """
    from packager import diff as comparing
    from packager.console import print_difference
    from packager.store import Store

    with Store().scratch() as scratch:
        found = comparing.between(a, b, scratch)
    if as_json:
        click.echo(json.dumps(comparing.as_json(found), indent=1))
    else:
        print_difference(context.out(), found)
    sys.exit(0 if found.same else 1)


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


class _Output(io.FileIO):
    """Standard output whose reader may leave early, as `head` does: the work goes on."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or do as if."""
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def _outlive_the_reader() -> None:
    out = sys.stdout
    if out is not None and not out.isatty():
        raw = _Output(out.fileno(), "wb", closefd=False)
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), out.encoding, out.errors)


def _bound_memory() -> None:
    """Let what is freed be used again, and what is more than that go back to the system.

    By itself glibc keeps more with each large buffer that it frees; and where it gives every one
    back, as for buffers of a megabyte, fetching pages anew takes a tenth of a build's time.
    """
    import ctypes

    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or system
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        allocator.mallopt(_M_TRIM_THRESHOLD, _SPARE)


def _print_json_error(what: str, where: str, hint: str) -> None:
    # Where the words could not be understood there is no parsed --json to ask.
    if "--json" in sys.argv:
        body = {"what": what, "where": where, "hint": hint}
        click.echo(json.dumps({"error": body}, indent=1))


def _print_error(error: PackagerError) -> None:
    plain = os.environ.get("NO_COLOR") or "--no-color" in sys.argv
    heading = click.style("error:", fg="red", bold=True)
    click.echo(f"{heading} {printable(str(error))}", err=True, color=False if plain else None)


def main() -> NoReturn:
    """Run the command line; errors made for users end here, in a message and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _outlive_the_reader()
    _bound_memory()
    # Nearly all that is made here lives until it is used up, and to look through it again and
    # again for circles took a twelfth of a build's processor time.
    gc.set_threshold(_GARBAGE)
    try:
        cli(standalone_mode=False)
    except PackagerError as error:
        _print_json_error(error.what, error.where, error.hint)
        _print_error(error)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _print_json_error(error.format_message(), "command line", "packager --help")
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(_INTERRUPTED)
    sys.exit(0)
