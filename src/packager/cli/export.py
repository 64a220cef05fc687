"""``packager export``: write what others need to run the image."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packager.cli.shared import Context, limits_options

if TYPE_CHECKING:
    from packager.proof import Limits

_FORMS = ("apptainer", "kubernetes", "kubernetes-job", "kserve")


@click.command()
@click.argument("form", type=click.Choice(_FORMS), metavar="FORMAT")
@click.argument("ref", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where it goes; by default standard output.",
)
@click.option("--platform", help="One of the lock's platforms; by default the first.")
@click.option(
    "--shards",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="For kubernetes-job: in how many pieces the table is.",
)
@limits_options
@click.pass_obj
def export(
    context: Context,
    *,
    form: str,
    ref: str | None,
    output: Path | None,
    platform: str | None,
    shards: int,
    limits: Limits,
) -> None:
    """Write what Apptainer, Kubernetes or KServe need to run this project's image.

    \b
    FORMAT:
      apptainer        a definition file; from packager build -o, or from REF
      kubernetes       Deployment and Service of its server, sealed
      kubernetes-job   a Job that predicts a table in pieces, sealed
      kserve           an InferenceService of its server, sealed

    REF is the image's name in a registry, REGISTRY/NAME:TAG. It is pinned by the digest that
    packager push gives it, before or after. The manifests ask for the memory that the recorded
    examples took, so the image is built, smoke-tested and measured in the engine; apptainer
    needs none.
    """
    from packager import build as building
    from packager import exporting
    from packager.files import replace_file
    from packager.store import Store

    with closing(context.reporter(quiet=False, stderr=True)) as reporter:
        store = Store(reporter=reporter)
        project = context.project(store)
        wished = exporting.wish(project, form, ref, platform=platform, limits=limits, shards=shards)
        reporter.title(building.title(project, wished.order))
        text = exporting.export(project, wished, store, reporter)
    if output:
        replace_file(output, text.encode())
    else:
        click.echo(text, nl=False)
