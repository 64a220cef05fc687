"""``packager smoke``: replay the recorded examples."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from packager.cli.shared import Context, json_option, limits_options

if TYPE_CHECKING:
    from packager.proof import Limits


@click.command()
@click.argument("image", required=False)
@limits_options
@json_option
@click.pass_obj
def smoke(context: Context, image: str | None, limits: Limits, as_json: bool) -> None:
    """Start IMAGE sealed off and replay the recorded examples.

    IMAGE is by default the one that this project builds. Sealed means: no network,
    read-only, no capabilities, no new privileges, not root, bounded memory and processes.
    """
    from packager import smoke as smoking
    from packager.console import print_replay
    from packager.outputs import engine as engines

    name = image or context.own_image()
    verdict = smoking.replay(engines.connect(), name, limits)
    if as_json:
        click.echo(json.dumps(asdict(verdict), indent=1))
    else:
        print_replay(context.out(), verdict)
