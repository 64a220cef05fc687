"""Claims about wheels: where files go, what is written anew, and what is refused."""

from __future__ import annotations

import csv
import io
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

import pytest
from conftest import WheelMaker

from packager.errors import ClaimError
from packager.layers import tar, wheel
from packager.layers.site import Site, record_row
from packager.layers.tar import Entry

SITE = Site.debian("3.11")
PACKAGES = "usr/local/lib/python3.11/dist-packages"


def contents(path: Path) -> dict[str, Entry]:
    return {entry.path: entry for entry in wheel.wheel_entries(path, path.name, SITE)}


def read(entry: Entry) -> bytes:
    assert entry.open is not None
    with entry.open() as stream:
        return stream.read()


def test_each_scheme_has_its_folder_and_modes_are_two(make_wheel: WheelMaker) -> None:
    path = make_wheel(
        "some-thing",
        files={
            "some_thing/__init__.py": b"x = 1\n",
            "some_thing/tool.sh": b"#!/bin/sh\n",
            "some_thing-1.0.data/scripts/run": b"#!python -E\nprint(1)\n",
            "some_thing-1.0.data/scripts/binary": b"\x7fELF",
            "some_thing-1.0.data/data/share/x.txt": b"x",
            "some_thing-1.0.data/headers/x.h": b"h",
        },
        executable=("some_thing/tool.sh",),
    )
    found = contents(path)
    assert found[f"{PACKAGES}/some_thing/__init__.py"].mode == 0o644
    assert found[f"{PACKAGES}/some_thing/tool.sh"].mode == 0o755
    assert found["usr/local/share/x.txt"].mode == 0o644
    assert "usr/local/include/python3.11/some-thing/x.h" in found
    assert read(found["usr/local/bin/run"]) == b"#!/usr/bin/python3.11 -E\nprint(1)\n"
    assert found["usr/local/bin/run"].mode == found["usr/local/bin/binary"].mode == 0o755
    assert read(found["usr/local/bin/binary"]) == b"\x7fELF"


def test_entry_points_become_scripts_that_run(make_wheel: WheelMaker, tmp_path: Path) -> None:
    entry_points = b"[console_scripts]\ngreet = greeting:Greeter.main\n"
    code = b"class Greeter:\n    @staticmethod\n    def main():\n        print('hello')\n"
    files = {"greeting.py": code, "greeting-1.0.dist-info/entry_points.txt": entry_points}
    found = contents(make_wheel("greeting", files=files))
    script = read(found["usr/local/bin/greet"])
    assert script.startswith(b"#!/usr/bin/python3.11\n")
    (tmp_path / "greet").write_bytes(script)
    (tmp_path / "greeting.py").write_bytes(code)
    run = subprocess.run(
        [sys.executable, tmp_path / "greet"], check=False, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, "hello\n")


def test_record_lists_every_file_with_its_hash(make_wheel: WheelMaker) -> None:
    files = {"a/__init__.py": b"1", "a-1.0.data/scripts/s": b"#!python\n"}
    found = contents(make_wheel("a", files=files))
    rows = list(csv.reader(io.StringIO(read(found[f"{PACKAGES}/a-1.0.dist-info/RECORD"]).decode())))
    assert rows == sorted(rows)
    by_path = {row[0]: row[1:] for row in rows}
    assert set(by_path) == {
        "a/__init__.py",
        "../../../bin/s",
        *(f"a-1.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "INSTALLER", "RECORD")),
    }
    script = read(found["usr/local/bin/s"])
    assert by_path["../../../bin/s"] == list(record_row("", script)[1:])
    assert by_path["a-1.0.dist-info/RECORD"] == ["", ""]


def test_the_zip_around_the_files_does_not_matter(make_wheel: WheelMaker, tmp_path: Path) -> None:
    one = make_wheel("a", files={"a/b.py": b"1" * 999, "a/c.py": b"2"})
    other = tmp_path / "other" / one.name
    other.parent.mkdir()
    with zipfile.ZipFile(one) as old, zipfile.ZipFile(other, "w", zipfile.ZIP_STORED) as new:
        for name in reversed(old.namelist()):
            new.writestr(name, old.read(name))
    layers = []
    for path in (one, other):
        out = io.BytesIO()
        tar.write(tar.merge(contents(path).values()), out)
        layers.append(out.getvalue())
    assert one.read_bytes() != other.read_bytes()
    assert layers[0] == layers[1]


def zips(path: Path, folder: Path) -> Iterator[Path]:
    """Write the same wheel in ways that zip allows and few tools use."""
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]

    def copy(name: str, out: IO[bytes], **changes: Any) -> Path:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for old, data in members:
                info = zipfile.ZipInfo(old.filename)
                info.external_attr, info.compress_type = old.external_attr, zipfile.ZIP_DEFLATED
                for key, value in changes.items():
                    setattr(info, key, value)
                archive.writestr(info, data)
        out.close()
        return folder / name / path.name

    def at(name: str) -> IO[bytes]:
        (folder / name).mkdir()
        return (folder / name / path.name).open("wb")

    yield copy("stored", at("stored"), compress_type=zipfile.ZIP_STORED)
    yield copy("extra", at("extra"), extra=b"\x99\x99\x04\x00more")
    # The sizes come after the content where a zip cannot be sought back.
    streamed = at("streamed")
    yield copy("streamed", cast("IO[bytes]", Unseekable(streamed)))
    streamed.close()
    # Something before it, as in an archive that is a program, too.
    prefixed = folder / "prefixed" / path.name
    prefixed.parent.mkdir()
    prefixed.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    yield prefixed


