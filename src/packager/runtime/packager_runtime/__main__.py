"""The command line inside the image: info, predict, selftest, serve, examples."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from . import answers, batches, info, tables
from .facts import Image, InputError, Recording, read_examples, read_image, root, signature
from .loaders import Predictor, ask, known_inputs, load

_ABOUT = """\
A trained model, sealed with everything it needs to predict.

  docker run --rm IMAGE                                    what this is
  cat rows.csv | docker run -i --rm IMAGE predict          predictions, a line of JSON per row
  docker run --rm --network none IMAGE selftest            does it still predict what it did?
  docker run --rm -p 8080:8080 IMAGE serve                 a page and an HTTP interface
"""

_PREDICT = """\
Read rows on standard input and write one prediction per row to standard output.

CSV has a header; a blank cell is a missing value, where the model takes one; an array is
written as JSON in its cell. JSON is a list of row objects, row objects one per line, or one
object of columns: {"a": [1, 2], "b": ["x", null]}. Columns that the model does not know are
left aside. `info` lists those that it wants.
"""

_SELFTEST = """\
Check the model's digest, repeat the predictions recorded by the author, and compare them
within the stated tolerance. Exits 0 if they agree, 1 if not, 2 if the model does not run.
"""

_SERVE = """\
Answer over HTTP: a page for people at /, the Open Inference Protocol at /v2, its description at
/openapi.json, metrics at /metrics. Ready, at /v2/health/ready, once the model has given its first
recorded prediction again. The log goes to standard error, a line of JSON per event; what the
model prints goes to standard output. SIGTERM lets the requests that are there be answered:
exits 0 if all were, 1 if the model does not work.
"""

_EXAMPLES = """\
Write the recorded rows, to start from: as tables that predict reads, or as v2, a body to send to
the server.
"""


_MOST = 1_000_000


class _ModelError(Exception):
    """The model's own code failed."""


def main() -> int:
    """Run the command line.

    Returns
    -------
    int
        0 done, 1 the model failed, 2 the input or the command line is wrong.
    """
    arguments = _parser().parse_args()
    # A process with the number 1 gets no default action for signals, and has nothing to save.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    with _standard_output() as out:
        try:
            code: int = arguments.run(arguments, out)
            out.flush()
        except InputError as wrong:
            return _complain(str(wrong), 2)
        except _ModelError as wrong:
            return _complain(str(wrong), 1)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
            return 128 + 13  # what a shell reports for SIGPIPE
    return code


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="docker run -i --rm IMAGE", description=_ABOUT, formatter_class=style
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("info", help="what this image is, takes and gives")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--card", action="store_true", help="print the model card")
    command.set_defaults(run=_info)

    command = commands.add_parser(
        "predict",
        help="rows in, predictions out",
        description=_PREDICT,
        formatter_class=style,
    )
    command.add_argument(
        "--from",
        dest="source",
        choices=["csv", "json"],
        help="what the rows are (default: JSON if they begin with a bracket)",
    )
    command.add_argument(
        "--to",
        dest="target",
        choices=["jsonl", "csv"],
        default="jsonl",
        help="what the predictions become (default: jsonl, one object per line)",
    )
    command.set_defaults(run=_predict)

    command = commands.add_parser("batches", help="the same for programs, batch by batch")
    command.add_argument("--from", dest="source", choices=["csv", "json"], default="json")
    command.set_defaults(run=_batches)

    command = commands.add_parser(
        "selftest",
        help="repeat the recorded predictions",
        description=_SELFTEST,
        formatter_class=style,
    )
    command.add_argument("--json", action="store_true", help="for programs, on the last line")
    command.set_defaults(run=_selftest)

    command = commands.add_parser(
        "examples",
        help="rows to start from",
        description=_EXAMPLES,
        formatter_class=style,
    )
    command.add_argument(
        "--to",
        dest="target",
        choices=["csv", "jsonl", "v2"],
        default="csv",
        help="what the rows become (default: csv)",
    )
    command.set_defaults(run=_examples)

    command = commands.add_parser(
        "serve",
        help="answer over HTTP",
        description=_SERVE,
        formatter_class=style,
    )
    for name, kind, default, about in (
        ("host", str, "0.0.0.0", "address to listen at"),  # noqa: S104 - the engine's user opens it
        ("port", int, 8080, "port to listen at; 0 takes a free one, which the log names"),
        ("max-mb", _amount, 16, "millions of bytes of a request's body"),
        ("seconds", _amount, 60, "for a request's body to arrive, and again for its answer"),
        ("grace", int, 20, "seconds for the requests that are there at SIGTERM"),
    ):
        command.add_argument(
            f"--{name}", type=kind, default=default, help=f"{about} (default: {default})"
        )
    command.set_defaults(run=_serve)
    return parser


