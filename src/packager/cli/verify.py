"""``packager verify``: rebuild and compare."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import click

from packager.cli.shared import Context, json_option


@click.command()
@click.argument("image", required=False)
@click.option("--empty-store", is_flag=True, help="Fetch every locked byte anew, into a new store.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the report goes; by default NAME-VERSION.verification.json.",
)
@click.option("--by", metavar="NAME", help="Who verifies; by default the name that git knows.")
@json_option
@click.pass_obj
def verify(
    context: Context,
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
            subject = opened(image or context.own_image(), scratch)
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
