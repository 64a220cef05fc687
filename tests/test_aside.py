"""Claims about work in a thread of its own."""

from __future__ import annotations

import threading

import pytest

from packager import aside


def test_it_gives_what_the_work_gave_and_waits_only_when_asked() -> None:
    go = threading.Event()
    result = aside.begin(lambda: go.wait(10) and 7)
    assert not result.done()
    go.set()
    assert result.result(10) == 7


def test_what_went_wrong_is_raised_where_the_result_is_asked() -> None:
    def fail() -> None:
        raise KeyError("no such thing")

    result = aside.begin(fail)
    with pytest.raises(KeyError, match="no such thing"):
        result.result(10)
