"""``packager push``: build, prove, and send to a registry."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import click

from packager.cli.shared import Context, json_option, limits_options

if TYPE_CHECKING:
    from packager.proof import Limits


@click.command()
@click.argument("ref")
@click.option("--smoke/--no-smoke", default=True, help="Replay the recorded examples, sealed.")
@click.option("--platform", help="One of the lock's platforms; by default the first.")
@click.option(
    "--insecure",
    is_flag=True,
    help="Accept a registry without TLS, or with a certificate that nobody vouches for.",
)
@limits_options
@json_option
@click.pass_obj
def push(
    context: Context,
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
