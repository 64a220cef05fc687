import math

import pytest

from {{ cookiecutter.package_name }} import features, predict
from {{ cookiecutter.package_name }}.exported import SUFFIX


def close(outputs, expected, tolerance):
    """Whether predictions are those expected: words equal, numbers within the tolerance."""
    limits = {"rel": tolerance["rtol"], "abs": tolerance["atol"]}
    for name, column in expected.items():
        for found, value in zip(outputs[name], column, strict=True):
            if isinstance(value, str):
                assert found == value
            else:
                assert found == pytest.approx(value, **limits)


def test_a_row_gives_a_prediction_and_how_sure_it_is(predictor, row):
    outputs = predictor.predict(row)
    assert len(outputs[predictor.config.target]) == 1
    if predictor.config.classes:
        (probabilities,) = outputs["probability"]
        assert math.isclose(sum(probabilities), 1, rel_tol=1e-6)
        best = predictor.config.classes[probabilities.index(max(probabilities))]
        assert outputs[predictor.config.target] == [best]


def test_any_value_may_be_missing(predictor, row):
    for name in row:
        outputs = predictor.predict({**row, name: [None]})
        assert outputs == predictor.predict({**row, name: [math.nan]})
        numbers = outputs["probability"][0] if predictor.config.classes else outputs.popitem()[1]
        assert all(math.isfinite(number) for number in numbers)


def test_an_input_matters(predictor, recorded):
    outputs = predictor.predict(recorded["inputs"])
    assert len({str(value) for value in next(iter(outputs.values()))}) > 1


def test_no_rows_give_no_predictions(predictor, row):
    assert set(map(str, predictor.predict({name: [] for name in row}).values())) == {"[]"}


def test_a_wrong_value_is_named(predictor, row):
    for name in predictor.config.numeric:
        with pytest.raises(ValueError, match=f"{name} holds something that is no number"):
            predictor.predict({**row, name: ["deep"]})
    for name in predictor.config.categorical:
        with pytest.raises(ValueError, match=f"{name} is 'no such word'; it can be"):
            predictor.predict({**row, name: ["no such word"]})


def test_a_missing_column_is_named(predictor, row):
    for name in row:
        with pytest.raises(ValueError, match=f"inputs lack {name}"):
            predictor.predict({other: row[other] for other in row if other != name})


def test_columns_of_different_length_are_refused(predictor, row):
    first = next(iter(row))
    with pytest.raises(ValueError, match="columns differ in length"):
        predictor.predict({**row, first: row[first] * 2})


def test_the_configuration_survives_its_text(quick):
    config = quick.config
    assert features.Config.from_json(config.to_json()) == config


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"task": 1}'])
def test_another_text_is_no_configuration(text):
    with pytest.raises(ValueError, match=r"configuration|Expecting"):
        features.Config.from_json(text)


def test_the_encoding_is_as_wide_as_it_says(quick, row):
    assert features.encode(quick.config, row).shape == (1, quick.config.width)


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / f"model.{SUFFIX}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="model"):
        predict.load(path)
