"""``packager info``: say what is inside an image."""

from __future__ import annotations

import json
from pathlib import Path

import click

from packager.cli.shared import Context, json_option


@click.command()
@click.argument("image", required=False)
@json_option
@click.pass_obj
def info(context: Context, image: str | None, as_json: bool) -> None:
    """Say what is inside IMAGE, from whom, with which digests.

    IMAGE is a tag or ID in the engine, or an archive or OCI layout that packager build -o
    wrote; by default the image that this project builds.
    """
    from packager import info as informing
    from packager.console import print_info
    from packager.outputs import engine as engines

    name = image or context.own_image()
    if Path(name).exists():
        described = informing.of_file(Path(name))
    else:
        described = informing.of_image(engines.connect(), name)
    if as_json:
        click.echo(json.dumps(described, indent=1))
    else:
        print_info(context.out(), described)
