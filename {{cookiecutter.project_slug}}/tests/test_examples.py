import json

import pytest

from {{ cookiecutter.package_name }} import data, examples, files, predict, registry, train
from {{ cookiecutter.package_name }}.exported import SUFFIX

from .test_predict import close


def test_examples_name_the_model_beside_them(models, recorded):
    assert recorded["model"] == files.digest((models / f"model.{SUFFIX}").read_bytes())


def test_the_model_predicts_what_is_recorded(models, recorded):
    outputs = predict.load(models / f"model.{SUFFIX}").predict(recorded["inputs"])
    close(outputs, recorded["outputs"], recorded["tolerance"])


def test_examples_have_the_signature_they_state(recorded):
    for side in ("inputs", "outputs"):
        assert {column["name"] for column in recorded["signature"][side]} == set(recorded[side])
        assert {len(column) for column in recorded[side].values()} == {recorded["data"]["rows"]}


def test_held_out_rows_are_recorded_by_default(fresh, table, quick):
    _, held_out = data.split(table, quick)
    rows = examples.held_out(held_out, registry.entry(quick.data.name))
    recorded = json.loads((fresh / "examples.json").read_text("utf-8"))
    assert recorded["inputs"] == data.columns(rows.table, quick)
    assert recorded["data"]["license"] == rows.license_text


def test_rows_of_ones_own_take_their_place(tmp_path, row):
    own = tmp_path / "own.csv"
    own.write_text(f"note,{','.join(row)}\nmade up,{','.join(str(v) for (v,) in row.values())}\n")
    words = ["--output", str(tmp_path), "--profile", "quick", "--log", str(tmp_path / "log.jsonl")]
    train.main([*words, "--examples", str(own), "--examples-license", "Public domain"])
    recorded = json.loads((tmp_path / "examples.json").read_text("utf-8"))
    assert recorded["data"] == {"license": "Public domain", "rows": 1, "source": "own.csv"}
    assert recorded["inputs"] == row
    assert "made up" not in (tmp_path / "sample.csv").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [("nothing\n1\n", "inputs lack"), (None, "is missing"), ("", "No columns")],
)
def test_a_file_that_the_model_cannot_take_is_named(tmp_path, quick, content, message):
    path = tmp_path / "own.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(data.DataError, match=rf"own\.csv.*{message}"):
        examples.own(path, "CC0-1.0", quick)


def test_a_licence_has_to_be_stated(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        train.main(["--output", str(tmp_path), "--examples", "own.csv"])
    assert "--examples-license" in capsys.readouterr().err
