"""``packager build``: build, load, prove, tag."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packager.cli.shared import Context, json_option, limits_options

if TYPE_CHECKING:
    from packager.console import ConsoleReporter
    from packager.proof import Limits
    from packager.store import Store


@click.command()
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
@click.option("--offline", is_flag=True, help="Ask nobody: build from what the store has.")
@click.option(
    "--bundle",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Build offline, from what packager bundle wrote.",
)
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
@limits_options
@json_option
@click.pass_obj
def build(
    context: Context,
    /,
    *,
    offline: bool,
    bundle: Path | None,
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
    leaves no tag. Without an engine: packager build -o image.tar --no-load. Without a network:
    packager build --bundle FILE, once, and --offline from then on.

    With --dockerfile, for steps that no lock can name, the engine builds a Dockerfile in the
    repository. Such an image is smoke-tested, too, but nobody can verify it.
    """
    from packager.store import Store

    if build_arg and dockerfile is None:
        raise click.UsageError("--build-arg is for --dockerfile.")
    if dockerfile is not None and (offline or bundle):
        raise click.UsageError("--offline and --bundle are not for --dockerfile.")
    bounds = limits if smoke else None
    with closing(context.reporter(quiet=as_json)) as reporter:
        kept = Store(store, reporter, offline=offline or bundle is not None)
        if bundle:
            from packager import bundle as bundles

            bundles.take(context.project(kept), bundle, kept, reporter)
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


def _built(
    context: Context,
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
