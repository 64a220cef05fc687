"""A model on disk to an object that predicts: the project's own loader, or one by suffix."""

from __future__ import annotations

import contextlib
import importlib
import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .builtin import BuiltIn, filled, kind, matrix, module, unnamed
from .facts import Columns, Image, InputError, Tensor

__all__ = ["Predictor", "ask", "known_inputs", "load", "plain"]


class Predictor(Protocol):
    """What a loader returns."""

    def predict(self, inputs: Mapping[str, list[Any]]) -> Mapping[str, Any]:
        """Predict from columns to named columns."""
        ...


def load(image: Image, inputs: Sequence[Tensor], outputs: Sequence[Tensor] = ()) -> Predictor:
    """Load the image's model.

    Parameters
    ----------
    image : Image
        Names the model, and the project's predictor if it has one.
    inputs, outputs : sequence of Tensor
        The recorded signature; empty if there is none.

    Returns
    -------
    Predictor
        The model.

    Raises
    ------
    InputError
        When no loader takes the model, the author's consent is missing, or the model takes
        something else than was recorded.
    ImportError
        When a built-in loader needs a package that is not there.
    Exception
        Whatever the project's own code raises.
    """
    if image.predictor:
        return _own(image.predictor, image.model, inputs, outputs)
    predictor = _built_in(image, inputs, outputs)
    predictor.refuse_other(inputs)
    return predictor


