"""The Open Inference Protocol, version 2: a request's bytes to checked columns."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import binary, tables
from .facts import DATATYPES, FLOATS, INTEGERS, Columns, InputError, Tensor

__all__ = ["Question", "Signature", "fits", "question", "takes"]

MOST_SIZE = 2**31 - 1
"""Of one dimension: more values than any body holds."""

_EXACT = {"FP32": 2**24, "FP64": 2**53}  # up to here every whole number has its own float


@dataclass(frozen=True, slots=True)
class Signature:
    """What the model takes and gives.

    Parameters
    ----------
    inputs, outputs : tuple of Tensor
        Empty where nobody wrote it down: then anything is taken, or whatever comes is given.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A request that was found good.

    Parameters
    ----------
    id : str or None
        To be repeated in the answer.
    columns : dict of str to list
        Checked, in the order of the signature.
    outputs : tuple of str
        Those that are wanted; empty for all.
    packed : frozenset of str
        Those that are wanted in binary form.
    pack_all : bool
        Whether all are, where no outputs are named.
    """

    id: str | None
    columns: Columns
    outputs: tuple[str, ...]
    packed: frozenset[str]
    pack_all: bool


def question(body: bytes, json_bytes: int | None, signature: Signature) -> Question:
    """Read and check a request.

    Parameters
    ----------
    body : bytes
        JSON, and binary tensors behind it.
    json_bytes : int or None
        How many bytes of the body are JSON; None for all.
    signature : Signature
        What the model takes and gives.

    Returns
    -------
    Question
        Columns of one length and at least one row.

    Raises
    ------
    InputError
        Naming the input, and row and column where a value is wrong.
    """
    if json_bytes is not None and not 0 <= json_bytes <= len(body):
        raise InputError(f"the body has {len(body)} bytes, fewer than its JSON is said to have")
    asked = _object(_parsed(body[:json_bytes]), "the body")
    name = asked.get("id")
    if name is not None and not (isinstance(name, str) and _is_unicode(name)):
        raise InputError("id is not text")
    inputs = _inputs(asked, b"" if json_bytes is None else body[json_bytes:], signature)
    outputs = _outputs(asked, signature)
    pack = bool(_flag(asked, "binary_data_output"))
    flags = {key: _flag(item, "binary_data") for key, item in outputs.items()}
    packed = frozenset(key for key, flag in flags.items() if (pack if flag is None else flag))
    return Question(name, inputs, tuple(outputs), packed, pack)


def fits(value: object, shape: list[int]) -> bool:
    """Tell whether nested lists have a shape; None stands for a value, or a row of them."""
    if value is None:
        return True
    if not shape or not isinstance(value, list):
        return not (shape or isinstance(value, list))
    return len(value) == shape[0] and all(fits(item, shape[1:]) for item in value)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(
            data.decode(), parse_constant=_no_constant, object_pairs_hook=_without_twins
        )
    except UnicodeDecodeError as wrong:
        raise InputError(f"the body is not UTF-8, at byte {wrong.start}") from None
    except json.JSONDecodeError as wrong:
        raise InputError(
            f"the body is not JSON: {wrong.msg}, line {wrong.lineno}, character {wrong.colno}"
        ) from None
    except ValueError:
        raise InputError("the body holds a number of too many digits") from None
    except RecursionError:
        raise InputError("the body is nested too deeply") from None


def _no_constant(name: str) -> None:
    raise InputError(f"{name} is no JSON; null says missing")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the name {reprlib.repr(twice)} stands twice in one object")
    return found


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what} is not an object")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(asked: Mapping[str, Any], what: str, known: Sequence[Tensor]) -> dict[str, Any]:
    """Take the inputs or outputs out of a request, by name."""
    items = asked.get(what)
    if not isinstance(items, list):
        raise InputError(f"{what} is not a list of objects with a name")
    found: dict[str, Any] = {}
    names = {item.name for item in known}
    for item in items:
        name = _object(item, f"one of {what}").get("name")
        if not isinstance(name, str) or not _is_unicode(name):
            raise InputError(f"one of {what} has no name")
        if names and name not in names:
            raise InputError(
                f"{what}: {reprlib.repr(name)} is none of {', '.join(map(repr, sorted(names)))}"
            )
        if name in found:
            raise InputError(f"{what}: {name!r} stands there twice")
        found[name] = item
    return found


def _outputs(asked: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    if asked.get("outputs") is None:
        return {}
    return _named(asked, "outputs", signature.outputs)


def _flag(item: Mapping[str, Any], name: str) -> bool | None:
    value = _parameters(item).get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"the parameter {name} is neither true nor false")
    return value


def _parameters(item: Mapping[str, Any]) -> dict[str, Any]:
    found = item.get("parameters")
    return {} if found is None else _object(found, "parameters")


def _inputs(asked: Mapping[str, Any], behind: bytes, signature: Signature) -> Columns:
    _parameters(asked)
    given = _named(asked, "inputs", signature.inputs)
    if missing := [item.name for item in signature.inputs if item.name not in given]:
        raise InputError(f"missing inputs: {', '.join(map(repr, missing))}")
    wanted = {item.name: item for item in signature.inputs}
    columns, declared, at = {}, {}, 0
    for name, item in given.items():
        try:
            datatype, shape = _declared(item)
            known = wanted.get(name) or Tensor(name, "", (-1, *[-1] * (len(shape) - 1)), True)
            _refuse_other(known, datatype, shape)
            data, at = _data(item, datatype, behind, at)
            columns[name] = _rows(data, shape, known)
            declared[name] = replace(known, datatype=datatype)
        except (InputError, ValueError) as wrong:
            raise InputError(f"input {name!r}: {wrong}") from None
    if at != len(behind):
        raise InputError(f"{len(behind) - at} bytes behind the JSON belong to no input")
    if len({len(rows) for rows in columns.values()}) > 1:
        sizes = ", ".join(f"{name!r} has {len(rows)}" for name, rows in columns.items())
        raise InputError(f"the inputs differ in their number of rows: {sizes}")
    ordered = [declared[name] for name in wanted or given]
    return _widened(tables.check(columns, ordered), ordered, wanted)


def _declared(item: Mapping[str, Any]) -> tuple[str, list[int]]:
    datatype, shape = item.get("datatype"), item.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise InputError(f"the datatype is none of {', '.join(sorted(DATATYPES))}")
    if not isinstance(shape, list) or not shape:
        raise InputError("the shape is not a list of sizes, the number of rows first")
    if any(type(size) is not int or not 1 <= size <= MOST_SIZE for size in shape):
        raise InputError("the sizes of a shape are whole numbers from 1")
    return datatype, shape


def _refuse_other(known: Tensor, datatype: str, shape: list[int]) -> None:
    if not takes(known.datatype, datatype):
        raise InputError(f"the datatype is {datatype}, the model takes {known.datatype}")
    # A column of one item per row is how many clients write a plain column.
    fits = known.shape == (-1,) and shape[1:] == [1]
    if not fits and (
        len(shape) != len(known.shape)
        or any(want not in {-1, size} for want, size in zip(known.shape, shape, strict=True))
    ):
        raise InputError(f"the shape is {reprlib.repr(shape)}, the model takes {list(known.shape)}")


def takes(wanted: str, given: str) -> bool:
    """Tell whether one datatype is taken for another: what is not exact in it is refused later."""
    if wanted in {"", given}:
        return True
    if wanted in INTEGERS and given in INTEGERS:
        (low, high), (least, most) = INTEGERS[wanted], INTEGERS[given]
        return bool(low <= least and most <= high)
    return wanted in FLOATS and (given in INTEGERS or (given, wanted) == ("FP32", "FP64"))


def _data(item: Mapping[str, Any], datatype: str, behind: bytes, at: int) -> tuple[list[Any], int]:
    size = _parameters(item).get("binary_data_size")
    if size is None:
        data = item.get("data")
        if not isinstance(data, list):
            raise InputError("data is not a list")
        return data, at
    if "data" in item:
        raise InputError("it has both data and binary_data_size")
    if type(size) is not int or not 0 <= size <= len(behind) - at:
        raise InputError(
            f"binary_data_size is not the size of what is left behind the JSON, "
            f"{len(behind) - at} bytes; Inference-Header-Content-Length says where that begins"
        )
    return binary.unpack(datatype, behind[at : at + size]), at + size


def _rows(data: list[Any], shape: list[int], known: Tensor) -> list[Any]:
    """Give the values row by row, whether they came flat or nested."""
    # Null alone may be whole rows that are missing, if there is not one for each value.
    if any(isinstance(item, list) for item in data) or (
        len(data) != math.prod(shape) and all(item is None for item in data)
    ):
        if not fits(data, shape):
            raise InputError(f"the lists in data do not have the shape {shape}")
        if len(shape) > len(known.shape):
            return [row[0] if row else None for row in data]
        return data
    if len(data) != math.prod(shape):
        raise InputError(f"data has {len(data)} values, the shape {shape} has {math.prod(shape)}")
    if len(shape) > len(known.shape):
        return data
    for size in reversed(shape[1:]):
        data = [data[at : at + size] for at in range(0, len(data), size)]
    return data


def _widened(columns: Columns, given: list[Tensor], wanted: Mapping[str, Tensor]) -> Columns:
    other = [
        tensor
        for tensor in given
        if tensor.name in wanted and wanted[tensor.name].datatype not in {"", tensor.datatype}
    ]
    for tensor in other:
        exact = _EXACT.get(wanted[tensor.name].datatype, math.inf)
        if tensor.datatype in INTEGERS:
            for row, value in enumerate(columns[tensor.name], 1):
                if any(abs(leaf) > exact for leaf in _leaves(value)):
                    raise InputError(
                        f"row {row}, column {tensor.name!r}: not exact as "
                        f"{wanted[tensor.name].datatype}, which the model takes"
                    )
    return columns | (tables.check(columns, [wanted[item.name] for item in other]) if other else {})


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield value
