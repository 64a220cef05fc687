"""Bytes from wherever they may be found, several downloads at a time, into the store."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import requests
from urllib3.exceptions import HTTPError

from packager import net
from packager.errors import ClaimError, HostError, without_credentials
from packager.files import Out
from packager.store import Blob, Store, Wanted

__all__ = ["Downloads"]

_CHUNK = 1 << 16
_LARGE = 1 << 20  # bytes: such files come one after the other,
_CONNECTIONS = 2  # and so many smaller ones at a time
_MINUTE = 60.0  # in which a server must send at least this many bytes:
_LEAST = 10_000
_CUTS = 10  # as often as this a download is resumed, if every attempt brings something
_EMPTY = hashlib.sha256().hexdigest()


class Downloads:
    """What a store lacks, on its way; given up at the end of the context.

    Parameters
    ----------
    store : Store
        Where bytes go; its reporter is told.
    wanted : sequence of Wanted
        Each once, what is needed first first.
    step : str
        What the reporter calls this.
    """

    def __init__(self, store: Store, wanted: Sequence[Wanted], step: str) -> None:
        self._store, self._wanted, self._step = store, wanted, step
        self._total = sum(one.size for one in wanted)
        self._given_up = threading.Event()

    def __enter__(self) -> dict[str, Future[Blob]]:
        jobs = _side_by_side(self._fetch, self._wanted)
        return dict(zip((one.sha256 for one in self._wanted), jobs, strict=True))

    def __exit__(self, *_: object) -> None:
        self._given_up.set()

    def _tell(self, amount: int) -> None:
        if self._given_up.is_set():
            raise _GivenUpError
        self._store.reporter.advance(self._step, amount, self._total)

    def _fetch(self, wanted: Wanted) -> Blob:
        with self._store.alone(wanted.sha256):
            if blob := self._store.get(wanted.sha256):
                return blob
            failures: list[PlaceFailed] = []
            for place in self._places(wanted):
                self._tell(0)
                try:
                    blob = self._download(wanted, place)
                except PlaceFailed as failure:
                    failures.append(failure)
                    continue
                if not net.holds_secret(place):
                    self._store.write_note("place", wanted.sha256, place)
                return blob
        raise _explain(wanted, failures)

    def _places(self, wanted: Wanted) -> Iterator[str]:
        # A remembered place saves asking the index, which costs a request per package.
        remembered = self._store.note("place", wanted.sha256)
        if isinstance(remembered, str):
            yield remembered
        for place in wanted.places():
            if place != remembered:
                yield place

    def _download(self, wanted: Wanted, place: str) -> Blob:
        partial = self._store.root / "partial" / wanted.sha256
        left_over = _size(partial) > 0
        for cuts in range(_CUTS + 1):
            before = _size(partial)
            try:
                digest = self._stream(wanted, place, partial)
                break
            except (requests.RequestException, HTTPError) as error:
                if cuts == _CUTS or _size(partial) <= before:
                    raise PlaceFailed(place, net.reasons(error)) from None
        if digest != wanted.sha256:
            partial.unlink()
            if left_over:  # what was left of an earlier run may be the wrong part
                return self._download(wanted, place)
            raise PlaceFailed(place, f"has other bytes: sha256 {digest}", wrong=True)
        return self._store.keep(partial, digest)

    def _stream(self, wanted: Wanted, place: str, partial: Path) -> str:
        """Append what a place has to what is there; give the digest of both."""
        have, digest = _size(partial), hashlib.sha256()
        if have:
            with partial.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256")
            if have == wanted.size:
                return digest.hexdigest()
        with (
            Out(partial, "ab", self._store.name) as out,
            self._store.session.get(
                place, stream=True, headers=_resume(have), auth=wanted.login
            ) as answer,
        ):
            if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
                out.restart()  # so what was there is no part of it
                return _EMPTY
            if not answer.ok:
                raise PlaceFailed(place, f"answers {answer.status_code} {answer.reason}")
            if have and answer.status_code != requests.codes.partial_content:
                out.restart()
                digest = hashlib.sha256()
            for chunk in _arriving(answer, place):
                self._tell(len(chunk))
                digest.update(chunk)
                out.write(chunk)
                if wanted.size and out.tell() > wanted.size:
                    break
            out.settle()
        return digest.hexdigest()


class PlaceFailed(Exception):  # noqa: N818 - not an error yet: another place may have it
    """One place did not give the bytes; the next may."""

    def __init__(self, place: str, why: str, *, wrong: bool = False) -> None:
        super().__init__(f"{without_credentials(place)} {why}")
        self.wrong = wrong


class _GivenUpError(Exception):
    """Nobody waits for this download any more."""


_Job = tuple[Wanted, Future[Blob]]


def _side_by_side(work: Callable[[Wanted], Blob], items: Sequence[Wanted]) -> list[Future[Blob]]:
    """Start work in threads that need not be waited for: large ones in turn, small ones beside.

    One large file at a time has the whole line, and the lowest layer its wheel that much sooner;
    several would also wait for each other's hold of the interpreter.  Small ones wait for answers.
    The threads of an executor are joined when the program ends, and nothing interrupts
    one that listens to a silent server.
    """
    jobs: list[_Job] = [(item, Future()) for item in items]
    large, small = queue.SimpleQueue[_Job](), queue.SimpleQueue[_Job]()
    for job in jobs:
        (large if job[0].size > _LARGE else small).put(job)
    for waiting in (large, *(small,) * _CONNECTIONS):
        if not waiting.empty():
            threading.Thread(target=_work_off, args=(work, waiting), daemon=True).start()
    return [future for _, future in jobs]


def _work_off(work: Callable[[Wanted], Blob], waiting: queue.SimpleQueue[_Job]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            item, future = waiting.get_nowait()
            try:
                future.set_result(work(item))
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked
                future.set_exception(error)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _arriving(answer: requests.Response, place: str) -> Iterator[bytes]:
    """Yield bytes as they arrive; a server that all but stalls is given up.

    `iter_content` would wait for as many bytes as it was asked for, however long it takes,
    and undo a compression that a server only thinks is one of the way.
    """
    begin, brought = time.monotonic(), 0
    while data := answer.raw.read1(_CHUNK):
        yield data
        brought += len(data)
        if time.monotonic() - begin > _MINUTE:
            if brought < _LEAST:
                raise PlaceFailed(place, f"sent {brought} bytes in {_MINUTE:.0f} seconds")
            begin, brought = time.monotonic(), 0


def _resume(have: int) -> dict[str, str]:
    # Without this, a server that compresses on the fly would answer with other bytes.
    return {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}


def _explain(wanted: Wanted, failures: list[PlaceFailed]) -> ClaimError | HostError:
    tried = "\n  ".join(str(failure) for failure in failures)
    if any(failure.wrong for failure in failures):
        return ClaimError(
            f"the lock says sha256 {wanted.sha256}, and no place has such bytes",
            where=f"packager.lock: {wanted.label}",
            hint=tried,
        )
    return HostError(
        "could not be fetched",
        where=wanted.label,
        hint=tried or "No index, mirror or folder that is configured has it.",
    )
