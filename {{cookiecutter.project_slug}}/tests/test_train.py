import json
import os
import shutil
import subprocess
import sys

import pytest

from {{ cookiecutter.package_name }} import (
    data,
    evaluate,
    examples,
    export,
    files,
    log,
    model,
    predict,
    registry,
    settings,
    train,
)
from {{ cookiecutter.package_name }}.exported import SUFFIX
from {{ cookiecutter.package_name }}.features import encode

from .test_predict import close

# A seed that is drawn anew each time stands for code that forgets the one of the settings.
FORGETFUL = """
import os, sys
from PACKAGE import settings, train

def forgetful(profile):
    drawn = int.from_bytes(os.urandom(3), "big")
    return settings.read(profile).model_copy(update=dict(seed=drawn))

train.read = forgetful
train.main(sys.argv[1:])
"""


def digests(folder):
    return {path.name: files.digest(path.read_bytes()) for path in folder.iterdir()}


def trained(folder, *code, hash_seed="0"):
    """Train in a process of its own; return the digests of what it wrote."""
    words = ["--output", str(folder), "--profile", "quick", "--log", str(folder / "log.jsonl")]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run([sys.executable, *code, *words], check=True, env=environment)
    (folder / "log.jsonl").unlink()
    return digests(folder)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_training_again_in_another_process_gives_the_same_files(fresh, tmp_path, hash_seed):
    found = trained(tmp_path, "-m", train.__name__, hash_seed=hash_seed)
    assert found == digests(fresh)


def test_training_that_forgets_the_seed_is_noticed(fresh, tmp_path):
    code = FORGETFUL.replace("PACKAGE", train.__package__)
    found = trained(tmp_path, "-c", code)
    assert found[f"model.{SUFFIX}"] != digests(fresh)[f"model.{SUFFIX}"]


def test_the_exported_model_predicts_what_the_fitted_one_did(fresh, table, quick):
    training, held_out = data.split(table, quick)
    inputs = encode(quick.config, data.columns(training, quick))
    target, together = data.targets(training, quick), data.groups(training, quick)
    fitted = model.fit(quick.model, quick.seed, quick.config, inputs, target, together)
    others = encode(quick.config, data.columns(held_out, quick))
    expected = model.run(fitted, quick.config, others)
    found = predict.load(fresh / f"model.{SUFFIX}").run(others)
    both = ({"run": output.ravel().tolist()} for output in (found, expected))
    close(*both, examples.tolerance({"run": expected.ravel().tolist()}))


def test_the_committed_model_is_of_these_settings_and_data():
    if not (settings.ROOT / "models" / "metrics.json").is_file():
        pytest.skip("nothing is trained yet")
    metrics = json.loads((settings.ROOT / "models" / "metrics.json").read_text("utf-8"))
    assert metrics["settings"] == settings.read().digest, "make train: the settings have changed"
    entry = registry.entry(settings.read().data.name)
    assert metrics["data"] == f"sha256:{entry.sha256}", "make train: the data have changed"
    content = (settings.ROOT / "models" / f"model.{SUFFIX}").read_bytes()
    assert metrics["model"] == files.digest(content)
    assert metrics["content"] == export.content_digest(content)


def test_metrics_are_those_of_the_model_beside_them(models, metrics, table, quick):
    predictor = predict.load(models / f"model.{SUFFIX}")
    held_out = data.split(table, quick)[1]
    output = predictor.run(encode(quick.config, data.columns(held_out, quick)))
    found = evaluate.scores(quick.config, data.targets(held_out, quick), output)
    assert found == pytest.approx(metrics["held_out"], abs=1e-5)


def test_every_training_adds_a_line_to_the_log_failures_included(tmp_path, monkeypatch):
    book = tmp_path / "log.jsonl"
    words = ["--output", str(tmp_path), "--profile", "quick", "--log", str(book)]
    train.main([*words, "--note", "the first"])
    monkeypatch.setattr(model, "fit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.main([*words, "--note", "the second"])
    with pytest.raises(SystemExit, match=r"no \[profiles"):
        train.main([*words[:3], "nowhere", *words[4:]])
    first, second, third = log.read(book)
    assert first["note"] == "the first"
    assert first["value"] == json.loads((tmp_path / "metrics.json").read_text("utf-8"))["value"]
    assert first["thread_pools"]
    assert first["settings"]["seed"] == settings.read().seed
    assert "ZeroDivisionError" in second["error"]
    assert "SettingsError" in third["error"]
    assert first["data"] == f"sha256:{registry.entry(settings.read().data.name).sha256}"
    assert log.draw([first, second, third]).axes


def test_a_failing_training_leaves_the_old_model_and_all_that_is_said_of_it(
    fresh, tmp_path, quick, monkeypatch
):
    folder = shutil.copytree(fresh, tmp_path / "models")
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.train(quick.model_copy(update={"seed": quick.seed + 1}), folder)
    assert digests(folder) == digests(fresh)


def test_a_model_that_cannot_be_exported_is_explained(tmp_path, quick, monkeypatch):
    def refuse(*_):
        raise ValueError("of an unknown type")

    monkeypatch.setattr(export, "to_bytes", refuse)
    with pytest.raises(train.TrainingError, match=r"cannot be fitted and exported: of an unknown"):
        train.train(quick, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_log_is_named_with_the_line(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"note": "whole"}\n{"note":\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2"):
        log.read(tmp_path / "log.jsonl")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    files.write(path, b"old")
    with pytest.raises(TypeError):
        files.write(path, "not bytes")
    assert path.read_bytes() == b"old"
