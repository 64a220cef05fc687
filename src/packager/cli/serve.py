"""``packager serve``: run an image's server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from packager.cli.shared import Context, limits_options

if TYPE_CHECKING:
    from packager.proof import Limits


@click.command()
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
@limits_options
@click.pass_obj
def serve(context: Context, image: str | None, port: int, host: str, limits: Limits) -> None:
    """Start the server of IMAGE: a page for people, the Open Inference Protocol for programs.

    IMAGE is by default the one that this project builds. Read-only, no capabilities, no new
    privileges, not root, bounded memory and processes. The server's log goes to standard error.
    Ctrl-C lets the requests that are there be answered, and removes the container.
    """
    from packager import serving
    from packager.outputs import engine as engines

    name = image or context.own_image()
    serving.serve(
        engines.connect(),
        name,
        (host, port),
        limits,
        tell=click.echo,
        log=partial(click.echo, err=True),
    )
