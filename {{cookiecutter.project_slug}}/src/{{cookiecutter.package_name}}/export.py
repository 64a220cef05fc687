"""Write a model so that equal models are equal files, byte for byte.

A skops file is a zip archive: ``schema.json`` describes the objects, and arrays are members
of their own.  As skops writes it, memory addresses name both, and each run has others.  Here
they are numbered in the order in which they first appear.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import skops.io

from .predict import TRUSTED

__all__ = ["canonical", "json_bytes", "model_bytes", "write"]

# Whether two equal values of these kinds are one object depends on what the interpreter
# happens to share, and means nothing: they go without a number.
_VALUES = {"JsonNode", "TupleNode", "TypeNode"}


def model_bytes(model: Any) -> bytes:
    """Export a model in the skops format, in canonical form.

    Parameters
    ----------
    model : object
        A fitted scikit-learn estimator.

    Returns
    -------
    bytes
        A skops file.

    Raises
    ------
    ValueError
        When the model holds a type that `predict.TRUSTED` does not name: it could not be
        loaded again.
    """
    raw = skops.io.dumps(model)
    unknown = set(skops.io.get_untrusted_types(data=raw)) - set(TRUSTED)
    if unknown:
        raise ValueError(
            f"the model holds {', '.join(sorted(unknown))}\n"
            "  Look at what that is, and add it to TRUSTED in predict.py if it is harmless."
        )
    return canonical(raw)


def canonical(raw: bytes) -> bytes:
    """Rewrite a skops file without anything that differs between runs.

    Parameters
    ----------
    raw : bytes
        A skops file.

    Returns
    -------
    bytes
        A skops file of the same objects: numbered instead of addressed, members sorted by
        name, times fixed.  Nothing is compressed: compressors differ between hosts.
    """
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        schema = json.loads(archive.read("schema.json"))
        names: dict[str, str] = {}
        _number(schema, {}, names)
        members = {new: archive.read(old) for old, new in names.items()}
    members["schema.json"] = json.dumps(schema, separators=(",", ":")).encode("ascii")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            archive.writestr(_fixed(name), members[name])
    return out.getvalue()


def json_bytes(document: Any) -> bytes:
    """Write a document as canonical JSON: sorted keys, UTF-8, no NaN.

    Parameters
    ----------
    document : object
        What JSON can hold.

    Returns
    -------
    bytes
        Ends with a line feed.
    """
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
    return f"{text}\n".encode()


def write(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Parameters
    ----------
    path : Path
        Replaced if it exists; missing folders are made.
    content : bytes
        All of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def _number(node: Any, numbers: dict[int, int], names: dict[str, str]) -> None:
    if isinstance(node, list):
        for child in node:
            _number(child, numbers, names)
    if not isinstance(node, dict):
        return
    if "__loader__" in node:
        if node["__loader__"] in _VALUES:
            node.pop("__id__", None)
        elif "__id__" in node:
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
        if isinstance(node.get("file"), str):
            suffix = Path(node["file"]).suffix
            node["file"] = names.setdefault(node["file"], f"{len(names):04d}{suffix}")
    for child in node.values():
        _number(child, numbers, names)


def _fixed(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 2, 0, 0, 0))
    info.create_system = 3  # else it says whether Windows wrote it
    info.external_attr = 0o644 << 16
    return info
