"""Compare packager with others who build images, case by case, in one run.

Prepares all it needs in build/benchmark (it wants root, for an engine of its own), lets the
peers take turns within each round, and merges what came of it into results.json; docs/benchmarks.md
and its plot are written from there alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cases
import disk
import engine
import frameworks
import index
import page
import prepare
from cases import CASES, Case
from measure import Sample
from plot import NAMES
from prepare import REPOSITORY, WORK, Ready, say

RESULTS = Path(__file__).resolve().parent / "results.json"


def main() -> None:
    """Run what the command line asks for."""
    wanted = arguments()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
    if not wanted.render:
        chosen = [case for case in CASES if case.key in wanted.cases]
        WORK.mkdir(parents=True, exist_ok=True)
        with (
            disk.own(WORK / "disk.img", WORK / "disk") as folder,
            engine.own(folder / "engine"),
            index.served(prepare.INDEX) as loopback,
        ):
            variants = {one for case in chosen for one in (case.project, case.after) if one}
            names = {name for case in chosen for name in case.peers} & set(wanted.peers)
            ready = prepare.prepare(variants, names, loopback)
            results["machine"] = machine() | {"left_out": ready.left_out}
            for case in chosen:
                made = run(case, ready, wanted.rounds)
                if wanted.keep:
                    results["cases"][case.key] = made  # whole: ratios hold within one run
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if wanted.keep or wanted.render:
        page.write(results)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    names = "\n".join(f"  {case.key:16} {case.title}" for case in CASES)
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"cases:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"type": lambda text: text.split(","), "metavar": "A,B"}
    parser.add_argument(
        "--cases",
        default=[case.key for case in CASES if case.project != cases.HUGE],
        help=f"only these (see below; by default all but {cases.HUGE.key}, which takes 60 GB)",
        **several,
    )
    parser.add_argument("--peers", default=list(NAMES), help="only these", **several)
    parser.add_argument("--quick", dest="rounds", action="store_const", const=1, help="one round")
    parser.add_argument("--rounds", type=int, default=5, help="how often (default: %(default)s)")
    parser.add_argument(
        "--no-keep", dest="keep", action="store_false", help="leave results.json as it is"
    )
    parser.add_argument("--render", action="store_true", help="only write page and plot anew")
    return parser.parse_args()


def run(case: Case, ready: Ready, rounds: int) -> dict[str, Any]:
    """Measure a case: the peers in turn, in each round another one first."""
    say(f"{case.key}: {case.title}")
    taking_part = [ready.peers[name] for name in case.peers if name in ready.peers]
    project = ready.projects[case.project]
    if case.crowd:
        engine.crowd(case.crowd)
    for peer in taking_part:
        cases.before(case, peer, ready.projects)
    samples: dict[str, list[Sample]] = {peer.name: [] for peer in taking_part}
    began = os.getloadavg()[0]
    for number in range(min(rounds, case.rounds or rounds)):
        if case.change:
            case.change(project)
        turn = number % len(taking_part)
        for peer in taking_part[turn:] + taking_part[:turn]:
            samples[peer.name].append(cases.once(case, peer, project))
        last = {name: round(made[-1].value, 3) for name, made in samples.items()}
        say(f"    {last}")
    return {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "load": round(began, 2),
        "peers": {
            name: {
                "values": [round(one.value, 4) for one in made],
                "peak_mb": [round(one.peak_mb, 1) for one in made],
            }
            for name, made in samples.items()
        },
    }


def commit() -> str:
    """Name the commit, and say whether packager was changed since."""
    git = ["git", "-C", str(REPOSITORY)]
    name = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    )
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "src"], check=False)
    return name.stdout.strip() + ("-dirty" if changed.returncode else "")


def machine() -> dict[str, Any]:
    """Describe the machine, without its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "processors": os.cpu_count(),
        "processor": model,
        "memory_gb": round(memory / 1e9),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
        "engine": engine.docker("version", "-f", "{{.Server.Version}}"),
        "driver": engine.docker("info", "-f", "{{.Driver}}"),
        "versions": {name: version(name) for name in ("uv", "pip")} | frameworks.pins(),
    }


if __name__ == "__main__":
    main()
