"""``packager attach``: a file to an image in a registry."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from packager.cli.shared import Context, json_option


@click.command()
@click.argument("ref")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--type", "kind", help="Its media type; by default what its name says.")
@click.option(
    "--insecure",
    is_flag=True,
    help="Accept a registry without TLS, or with a certificate that nobody vouches for.",
)
@json_option
@click.pass_obj
def attach(
    context: Context, *, ref: str, file: Path, kind: str | None, insecure: bool, as_json: bool
) -> None:
    """Attach FILE to the image REF in a registry: a report of packager verify, for example.

    The image stays as it is, digest and all. Who has its digest finds what is attached, with
    any client that knows the referrers of the OCI specifications 1.1.
    """
    from packager import attaching
    from packager.store import Store

    with closing(context.reporter(quiet=as_json)) as reporter:
        store = Store(reporter=reporter)
        done = attaching.attach(
            ref, file, kind=kind, insecure=insecure, store=store, reporter=reporter
        )
    if as_json:
        click.echo(json.dumps(asdict(done), indent=1))
        return
    out = context.out()
    out.say(f"attached  {done.manifest}")
    out.say(f"to        {done.reference}  {done.subject}")
    if done.listed:
        out.say(f"listed    by the tag {done.listed}: this registry does not list referrers")
