"""Built-in loaders of the program inside the image, on models of the real libraries."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy
import pandas
import pytest
import skops.io
import xgboost
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from packager import runtime
from packager.runtime.packager_runtime import tables
from packager.runtime.packager_runtime.facts import Columns, Image, InputError, Tensor
from packager.runtime.packager_runtime.loaders import ask, known_inputs, load

NUMBERS, LABELS = load_iris(return_X_y=True)

PENGUINS = pandas.DataFrame(
    {
        "length": [39.1, 39.5, numpy.nan, 50.0, 49.5, 46.1] * 4,
        "depth": [18.7, 17.4, 18.0, 15.2, 16.1, 13.2] * 4,
        "sex": ["MALE", "FEMALE", None, "MALE", "FEMALE", None] * 4,
    }
)
SPECIES = ["Adelie", "Adelie", "Adelie", "Gentoo", "Gentoo", "Gentoo"] * 4
SIGNATURE = (
    Tensor("length", "FP64", nullable=True),
    Tensor("depth", "FP64", nullable=True),
    Tensor("sex", "BYTES", nullable=True),
)
ROWS = "length,depth,sex\n39.1,18.7,MALE\n,15.2,\n49.5,16.1,FEMALE\n"


def penguin_pipeline() -> Pipeline:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    encode = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("n", numbers, ["length", "depth"]), ("c", encode, ["sex"])])
    return Pipeline([("columns", columns), ("svc", LogisticRegression())]).fit(PENGUINS, SPECIES)


def sealed(
    path: Path, data: bytes, *, predictor: str | None = None, trust_pickle: bool = False
) -> Image:
    path.write_bytes(data)
    facts = dict.fromkeys(Image.__slots__, "")
    own = {"model": path, "examples": None, "predictor": predictor, "trust_pickle": trust_pickle}
    return Image(**(facts | own))


def predict(image: Image, given: str, inputs: Sequence[Tensor] = ()) -> Columns:
    predictor = load(image, inputs)
    columns, _ = tables.read(given.encode(), inputs or known_inputs(predictor))
    return ask(predictor, columns)


def inputs_of(image: Image) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in known_inputs(load(image, ()))}


def test_a_skops_pipeline_predicts_as_it_does_in_the_notebook(tmp_path: Path) -> None:
    model = penguin_pipeline()
    image = sealed(tmp_path / "model.skops", skops.io.dumps(model))
    assert list(inputs_of(image)) == ["length", "depth", "sex"]
    rows = pandas.DataFrame(
        {"length": [39.1, None, 49.5], "depth": [18.7, 15.2, 16.1], "sex": ["MALE", None, "FEMALE"]}
    )
    for inputs in ((), SIGNATURE):
        assert predict(image, ROWS, inputs) == {
            "prediction": model.predict(rows).tolist(),
            "probability": model.predict_proba(rows).tolist(),
        }


@pytest.mark.parametrize("inputs", [(), SIGNATURE], ids=["unrecorded", "recorded"])
def test_one_row_with_every_cell_missing_is_still_a_row(
    tmp_path: Path, inputs: tuple[Tensor, ...]
) -> None:
    model = penguin_pipeline()
    row = PENGUINS.head(1).mask(PENGUINS.head(1).notna())
    image = sealed(tmp_path / "model.skops", skops.io.dumps(model))
    got = predict(image, "length,depth,sex\n,,\n", inputs)
    assert got["probability"] == model.predict_proba(row).tolist()


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), SVC()),
        HistGradientBoostingClassifier(max_iter=3),
        GradientBoostingRegressor(n_estimators=3),
        KNeighborsClassifier(),
        LinearRegression(),
        make_pipeline(FunctionTransformer(numpy.log1p), LinearRegression()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_without_column_names_take_x0_x1_in_order(tmp_path: Path, model: Any) -> None:
    model.fit(NUMBERS, LABELS)
    image = sealed(tmp_path / "model.skops", skops.io.dumps(model))
    assert list(inputs_of(image)) == ["x0", "x1", "x2", "x3"]
    rows = [{f"x{at}": value for at, value in enumerate(row)} for row in NUMBERS[::50].tolist()]
    got = predict(image, json.dumps(rows))
    assert got["prediction"] == model.predict(NUMBERS[::50]).tolist()
    assert ("probability" in got) == hasattr(model, "predict_proba")


def test_several_outputs_keep_one_row_each(tmp_path: Path) -> None:
    model = KNeighborsClassifier().fit(NUMBERS, numpy.column_stack([LABELS, LABELS > 1]))
    image = sealed(tmp_path / "model.skops", skops.io.dumps(model))
    got = predict(image, "x0,x1,x2,x3\n5.1,3.5,1.4,0.2\n6.3,3.3,6.0,2.5\n")
    assert got["prediction"] == [[0, 0], [2, 1]]
    assert got["probability"][1] == [[0.0, 0.0, 1.0], [0.0, 1.0]]


def test_skops_refuses_what_is_not_a_class_of_the_known_libraries(tmp_path: Path) -> None:
    for model, name in (
        (make_pipeline(FunctionTransformer(pandas.read_pickle), LinearRegression()), "read_pickle"),
        ({"where": Path}, "pathlib"),
    ):
        image = sealed(tmp_path / "model.skops", skops.io.dumps(model))
        with pytest.raises(InputError, match=rf"does not trust: .*{name}"):
            load(image, ())


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl"])
def test_a_pickle_is_loaded_only_with_consent(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("joblib"):
        joblib.dump(penguin_pipeline(), path)
    else:
        path.write_bytes(pickle.dumps(penguin_pipeline()))
    image = sealed(path, path.read_bytes())
    with pytest.raises(InputError, match=f"^{name} is a pickle, which runs code when it is loaded"):
        load(image, ())
    got = predict(replace(image, trust_pickle=True), ROWS)
    assert got["prediction"] == ["Adelie", "Gentoo", "Gentoo"]


def test_an_object_that_does_not_predict_is_refused(tmp_path: Path) -> None:
    image = sealed(tmp_path / "model.skops", skops.io.dumps({"weights": numpy.zeros(3)}))
    with pytest.raises(InputError, match="holds a value of type dict, which has no predict"):
        load(image, ())


# --- boosted trees in their libraries' own files

FLOATS = NUMBERS.astype("float32")
TABLE = pandas.DataFrame(FLOATS, columns=["a", "b", "c", "d"])
TREES_ROWS = "d,c,b,a\n" + "".join(
    ",".join(map(str, row[::-1])) + "\n" for row in FLOATS[::50].tolist()
)


def saved(path: Path, save: Any) -> Image:
    save(path)
    return sealed(path, path.read_bytes())


@pytest.mark.parametrize("name", ["model.ubj", "model.json"])
def test_xgboost_says_classes_and_probabilities(tmp_path: Path, name: str) -> None:
    model = xgboost.XGBClassifier(n_estimators=40, early_stopping_rounds=2)
    model.fit(TABLE[::2], LABELS[::2], eval_set=[(TABLE[1::2], LABELS[1::2])], verbose=False)
    assert model.best_iteration < 38  # there are trees that must not count
    image = saved(tmp_path / name, model.save_model)
    assert list(inputs_of(image)) == ["a", "b", "c", "d"]
    got = predict(image, TREES_ROWS)
    assert got["prediction"] == model.predict(TABLE[::50]).tolist()
    assert got["probability"] == model.predict_proba(TABLE[::50]).tolist()


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror", "multi:softmax"])
def test_xgboost_without_names_takes_x0_x1_in_order(tmp_path: Path, objective: str) -> None:
    labels = LABELS > 0 if objective == "binary:logistic" else LABELS
    settings = {"objective": objective} | ({"num_class": 3} if objective[0] == "m" else {})
    model = xgboost.train(settings, xgboost.DMatrix(FLOATS, labels), 5)
    image = saved(tmp_path / "model.ubj", model.save_model)
    got = predict(image, TREES_ROWS.replace("d,c,b,a", "x3,x2,x1,x0"))
    expected = model.predict(xgboost.DMatrix(FLOATS[::50])).tolist()
    if objective == "binary:logistic":
        assert got["prediction"] == [0, 1, 1]
        assert [row[1] for row in got["probability"]] == expected
        assert all(sum(row) == pytest.approx(1) for row in got["probability"])
    else:
        assert got == {"prediction": expected}


@pytest.mark.parametrize("kind", [lightgbm.LGBMClassifier, lightgbm.LGBMRegressor])
def test_lightgbm_predicts_as_it_does_in_the_notebook(tmp_path: Path, kind: Any) -> None:
    model = kind(n_estimators=5, verbose=-1).fit(TABLE, LABELS)
    image = saved(tmp_path / "model.txt", model.booster_.save_model)
    assert list(inputs_of(image)) == ["a", "b", "c", "d"]
    got = predict(image, TREES_ROWS)
    assert got["prediction"] == model.predict(TABLE[::50]).tolist()
    if kind is lightgbm.LGBMClassifier:
        assert got["probability"] == model.predict_proba(TABLE[::50]).tolist()


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_trees_take_a_blank_cell_as_missing(tmp_path: Path, library: str) -> None:
    table = TABLE.mask(TABLE["c"] > 5)
    if library == "xgboost":
        model = xgboost.XGBRegressor(n_estimators=5).fit(table, LABELS)
        image = saved(tmp_path / "model.json", model.save_model)
    else:
        model = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(table, LABELS)
        image = saved(tmp_path / "model.txt", model.booster_.save_model)
    got = predict(image, "a,b,c,d\n,,,\n5.1,3.5,1.4,0.2\n")
    rows = pandas.DataFrame([[None] * 4, [5.1, 3.5, 1.4, 0.2]], columns=table.columns, dtype=float)
    assert got["prediction"] == pytest.approx(model.predict(rows).tolist())
    assert got["prediction"][0] != got["prediction"][1]


def test_trees_that_take_categories_are_refused(tmp_path: Path) -> None:
    table = TABLE.assign(kind=pandas.Categorical(["x", "y", "z"] * 50))
    one = xgboost.XGBRegressor(n_estimators=2, enable_categorical=True).fit(table, LABELS)
    other = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1).fit(table, LABELS)
    for name, save in (("m.ubj", one.save_model), ("m.txt", other.booster_.save_model)):
        with pytest.raises(InputError, match=f"{name} takes categories"):
            load(saved(tmp_path / name, save), ())


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.json", b"{}", "m.json is no model of XGBoost"),
        ("m.ubj", b"\x00", "m.ubj is no model of XGBoost"),
        ("m.txt", b"tree\nnonsense", "m.txt is no model of LightGBM"),
        ("m.txt", b"2.5", "m.txt: no built-in loader takes it"),
    ],
)
def test_what_is_no_model_of_trees_is_refused(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(sealed(tmp_path / name, data), ())


# --- the recorded signature beside the model's own


@pytest.mark.parametrize(
    ("names", "shape", "message"),
    [
        ("abcd", (-1,), None),
        ("dcba", (-1,), None),
        ("abc", (-1,), "the signature records no 'd'"),
        ("abcde", (-1,), "the signature records what the model does not take: 'e'"),
        ("abcd", (-1, 2), r"the signature records 'a' as \[-1, 2\], the model takes \[-1\]"),
    ],
)
def test_names_that_the_model_knows_are_those_of_the_signature(
    tmp_path: Path, names: str, shape: tuple[int, ...], message: str | None
) -> None:
    model = LinearRegression().fit(TABLE, LABELS)
    image = sealed(tmp_path / "model.skops", skops.io.dumps(model))
    recorded = [Tensor(name, "FP64", shape) for name in names]
    if message is None:
        got = predict(image, TREES_ROWS, recorded)
        assert got["prediction"] == pytest.approx(model.predict(TABLE[::50]).tolist())
    else:
        with pytest.raises(InputError, match=message):
            load(image, recorded)


@pytest.mark.parametrize(
    ("shapes", "width"), [([(-1,)] * 3, 3), ([(-1, 5)], 5), ([(-1, 2), (-1, 3)], 5)]
)
def test_columns_without_names_are_counted(
    tmp_path: Path, shapes: list[tuple[int, ...]], width: int
) -> None:
    image = sealed(tmp_path / "m.skops", skops.io.dumps(LinearRegression().fit(NUMBERS, LABELS)))
    recorded = [Tensor(f"in{at}", "FP64", shape) for at, shape in enumerate(shapes)]
    with pytest.raises(InputError, match=f"inputs are {width} columns, the model takes 4"):
        load(image, recorded)


def test_columns_without_names_may_come_as_one_array(tmp_path: Path) -> None:
    model = LinearRegression().fit(NUMBERS, LABELS)
    image = sealed(tmp_path / "m.skops", skops.io.dumps(model))
    rows = json.dumps([{"row": row} for row in NUMBERS[::50].tolist()])
    got = predict(image, rows, [Tensor("row", "FP64", (-1, 4))])
    assert got["prediction"] == pytest.approx(model.predict(NUMBERS[::50]).tolist())


@pytest.mark.parametrize(("name", "package"), [("m.skops", "skops"), ("m.onnx", "onnxruntime")])
def test_a_missing_library_is_named(
    tmp_path: Path, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = sealed(tmp_path / name, b"")
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ImportError, match=f"^{name} needs {package}, which is not in the image"):
        load(image, ())


@pytest.mark.parametrize("zipmap", [True, False])
def test_an_onnx_classifier_of_one_matrix(tmp_path: Path, zipmap: bool) -> None:
    model = LogisticRegression(max_iter=1000).fit(NUMBERS, LABELS)
    file = to_onnx(model, NUMBERS[:1].astype("float32"), options={"zipmap": zipmap})
    image = sealed(tmp_path / "model.onnx", file.SerializeToString())
    assert inputs_of(image) == {"X": (-1, 4)}
    got = predict(image, json.dumps([{"X": row} for row in NUMBERS[::50].tolist()]))
    label, chances = got.values()
    assert label == model.predict(NUMBERS[::50]).tolist()
    numpy.testing.assert_allclose(chances, model.predict_proba(NUMBERS[::50]), atol=1e-5)
    label, *_ = predict(image, 'X\n"[5.1, 3.5, 1.4, 0.2]"\n').values()
    assert label == [0]


def test_an_onnx_pipeline_of_named_columns(tmp_path: Path) -> None:
    table = PENGUINS.dropna().astype({"length": "float32", "depth": "float32"})
    columns = ColumnTransformer(
        [("n", StandardScaler(), ["length", "depth"]), ("c", OneHotEncoder(), ["sex"])]
    )
    model = Pipeline([("columns", columns), ("lr", LogisticRegression())])
    model.fit(table, [SPECIES[at] for at in table.index])
    file = to_onnx(model, table[:1], options={"zipmap": False})
    image = sealed(tmp_path / "model.onnx", file.SerializeToString())
    assert inputs_of(image) == {"length": (-1,), "depth": (-1,), "sex": (-1,)}
    got = predict(image, "sex,depth,length\nMALE,18.7,39.1\nFEMALE,16.1,49.5\n")
    assert got["label"] == ["Adelie", "Gentoo"]


def test_the_program_itself_loads_a_model_and_tells_its_inputs(tmp_path: Path) -> None:
    data = skops.io.dumps(penguin_pipeline())
    (tmp_path / "model.skops").write_bytes(data)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    facts = dict.fromkeys(set(Image.__slots__) - {"model_digest"}, "")
    facts |= {"format": 1, "model": {"path": "model.skops", "digest": digest}}
    (tmp_path / "image.json").write_text(json.dumps(facts))
    environment = os.environ | {
        "PYTHONPATH": str(Path(runtime.__file__).parent),
        "PACKAGER_ROOT": str(tmp_path),
    }
    command = [sys.executable, "-P", "-m", "packager_runtime", "info"]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert [line.split() for line in out.stdout.splitlines() if "as trained" in line] == [
        [name, "as", "trained", "[n]", "may", "be", "missing"]
        for name in ("length", "depth", "sex")
    ]
