"""Run by compressors.py in a process of its own: compress files, print what came of it as JSON.

It uses nothing but the standard library and the library that is measured, so that it runs
under any Python, release and emulated processor.
"""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def main() -> None:
    """Do what the JSON of the first argument says."""
    task = json.loads(sys.argv[1])
    members = [part for name in task["files"] for part in parts(Path(name), task["member"])]
    if every := task.get("every"):
        members = members[::every]
    results: dict[str, dict[str, Any]] = {
        codec: {"seconds": [], "in": sum(map(len, members))} for codec in task["codecs"]
    }
    for _ in range(task["rounds"]):
        for codec in task["codecs"]:  # side by side: what disturbs one disturbs all
            begin = time.process_time()
            out, digest = compressed(members, compressor(codec), task["threads"])
            results[codec]["seconds"].append(time.process_time() - begin)
            results[codec] |= {"out": out, "digest": digest}
    print(json.dumps(results))


def parts(path: Path, size: int) -> list[bytes]:
    """Cut a file into pieces; 0 leaves it whole."""
    data = path.read_bytes()
    step = size or len(data)
    return [data[begin : begin + step] for begin in range(0, len(data), step)]


def compressed(
    members: list[bytes], compress: Callable[[bytes], bytes], threads: int
) -> tuple[int, str]:
    """Give the number of bytes, and their digest."""
    digest, total = hashlib.sha256(), 0
    with ThreadPoolExecutor(threads) as pool:
        for piece in pool.map(compress, members) if threads > 1 else map(compress, members):
            digest.update(piece)
            total += len(piece)
    return total, digest.hexdigest()


def compressor(codec: str) -> Callable[[bytes], bytes]:
    """Give the function for ``library level``, or ``library level workers`` for zstd."""
    library, level, *rest = codec.split()
    number = int(level)
    if library == "zlib":
        return lambda data: gzip_of(zlib.compressobj(number, zlib.DEFLATED, 31), data)
    if library == "libdeflate":
        module = importlib.import_module("deflate")
        return lambda data: bytes(module.gzip_compress(data, number))
    if library == "zlib-ng":
        module = importlib.import_module("zlib_ng.zlib_ng")
        return lambda data: gzip_of(module.compressobj(number, module.DEFLATED, 31), data)
    if library == "isa-l":
        module = importlib.import_module("isal.isal_zlib")
        return lambda data: gzip_of(module.compressobj(number, module.DEFLATED, 31), data)
    module = importlib.import_module("zstandard")
    workers = int(rest[0]) if rest else 0
    return lambda data: bytes(module.ZstdCompressor(number, threads=workers).compress(data))


def gzip_of(compress: Any, data: bytes) -> bytes:
    """Finish what an object of zlib's interface began."""
    return bytes(compress.compress(data) + compress.flush())


if __name__ == "__main__":
    main()
