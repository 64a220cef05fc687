"""Work in a thread of its own, for what waits for others while there is something else to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["begin"]

_T = TypeVar("_T")


def begin(work: Callable[[], _T]) -> Future[_T]:
    """Begin with work that nobody need wait for: the program may end before it does.

    Parameters
    ----------
    work : callable
        Without arguments.

    Returns
    -------
    Future
        Gives what it returned, or raises what it raised.
    """
    result: Future[_T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result
