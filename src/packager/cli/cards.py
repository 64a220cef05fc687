"""``packager cards``: fill cards in, or check them."""

from __future__ import annotations

import json
import sys

import click

from packager.cli.shared import Context, json_option
from packager.reporter import printable


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where something is to be done.")
@json_option
@click.pass_obj
def cards(context: Context, *, check: bool, as_json: bool) -> None:
    """Fill the numbers of MODEL_CARD.md and DATASHEET.md in, from metrics.json.

    A number stands between <!-- metrics: PATH --> and <!-- /metrics -->, or in the front
    matter before # metrics: PATH. metrics.json lies beside the model; a PATH is its keys
    with dots between.

    --check finds what was left open, numbers that disagree, cards that are older than the
    model or about other data, and sections, questions and required answers that are missing.
    """
    from packager import cards as writing

    project = context.project()
    report = writing.check(project) if check else writing.fill(project)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=1))
    else:
        click.echo(printable(writing.render(report, checked=check)))
    sys.exit(1 if report.findings else 0)
