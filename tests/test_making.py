"""Claims about when layers are made: once all is there, once, and the lowest first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path

import pytest

from packager.layers.making import Layer, Recipe, _after, _Workers, make
from packager.layers.tar import Entry, data_entry
from packager.store import Store


class Late:
    """A lock that lets the one who has let go of it wait until another has, too."""

    def __init__(self) -> None:
        self.lock, self.both = threading.Lock(), threading.Barrier(2, timeout=10)

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        if threading.current_thread() is not threading.main_thread():
            self.both.wait()


def test_work_begins_once_though_its_last_needs_arrive_at_one_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs: list[Future[int]] = [Future(), Future()]
    begun: list[Callable[[], None]] = []
    with monkeypatch.context() as patched:
        patched.setattr("packager.layers.making.threading.Lock", lambda: late)
        result = _after(needs, lambda: 7, begun.append)
    threads = [threading.Thread(target=need.set_result, args=(1,)) for need in needs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1
    begun[0]()
    assert result.result(0) == 7


late = Late()


def test_work_whose_need_fails_never_begins_and_fails_like_it() -> None:
    needs: list[Future[int]] = [Future(), Future()]
    begun: list[Callable[[], None]] = []
    result = _after(needs, lambda: 7, begun.append)
    needs[0].set_exception(OSError("no such wheel"))
    needs[1].set_result(1)
    assert begun == []
    with pytest.raises(OSError, match="no such wheel"):
        result.result(0)


def test_the_lowest_comes_first_and_what_has_not_begun_when_it_ends_never_does() -> None:
    workers = _Workers()
    done: list[int] = []
    busy, free, ended, stop = (threading.Event() for _ in range(4))

    def first() -> None:
        done.append(1)
        ended.set()
        stop.wait(10)

    def hold() -> None:
        busy.set()
        free.wait(10)

    for _ in workers._threads[1:]:  # one is left to work
        workers.submit(0, lambda: bool(stop.wait(10)))
    workers.submit(0, hold)
    assert busy.wait(10)
    workers.submit(5, lambda: done.append(5))
    workers.submit(1, first)
    free.set()
    assert ended.wait(10)
    closing = threading.Thread(target=workers.close)
    closing.start()
    while workers._waiting.qsize() < 1 + len(workers._threads):
        threading.Event().wait(0.01)
    stop.set()
    closing.join(10)
    assert done == [1]


def test_layers_are_handed_on_only_while_others_are_not_made(tmp_path: Path) -> None:
    """An archive of their own is worth it only if the engine would wait otherwise."""
    store = Store(tmp_path)
    go = threading.Event()
    handed: list[str] = []

    def entries(name: str) -> list[Entry]:
        if name == "third":
            go.wait(10)
        return [data_entry(name, name.encode())]

    recipes = [
        Recipe("wheels", name, name, 1, lambda _, name=name: entries(name))
        for name in ("first", "second", "third", "fourth")
    ]

    def ready(layer: Layer) -> None:
        handed.append(layer.what)
        go.set()

    made = [*make(recipes, {}, {}, store, nullcontext, ready=ready)]  # type: ignore[arg-type]
    assert [layer.what for layer in made] == ["first", "second", "third", "fourth"]
    assert handed[0] == "first"
    assert "fourth" not in handed
    found = {layer.what: layer.blob for layer in made}
    handed.clear()
    assert len([*make(recipes, found, {}, store, nullcontext, ready=ready)]) == len(made)  # type: ignore[arg-type]
    assert handed == []
