"""Files that are written whole or not at all, and JSON that is the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["digest", "json_bytes", "write"]


def digest(data: bytes) -> str:
    """Return the SHA-256 of some bytes.

    Parameters
    ----------
    data : bytes
        All of them.

    Returns
    -------
    str
        ``"sha256:"`` and 64 hexadecimal digits.
    """
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


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
