"""The cache of the dynamic linker, ``/etc/ld.so.cache``, made as ldconfig(8) makes it.

Format: ``glibc-ld.so.cache1.1`` of the GNU C library (``sysdeps/generic/dl-cache.h``),
little-endian, without extensions.  Without the cache the linker still finds what lies in
its built-in folders, but ``ctypes.util.find_library`` finds nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Library", "write"]

_MAGIC = b"glibc-ld.so.cache1.1"
_LITTLE_ENDIAN = 2
_HEADER = struct.Struct("<20sIIB3xI12x")
_ENTRY = struct.Struct("<iIIIQ")
_FLAGS = {"amd64": 0x0303, "arm64": 0x0A03}


@dataclass(frozen=True, slots=True)
class Library:
    """One entry of the cache.

    Parameters
    ----------
    name : str
        What programs ask for, ``libc.so.6``.
    path : str
        Where it is, with a leading slash.
    """

    name: str
    path: str


def write(libraries: Iterable[Library], architecture: str) -> bytes:
    """Make the cache's bytes.

    Parameters
    ----------
    libraries : iterable of Library
        Of several with one name, the linker takes the first.
    architecture : {"amd64", "arm64"}
        Debian's name of the machine that all of them are for.

    Returns
    -------
    bytes
    """
    # The linker searches by bisection, in descending order.
    ordered = sorted(libraries, key=lambda library: _order(library.name), reverse=True)
    strings = bytearray()
    base = _HEADER.size + _ENTRY.size * len(ordered)

    def add(text: str) -> int:
        offset = base + len(strings)
        strings.extend(text.encode("utf-8") + b"\0")
        return offset

    entries = b"".join(
        _ENTRY.pack(_FLAGS[architecture], add(library.name), add(library.path), 0, 0)
        for library in ordered
    )
    header = _HEADER.pack(_MAGIC, len(ordered), len(strings), _LITTLE_ENDIAN, 0)
    return header + entries + bytes(strings)


def _order(name: str) -> list[tuple[int, int]]:
    # glibc's _dl_cache_libcmp: runs of digits compare as numbers, and after anything else.
    return [
        (1, int(part)) if part.isdigit() else (0, ord(part))
        for part in re.findall(rb"[0-9]+|[^0-9]", name.encode("utf-8"))
    ]
