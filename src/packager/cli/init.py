"""``packager init``: adopt a repository."""

from __future__ import annotations

import click

from packager.cli.shared import Context


@click.command()
@click.option("--model", help="The model to adopt, where there are several.")
@click.pass_obj
def init(context: Context, model: str | None) -> None:
    """Adopt a repository that has a model: write [tool.packager].

    Looks for a model file (skops, joblib, ONNX), for requirements and for a function that
    predicts; asks nothing that it can find out.
    """
    from packager import init as adopting

    report = adopting.adopt(context.folder.resolve(), model=model)
    click.echo(adopting.render(report))
