"""``packager bundle``: what a build needs, in one file to be carried."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import click

from packager.cli.shared import Context, json_option


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where it goes; by default NAME-VERSION.bundle.tar.",
)
@click.option("--platform", help="For one of the lock's platforms; by default for all of them.")
@json_option
@click.pass_obj
def bundle(context: Context, *, output: Path | None, platform: str | None, as_json: bool) -> None:
    """Write every byte that the lock names into one file, for a machine without a network.

    \b
    Here:   packager bundle
    There:  packager build --bundle FILE

    There, the repository is needed as it is here, and packager itself. The same lock gives the
    same file; it holds wheels and packages, or layers, of the base: no address, no login, and
    nothing of your own.
    """
    from packager import bundle as bundles
    from packager.store import Store

    with closing(context.reporter(quiet=as_json)) as reporter:
        store = Store(reporter=reporter)
        project = context.project(store)
        path = output or Path(f"{project.name}-{project.version}.bundle.tar")
        told = bundles.write(project, path, platform, store, reporter)
    click.echo(json.dumps(told, indent=1) if as_json else f"bundle    {path}")
