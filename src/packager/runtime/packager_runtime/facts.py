"""What is written down about the image: `image.json` and `examples.json`, read and checked."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "DATATYPES",
    "Columns",
    "Image",
    "InputError",
    "Recording",
    "Tensor",
    "model_digest",
    "read_examples",
    "read_image",
    "root",
    "signature",
]

FORMAT = 1
"""Version of both files that this runtime reads."""

MOST_JSON = 256 << 20
"""Bytes of either file; a number takes ten times its text in memory."""

MOST_DIMENSIONS = 32
"""Of a tensor: as many as array libraries have."""

INTEGERS = {f"INT{n}": (-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in (8, 16, 32, 64)} | {
    f"UINT{n}": (0, 2**n - 1) for n in (8, 16, 32, 64)
}
"""Smallest and largest value of each integer datatype."""

FLOATS = {"FP32": (2 - 2**-23) * 2.0**127, "FP64": (2 - 2**-52) * 2.0**1023}
"""Largest value of each floating datatype."""

DATATYPES = frozenset({"BOOL", "BYTES", *INTEGERS, *FLOATS})
"""Datatypes of the Open Inference Protocol v2 that a tensor may have; BYTES is text."""

Columns = dict[str, list[Any]]
"""A table by column: plain values, None where one is missing, lists where rows hold arrays."""


class InputError(Exception):
    """What was handed in cannot be used; told in one line, without a traceback."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named input or output.

    Parameters
    ----------
    name : str
        Name of the column.
    datatype : str
        One of `DATATYPES`, or "" where nobody wrote it down.
    shape : tuple of int
        The first dimension counts the rows; -1 is variable.
    nullable : bool
        Whether values may be missing.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """The content of `image.json`, its paths made absolute.

    Parameters
    ----------
    name, version, description, license : str
        Of the project.
    model : Path
        File or folder.
    model_digest : str
        ``sha256:…`` of the model as it was sealed.
    examples : Path or None
        The recorded examples, if there are any.
    card : Path or None
        The model card, if there is one.
    citation : Path or None
        How to cite the model, as BibTeX, if the project says it.
    predictor : str or None
        ``module:function`` of the project, or None for a built-in loader.
    trust_pickle : bool
        Whether the author said that a pickle may be loaded.
    base, platform, python, inputs_digest : str
        What the image was assembled on, from, and by.
    """

    name: str
    version: str
    description: str
    license: str
    model: Path
    model_digest: str
    examples: Path | None
    card: Path | None
    citation: Path | None
    predictor: str | None
    trust_pickle: bool
    base: str
    platform: str
    python: str
    inputs_digest: str


