"""What the server writes down of what happens: one JSON object per line."""

from __future__ import annotations

import contextlib
import json
import logging
from datetime import UTC, datetime
from typing import Any, BinaryIO

__all__ = ["Log"]


class Log(logging.Handler):
    """A stream of events, which also takes those of the HTTP library.

    Parameters
    ----------
    stream : BinaryIO
        Where the lines go.  Without a buffer, each is one write, so that those of two threads
        do not mix.
    """

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(logging.WARNING)
        self._stream = stream

    def __call__(self, level: str, event: str, **facts: Any) -> None:
        """Write a line; for any thread.

        Parameters
        ----------
        level : {"info", "warning", "error"}
            How bad it is.
        event : str
            What happened, always in the same words.
        **facts
            Ready for JSON.  Never anything out of the rows, which may be about people.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": time, "level": level, "event": event, **facts})
        # A log that nobody reads any more is no reason not to answer.
        with contextlib.suppress(OSError):
            self._stream.write(line.encode() + b"\n")

    def emit(self, record: logging.LogRecord) -> None:
        """Write down what the HTTP library says; of an error its type only, not its text."""
        facts = {"message": record.getMessage().strip()}
        if record.exc_info and record.exc_info[0]:
            facts["type"] = record.exc_info[0].__name__
        self(record.levelname.lower(), "http library", **facts)
