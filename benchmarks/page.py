"""Write docs/benchmarks.md and its plot from results.json."""

# ruff: noqa: RUF001 - a dash stands between least and most

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import plot
from cases import CASES, GROUPS, OURS, PEER, Case
from measure import Spread, ratio, spread
from plot import NAMES

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- benchmarks/run.py -->", "<!-- end -->"
MEMORY_MB = 200

Results = Mapping[str, Any]


def write(results: Results, folder: Path = DOCS) -> None:
    """Write the tables between the page's marks, and the plot."""
    page = folder / "benchmarks.md"
    (folder / "benchmarks.svg").write_text(plot.draw(rows(results)))
    page.write_text(between_marks(page.read_text(), "\n".join(tables(results))))


def between_marks(text: str, made: str) -> str:
    """Replace what stands between the marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def tables(results: Results) -> Iterator[str]:
    """Lay the results out, group by group."""
    yield machine(results)
    for group, words in GROUPS.items():
        cases = [one for one in CASES if one.group == group and one.key in results["cases"]]
        if cases:
            yield from ("", f"### {group}", "", words, "")
            yield from table(cases, results)
    yield from ("", "### All peers", "", ALL_PEERS, "")
    yield from all_peers(results)
    yield from ("", "### Memory", "")
    yield memory(results)
    yield from ("", "### Runs", "")
    yield from runs(results)


ALL_PEERS = (
    "Medians, as seconds.  pip, MLflow and BentoML compile bytecode by their own habit, asked or "
    "not, and MLflow and BentoML bring a server of their own along."
)


def machine(results: Results) -> str:
    """Describe the machine in a sentence, and the others' versions in another."""
    about = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    text = (
        f"Linux {about['kernel']}, {about['processors']} processors ({about['processor']}), "
        f"{about['memory_gb']} GB of memory; engine {about['engine']} ({about['driver']}), "
        f"{versions}."
    )
    left_out = [f"Left out: {name}, because {why}." for name, why in about["left_out"].items()]
    return "  ".join([text, *left_out])


def table(cases: Sequence[Case], results: Results) -> Iterator[str]:
    """Put packager beside the peer to beat: medians, spread, ratio, and whether it is enough."""
    other = PEER if any(PEER in values(one, results) for one in cases) else "floor"
    columns = ["case", NAMES[OURS], NAMES[other], "ratio", "must be", ""]
    yield f"| {' | '.join(columns)} |"
    yield "| --- | ---: | ---: | ---: | ---: | --- |"
    for case in cases:
        made = values(case, results)
        cells = [case.title, *(told(made.get(name), case.unit) for name in (OURS, other))]
        cells += judged(case, made, other)
        yield f"| {' | '.join(cells)} |"


def values(case: Case, results: Results) -> dict[str, list[float]]:
    """Give what was measured of a case, by peer."""
    peers = results["cases"].get(case.key, {"peers": {}})["peers"]
    return {name: made["values"] for name, made in peers.items()}


def told(made: Sequence[float] | None, unit: str) -> str:
    """Write a median with its spread."""
    if not made:
        return "–"
    seen = spread(made)
    middle = f"{number(seen.median)} {unit}"
    return middle if len(made) == 1 else f"{middle} ({number(seen.least)}–{number(seen.most)})"


def number(value: float) -> str:
    """Write three digits, or all before the point."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, digits)}f}"


def judged(case: Case, made: Mapping[str, Sequence[float]], other: str) -> list[str]:
    """Say by how much packager is ahead or behind, and whether that is what was asked for."""
    if OURS not in made:
        return ["", "", ""]
    if case.limit is not None:
        met = spread(made[OURS]).median <= case.limit
        return ["", f"≤ {case.limit:g} {case.unit}", verdict(met)]
    if other not in made:
        return ["", "", ""]
    seen = ratio(made[OURS], made[other])
    if case.target is None:
        return [ratio_told(seen), "", ""]
    return [ratio_told(seen), f"≤ {case.target:g}", verdict(seen.median <= case.target)]


def ratio_told(seen: Spread) -> str:
    """Write a ratio with its spread."""
    if seen.least == seen.most:
        return f"{seen.median:.2f}"
    return f"{seen.median:.2f} ({seen.least:.2f}–{seen.most:.2f})"


def verdict(met: bool) -> str:
    """Say it in a word."""
    return "met" if met else "**not met**"


def all_peers(results: Results) -> Iterator[str]:
    """Lay out the medians of all peers, in the cases where there are more than two."""
    many = [one for one in CASES if len(values(one, results)) > 2]  # noqa: PLR2004
    names = [name for name in NAMES if any(name in values(one, results) for one in many)]
    yield f"| case | {' | '.join(NAMES[name] for name in names)} |"
    yield f"| --- |{' ---: |' * len(names)}"
    for case in many:
        made = values(case, results)
        cells = [told(made.get(name), case.unit) for name in names]
        yield f"| {case.title} | {' | '.join(cells)} |"


def memory(results: Results) -> str:
    """Say what packager's process took at most, and where."""
    peaks = {
        case.title: max(results["cases"][case.key]["peers"][OURS]["peak_mb"])
        for case in CASES
        if OURS in values(case, results)
    }
    highest = max(peaks, key=lambda title: peaks[title])
    met = peaks[highest] < MEMORY_MB
    return (
        f"The process of `packager build` held at most {number(peaks[highest])} MB, in the case "
        f"“{highest}”; it must stay under {MEMORY_MB} MB: {verdict(met)}.  (The others work in the "
        "engine's own process, so there is nothing to hold against it.)"
    )


def rows(results: Results) -> list[tuple[str, dict[str, list[float]]]]:
    """Collect what is drawn: the seconds of the first table's cases."""
    first = next(iter(GROUPS))
    drawn = [case for case in CASES if case.group == first and case.unit == "s"]
    return [(case.title, values(case, results)) for case in drawn]


def runs(results: Results) -> Iterator[str]:
    """Say when each case was run, of which commit, how often, and how busy the machine was."""
    yield "| case | rounds | at | commit | load before |"
    yield "| --- | ---: | --- | --- | ---: |"
    for case in CASES:
        if made := results["cases"].get(case.key):
            rounds = max(len(one["values"]) for one in made["peers"].values())
            cells = [case.key, str(rounds), made["when"], made["commit"], f"{made['load']:.1f}"]
            yield f"| {' | '.join(cells)} |"
