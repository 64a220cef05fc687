"""The command line: words in, words out, no logic.

Each command is a module, named after it, that is imported only when it is asked for; and each
imports the rooms that it needs only when it runs, so that ``packager --help`` is quick.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from packager import __version__
from packager.cli.shared import Context
from packager.errors import HostError, PackagerError
from packager.reporter import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["cli", "main", "run"]

_COMMANDS = (
    *("init", "lock", "build", "bundle", "push", "attach", "export", "cards", "smoke"),
    *("predict", "serve", "info", "verify", "diff", "completion"),
)
_INTERRUPTED = 130
_M_MMAP_THRESHOLD, _LARGE = -3, 8 << 20  # mallopt(3)
_M_TRIM_THRESHOLD, _SPARE = -1, 32 << 20
_GARBAGE = 100_000  # objects


class _Commands(click.Group):
    """The commands, in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name them."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"packager.cli.{cmd_name}"), cmd_name)
        return found


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="packager", message="%(prog)s %(version)s")
@click.option(
    "-C",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="The repository, or a folder below its root.",
)
@click.option("--color/--no-color", default=True, help="Colours; NO_COLOR switches them off, too.")
@click.pass_context
def cli(context: click.Context, folder: Path, color: bool) -> None:
    """Seal a trained model and its locked dependencies into a reproducible image.

    \b
    A first time:            Afterwards:
      packager init            packager build
      packager lock            docker run --rm NAME:VERSION info
      packager build           docker run --rm -i NAME:VERSION predict < rows.csv

    Exit codes: 0 done, 1 the project fails a claim of its own (stale lock, wrong digest,
    wrong prediction), 2 usage or configuration, 3 the surroundings (engine, network, disk).

    Tab completion: packager completion --help.
    """
    context.obj = Context(folder, color=color)


class _Output(io.FileIO):
    """Standard output whose reader may leave early, as `head` does: the work goes on."""

    told = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or do as if; other trouble than a reader's leave is told once."""
        try:
            return super().write(data)
        except OSError as error:
            if not self.told and not isinstance(error, BrokenPipeError):
                self.told = True
                what = f"cannot be written: {error.strerror}"
                raise HostError(what, where="standard output") from None
            return memoryview(data).nbytes


def _outlive_the_reader() -> None:
    out = sys.stdout
    if out is not None and not out.isatty():
        raw = _Output(out.fileno(), "wb", closefd=False)
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), out.encoding, out.errors)


def _bound_memory() -> None:
    """Let what is freed be used again, and what is more than that go back to the system.

    By itself glibc keeps more with each large buffer that it frees; and where it gives every one
    back, as for buffers of a megabyte, fetching pages anew takes a tenth of a build's time.
    """
    import ctypes

    with suppress(AttributeError, OSError, TypeError):  # another C library, or system
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        allocator.mallopt(_M_TRIM_THRESHOLD, _SPARE)


def _print_json_error(what: str, where: str, hint: str) -> None:
    # Where the words could not be understood there is no parsed --json to ask.
    if "--json" in sys.argv:
        body = {"what": what, "where": where, "hint": hint}
        click.echo(json.dumps({"error": body}, indent=1))


def _print_error(error: PackagerError) -> None:
    plain = os.environ.get("NO_COLOR") or "--no-color" in sys.argv
    heading = click.style("error:", fg="red", bold=True)
    click.echo(f"{heading} {printable(str(error))}", err=True, color=False if plain else None)


def run() -> int:
    """Run the command line, and give its exit code; errors made for users end in a message."""
    try:
        cli(standalone_mode=False)
        if sys.stdout:
            sys.stdout.flush()
    except PackagerError as error:
        _print_json_error(error.what, error.where, error.hint)
        _print_error(error)
        return error.exit_code
    except click.ClickException as error:
        _print_json_error(error.format_message(), "command line", "packager --help")
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return _INTERRUPTED
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def main() -> NoReturn:
    """Run the command line as a program of its own."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _outlive_the_reader()
    _bound_memory()
    # Nearly all that is made here lives until it is used up, and to look through it again and
    # again for circles took a twelfth of a build's processor time.
    gc.set_threshold(_GARBAGE)
    code = run()
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    # Threads that nobody waits for may still listen to a server: an interpreter that is taken
    # apart under them crashes now and then, and to take it apart takes a tenth of a small build.
    os._exit(code)
