"""Constant inputs and the digests that they must give, so that no rule changes unnoticed.

A digest that has to change here means another format: raise its number in `formats.py`,
for that number is in the key under which every store keeps what the old rule made.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable

from conftest import WheelMaker

from packager import formats
from packager.files import canonical_json
from packager.layers import ldcache, tar, wheel
from packager.layers.ldcache import Library
from packager.layers.tar import Entry, data_entry


def digest(entries: Iterable[Entry]) -> str:
    out = io.BytesIO()
    tar.write(tar.merge(entries), out)
    return hashlib.sha256(out.getvalue()).hexdigest()


def test_the_formats_are_those_of_these_digests() -> None:
    assert (formats.LAYERS, formats.BYTECODE, formats.LOCK) == (1, 1, 1)


def test_tar() -> None:
    entries = [
        data_entry("usr/bin/tool", b"#!/bin/sh\n", mode=0o755),
        data_entry("é/" + "long/" * 30 + "name", b"x" * 1000),
        Entry("bin", kind="symlink", mode=0o777, target="usr/bin"),
        Entry("usr/bin/same", kind="hardlink", mode=0o755, target="usr/bin/tool"),
        Entry("tmp", kind="dir", mode=0o1777),
    ]
    assert digest(entries) == "aa8a2393e5aacbaafe6965a91aa11222ea832d6d271f082329bd332c9e44c440"


def test_wheel(make_wheel: WheelMaker) -> None:
    path = make_wheel(
        "golden",
        "1.0",
        {
            "golden/__init__.py": b"x = 1\n",
            "golden-1.0.data/scripts/run": b"#!python\nprint(1)\n",
            "golden-1.0.data/data/share/x": b"x",
            "golden-1.0.dist-info/entry_points.txt": b"[console_scripts]\ngo = golden:main\n",
        },
    )
    entries = wheel.wheel_entries(path, path.name, wheel.Site.debian("3.11"))
    assert digest(entries) == "cf8af21821808c089247fc7861bc1632728957c12ef831c0df684cd217a017bb"


def test_linker_cache() -> None:
    libraries = [
        Library("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"),
        Library("libz.so.1", "/lib/x86_64-linux-gnu/libz.so.1"),
        Library("libstdc++.so.6", "/lib/x86_64-linux-gnu/libstdc++.so.6"),
    ]
    data = ldcache.write(libraries, "amd64")
    assert (
        hashlib.sha256(data).hexdigest()
        == "3e04bb4658a5d2366be04de09948dd1b9fd0859539699c10b81fa79aa9f3c387"
    )


def test_canonical_json() -> None:
    value = {"b": [1, 2.5, None, True], "a": "é\n"}
    assert canonical_json(value) == '{"a":"é\\n","b":[1,2.5,null,true]}'.encode()