class Unseekable:
    """A file that can only be written front to back."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write, self.flush, self.close = file.write, file.flush, file.close


def in_memory(entry: Entry) -> bool:
    assert entry.open is not None
    with entry.open() as stream:
        return isinstance(stream, io.BytesIO)


LARGE = bytes(range(256)) * (40 << 10)  # 10 MiB, more than is read at once


def test_what_is_read_is_what_zipfile_reads(make_wheel: WheelMaker, tmp_path: Path) -> None:
    files = {"a/empty.py": b"", "a/é.py": b"1", "a/large": LARGE, "a/small": LARGE[:999]}
    path = make_wheel("a", files=files)
    for zipped in [path, *zips(path, tmp_path)]:
        found = contents(zipped)
        assert {name: read(found[f"{PACKAGES}/{name}"]) for name in files} == files
        whole = {name for name in files if in_memory(found[f"{PACKAGES}/{name}"])}
        assert whole == {*files} - {"a/large"}


def test_threads_may_read_one_wheel_at_once(make_wheel: WheelMaker) -> None:
    chance = random.Random(0)
    small = {f"a/{number}": chance.randbytes(20_000) for number in range(500)}
    files = {"a/large": chance.randbytes(len(LARGE)), **small}
    found = contents(make_wheel("a", files=files))
    with ThreadPoolExecutor(4) as pool:
        data = pool.map(lambda name: read(found[f"{PACKAGES}/{name}"]), files)
        assert dict(zip(files, data, strict=True)) == files
        assert all(pool.map(lambda name: in_memory(found[f"{PACKAGES}/{name}"]), small))


@pytest.mark.parametrize("size", [999, len(LARGE)], ids=["read at once", "read in parts"])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (zipfile.ZIP_DEFLATED, "Error -3 while decompressing|Bad CRC-32"),
        (zipfile.ZIP_STORED, "Bad CRC-32"),
    ],
    ids=["deflated", "stored"],
)
def test_a_damaged_file_is_refused_by_name(
    size: int, kind: int, says: str, make_wheel: WheelMaker, tmp_path: Path
) -> None:
    sound = make_wheel("culprit", files={"a": LARGE[:size]})
    path = tmp_path / "damaged" / sound.name
    path.parent.mkdir()
    with zipfile.ZipFile(sound) as old, zipfile.ZipFile(path, "w", kind) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert read(contents(path)[f"{PACKAGES}/a"]) == LARGE[:size]
    data = bytearray(path.read_bytes())
    data[100] ^= 0xFF  # in the first file, past its header
    path.write_bytes(data)
    with pytest.raises(ClaimError, match=rf"culprit-1.0.*not a valid wheel: ({says})"):
        read(contents(path)[f"{PACKAGES}/a"])


def test_pip_installs_the_same_files(make_wheel: WheelMaker, tmp_path: Path) -> None:
    files = {
        "a/__init__.py": b"1",
        "a-1.0.data/purelib/b.py": b"2",
        "a-1.0.data/data/etc/c": b"3",
        "a-1.0.data/scripts/s": b"#!python\nprint()\n",
    }
    path = make_wheel("a", files=files)
    target = tmp_path / "prefix"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, "--no-compile", "--prefix", str(target), str(path)], check=True)
    site = next(target.glob("**/*-packages"))
    installed = {
        file.relative_to(site if file.is_relative_to(site) else target).as_posix()
        for file in target.rglob("*")
        if file.is_file()
    }
    ours = {name.removeprefix(f"{PACKAGES}/").removeprefix("usr/local/") for name in contents(path)}
    extra = {"a-1.0.dist-info/REQUESTED", "a-1.0.dist-info/direct_url.json"}
    assert installed - extra == ours


def not_a_zip(path: Path) -> None:
    path.write_bytes(b"no zip")


def without(name: str) -> object:
    def damage(path: Path) -> None:
        other = path.with_suffix(".new")
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
            for member in old.namelist():
                if not member.endswith(name):
                    new.writestr(member, old.read(member))
        shutil.move(other, path)

    return damage


@pytest.mark.parametrize("damage", [not_a_zip, without("WHEEL"), without("RECORD")])
def test_what_is_no_wheel_is_refused_by_name(damage: object, make_wheel: WheelMaker) -> None:
    path = make_wheel("culprit")
    damage(path)  # type: ignore[operator]
    with pytest.raises(ClaimError, match=r"culprit-1.0-py3-none-any.whl: not a valid wheel"):
        wheel.wheel_entries(path, path.name, SITE)


@pytest.mark.parametrize(
    "name", ["../../../../../evil.py", "/evil.py", "a-1.0.data/data/../../../lib/x"]
)
def test_a_wheel_that_leaves_its_folder_is_refused(name: str, make_wheel: WheelMaker) -> None:
    path = make_wheel("a", files={name: b"evil"})
    with pytest.raises(ClaimError, match=r"a-1\.0"):
        tar.merge(wheel.wheel_entries(path, path.name, SITE))
