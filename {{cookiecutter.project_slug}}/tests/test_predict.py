import math

import pytest
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from {{ cookiecutter.package_name }} import predict

ROW = {
    "culmen_length_mm": [39.0],
    "culmen_depth_mm": [18.5],
    "flipper_length_mm": [190],
    "sex": ["MALE"],
}


@pytest.fixture
def predictor(models):
    return predict.load(models / "model.skops")


def test_a_row_gives_a_species_and_three_probabilities(predictor):
    outputs = predictor.predict(ROW)
    assert outputs["species"] == ["Adelie"]
    (probabilities,) = outputs["probability"]
    assert len(probabilities) == 3
    assert math.isclose(sum(probabilities), 1)
    assert max(probabilities) == probabilities[0]


@pytest.mark.parametrize("name", list(ROW))
def test_any_value_may_be_missing(predictor, name):
    complete = predictor.predict(ROW)
    outputs = predictor.predict({**ROW, name: [None]})
    assert math.isclose(sum(outputs["probability"][0]), 1)
    assert outputs["probability"] != complete["probability"]


def test_missing_may_be_written_as_nan(predictor):
    as_nan, as_none = ({**ROW, "sex": [missing]} for missing in (math.nan, None))
    assert predictor.predict(as_nan) == predictor.predict(as_none)


def test_no_rows_give_no_predictions(predictor):
    empty = {name: [] for name in ROW}
    assert predictor.predict(empty) == {"species": [], "probability": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sex": ["M"]}, "sex is 'M'"),
        ({"culmen_depth_mm": ["deep"]}, "culmen_depth_mm holds something that is no number"),
        ({"sex": ["MALE", "FEMALE"]}, "columns differ in length"),
    ],
)
def test_a_wrong_column_is_named(predictor, change, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict({**ROW, **change})


def test_a_missing_column_is_named(predictor):
    with pytest.raises(ValueError, match="inputs lack sex"):
        predictor.predict({name: ROW[name] for name in ROW if name != "sex"})


def test_a_file_with_a_type_nobody_trusts_is_refused(tmp_path):
    skops.io.dump(predict.Predictor(model=None), tmp_path / "other.skops")
    with pytest.raises(UntrustedTypesFoundException, match="Predictor"):
        predict.load(tmp_path / "other.skops")
