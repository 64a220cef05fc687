"""Claims about wheels: where files go, what is written anew, and what is refused."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import WheelMaker

from packager.errors import ClaimError
from packager.layers import tar, wheel
from packager.layers.tar import Entry

SITE = wheel.Site.debian("3.11")
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
    assert by_path["../../../bin/s"] == list(wheel.record_row("", script)[1:])
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
