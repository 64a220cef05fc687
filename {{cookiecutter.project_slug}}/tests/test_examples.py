import hashlib

import numpy as np
import pytest

from {{ cookiecutter.package_name }} import data, examples, predict, train


def test_examples_name_the_model_beside_them(models, recorded):
    content = (models / "model.skops").read_bytes()
    assert recorded["model"] == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_the_model_predicts_what_is_recorded(models, recorded):
    outputs = predict.load(models / "model.skops").predict(recorded["inputs"])
    assert outputs["species"] == recorded["outputs"]["species"]
    np.testing.assert_allclose(
        outputs["probability"], recorded["outputs"]["probability"], **recorded["tolerance"]
    )


def test_examples_have_the_signature_they_state(recorded):
    for side in ("inputs", "outputs"):
        assert {column["name"] for column in recorded["signature"][side]} == set(recorded[side])
        assert {len(column) for column in recorded[side].values()} == {recorded["data"]["rows"]}


def test_held_out_rows_are_recorded_by_default(fresh):
    _, held_out = data.split(data.load())
    rows = examples.held_out(held_out)
    assert rows.license_text == "CC0-1.0"
    assert examples.columns(rows.table)["sex"].count(None) == held_out["sex"].isna().sum()


def test_rows_of_ones_own_take_their_place(tmp_path):
    own = tmp_path / "own.csv"
    header = "note,culmen_length_mm,culmen_depth_mm,flipper_length_mm,sex"
    own.write_text(f"{header}\nmade up,39,18,,male\n")
    train.main(
        ["--output", str(tmp_path), "--examples", str(own), "--examples-license", "Public domain"]
    )
    text = (tmp_path / "examples.json").read_text("utf-8")
    assert '"source": "own.csv"' in text
    assert '"license": "Public domain"' in text
    assert '"rows": 1' in text
    assert "made up" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [("sex\nMALE\n", "inputs lack"), (None, "is missing"), ("", "No columns")],
)
def test_a_file_that_the_model_cannot_take_is_named(tmp_path, content, message):
    path = tmp_path / "own.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(data.DataError, match=rf"own\.csv.*{message}"):
        examples.own(path, "CC0-1.0")


def test_a_licence_has_to_be_stated(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        train.main(["--output", str(tmp_path), "--examples", "own.csv"])
    assert "--examples-license" in capsys.readouterr().err
