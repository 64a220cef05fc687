"""The benchmarks' arithmetic, page and inputs; what they measure is not asserted anywhere."""

# ruff: noqa: RUF001 - a dash stands between least and most

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from packager import project as projects

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULTS = {
    "machine": {
        "processors": 2,
        "processor": "A processor",
        "memory_gb": 24,
        "kernel": "6.1",
        "engine": "20.10",
        "driver": "overlay2",
        "versions": {"uv": "1"},
        "left_out": {"a peer": "it is not there"},
    },
    "cases": {
        "cold": {
            "when": "2026-01-01T00:00+00:00",
            "commit": "abc",
            "load": 0.5,
            "peers": {
                "packager": {"values": [3.0, 6.0, 4.0], "peak_mb": [80.0, 90.0, 85.0]},
                "uv": {"values": [6.0, 8.0, 10.0], "peak_mb": [9.0, 9.0, 9.0]},
            },
        }
    },
}


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def measure() -> ModuleType:
    import measure

    return measure


@pytest.fixture
def page() -> ModuleType:
    import page

    return page


def test_a_ratio_is_taken_round_by_round(measure: ModuleType) -> None:
    seen = measure.ratio([1.0, 20.0, 3.0], [2.0, 20.0, 4.0])
    assert (seen.median, seen.least, seen.most) == (0.75, 0.5, 1.0)


def test_the_ratio_of_medians_is_another(measure: ModuleType) -> None:
    ours, theirs = [1.0, 20.0, 3.0], [2.0, 20.0, 4.0]
    of_medians = measure.spread(ours).median / measure.spread(theirs).median
    assert measure.ratio([1.0, 9.0, 2.0], [4.0, 6.0, 1.0]).median != 2.0 / 4.0
    assert of_medians == 0.75


def test_the_side_with_fewer_rounds_stands_by_its_last(measure: ModuleType) -> None:
    assert measure.ratio([4.0], [1.0, 2.0, 4.0]).median == 2.0


def test_a_command_is_measured_by_itself(measure: ModuleType) -> None:
    ballast = bytearray(200_000_000)
    assert 0 < measure.run(["true"]).peak_mb < len(ballast) / 1e6


def test_what_a_failing_command_said_is_told(measure: ModuleType) -> None:
    with pytest.raises(measure.FailedError, match="gave 3:\nso it is"):
        measure.run(["sh", "-c", "echo so it is; exit 3"])


def written(page: ModuleType, folder: Path, results: dict[str, Any]) -> str:
    (folder / "benchmarks.md").write_text(f"Before\n{page.BEGIN}\nold\n{page.END}\nAfter\n")
    page.write(results, folder)
    return (folder / "benchmarks.md").read_text()


def test_a_target_is_met(page: ModuleType, tmp_path: Path) -> None:
    text = written(page, tmp_path, RESULTS)
    assert "| 4.00 s (3.00–6.00) | 8.00 s (6.00–10.0) | 0.50 (0.40–0.75) | ≤ 0.7 | met |" in text
    assert text.startswith("Before\n")
    assert text.endswith("After\n")
    assert "\nold\n" not in text
    assert "Left out: a peer, because it is not there." in text


def test_or_it_is_not_and_the_page_says_so(page: ModuleType, tmp_path: Path) -> None:
    results: dict[str, Any] = copy.deepcopy(RESULTS)
    results["cases"]["cold"]["peers"]["packager"] |= {"values": [30.0], "peak_mb": [300.0]}
    text = written(page, tmp_path, results)
    assert "| 3.75 (3.00–5.00) | ≤ 0.7 | **not met** |" in text
    assert "under 200 MB: **not met**" in text


def test_the_plot_is_valid(page: ModuleType, tmp_path: Path) -> None:
    written(page, tmp_path, RESULTS)
    drawn = ElementTree.parse(tmp_path / "benchmarks.svg").getroot()
    assert len(drawn.findall(".//{*}circle")) == 2 + 2  # the key, the medians


def test_a_page_without_marks_is_refused(page: ModuleType) -> None:
    with pytest.raises(ValueError, match="lacks"):
        page.between_marks("no marks", "made")


def test_the_page_in_the_repository_is_of_the_results_in_it(
    page: ModuleType, tmp_path: Path
) -> None:
    results = json.loads((BENCHMARKS / "results.json").read_text())
    docs = BENCHMARKS.parent / "docs"
    (tmp_path / "benchmarks.md").write_text((docs / "benchmarks.md").read_text())
    page.write(results, tmp_path)
    for name in ("benchmarks.md", "benchmarks.svg"):
        assert (tmp_path / name).read_text() == (docs / name).read_text()


@pytest.fixture
def serving_page() -> ModuleType:
    import serving_page

    return serving_page


def server(per_second: float, p99: float, megabytes: float, ready: float) -> dict[str, Any]:
    loads = {"1": [per_second], "16": [per_second]}
    times = {"1": [p99], "16": [p99]}
    return {
        "megabytes": megabytes,
        "memory": [megabytes],
        "ready": [ready],
        "per_second": loads,
        "median_ms": times,
        "p99_ms": times,
    }


def served(page: ModuleType, **ours: float) -> str:
    machine = {"when": "now", "commit": "abc", "processors": 2, "kernel": "6.1", "engine": "20.10"}
    measured = {"per_second": 300.0, "p99": 7.0, "megabytes": 50.0, "ready": 1.0} | ours
    servers = {name: server(200.0, 10.0, 100.0, 1.0) for name in page.NAMES}
    servers[page.OURS] = server(**measured)
    results = {"machine": machine | {"versions": {}}, "clients": [1, 16], "servers": servers}
    return "\n".join(page.tables(results))


def test_a_server_that_is_as_good_as_it_must_be(serving_page: ModuleType) -> None:
    text = served(serving_page)
    assert text.count("| met |") == 6
    assert "not met" not in text
    assert "| answers per second, 1 client | MLServer | 1.50 |  |  |" in text


@pytest.mark.parametrize(
    "worse", [{"per_second": 299.0}, {"p99": 7.1}, {"megabytes": 51.0}, {"ready": 1.01}]
)
def test_and_one_that_is_not(serving_page: ModuleType, worse: dict[str, float]) -> None:
    assert "**not met**" in served(serving_page, **worse)


def test_the_servers_page_is_of_the_results(serving_page: ModuleType, tmp_path: Path) -> None:
    results = json.loads((BENCHMARKS / "serving.json").read_text())
    docs = BENCHMARKS.parent / "docs"
    (tmp_path / "serving-figures.md").write_text((docs / "serving-figures.md").read_text())
    serving_page.write(results, tmp_path)
    text = (tmp_path / "serving-figures.md").read_text()
    assert text == (docs / "serving-figures.md").read_text()


def test_the_inputs_are_a_project_with_pins() -> None:
    project = projects.load(BENCHMARKS / "inputs")
    text = (BENCHMARKS / "inputs" / "requirements.txt").read_text()
    pinned = {line.partition("==")[0] for line in text.splitlines() if line[:1].isalpha()}
    assert {one.partition("==")[0] for one in project.dependencies} <= pinned
    assert "://" not in text