def _built_in(image: Image, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> BuiltIn:
    from . import networks, trees  # not every image has need of them

    path = image.model
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return Onnx(path)
    if suffix == ".skops":
        return Estimator(_skops(path), inputs)
    if suffix in {".joblib", ".pkl", ".pickle"}:
        return Estimator(_pickle(path, image.trust_pickle), inputs)
    if suffix in {".json", ".ubj"}:
        return trees.xgboost(path)
    if suffix == ".txt" and trees.is_lightgbm(path):
        return trees.lightgbm(path)
    if suffix == ".pt2":
        _refuse_pickle(path, image.trust_pickle)
        return networks.exported(path, outputs)
    raise InputError(
        f"{path.name}: no built-in loader takes it; name one of the project's own: "
        'predictor = "module:function"'
    )


def known_inputs(predictor: Predictor) -> tuple[Tensor, ...]:
    """Return the inputs that a model of a built-in loader knows it wants, or none."""
    return predictor.inputs if isinstance(predictor, BuiltIn) else ()


def ask(predictor: Predictor, inputs: Columns) -> Columns:
    """Let a model predict.

    Parameters
    ----------
    predictor : Predictor
        The model.
    inputs : dict of str to list
        Checked columns.

    Returns
    -------
    dict of str to list
        Its answer in plain Python values, one per row; what is not finite has become None.

    Raises
    ------
    InputError
        When the answer is not named columns of as many rows as were asked for.
    Exception
        Whatever the model raises.
    """
    rows = len(next(iter(inputs.values())))
    answer = predictor.predict(inputs)
    if not isinstance(answer, Mapping):
        raise InputError(f"predict returned {kind(answer)}, not a dict of columns")
    columns = {str(name): plain(values) for name, values in answer.items()}
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != rows:
            size = f"{len(values)} values" if isinstance(values, list) else kind(values)
            raise InputError(f"predict returned {size} as {name!r} for {rows} rows")
    return columns


def plain(value: Any) -> Any:
    """Turn arrays and their scalars into lists and Python's own; NaN and infinity into None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode()
    if value is None or isinstance(value, str | bool | int):
        return value
    raise InputError(f"predict returned {kind(value)} where a number, text, true or null goes")


class Estimator(BuiltIn):
    """A scikit-learn model, or anything else with its `predict`.

    Parameters
    ----------
    model : object
        The fitted estimator.
    inputs : sequence of Tensor
        The recorded signature; empty if there is none.
    """

    def __init__(self, model: Any, inputs: Sequence[Tensor]) -> None:
        if not hasattr(model, "predict"):
            raise InputError(f"the model file holds {kind(model)}, which has no predict")
        self._model = model
        self._datatypes = {tensor.name: tensor.datatype for tensor in inputs}
        names = getattr(model, "feature_names_in_", ())
        width = getattr(model, "n_features_in_", 0)
        self._takes_array = width > 0 and len(names) == 0
        if self._takes_array:
            names = unnamed(width)
        super().__init__(
            [Tensor(str(name), "", nullable=True) for name in names],
            named=not self._takes_array,
        )

    def predict(self, inputs: Mapping[str, list[Any]]) -> dict[str, Any]:
        """Predict; with `probability` where the model can tell it."""
        table = self._table(inputs)
        answer = {"prediction": self._model.predict(table)}
        if hasattr(self._model, "predict_proba"):
            chances = self._model.predict_proba(table)
            # Several outputs: one array for each of them, where rows come first elsewhere.
            answer["probability"] = (
                list(zip(*chances, strict=True)) if isinstance(chances, list) else chances
            )
        return answer

    def _table(self, inputs: Mapping[str, list[Any]]) -> Any:
        pandas = None if self._takes_array else _pandas()
        if not pandas:
            return matrix(inputs.values())
        # Estimators know a missing value as NaN, in columns of text too.
        series = {
            name: pandas.Series(filled(values, math.nan), dtype=self._dtype(name, values))
            for name, values in inputs.items()
        }
        return pandas.DataFrame(series)[[tensor.name for tensor in self.inputs] or list(series)]

    def _dtype(self, name: str, values: list[Any]) -> type | None:
        # Of NaN alone pandas makes floats, on which an encoder of text fails.
        may_be_text = self._datatypes.get(name, "BYTES") == "BYTES"
        return object if may_be_text and all(value is None for value in values) else None


class Onnx(BuiltIn):
    """An ONNX model, computed on the CPU.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        runtime = module("onnxruntime", path)
        self._session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._nodes = self._session.get_inputs()
        super().__init__(
            [
                Tensor(node.name, _ONNX[node.type][0], _shape(node.shape), nullable=True)
                for node in self._nodes
            ],
            named=True,
        )

    def predict(self, inputs: Mapping[str, list[Any]]) -> dict[str, Any]:
        """Predict; the outputs have the names that the file gives them."""
        names = [node.name for node in self._session.get_outputs()]
        feed = {node.name: _array(node, inputs[node.name]) for node in self._nodes}
        answers = self._session.run(names, feed)
        return {name: _rows(answer) for name, answer in zip(names, answers, strict=True)}


_ONNX = {
    "tensor(float)": ("FP32", "float32"),
    "tensor(double)": ("FP64", "float64"),
    "tensor(bool)": ("BOOL", "bool"),
    "tensor(string)": ("BYTES", "object"),
} | {
    f"tensor({sign}int{bits})": (f"{sign}int{bits}".upper(), f"{sign}int{bits}")
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}


def _shape(shape: list[Any]) -> tuple[int, ...]:
    # A column of one item per row, which is how converters write a table, is a plain column.
    rest = [size if isinstance(size, int) else -1 for size in shape[1:]]
    return (-1,) if rest == [1] else (-1, *rest)


def _array(node: Any, values: list[Any]) -> Any:
    dtype = _ONNX[node.type][1]
    missing: Any = "" if dtype == "object" else math.nan
    array = importlib.import_module("numpy").array(filled(values, missing), dtype=dtype)
    return array.reshape(-1, 1) if array.ndim < len(node.shape) else array


def _rows(answer: Any) -> Any:
    # A converted classifier gives its probabilities as one dict per row.
    if isinstance(answer, list):
        return [list(row.values()) if isinstance(row, dict) else row for row in answer]
    return answer


def _own(name: str, path: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Predictor:
    place, _, function = name.partition(":")
    found = getattr(importlib.import_module(place), function)
    if path.suffix.lower() == ".safetensors" and hasattr(found, "load_state_dict"):
        from . import networks

        return networks.filled_module(found(), path, inputs, outputs)
    predictor: Predictor = found(path)
    if not callable(getattr(predictor, "predict", None)):
        raise InputError(f"{name} returned {kind(predictor)}, which has no predict")
    return predictor


def _skops(path: Path) -> Any:
    io = module("skops.io", path)
    asked = io.get_untrusted_types(file=path)
    if strange := sorted(name for name in asked if not _is_known_class(name)):
        raise InputError(
            f"{path.name} asks for what the built-in loader does not trust: "
            f"{', '.join(strange)}; load it with a predictor of the project's own that names them"
        )
    return io.load(path, trusted=asked)


def _is_known_class(name: str) -> bool:
    # Classes only: a file that names a function, pandas.read_pickle say, could have it called.
    place, _, attribute = name.rpartition(".")
    if place.partition(".")[0] not in {"numpy", "pandas", "scipy", "sklearn"}:
        return False
    with contextlib.suppress(ImportError):
        return isinstance(getattr(importlib.import_module(place), attribute, None), type)
    return False


def _pickle(path: Path, trusted: bool) -> Any:
    _refuse_pickle(path, trusted)
    if path.suffix.lower() == ".joblib":
        return module("joblib", path).load(path)
    with path.open("rb") as stream:
        return pickle.load(stream)  # noqa: S301 - the author consented, and wrote the file


def _refuse_pickle(path: Path, trusted: bool) -> None:
    if not trusted:
        what = "may hold pickles" if path.suffix.lower() == ".pt2" else "is a pickle"
        raise InputError(
            f"{path.name} {what}, which runs code when it is loaded: export another format, "
            "skops or ONNX, or say trust-pickle = true"
        )


def _pandas() -> Any:
    with contextlib.suppress(ImportError):
        return importlib.import_module("pandas")
    return None
