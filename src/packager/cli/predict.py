"""``packager predict``: predict a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from packager.cli.shared import Context, json_option, limits_options
from packager.reporter import printable

if TYPE_CHECKING:
    from packager.proof import Limits


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("image", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Where the predictions go; by default, as for -, standard output.",
)
@click.option(
    "--from",
    "source",
    type=click.Choice(["csv", "json", "jsonl", "parquet"]),
    help="What FILE holds; by default as its name ends.",
)
@click.option(
    "--to",
    "target",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    help="What is written; by default as its name ends, or CSV.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=10_000, show_default=True, help="Rows at a time."
)
@limits_options
@json_option
@click.pass_obj
def predict(
    context: Context,
    *,
    file: Path,
    image: str | None,
    output: Path | None,
    source: str | None,
    target: str | None,
    batch: int,
    limits: Limits,
    as_json: bool,
) -> None:
    """Predict the rows of FILE with IMAGE, sealed off.

    IMAGE is by default the one that this project builds. Columns that the model does not take
    come first, unchanged; then its outputs; then confidence (where an output is probabilities),
    outside (inputs beyond the training range) and model (its digest). A blank cell says
    missing. Parquet needs pyarrow.

    A row that is wrong is named, counted from 1 without the header, and leaves no output file.
    """
    from packager import predicting
    from packager.outputs import engine as engines

    to = None if output == Path("-") else output
    if as_json and to is None:
        raise click.UsageError("--json needs --output: standard output is the predictions'.")
    wish = predicting.wish(file, to, source=source, target=target, size=batch)
    name = image or context.own_image()
    with closing(context.reporter(quiet=as_json, stderr=to is None)) as reporter, _out(to) as out:
        done = predicting.predict(
            engines.connect(), name, wish, out, limits=limits, reporter=reporter
        )
    if as_json:
        click.echo(json.dumps(done.told() | {"output": str(to)}, indent=1))
    elif to is not None:
        click.echo(printable(f"{done.text()}: {to}"))


@contextmanager
def _out(path: Path | None) -> Iterator[IO[bytes]]:
    """Give standard output, or a file that is there only if all went well."""
    from packager.files import replacing

    if path is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
    else:
        with replacing(path) as out:
            yield out