@dataclass(frozen=True, slots=True)
class Recording:
    """The content of `examples.json`.

    Parameters
    ----------
    model : str
        Digest of the model that made the recorded predictions.
    inputs, outputs : tuple of Tensor
        The signature.
    rtol, atol : float
        The tolerance: a number agrees within ``atol + rtol * |recorded|``.
    rows : int
        Number of recorded rows.
    source, license : str
        Where the rows come from, and the licence that they travel under.
    given, expected : dict of str to list
        The recorded rows and predictions, by column.
    ranges : mapping of str to mapping
        Of inputs, what the model was trained on: ``min`` and ``max``, or ``values``.
    """

    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    rtol: float
    atol: float
    rows: int
    source: str
    license: str
    given: Columns
    expected: Columns
    ranges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def signature(
    examples: Recording | None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Give the recorded inputs and outputs; where nothing is recorded, none."""
    return (examples.inputs, examples.outputs) if examples else ((), ())


def root() -> Path:
    """Return the folder that holds `image.json`."""
    return Path(os.environ.get("PACKAGER_ROOT", "/srv/packager"))


def read_image(folder: Path) -> Image:
    """Read `image.json`.

    Parameters
    ----------
    folder : Path
        Where it lies; the paths in it are relative to this folder.

    Returns
    -------
    Image
        The facts.

    Raises
    ------
    InputError
        When the file is missing, damaged, or of another format.
    """
    path = folder / "image.json"
    data = _read(path)
    try:
        return Image(
            model=folder / data["model"]["path"],
            model_digest=data["model"]["digest"],
            examples=folder / data["examples"] if data["examples"] else None,
            card=folder / data["card"] if "card" in data else None,
            citation=folder / data["citation"] if "citation" in data else None,
            **{
                key: data[key]
                for key in Image.__slots__
                if key not in {"model", "model_digest", "examples", "card", "citation"}
            },
        )
    except (KeyError, TypeError) as wrong:
        raise InputError(f"{path}: incomplete, at {wrong}") from None


def read_examples(path: Path) -> Recording:
    """Read `examples.json` and check that it agrees with itself.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Recording
        The recorded examples; the values are not yet checked against the datatypes.

    Raises
    ------
    InputError
        When the file is missing, damaged or of another format, when its signature is none,
        when a column is missing or of another length than the others, or when a range is none.
    """
    data = _read(path)
    try:
        tolerance, origin = data["tolerance"], data["data"]
        examples = Recording(
            model=data["model"],
            inputs=tuple(_tensor(item) for item in data["signature"]["inputs"]),
            outputs=tuple(_tensor(item) for item in data["signature"]["outputs"]),
            rtol=float(tolerance["rtol"]),
            atol=float(tolerance["atol"]),
            rows=_whole(origin["rows"]),
            source=origin["source"],
            license=origin["license"],
            given=_columns(data["inputs"]),
            expected=_columns(data["outputs"]),
            ranges=_columns(data.get("ranges", {}), "ranges"),
        )
        _agree("inputs", examples.inputs, examples.given, examples.rows)
        _agree("outputs", examples.outputs, examples.expected, examples.rows)
        _check_ranges(examples)
    except KeyError as wrong:
        raise InputError(f"{path}: the key {wrong} is missing") from None
    except (OverflowError, TypeError, ValueError) as wrong:
        raise InputError(f"{path}: {wrong}") from None
    if not (0 <= examples.rtol < 1 and 0 <= examples.atol < float("inf")):
        raise InputError(f"{path}: tolerance: rtol is from 0 to below 1, atol is 0 or more")
    return examples


def model_digest(path: Path) -> str:
    """Name the bytes of a model.

    Parameters
    ----------
    path : Path
        A file or a folder.

    Returns
    -------
    str
        ``sha256:`` and the hash of the file; of a folder, the hash of the lines
        ``<sha256>  <path below it>`` of all its files, sorted by path.

    Raises
    ------
    InputError
        When there is nothing at `path`.
    """
    if path.is_file():
        return "sha256:" + _sha256(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    files = {item.relative_to(path).as_posix(): item for item in path.rglob("*") if item.is_file()}
    lines = "".join(f"{_sha256(files[name])}  {name}\n" for name in sorted(files))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_JSON + 1)
        if len(text) > MOST_JSON:
            raise ValueError(f"it has more than {MOST_JSON} bytes")
        data = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as wrong:
        raise InputError(f"{path}: cannot be read as JSON: {wrong}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{path}: not of format {FORMAT}, the one this runtime reads")
    return data


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"data.rows is {value!r}, not a whole number")
    return value


def _columns(value: object, what: str = "inputs and outputs") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{what} are objects of columns")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON; null says missing")


def _tensor(item: Mapping[str, Any]) -> Tensor:
    if not isinstance(item, dict) or not isinstance(item["name"], str):
        raise TypeError("an input or output of the signature is not an object with a name")
    tensor = Tensor(
        item["name"], item["datatype"], tuple(item["shape"]), bool(item.get("nullable", False))
    )
    if tensor.datatype not in DATATYPES:
        known = ", ".join(sorted(DATATYPES))
        raise ValueError(f"{tensor.name}: datatype {tensor.datatype!r} is none of {known}")
    if tensor.shape[:1] != (-1,):
        raise ValueError(f"{tensor.name}: the first dimension of a shape is -1, one per row")
    if len(tensor.shape) > MOST_DIMENSIONS or any(
        type(size) is not int or size < -1 for size in tensor.shape
    ):
        raise ValueError(
            f"{tensor.name}: a shape is at most {MOST_DIMENSIONS} whole numbers, -1 for any size"
        )
    return tensor


def _agree(what: str, signature: tuple[Tensor, ...], columns: Columns, rows: int) -> None:
    if not signature or rows < 1:
        raise ValueError(f"{what}: nothing is recorded")
    if len({tensor.name for tensor in signature}) != len(signature):
        raise ValueError(f"{what}: the signature names one column twice")
    if sorted(tensor.name for tensor in signature) != sorted(columns):
        raise ValueError(f"{what}: the recorded columns are not those of the signature")
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != rows:
            raise ValueError(f"{what}: {name} is not a list of {rows} rows, as data.rows says")


def _check_ranges(examples: Recording) -> None:
    datatypes = {tensor.name: tensor.datatype for tensor in examples.inputs}
    for name, known in examples.ranges.items():
        if name not in datatypes:
            raise ValueError(f"ranges: {name!r} is no input")
        numeric = datatypes[name] in INTEGERS or datatypes[name] in FLOATS
        if not isinstance(known, dict) or not (_is_span(known, numeric) or _is_list(known)):
            raise ValueError(
                f"ranges: {name} has neither min and max, of a column of numbers, nor values"
            )


def _is_span(known: dict[str, Any], numeric: bool) -> bool:
    return (
        numeric
        and known.keys() == {"min", "max"}
        and all(type(one) in {int, float} and math.isfinite(one) for one in known.values())
        and known["min"] <= known["max"]
    )


def _is_list(known: dict[str, Any]) -> bool:
    values = known.get("values")
    return (
        known.keys() == {"values"}
        and isinstance(values, list)
        and bool(values)
        and all(isinstance(value, str | bool | int | float) for value in values)
    )
