import hashlib
import os
import subprocess
import sys

import pytest
import skops.io

from {{ cookiecutter.package_name }} import data, export, predict, train


@pytest.fixture(scope="module")
def fitted():
    return train.fit(data.split(data.load())[0])


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_training_again_in_another_process_gives_the_same_files(fresh, tmp_path, hash_seed):
    command = [sys.executable, "-m", train.__name__, "--output", str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed})
    for name in ("model.skops", "metrics.json", "examples.json"):
        assert digest(tmp_path / name) == digest(fresh / name), name


def test_another_seed_gives_another_file(fresh, tmp_path):
    train.train(tmp_path, seed=data.SEED + 1)
    assert digest(tmp_path / "model.skops") != digest(fresh / "model.skops")


def test_skops_alone_does_not_give_the_same_file_twice(fitted):
    # If this fails, skops has become canonical and export.canonical is no longer needed.
    again = train.fit(data.split(data.load())[0])
    assert skops.io.dumps(fitted) != skops.io.dumps(again)


def test_the_canonical_form_holds_the_same_model(fitted):
    table = predict.frame(data.load())
    loaded = skops.io.loads(export.model_bytes(fitted), trusted=list(predict.TRUSTED))
    assert (loaded.predict_proba(table) == fitted.predict_proba(table)).all()


def test_canonical_form_is_its_own_canonical_form(fitted):
    content = export.model_bytes(fitted)
    assert export.canonical(content) == content


def test_a_model_that_could_not_be_loaded_again_is_not_exported():
    with pytest.raises(ValueError, match=r"predict\.Predictor\n.*TRUSTED"):
        export.model_bytes(predict.Predictor(model=None))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    export.write(path, b"old")
    with pytest.raises(TypeError):
        export.write(path, "not bytes")
    assert path.read_bytes() == b"old"
