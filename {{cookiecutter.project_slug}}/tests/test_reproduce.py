import json
import shutil

import numpy as np
import pytest

from {{ cookiecutter.package_name }} import model, reproduce, settings, train
from {{ cookiecutter.package_name }}.exported import SUFFIX


@pytest.fixture
def again(fresh, tmp_path):
    """A copy of the trained folder, to be altered."""
    return shutil.copytree(fresh, tmp_path / "again")


@pytest.fixture(scope="module")
def other(tmp_path_factory, quick):
    """A folder trained with another seed: other rows are held out, another model comes of it."""
    folder = tmp_path_factory.mktemp("other")
    train.train(quick.model_copy(update={"seed": quick.seed + 1}), folder)
    return folder


def altered(path, change):
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document))


def test_the_same_model_is_identical(fresh, again):
    assert reproduce.compare(fresh, again).level == "identical"


def move(metrics):
    metrics["held_out"] = dict.fromkeys(metrics["held_out"], 1e6)


def test_the_same_model_with_other_published_metrics_is_different(fresh, again):
    altered(again / "metrics.json", move)
    verdict = reproduce.compare(again, fresh)
    assert verdict.level == "different"
    assert verdict.reasons[0] == "the models are one, the published metrics differ"


def test_a_model_of_other_settings_is_different(fresh, other):
    verdict = reproduce.compare(fresh, other)
    assert verdict.level == "different"
    assert verdict.reasons[0].startswith("fitted_with differ: ")


def test_the_same_settings_with_other_predictions_are_different(other, again):
    # As if training had gone astray: what was published is neither predicted nor reached again.
    shutil.copy(other / "metrics.json", again / "metrics.json")
    altered(again / "metrics.json", move)
    verdict = reproduce.compare(again, other)
    assert verdict.level == "different"
    assert verdict.reasons[0].startswith("the models differ: ")


def test_other_bytes_with_the_same_predictions_are_within_tolerance(fresh, other, again):
    # As on another processor: the file is another one, what it says is nearly the same.
    def nudge(examples):
        predictor = reproduce.load(other / f"model.{SUFFIX}")
        examples["outputs"] = predictor.predict(examples["inputs"])
        for name, column in examples["outputs"].items():
            if not isinstance(column[0], str):
                examples["outputs"][name] = (np.array(column) * (1 + 1e-12)).tolist()

    altered(again / "examples.json", nudge)
    shutil.copy(other / "metrics.json", again / "metrics.json")
    verdict = reproduce.compare(again, other)
    assert verdict.level == "within tolerance"
    assert ("predictions" if model.RETRAINED else settings.read().evaluation.optimise) in str(
        verdict.reasons[1]
    )


def test_the_command_says_so_and_fails(fresh, again, other, capsys):
    reproduce.main([str(fresh), str(again)])
    assert "Reproduced: identical" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="1"):
        reproduce.main([str(fresh), str(other)])
    (again / f"model.{SUFFIX}").unlink()
    with pytest.raises(SystemExit, match="No such file"):
        reproduce.main([str(fresh), str(again)])
