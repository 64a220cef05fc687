import re

import numpy as np
import pytest

from {{ cookiecutter.package_name }} import data, evaluate, predict, report, settings


def test_the_model_beats_every_baseline(metrics):
    name = metrics["optimise"]
    sign = 1 if settings.HIGHER_IS_BETTER[metrics["task"]][name] else -1
    reached = sign * metrics["held_out"][name]
    assert len(metrics["baselines"]) >= 2
    # What somebody else reached is reported, and may be better.
    ours = [found for found in metrics["baselines"].values() if "source" not in found]
    assert all(reached > sign * found[name] for found in ours)


def test_every_threshold_holds(metrics):
    assert metrics["thresholds"]
    assert [line for line in metrics["thresholds"] if not line["passed"]] == []


@pytest.mark.parametrize(
    ("limits", "holds", "misses"),
    [({"min": 0.5}, [0.5, 1.0], [0.4, np.nan]), ({"max": 0.5}, [0.5, 0.1], [0.6, np.nan])],
)
def test_a_threshold_holds_or_is_missed(limits, holds, misses):
    threshold = settings.Threshold(**limits)
    assert all(threshold.holds(value) for value in holds)
    assert not any(threshold.holds(value) for value in misses)


def test_a_missed_threshold_fails_the_evaluation(fresh, quick, monkeypatch, tmp_path):
    strict = {"latency_ms": settings.Threshold(max=0.0)}
    part = quick.evaluation.model_copy(update={"thresholds": strict})
    other = quick.model_copy(update={"evaluation": part})
    monkeypatch.setattr(evaluate, "read", lambda: other)
    monkeypatch.setattr(evaluate, "MODEL", fresh / evaluate.MODEL.name)
    with pytest.raises(SystemExit, match="A threshold of"):
        evaluate.main(["--report", str(tmp_path)])


def test_the_evaluation_draws_a_report(fresh, quick, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(evaluate, "read", lambda: quick)
    monkeypatch.setattr(evaluate, "MODEL", fresh / evaluate.MODEL.name)
    evaluate.main(["--report", str(tmp_path)])
    page = (tmp_path / "report.md").read_text("utf-8")
    pictures = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert pictures
    assert pictures == sorted(re.findall(r"!\[.*\]\((.*)\)", page))
    assert quick.evaluation.optimise in capsys.readouterr().out


def test_a_model_of_other_settings_is_not_measured(fresh, quick, monkeypatch, tmp_path):
    # Rows that another seed holds out may be rows that this model learned from.
    other = quick.model_copy(update={"seed": quick.seed + 1})
    monkeypatch.setattr(evaluate, "read", lambda: other)
    monkeypatch.setattr(evaluate, "MODEL", fresh / evaluate.MODEL.name)
    with pytest.raises(SystemExit, match="trained with other settings or data"):
        evaluate.main(["--report", str(tmp_path)])


def test_groups_add_up_to_the_held_out_rows(metrics, quick):
    assert set(metrics["groups"]) == set(quick.evaluation.by)
    for groups in metrics["groups"].values():
        assert sum(group["rows"] for group in groups.values()) == metrics["rows"]["held_out"]


def test_a_perfect_answer_has_perfect_scores(table, quick):
    truth = data.targets(table, quick)
    output = np.eye(len(quick.task.classes))[truth] if quick.task.classes else truth
    found = evaluate.scores(quick.config, truth, output)
    better = settings.HIGHER_IS_BETTER[quick.task.kind]
    expected = {name: float(better[name]) for name in better}
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_wrong_answer_has_worse_scores(table, quick):
    truth = data.targets(table, quick)
    wrong = np.roll(truth, len(truth) // 2)
    output = np.eye(len(quick.task.classes))[wrong] if quick.task.classes else wrong
    found = evaluate.scores(quick.config, truth, output)
    better = settings.HIGHER_IS_BETTER[quick.task.kind]
    assert all(found[name] < 1 if higher else found[name] > 0 for name, higher in better.items())


def test_the_same_pictures_are_the_same_files(fresh, quick, table, tmp_path):
    predictor = predict.load(fresh / evaluate.MODEL.name)
    held_out = data.split(table, quick)[1]
    measured = evaluate.evaluate(predictor, *data.split(table, quick), quick)
    pages = [
        report.draw(tmp_path / name, predictor, held_out, measured, quick) for name in ("a", "b")
    ]
    contents = [[p.read_bytes() for p in sorted(page.parent.iterdir())] for page in pages]
    assert contents[0] == contents[1]
