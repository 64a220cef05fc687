import json

from {{ cookiecutter.package_name }} import data, evaluate, predict


def test_the_model_beats_the_baseline(models):
    metrics = json.loads((models / "metrics.json").read_text("utf-8"))
    assert metrics["baseline"]["accuracy"] < 0.5
    assert metrics["accuracy"] > 0.9


def test_metrics_are_those_of_the_model_beside_them(models):
    metrics = json.loads((models / "metrics.json").read_text("utf-8"))
    metrics.pop("model")
    predictor = predict.load(models / "model.skops")
    assert evaluate.evaluate(predictor, *data.split(data.load())) == metrics
