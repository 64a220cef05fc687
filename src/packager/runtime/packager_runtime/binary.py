"""The protocol's binary tensors: values behind the JSON, as Triton's clients send them."""

from __future__ import annotations

import math
import struct
from typing import Any

from .facts import InputError

__all__ = ["pack", "unpack"]

_CODES = dict(
    zip(
        ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
        "?bhiqBHIQ",
        strict=True,
    )
) | {"FP32": "f", "FP64": "d"}
_LENGTH = struct.Struct("<I")


def unpack(datatype: str, data: bytes) -> list[Any]:
    """Read a tensor's values.

    Parameters
    ----------
    datatype : str
        Of the protocol.
    data : bytes
        The values one after the other; before each text its length in four bytes.

    Returns
    -------
    list
        Flat.  NaN, the only way to say so in this form, has become None, a missing value.

    Raises
    ------
    InputError
        When the bytes are not whole values.
    """
    if datatype == "BYTES":
        return _texts(data)
    size = struct.calcsize("<" + _CODES[datatype])
    count, rest = divmod(len(data), size)
    if rest:
        raise InputError(f"{len(data)} bytes are no whole number of {datatype} values")
    values = struct.unpack(f"<{count}{_CODES[datatype]}", data)
    if datatype in {"FP32", "FP64"}:
        return [None if math.isnan(value) else value for value in values]
    return list(values)


def pack(name: str, datatype: str, values: list[Any]) -> bytes:
    """Write a tensor's values.

    Parameters
    ----------
    name : str
        Of the tensor.
    datatype : str
        Of the protocol.
    values : list
        Flat.  A missing number becomes NaN where the datatype has one.

    Returns
    -------
    bytes
        What `unpack` reads.

    Raises
    ------
    InputError
        When a value is missing and the datatype has nothing to say so.
    """
    if datatype in {"FP32", "FP64"}:
        values = [math.nan if value is None else value for value in values]
    elif None in values:
        raise InputError(f"output {name!r} has a missing value, which only its JSON form can hold")
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    return struct.pack(f"<{len(values)}{_CODES[datatype]}", *values)


def _texts(data: bytes) -> list[str]:
    values, at = [], 0
    while at < len(data):
        start = at + _LENGTH.size
        if start > len(data):
            raise InputError("the BYTES values end within a length")
        at = start + _LENGTH.unpack_from(data, at)[0]
        if at > len(data):
            raise InputError("the BYTES values end within a text")
        try:
            values.append(data[start:at].decode())
        except UnicodeDecodeError:
            raise InputError(f"text {len(values) + 1} of the BYTES values is not UTF-8") from None
    return values
