import json

import pandas as pd
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


def test_the_ranges_are_those_of_the_training_rows(table, quick, recorded):
    training, _ = data.split(table, quick)
    for name, column in data.columns(training, quick).items():
        values = [value for value in column if value is not None]
        if name in quick.config.numeric:
            expected = {"min": min(values), "max": max(values)}
        else:
            expected = {"values": sorted(set(values))}
        assert recorded["ranges"][name] == expected


def test_what_is_no_category_has_no_range():
    words = [f"word {number}" for number in range(51)]
    found = examples.ranges({"id": words, "kind": words[:50], "empty": [None], "n": [2, None, 1]})
    assert found == {"kind": {"values": sorted(words[:50])}, "n": {"min": 1, "max": 2}}


def naming(settings, **values):
    """The settings with other values under [data]."""
    return settings.model_copy(update={"data": settings.data.model_copy(update=values)})


def test_held_out_rows_are_recorded_unless_others_are_named(table, quick):
    _, held_out = data.split(table, quick)
    plain = naming(quick, examples="", examples_license="")
    rows = examples.chosen(held_out, registry.entry(quick.data.name), plain)
    assert rows.table is held_out
    assert rows.license_text == registry.entry(quick.data.name).license


def test_rows_that_the_settings_name_take_their_place(tmp_path, row, quick):
    own = tmp_path / "own.csv"
    pd.DataFrame({"note": ["made up"], **row}).to_csv(own, index=False)
    train.train(naming(quick, examples=str(own), examples_license="Public domain"), tmp_path)
    recorded = json.loads((tmp_path / "examples.json").read_text("utf-8"))
    assert recorded["data"] == {"license": "Public domain", "rows": 1, "source": "own.csv"}
    assert recorded["inputs"] == row
    assert "ranges" not in recorded  # the data that these stand in for must not travel
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
