"""The Open Inference Protocol, version 2: columns to an answer, and what a client would ask."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from . import binary
from .facts import FLOATS, Columns, InputError, Tensor
from .protocol import Question, Signature, fits

__all__ = ["AnswerError", "answer", "describe", "dump", "flat", "request"]

_KINDS: dict[str, set[type]] = {"BOOL": {bool}, "BYTES": {str}}
_KINDS |= {name: {int, float} for name in FLOATS}


class AnswerError(Exception):
    """What the model gave is no answer to what it was asked."""


def answer(
    asked: Question, columns: Columns, name: str, version: str, signature: Signature
) -> tuple[bytes, int | None]:
    """Write the answer.

    Parameters
    ----------
    asked : Question
        What was asked.
    columns : dict of str to list
        What the model gave.
    name, version : str
        Of the model.
    signature : Signature
        What the model takes and gives.

    Returns
    -------
    body : bytes
        JSON, and behind it what was wanted in binary form.
    json_bytes : int or None
        How many bytes are JSON, if not all.

    Raises
    ------
    AnswerError
        When the model gave something else than its signature says.
    InputError
        When the binary form that was asked for cannot hold the values.
    """
    known = {tensor.name: tensor.datatype for tensor in signature.outputs}
    outputs, behind = [], []
    for key in asked.outputs or known or columns:
        if key not in columns:
            if not known:
                raise InputError(f"outputs: {key!r} is none of {', '.join(map(repr, columns))}")
            raise AnswerError(f"the model gave no output {key!r}")
        shape, values = flat(key, columns[key])
        datatype = _datatype(key, values, known.get(key, ""))
        output: dict[str, Any] = {"name": key, "shape": shape, "datatype": datatype}
        if key in asked.packed or (asked.pack_all and not asked.outputs):
            behind.append(binary.pack(key, datatype, values))
            output["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            output["data"] = values
        outputs.append(output)
    told: dict[str, Any] = {"model_name": name}
    if version:
        told["model_version"] = version
    if asked.id is not None:
        told["id"] = asked.id
    body = dump(told | {"outputs": outputs})
    return (b"".join([body, *behind]), len(body)) if behind else (body, None)


def request(columns: Mapping[str, Sequence[Any]], inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Ask for predictions of rows, as a client would.

    Parameters
    ----------
    columns : mapping of str to sequence
        The rows; arrays of one tensor have one shape.
    inputs : sequence of Tensor
        The signature.

    Returns
    -------
    dict
        Ready for JSON.
    """
    return {
        "inputs": [
            {
                "name": tensor.name,
                "shape": _measured(list(columns[tensor.name]), tensor.shape),
                "datatype": tensor.datatype,
                "data": list(columns[tensor.name]),
            }
            for tensor in inputs
        ]
    }


def describe(described: Tensor) -> dict[str, Any]:
    """Describe an input or output as a model's metadata do.

    Parameters
    ----------
    described : Tensor
        The datatype is left out where nobody wrote it down.

    Returns
    -------
    dict
        Ready for JSON.
    """
    told: dict[str, Any] = {"name": described.name}
    if described.datatype:
        told["datatype"] = described.datatype
    told["shape"] = list(described.shape)
    if described.nullable:
        told["parameters"] = {"nullable": True}
    return told


def dump(value: object) -> bytes:
    """Write JSON that is JSON: no NaN, and ASCII, so that any text can be repeated."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def flat(name: str, values: list[Any]) -> tuple[list[int], list[Any]]:
    """Lay a tensor's values in one row.

    Parameters
    ----------
    name : str
        Of the tensor.
    values : list
        Row by row, maybe nested.

    Returns
    -------
    shape : list of int
        The number of rows first.
    values : list
        Flat.

    Raises
    ------
    AnswerError
        When the lists are of several lengths.
    """
    shape = [len(values)]
    while any(isinstance(item, list) for item in values):
        size = len(values[0]) if isinstance(values[0], list) else -1
        if not all(isinstance(item, list) and len(item) == size for item in values):
            raise AnswerError(f"the model gave rows of several shapes as {name!r}")
        shape.append(size)
        values = [value for item in values for value in item]
    return shape, values


def _datatype(name: str, values: list[Any], recorded: str) -> str:
    kinds = {type(value) for value in values if value is not None}
    for datatype in [recorded] if recorded else ["BOOL", "INT64", "FP64", "BYTES"]:
        if kinds <= _KINDS.get(datatype, {int}):
            return datatype
    raise AnswerError(
        f"the model gave {', '.join(sorted(kind.__name__ for kind in kinds))} as {name!r}, "
        f"which is {recorded or 'of no single datatype'}"
    )


def _measured(data: list[Any], known: tuple[int, ...]) -> list[int]:
    shape, values = [len(data)], data
    for size in known[1:]:
        values = next((item for item in values if item is not None), [None] * max(size, 1))
        shape.append(len(values))
    if not fits(data, shape):
        raise InputError("the rows have several shapes, so that one request cannot hold them")
    return shape
