"""What a Prometheus server collects, in its text format 0.0.4."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["TEXT_FORMAT", "Metrics"]

TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram, in seconds."""

_STATM = Path("/proc/self/statm")


class Metrics:
    """Counts of one server; changed by the thread of the event loop only.

    Parameters
    ----------
    model, version, digest : str
        Of the model that is served.
    """

    def __init__(self, model: str, version: str, digest: str) -> None:
        self._info = {"model": model, "version": version, "digest": digest}
        self._started = time.time()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[str, list[int]] = {}
        self._sums: Counter[str] = Counter()
        self.in_flight = 0
        self.rows = 0
        self.late = 0
        self.load_seconds: float | None = None

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered.

        Parameters
        ----------
        route, method : str
            Of a small, known set: each becomes a series.
        status : int
            Of the answer.
        seconds : float
            From the request's head to the end of the answer.
        """
        self._requests[route, method, status] += 1
        counts = self._seconds.setdefault(route, [0] * (len(BUCKETS) + 1))
        counts[bisect_left(BUCKETS, seconds)] += 1
        self._sums[route] += seconds  # type: ignore[assignment]  # typeshed knows whole ones only

    def text(self, ready: bool) -> str:
        """Write everything down.

        Parameters
        ----------
        ready : bool
            Whether the server is.

        Returns
        -------
        str
            Lines, the last one with its end.
        """
        return "".join(self._lines(ready))

    def _lines(self, ready: bool) -> Iterator[str]:
        yield from _family("packager_model_info", "gauge", "The model that is served.")
        yield _sample("packager_model_info", 1, self._info)
        yield from _single("packager_ready", "gauge", "Whether the model answers.", int(ready))
        if self.load_seconds is not None:
            what = "From the start until the model had answered its first example."
            yield from _single("packager_model_load_seconds", "gauge", what, self.load_seconds)
        name = "packager_http_requests_total"
        yield from _family(name, "counter", "Requests that were answered.")
        for (route, method, status), count in sorted(self._requests.items()):
            labels = {"route": route, "method": method, "status": str(status)}
            yield _sample(name, count, labels)
        name = "packager_http_request_duration_seconds"
        yield from _family(name, "histogram", "From a request's head to the end of its answer.")
        for route, counts in sorted(self._seconds.items()):
            yield from _histogram(name, route, counts, self._sums[route])
        now = self.in_flight
        what = "Requests that are being answered."
        yield from _single("packager_http_requests_in_flight", "gauge", what, now)
        what = "Rows that were predicted."
        yield from _single("packager_predicted_rows_total", "counter", what, self.rows)
        what = "Requests that the model did not answer in time."
        yield from _single("packager_late_answers_total", "counter", what, self.late)
        yield from _process(self._started)


def _histogram(name: str, route: str, counts: list[int], total: float) -> Iterator[str]:
    below = 0
    for bound, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
        below += count
        yield _sample(name + "_bucket", below, {"route": route, "le": str(bound)})
    yield _sample(name + "_sum", total, {"route": route})
    yield _sample(name + "_count", below, {"route": route})


def _process(started: float) -> Iterator[str]:
    """Give what Prometheus' own clients give, under their names, where the system tells it."""
    name = "process_cpu_seconds_total"
    yield from _single(name, "counter", "Of user and system.", time.process_time())
    yield from _single("process_start_time_seconds", "gauge", "Since 1970.", started)
    try:
        pages = int(_STATM.read_text("ascii").split()[1])
    except OSError:
        return
    size = pages * os.sysconf("SC_PAGE_SIZE")
    yield from _single("process_resident_memory_bytes", "gauge", "In memory.", size)


def _single(name: str, kind: str, about: str, value: float) -> Iterator[str]:
    yield from _family(name, kind, about)
    yield _sample(name, value, {})


def _family(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}\n"
    yield f"# TYPE {name} {kind}\n"


def _sample(name: str, value: float, labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {value}\n" if inner else f"{name} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
