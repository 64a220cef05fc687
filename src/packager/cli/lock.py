"""``packager lock``: resolve to exact bytes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress

import click

from packager.cli.shared import Context


@click.command()
@click.option("--check", is_flag=True, help="Only check, offline; exit 1 where a lock is stale.")
@click.option(
    "--upgrade",
    multiple=True,
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Move the pin of NAME, or every pin. May be repeated.",
)
@click.pass_obj
def lock(context: Context, check: bool, upgrade: tuple[str, ...]) -> None:
    """Resolve dependencies to exact bytes: requirements*.txt and packager.lock.

    Existing pins stay while they fit. Uses pip-tools where this interpreter and system are
    the image's, uv elsewhere, and says which.
    """
    if check:
        _check(context)
        return
    from packager import locking
    from packager.store import Store

    moved: Sequence[str] | None = [name for name in upgrade if name] if upgrade else None
    with closing(context.reporter(quiet=False)) as reporter:
        store = Store(reporter=reporter)
        lines = locking.make(context.project(store), store, reporter, upgrade=moved)
    for line in lines:
        click.echo(f"  {line}")


def _check(context: Context) -> None:
    from packager import claims
    from packager.errors import HostError
    from packager.lock import lockfile
    from packager.store import Store

    store = None
    with suppress(HostError):  # it saves time, nothing else
        store = Store()
    project = context.project(store)
    lockfile.check(project)
    claims.check_sources(project, lockfile.read(project.root))
    click.echo("The locks are fresh.")
