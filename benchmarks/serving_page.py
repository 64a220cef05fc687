"""Write docs/serving-figures.md from serving.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import ratio, spread
from page import number, ratio_told, verdict

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- benchmarks/serving.py -->", "<!-- end -->"
OURS, PEER, HAND, ALONE = "packager", "MLServer", "by hand", "one by one"

Results = Mapping[str, Any]
Servers = Mapping[str, Mapping[str, Any]]


def write(results: Results, folder: Path = DOCS) -> None:
    """Write the tables between the page's marks."""
    page = folder / "serving-figures.md"
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    made = "\n".join(tables(results))
    page.write_text(f"{before}{begin}\n\n{made}\n\n{end}{after}")


def tables(results: Results) -> Iterator[str]:
    """Lay the results out."""
    about, servers = results["machine"], results["servers"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    rounds = len(servers[OURS]["ready"])
    yield (
        f"Linux {about['kernel']}, {about['processors']} processors, engine {about['engine']}, "
        f"{versions}; {rounds} rounds, {about['when']}, commit {about['commit']}."
    )
    yield from ("", "### What must be reached", "")
    yield from targets(servers, results["clients"])
    yield from ("", "### All of them", "")
    yield from everything(servers, results["clients"])


def targets(servers: Servers, clients: Sequence[int]) -> Iterator[str]:
    """Put our server beside the one to beat: the ratio of each round, its median and spread."""
    yield "| | beside | ratio | must be | |"
    yield "| --- | --- | ---: | ---: | --- |"
    for what, peer, keys, sign, limit in _targets(list(map(str, clients))):
        seen = ratio(_values(servers[OURS], keys), _values(servers[peer], keys))
        met = seen.median >= limit if sign == "≥" else seen.median <= limit
        wanted = [f"{sign} {limit:g}", verdict(met)] if limit else ["", ""]
        cells = [what, NAMES[peer], ratio_told(seen), *wanted]
        yield f"| {' | '.join(cells)} |"


def _targets(clients: Sequence[str]) -> Iterator[tuple[str, str, tuple[str, ...], str, float]]:
    for count in clients:
        who = _clients(count)
        enough = 1.5 if count == clients[-1] else 0  # one client alone is no load
        yield f"answers per second, {who}", PEER, ("per_second", count), "≥", enough
        yield f"p99, {who}", PEER, ("p99_ms", count), "≤", 0.7
    yield "memory", PEER, ("memory",), "≤", 0.5
    yield "image", PEER, ("megabytes",), "≤", 0.5
    yield "start to ready", HAND, ("ready",), "≤", 1.0


def _values(server: Mapping[str, Any], keys: tuple[str, ...]) -> list[float]:
    found: Any = server
    for key in keys:
        found = found[key]
    return found if isinstance(found, list) else [found]


def everything(servers: Servers, clients: Sequence[int]) -> Iterator[str]:
    """Give medians, server by server."""
    heads = [f"answers/s, {_clients(one)} | median ms | p99 ms" for one in map(str, clients)]
    yield f"| | {' | '.join(heads)} | memory MB | image MB | ready s |"
    yield f"| --- |{' ---: |' * (3 * len(clients) + 3)}"
    for name, server in servers.items():
        cells = [
            number(spread(server[kind][str(count)]).median)
            for count in clients
            for kind in ("per_second", "median_ms", "p99_ms")
        ]
        cells += [number(spread(server["memory"]).median), number(server["megabytes"])]
        cells.append(number(spread(server["ready"]).median))
        yield f"| {NAMES[name]} | {' | '.join(cells)} |"


NAMES = {
    OURS: "`serve`",
    ALONE: "`serve`, each request by itself",
    HAND: "uvicorn by hand",
    PEER: PEER,
    "MLServer, one process": "MLServer, one process",
    "BentoML": "BentoML",
}


def _clients(count: str) -> str:
    return "1 client" if count == "1" else f"{count} clients"
