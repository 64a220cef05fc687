"""Claims about what a build begins early: only where it may have to fetch."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager import foreseen, pip
from packager.store import Store


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often pip was asked for its settings."""
    times: list[int] = []
    monkeypatch.setattr(pip, "ask", lambda: times.append(1))
    monkeypatch.setattr(Store, "session", None)  # which would ask, too, in its own time
    return times


def test_pip_is_asked_until_all_that_the_lock_names_was_there(
    asked: list[int], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "packager.lock").write_text("one")
    foreseen.begin(tmp_path, store)
    assert len(asked) == 1
    foreseen.note_complete(tmp_path, store)
    foreseen.begin(tmp_path, store)
    assert len(asked) == 1
    (tmp_path / "packager.lock").write_text("another")
    foreseen.begin(tmp_path, store)
    assert len(asked) == 2


def test_without_a_lock_nothing_goes_wrong_yet(asked: list[int], tmp_path: Path) -> None:
    foreseen.begin(tmp_path, Store(tmp_path / "store"))
    assert len(asked) == 1
