"""``packager push``: build, prove, and send to a registry."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from packager.cli.shared import Context, json_option, limits_options

if TYPE_CHECKING:
    from packager.proof import Limits

_ALL = "all"


@click.command()
@click.argument("ref")
@click.option("--smoke/--no-smoke", default=True, help="Replay the recorded examples, sealed.")
@click.option(
    "--platform",
    help="One of the lock's platforms; by default the first. With all, an index of all of them.",
)
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

    With --platform all, the images of all platforms are pushed, and REF names an index of
    them: who pulls it gets the one for the machine.

    Logins are those of docker login. A registry with a CA of your own: SSL_CERT_FILE, or pip's
    cert setting.
    """
    from packager import build as building
    from packager import indexing
    from packager.console import print_build
    from packager.store import Store

    with closing(context.reporter(quiet=as_json)) as reporter:
        store = Store(reporter=reporter)
        project = context.project(store)
        wishes: dict[str, Any] = {
            "limits": limits if smoke else None,
            "load": smoke,
            "push": ref,
            "insecure": insecure,
        }
        if platform == _ALL:
            orders = indexing.orders(project, **wishes)
        else:
            orders = [building.order(project, tag=None, output=None, platform=platform, **wishes)]
        results = []
        for order in orders:
            reporter.title(building.title(project, order))
            results.append(building.build(project, order, store, reporter))
        index = indexing.push(results, store, reporter) if platform == _ALL else None
    images = [building.summary(one) for one in results]
    if as_json:
        told = {"index": asdict(index), "images": images} if index else images[0]
        click.echo(json.dumps(told, indent=1))
        return
    for one in images:
        print_build(context.out(), one)
    if index:
        context.out().say(f"index     {index.reference}  {index.digest}")
