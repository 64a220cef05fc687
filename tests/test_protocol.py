"""The Open Inference Protocol as pure functions: bytes to checked columns, and columns to bytes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packager.runtime.packager_runtime import answers, binary, protocol
from packager.runtime.packager_runtime.facts import DATATYPES, FLOATS, INTEGERS, InputError, Tensor
from packager.runtime.packager_runtime.protocol import Signature

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SIGNATURE = Signature(
    (
        Tensor("size", "FP64", nullable=True),
        Tensor("sex", "BYTES"),
        Tensor("spot", "FP32", (-1, 2, -1), nullable=True),
    ),
    (Tensor("label", "BYTES"), Tensor("chance", "FP64", (-1, 2))),
)
SIZE = Signature((Tensor("size", "FP64", nullable=True),), ())


def body(**changes: Any) -> dict[str, Any]:
    """A good request of two rows."""
    spots = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    return {
        "inputs": [
            {"name": "spot", "shape": [2, 2, 2], "datatype": "FP32", "data": spots},
            {"name": "size", "shape": [2], "datatype": "FP64", "data": [1, None]},
            {"name": "sex", "shape": [2, 1], "datatype": "BYTES", "data": ["m", "f"]},
        ]
    } | changes


def asked(request: object, signature: Signature = SIGNATURE) -> protocol.Question:
    return protocol.question(json.dumps(request).encode(), None, signature)


def column(
    shape: object, data: object, datatype: str = "FP64", wanted: Tensor | None = None
) -> Any:
    """One column through a request."""
    tensor = wanted or Tensor("x", "FP64", nullable=True)
    item = {"name": tensor.name, "shape": shape, "datatype": datatype, "data": data}
    return asked({"inputs": [item]}, Signature((tensor,), ())).columns["x"]


def test_a_request_becomes_columns_in_the_order_of_the_signature() -> None:
    found = asked(body(id="a", outputs=[{"name": "chance"}], parameters={"other": [1]}, more=1))
    assert list(found.columns) == ["size", "sex", "spot"]
    assert found.columns["size"] == [1.0, None]
    assert found.columns["sex"] == ["m", "f"]
    assert found.columns["spot"] == [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]
    assert (found.id, found.outputs) == ("a", ("chance",))


@pytest.mark.parametrize(
    ("shape", "data", "becomes"),
    [
        ([3], [1, 2, 3], [1.0, 2.0, 3.0]),
        ([3, 1], [1, 2, 3], [1.0, 2.0, 3.0]),
        ([3, 1], [[1], [None], [3]], [1.0, None, 3.0]),
        ([2, 1], [None, None], [None, None]),
    ],
)
def test_a_plain_column_comes_in_several_forms(shape: Any, data: Any, becomes: Any) -> None:
    assert column(shape, data) == becomes


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 3], [None, None]),
        ([2], [1, 2, 3]),
        ([2], [[1], [2]]),
        ([2, 1], [[1], 2]),
        ([2, 1], [[1, 2]]),
        ([1, 2], [1, 2]),
        ([2, 1, 1], [1, 2]),
        ([0], []),
        ([-1], [1]),
        ([True], [1]),
        ([1.0], [1]),
        (["1"], [1]),
        ([10**400], [1]),
        ([], [1]),
        (1, [1]),
        ([1], 1),
        ([1], {"0": 1}),
        ([1], [{"a": 1}]),
        ([1], ["1"]),
        ([1], [True]),
        (None, [1]),
    ],
)
def test_data_that_is_not_of_its_shape_is_refused(shape: Any, data: Any) -> None:
    with pytest.raises(InputError, match=r"size|shape|data|column 'x'"):
        column(shape, data)


def test_a_shape_costs_no_more_than_its_data() -> None:
    wanted = Tensor("x", "FP64", (-1, -1, -1))
    for shape in ([2**31 - 1, 0, 1], [2**31 - 1] * 3, [1, 2**62, 1]):
        with pytest.raises(InputError):
            column(shape, [], wanted=wanted)
    assert column([1, 1, 2], [1, 2], wanted=wanted) == [[[1.0, 2.0]]]


def _change(index: int, **items: Any) -> Callable[[], dict[str, Any]]:
    def changed() -> dict[str, Any]:
        request = body()
        request["inputs"][index] |= items
        return request

    return changed


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (list, "the body is not an object"),
        (dict, "inputs is not a list"),
        (lambda: body(inputs={}), "inputs is not a list"),
        (lambda: body(inputs=[]), "missing inputs: 'size', 'sex', 'spot'"),
        (lambda: body(inputs=[1]), "one of inputs is not an object"),
        (lambda: body(inputs=[{}]), "one of inputs has no name"),
        (lambda: body(inputs=[{"name": 1}]), "one of inputs has no name"),
        (lambda: body(inputs=[{"name": "\ud800"}]), "one of inputs has no name"),
        (lambda: body(inputs=body()["inputs"][:2]), "missing inputs: 'sex'"),
        (lambda: body(inputs=body()["inputs"] * 2), "'spot' stands there twice"),
        (_change(1, name="Size"), "inputs: 'Size' is none of 'sex', 'size', 'spot'"),
        (_change(1, datatype="FP32", data=[1, "2"]), "row 2, column 'size': '2' is not a number"),
        (_change(1, datatype="BYTES"), "'size': the datatype is BYTES, the model takes FP64"),
        (_change(1, datatype="FP16"), "'size': the datatype is none of"),
        (_change(1, datatype=[]), "'size': the datatype is none of"),
        (_change(0, datatype="FP64"), "'spot': the datatype is FP64, the model takes FP32"),
        (_change(2, data=["m", None]), "row 2, column 'sex': is missing"),
        (_change(2, data=["m", "\ud800"]), "row 2, column 'sex'"),
        (_change(1, shape=[3], data=[1, 2, 3]), "'size' has 3"),
        (_change(0, shape=[2, 4], data=[0] * 8), "the model takes [-1, 2, -1]"),
        (_change(0, shape=[2, 1, 2], data=[0] * 4), "the model takes [-1, 2, -1]"),
        (_change(0, data=[[[1, 2], [3]], [[5, 6], [7, 8]]]), "do not have the shape [2, 2, 2]"),
        (_change(0, data=[[[1, 1e39], [3, 4]], [[5, 6], [7, 8]]]), "is too large for FP32"),
        (_change(1, parameters=[]), "parameters is not an object"),
        (_change(1, parameters={"binary_data_size": 16}), "both data and binary_data_size"),
        (lambda: body(id=5), "id is not text"),
        (lambda: body(id="\ud800"), "id is not text"),
        (lambda: body(outputs={}), "outputs is not a list"),
        (lambda: body(outputs=["label"]), "one of outputs is not an object"),
        (lambda: body(outputs=[{"name": "Label"}]), "outputs: 'Label' is none of"),
        (lambda: body(outputs=[{"name": "label"}] * 2), "outputs: 'label' stands there twice"),
        (lambda: body(parameters=[]), "parameters is not an object"),
        (lambda: body(parameters={"binary_data_output": 1}), "neither true nor false"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(request_: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as refused:
        asked(request_())
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON: Expecting value, line 1, character 1"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not UTF-8, at byte 0"),
        (b'{"inputs": [NaN]}', "NaN is no JSON"),
        (b'{"inputs": [-Infinity]}', "-Infinity is no JSON"),
        (b'{"inputs": [], "inputs": []}', "the name 'inputs' stands twice in one object"),
        (b'{"inputs": [' + b"9" * 5000 + b"]}", "a number of too many digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"{} {}", "not JSON: Extra data"),
        (b"null", "is not an object"),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=r".") as refused:
        protocol.question(data, None, SIGNATURE)
    assert message in str(refused.value)


def test_a_number_that_json_makes_infinite_is_refused() -> None:
    template = '{"inputs":[{"name":"size","shape":[1],"datatype":"FP64","data":[%s]}]}'
    assert protocol.question((template % "1e308").encode(), None, SIZE).columns == {"size": [1e308]}
    for number in ("1e400", "-1e400", "9" * 400):
        with pytest.raises(InputError, match="row 1, column 'size'"):
            protocol.question((template % number).encode(), None, SIZE)


# --- datatypes


@pytest.mark.parametrize("wanted", sorted(DATATYPES))
@pytest.mark.parametrize("given_", sorted(DATATYPES))
def test_a_datatype_is_taken_for_another_only_if_nothing_can_be_lost(
    wanted: str, given_: str
) -> None:
    extremes: list[Any] = [0]
    if given_ in INTEGERS:
        extremes = list(INTEGERS[given_])
    elif given_ in FLOATS:
        extremes = [FLOATS[given_]]
    elif given_ in {"BOOL", "BYTES"}:
        extremes = [True if given_ == "BOOL" else "x"]
    try:
        found = column([len(extremes)], extremes, given_, Tensor("x", wanted))
    except InputError:
        assert given_ != wanted
    else:
        assert found == extremes
        numbers = {*INTEGERS, *FLOATS}
        assert given_ == wanted or {given_, wanted} <= numbers


def test_a_row_of_values_can_be_missing() -> None:
    wanted = Tensor("x", "FP64", (-1, 3), nullable=True)
    assert column([2, 3], [None, [1, 2, None]], wanted=wanted) == [None, [1.0, 2.0, None]]
    assert column([2, 3], [None, None], wanted=wanted) == [None, None]
    assert column([1, 3], [None] * 3, wanted=wanted) == [[None] * 3]
    with pytest.raises(InputError, match="do not have the shape"):
        column([2, 3], [None], wanted=wanted)
    assert answers.request({"x": [None, None]}, [wanted])["inputs"][0]["shape"] == [2, 3]


def test_whole_numbers_become_floats_where_they_are_exact() -> None:
    assert column([2], [2**53, -(2**53)], "INT64") == [2.0**53, -(2.0**53)]
    assert all(isinstance(value, float) for value in column([1], [7], "INT64"))
    with pytest.raises(InputError, match="row 2, column 'x': not exact as FP64"):
        column([2], [1, 2**53 + 1], "INT64")
    with pytest.raises(InputError, match="row 1, column 'x': not exact as FP32"):
        column([1], [2**24 + 1], "INT32", Tensor("x", "FP32"))
    with pytest.raises(InputError, match=r"is not from 0 to 255 \(UINT8\)"):
        column([1], [256], "UINT8")


# --- the answer


def answered(columns: dict[str, Any], signature: Signature, **request: Any) -> dict[str, Any]:
    item = {"name": "size", "shape": [2], "datatype": "FP64", "data": [1, 2]}
    question = asked({"inputs": [item]} | request, Signature(SIZE.inputs, signature.outputs))
    told, json_bytes = answers.answer(question, columns, "m", "1", signature)
    assert json_bytes is None
    found: dict[str, Any] = json.loads(told)
    return found


GIVEN = {"extra": [0, 0], "label": ["a", "b"], "chance": [[0.5, 0.25], [None, 1]]}


def test_the_answer_has_the_outputs_of_the_signature_flat() -> None:
    assert answered(GIVEN, SIGNATURE, id="7") == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
            {"name": "chance", "shape": [2, 2], "datatype": "FP64", "data": [0.5, 0.25, None, 1]},
        ],
    }


def test_outputs_can_be_chosen_and_ordered() -> None:
    for names in (["chance"], ["label"], ["chance", "label"]):
        told = answered(GIVEN, SIGNATURE, outputs=[{"name": name} for name in names])
        assert [output["name"] for output in told["outputs"]] == names
        assert "id" not in told
    assert len(answered(GIVEN, SIGNATURE, outputs=[])["outputs"]) == 2


def test_a_model_without_a_version_gives_none() -> None:
    question = asked(
        {"inputs": [{"name": "size", "shape": [1], "datatype": "FP64", "data": [1]}]}, SIZE
    )
    told, _ = answers.answer(question, {"y": [1.5]}, "m", "", SIZE)
    assert "model_version" not in json.loads(told)


def test_outputs_that_nobody_described_are_described_by_their_values() -> None:
    columns = {
        "truth": [True, None],
        "whole": [1, 2],
        "number": [1, 0.5],
        "text": ["a", None],
        "nothing": [None, None],
        "rows": [[[1], [2]], [[3], [4]]],
    }
    outputs = answered(columns, Signature((), ()))["outputs"]
    assert [output["datatype"] for output in outputs] == [
        *("BOOL", "INT64", "FP64", "BYTES", "BOOL", "INT64")
    ]
    assert outputs[-1]["shape"] == [2, 2, 1]
    with pytest.raises(InputError, match="outputs: 'other' is none of"):
        answered(columns, Signature((), ()), outputs=[{"name": "other"}])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": ["a", "b"]}, "no output 'chance'"),
        (GIVEN | {"label": ["a", 1]}, "gave int, str as 'label', which is BYTES"),
        (GIVEN | {"chance": [[1, 2], [3]]}, "rows of several shapes as 'chance'"),
        (GIVEN | {"chance": [[1, 2], None]}, "rows of several shapes as 'chance'"),
        (GIVEN | {"chance": [[True, 1.0], [1, 1]]}, "gave bool, float, int as 'chance'"),
    ],
)
def test_what_is_no_answer_is_the_models_fault(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(answers.AnswerError, match=message):
        answered(columns, SIGNATURE)


def test_metadata_leave_out_what_nobody_knows() -> None:
    assert answers.describe(Tensor("x", "", nullable=True)) == {
        "name": "x",
        "shape": [-1],
        "parameters": {"nullable": True},
    }
    assert answers.describe(Tensor("x", "INT8", (-1, 3))) == {
        "name": "x",
        "datatype": "INT8",
        "shape": [-1, 3],
    }


# --- for any values

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.text(),
    "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
} | {name: st.integers(*bounds) for name, bounds in INTEGERS.items()}


@st.composite
def recorded(draw: st.DrawFn) -> tuple[list[Tensor], dict[str, list[Any]]]:
    """A signature, and rows of it."""
    names = draw(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True))
    count = draw(st.integers(1, 4))
    tensors, columns = [], {}
    for name in names:
        datatype = draw(st.sampled_from(sorted(DATATYPES)))
        sizes = draw(st.lists(st.integers(1, 3), max_size=2))
        nullable = draw(st.booleans())
        value = SCALARS[datatype] | st.none() if nullable else SCALARS[datatype]
        for size in reversed(sizes):
            value = st.lists(value, min_size=size, max_size=size)
        shape = tuple(draw(st.sampled_from([-1, size])) for size in sizes)
        tensors.append(Tensor(name, datatype, (-1, *shape), nullable))
        columns[name] = draw(st.lists(value, min_size=count, max_size=count))
    return tensors, columns


@unhurried
@given(recorded())
def test_what_a_client_sends_is_what_the_model_sees(
    table: tuple[list[Tensor], dict[str, list[Any]]],
) -> None:
    tensors, columns = table
    signature = Signature(tuple(tensors), ())
    request = answers.request(columns, tensors)
    assert asked(request, signature).columns == columns
    for item in request["inputs"]:
        _, item["data"] = answers.flat(item["name"], item["data"])
    assert asked(request, signature).columns == columns


@unhurried
@given(recorded())
def test_what_the_model_gives_is_what_a_client_sees(
    table: tuple[list[Tensor], dict[str, list[Any]]],
) -> None:
    tensors, columns = table
    signature = Signature(SIZE.inputs, tuple(tensors))
    for output in answered(columns, signature)["outputs"]:
        assert len(output["data"]) == math.prod(output["shape"])
        assert output["shape"][0] == len(columns[output["name"]])
        assert output["data"] == answers.flat("", columns[output["name"]])[1]


@unhurried
@given(st.binary(), st.none() | st.integers(0, 20))
def test_any_bytes_are_a_request_or_refused(data: bytes, json_bytes: int | None) -> None:
    with pytest.raises(InputError) as refused:
        protocol.question(data, json_bytes, SIGNATURE)
    assert "\n" not in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@unhurried
@given(
    st.integers(0, 2), st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), JSON
)
def test_any_value_in_a_request_is_taken_or_refused(index: int, key: str, value: Any) -> None:
    request = body()
    request["inputs"][index][key] = value
    message = ""
    try:
        found = protocol.question(json.dumps(request).encode(), None, SIGNATURE)
    except InputError as refused:
        message = str(refused)
    else:
        assert {len(rows) for rows in found.columns.values()} == {2}
    assert "\n" not in message


# --- the binary form


@unhurried
@given(st.data())
def test_binary_values_read_back_the_same(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(sorted(DATATYPES)))
    value = SCALARS[datatype]
    values = data.draw(st.lists(value | st.none() if datatype in FLOATS else value))
    packed = binary.pack("x", datatype, values)
    assert binary.unpack(datatype, packed) == values


@unhurried
@given(st.sampled_from(sorted(DATATYPES)), st.binary())
def test_any_bytes_are_values_or_refused(datatype: str, data: bytes) -> None:
    message = ""
    try:
        values = binary.unpack(datatype, data)
    except InputError as refused:
        message = str(refused)
    else:
        assert len(values) <= len(data)
    assert "\n" not in message


def packed(values: bytes, size: object, **more: Any) -> tuple[bytes, int]:
    item = {"name": "size", "shape": [2], "datatype": "FP64"}
    item["parameters"] = {"binary_data_size": size}  # type: ignore[assignment]
    head = json.dumps({"inputs": [item]} | more).encode()
    return head + values, len(head)


def test_binary_inputs_stand_behind_the_json() -> None:
    values = struct.pack("<2d", 1.5, math.nan)
    assert protocol.question(*packed(values, 16), SIZE).columns == {"size": [1.5, None]}
    wrong: list[tuple[bytes, object, str]] = [
        (values, 8, "data has 1 values, the shape"),
        (values, 17, "not the size of what is left"),
        (values, -1, "not the size of what is left"),
        (values, True, "not the size of what is left"),
        (values, "16", "not the size of what is left"),
        (values + b"x", 16, "1 bytes behind the JSON belong to no input"),
        (values[:-1], 15, "no whole number of FP64 values"),
        (struct.pack("<2d", 1.5, math.inf), 16, "row 2, column 'size': inf is not a finite"),
    ]
    for data, size, message in wrong:
        with pytest.raises(InputError, match=message):
            protocol.question(*packed(data, size), SIZE)
    with pytest.raises(InputError, match="fewer than its JSON is said to have"):
        protocol.question(b"{}", 3, SIZE)
    with pytest.raises(InputError, match="not the size of what is left"):
        protocol.question(packed(b"", 16)[0], None, SIZE)


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ({"parameters": {"binary_data_output": True}}, ["label", "chance"]),
        ({"outputs": [{"name": "chance", "parameters": {"binary_data": True}}]}, ["chance"]),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [
                    {"name": "chance", "parameters": {"binary_data": False}},
                    {"name": "label"},
                ],
            },
            ["label"],
        ),
    ],
)
def test_binary_outputs_stand_behind_the_json(request_: dict[str, Any], names: list[str]) -> None:
    data, json_bytes = packed(struct.pack("<2d", 1, 2), 16, **request_)
    signature = Signature(SIZE.inputs, SIGNATURE.outputs)
    question = protocol.question(data, json_bytes, signature)
    told, size = answers.answer(question, GIVEN, "m", "1", signature)
    assert size is not None
    behind = told[size:]
    assert [
        output["name"] for output in json.loads(told[:size])["outputs"] if "parameters" in output
    ] == names
    for output in json.loads(told[:size])["outputs"]:
        if "parameters" in output:
            length = output["parameters"]["binary_data_size"]
            values = binary.unpack(output["datatype"], behind[:length])
            behind = behind[length:]
            assert values == answers.flat("", GIVEN[output["name"]])[1]
    assert behind == b""


def test_a_missing_text_has_no_binary_form() -> None:
    with pytest.raises(InputError, match="only its JSON form can hold"):
        binary.pack("label", "BYTES", ["a", None])