def _amount(text: str) -> float:
    if not 0 < float(text) < _MOST:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and less than {_MOST}")
    return float(text)


def _info(arguments: argparse.Namespace, out: TextIO) -> int:
    if arguments.card:
        out.write(info.card(read_image(root())))
        return 0
    image, examples = _read()
    try:
        inputs = examples.inputs if examples else known_inputs(_load(image, None))
    except (InputError, _ModelError) as wrong:
        _note(f"the model does not load, so its inputs are unknown: {wrong}")
        inputs = ()
    if arguments.json:
        facts = info.describe(image, examples, inputs)
        out.write(json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    else:
        out.write(info.page(image, examples, inputs))
    return 0


def _predict(arguments: argparse.Namespace, out: TextIO) -> int:
    image, examples = _read()
    predictor = _load(image, examples)
    inputs = examples.inputs if examples else known_inputs(predictor)
    columns, ignored = tables.read(sys.stdin.buffer.read(), inputs, arguments.source)
    if ignored:
        _note(f"columns left aside: {', '.join(ignored)}")
    with _blaming("the model failed on these rows"):
        answer = ask(predictor, columns)
    out.writelines(tables.write(answer, arguments.target))
    return 0


def _batches(arguments: argparse.Namespace, out: TextIO) -> int:
    image, examples = _read()
    predictor = _load(image, examples)
    inputs = examples.inputs if examples else known_inputs(predictor)
    lines = sys.stdin.buffer
    batches.run(image, examples, predictor, inputs, source=arguments.source, lines=lines, out=out)
    return 0


def _selftest(arguments: argparse.Namespace, out: TextIO) -> int:
    from . import selftest  # it starts processes, which takes long to import

    process = os.getpid()
    report = selftest.run(root())
    if os.getpid() != process:  # a copy that the project's code made has no say
        os._exit(0)
    out.write(json.dumps(report) + "\n" if arguments.json else selftest.page(report))
    return selftest.EXIT_CODES[report["status"]]


def _examples(arguments: argparse.Namespace, out: TextIO) -> int:
    _, examples = _read()
    if examples is None:
        raise InputError("there are no recorded examples in this image")
    rows = tables.check(examples.given, examples.inputs)
    if arguments.target == "v2":
        out.write(json.dumps(answers.request(rows, examples.inputs)) + "\n")
    else:
        out.writelines(tables.write(rows, arguments.target))
    return 0


def _serve(arguments: argparse.Namespace, out: TextIO) -> int:
    started = time.perf_counter()
    image, examples = _read()
    try:
        from . import serve  # needs what the project's lock may not hold
    except ModuleNotFoundError as wrong:
        raise InputError(
            f"{wrong.name} is not in this image: say serve = true in [tool.packager], then lock "
            "and build again"
        ) from None
    options = serve.Options(
        arguments.host, arguments.port, arguments.max_mb, arguments.seconds, arguments.grace
    )
    # A model that is lost in a request would keep the process: its thread cannot be ended.
    os._exit(serve.run(image, examples, options, out, started))


def _read() -> tuple[Image, Recording | None]:
    image = read_image(root())
    return image, read_examples(image.examples) if image.examples else None


def _load(image: Image, examples: Recording | None) -> Predictor:
    with _blaming("the model does not load"):
        return load(image, *signature(examples))


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except BaseException as wrong:  # noqa: BLE001 - the project's code may raise, or exit
        place = traceback.extract_tb(wrong.__traceback__)[-1]
        first, *_ = [*str(wrong).strip().splitlines(), ""]
        raise _ModelError(
            f"{what}: {type(wrong).__name__}: {first} ({place.filename}, line {place.lineno})"
        ) from None


def _standard_output() -> TextIO:
    # What the model's code prints, from C too, goes to standard error and never into the answer.
    kept = os.dup(1)
    os.dup2(2, 1)
    return open(  # noqa: PTH123 - a descriptor, not a path
        kept, "w", encoding="utf-8", errors="backslashreplace", newline="\n"
    )


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


def _note(message: str) -> None:
    sys.stderr.write(f"note: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
