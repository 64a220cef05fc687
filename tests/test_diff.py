"""Claims about `packager diff`: each kind of difference is found, named and attributed."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from conftest import Tiny, run_packager
from hypothesis import given, settings
from hypothesis import strategies as st
from made_images import MTIME, Made, digest, member, tar, write_archive, write_folder

from packager import diff, inside
from packager.diff import Difference, LayerDifference
from packager.errors import ClaimError, HostError, UsageError
from packager.outputs.engine import Engine
from packager.outputs.members import files_below
from packager.outputs.opened import OpenedLayer, opened

FILE = member("etc/os", b"Debian\n")
LINK = member("etc/link", type=tarfile.SYMTYPE, linkname="os")


def stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put something that is called diffoscope on PATH."""
    folder.mkdir()
    program = folder / "diffoscope"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture(autouse=True)
def _diffoscope_without_an_answer(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed must not depend on what the tests' host has."""
    stand_in(tmp_path_factory.mktemp("path") / "bin", "exit 2", monkeypatch)


def compared(tmp_path: Path, a: Made, b: Made) -> Difference:
    """Compare two made images, through archives."""
    names = [write_archive(tmp_path / name, one.both()) for name, one in (("a", a), ("b", b))]
    return diff.between(str(names[0]), str(names[1]), tmp_path)


def layers_of(tmp_path: Path, a: bytes, b: bytes) -> tuple[LayerDifference, ...]:
    return compared(tmp_path, Made([("code: src", a)]), Made([("code: src", b)])).layers


def paths_of(tmp_path: Path, a: bytes, b: bytes) -> list[tuple[str, str, str | None, str | None]]:
    """Compare two images of one layer; give what differs inside it."""
    (layer,) = layers_of(tmp_path, a, b)
    return [(one.path, one.kind, one.a, one.b) for one in layer.paths]


# --- Each kind of difference, alone ----------------------------------------------------------

KINDS: dict[str, tuple[bytes, bytes, tuple[str, str, str | None, str | None]]] = {
    "content": (
        tar(FILE),
        tar(member("etc/os", b"Ubuntu\n")),
        (
            "etc/os",
            "content",
            f"7 bytes, {digest(FILE[1])}",
            "7 bytes, " + digest(b"Ubuntu\n"),
        ),
    ),
    "mode": (
        tar(FILE),
        tar(member("etc/os", FILE[1], mode=0o4755)),
        ("etc/os", "mode", "0644", "4755"),
    ),
    "owner": (tar(FILE), tar(member("etc/os", FILE[1], uid=7)), ("etc/os", "owner", "0:0", "7:0")),
    "owner's name": (
        tar(FILE),
        tar(member("etc/os", FILE[1], gname="staff")),
        ("etc/os", "owner", "0:0", "0:0 (:staff)"),
    ),
    "time": (
        tar(FILE),
        tar(member("etc/os", FILE[1], mtime=MTIME + 1.5)),
        ("etc/os", "time", "1980-01-02T00:00:00+00:00", "1980-01-02T00:00:01.500000+00:00"),
    ),
    "a time of no calendar": (
        tar(FILE),
        tar(member("etc/os", FILE[1], mtime=1 << 62)),
        ("etc/os", "time", "1980-01-02T00:00:00+00:00", f"{float(1 << 62)} s"),
    ),
    "link": (
        tar(FILE, LINK),
        tar(FILE, member("etc/link", type=tarfile.SYMTYPE, linkname="gone")),
        ("etc/link", "link", "os", "gone"),
    ),
    "type": (
        tar(FILE, LINK),
        tar(FILE, member("etc/link", type=tarfile.LNKTYPE, linkname="etc/os")),
        ("etc/link", "type", "symbolic link", "hard link"),
    ),
    "device": (
        tar(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
        tar(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
        ("null", "type", "character device 1:3", "character device 1:5"),
    ),
    "presence": (tar(FILE), tar(FILE, LINK), ("etc/link", "presence", None, "symbolic link")),
    "presence twice": (tar(FILE), tar(FILE, FILE), ("etc/os", "presence", None, "file")),
    "attributes": (
        tar(FILE),
        tar(member("etc/os", FILE[1], pax_headers={"SCHILY.xattr.user.x": "1"})),
        ("etc/os", "attributes", "", "SCHILY.xattr.user.x=1"),
    ),
    "order": (tar(FILE, LINK), tar(LINK, FILE), ("etc/os", "order", "1. in order", "2. in order")),
    "encoding of a header": (
        tar(FILE, LINK, kind=tarfile.USTAR_FORMAT),
        tar(FILE, LINK, kind=tarfile.GNU_FORMAT),
        ("etc/os", "encoding", "byte 151 of the tar", "byte 151 of the tar"),
    ),
    "encoding of a name": (
        tar(FILE),
        tar(member("./etc/os", FILE[1])),
        ("etc/os", "encoding", "byte 0 of the tar", "byte 0 of the tar"),
    ),
    "encoding of the filling": (
        tar(FILE),
        tar(FILE) + b"\0" * 512,
        ("etc/os", "encoding", "byte 10240 of the tar", "byte 10240 of the tar"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_difference_is_found_and_nothing_else(kind: str, tmp_path: Path) -> None:
    a, b, expected = KINDS[kind]
    assert paths_of(tmp_path, a, b) == [expected]
    path, what, one, other = expected
    if what not in {"order", "encoding"}:
        assert paths_of(tmp_path, b, a) == [(path, what, other, one)]


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_differs_nothing_is_found(kind: str, tmp_path: Path) -> None:
    for data in KINDS[kind][:2]:
        assert layers_of(tmp_path, data, data) == ()


def test_one_path_can_differ_in_several_things(tmp_path: Path) -> None:
    other = member("etc/os", b"Ubuntu\n", mode=0o600, mtime=0)
    kinds = [kind for _, kind, *_ in paths_of(tmp_path, tar(FILE), tar(other))]
    assert kinds == ["content", "mode", "time"]


def test_paths_are_told_in_their_order(tmp_path: Path) -> None:
    b = tar(member("b"), member("a/x"), member("a.x"), member("etc/os", b"!"))
    told = [path for path, *_ in paths_of(tmp_path, tar(FILE), b)]
    assert told == ["a/x", "a.x", "b", "etc/os"]


# --- Attribution -----------------------------------------------------------------------------

SITE = "usr/local/lib/python3.11/dist-packages"


def wheel(version: str, code: bytes = b"") -> bytes:
    """Make a layer of one wheel."""
    record = f"{SITE}/nump-{version}.dist-info/RECORD"
    rows = 'nump/core.py,,\n../../../bin/nump,,\n"nump/a,b.py",,\n'
    rows += f"nump-{version}.dist-info/RECORD,,\n"
    return tar(
        member("usr/local/bin/nump", code),
        member(f"{SITE}/nump/a,b.py", code),
        member(f"{SITE}/nump/core.py", code),
        member(record, rows.encode()),
        member(f"{SITE}/stray.py", code),
    )


def owners_of(layer: LayerDifference) -> dict[str, str]:
    return {one.path.rpartition("/")[2]: one.owner for one in layer.paths}


def test_a_file_of_a_wheel_is_attributed_to_it(tmp_path: Path) -> None:
    (layer,) = layers_of(tmp_path, wheel("1.0"), wheel("1.0", b"changed"))
    expected = {"nump": "nump 1.0", "a,b.py": "nump 1.0", "core.py": "nump 1.0", "stray.py": ""}
    assert owners_of(layer) == expected


def test_a_file_of_two_versions_is_attributed_to_both(tmp_path: Path) -> None:
    (layer,) = layers_of(tmp_path, wheel("1.0"), wheel("2.0", b"changed"))
    assert owners_of(layer)["core.py"] == "nump 1.0 → nump 2.0"
    records = {one.path: one.owner for one in layer.paths if one.path.endswith("RECORD")}
    assert sorted(records.values()) == ["nump 1.0", "nump 2.0"]


def test_bytecode_is_attributed_to_the_wheel_of_its_source(tmp_path: Path) -> None:
    names = f"{SITE}/nump/__pycache__/core.cpython-311.pyc", f"{SITE}/__pycache__/x.cpython-311.pyc"
    old, new = (tar(*(member(name, data) for name in names)) for data in (b"1", b"2"))
    a = Made([("wheels: nump 1.0", wheel("1.0")), ("bytecode: of the wheels", old)])
    b = Made([("wheels: nump 2.0", wheel("2.0")), ("bytecode: of the wheels", new)])
    layer = compared(tmp_path, a, b).layers[1]
    assert owners_of(layer) == {
        "x.cpython-311.pyc": "",
        "core.cpython-311.pyc": "nump 1.0 → nump 2.0",
    }


def packages(version: str) -> bytes:
    """Make a layer of one Debian package, whose lists say /lib for what is in /usr/lib."""
    control = f"Package: libx1\nVersion: {version}\nDescription: x\n Version: no\n".encode()
    status = "var/lib/dpkg/status.d"
    return tar(
        member("etc/x.conf", version.encode()),
        member("usr/lib/libx.so.1.2", version.encode()),
        member("usr/lib/libx.so.1", type=tarfile.SYMTYPE, linkname="libx.so.1.2", uid=len(version)),
        member(f"{status}/libx1", control),
        member(f"{status}/libx1.md5sums", b"0" * 32 + b"  lib/libx.so.1.2\n"),
    )


def test_a_file_of_a_debian_package_is_attributed_to_it(tmp_path: Path) -> None:
    (layer,) = layers_of(tmp_path, packages("1.2-3"), packages("1.2-3+b1"))
    both = "libx1 1.2-3 → libx1 1.2-3+b1"
    expected = {"x.conf": "", "libx.so.1": both, "libx.so.1.2": both, "libx1": both}
    assert owners_of(layer) == expected


def test_a_record_that_nobody_can_read_attributes_nothing(tmp_path: Path) -> None:
    def layer(data: bytes) -> bytes:
        record = b'"' + b"x" * 200_000 + b"\xff\0"
        return tar(member(f"{SITE}/a-1.dist-info/RECORD", record), member(f"{SITE}/a.py", data))

    (found,) = layers_of(tmp_path, layer(b"1"), layer(b"2"))
    assert owners_of(found) == {"a.py": ""}


# --- Alignment -------------------------------------------------------------------------------


def numbered(*layers: tuple[str, str]) -> Made:
    """Make an image of layers, each holding its own text."""
    return Made([(what, tar(member("x", text.encode()))) for what, text in layers])


def pairs_of(tmp_path: Path, a: Made, b: Made) -> list[tuple[int | None, int | None]]:
    return [
        (one.a.position if one.a else None, one.b.position if one.b else None)
        for one in compared(tmp_path, a, b).layers
    ]


Layers = list[tuple[str, str]]

ALIGNMENTS: dict[str, tuple[Layers, Layers, list[tuple[int | None, int | None]]]] = {
    "a layer more": (
        [("base: x", "1"), ("code: y", "2")],
        [("base: x", "1"), ("wheels: new 1", "n"), ("code: y", "2")],
        [(None, 1)],
    ),
    "a layer less": (
        [("base: x", "1"), ("wheels: old 1", "o"), ("code: y", "2")],
        [("base: x", "1"), ("code: y", "2")],
        [(1, None)],
    ),
    "a layer more and one changed": (
        [("base: x", "1"), ("wheels: a 1", "a"), ("code: y", "2")],
        [("base: x", "1"), ("wheels: 0 1", "0"), ("wheels: a 1", "A"), ("code: y", "3")],
        [(None, 1), (1, 2), (2, 3)],
    ),
    "another version of a wheel": (
        [("wheels: a 1", "a"), ("wheels: b 1.0", "b"), ("wheels: 10 small wheels", "s")],
        [("wheels: b 2.0", "B"), ("wheels: 9 small wheels", "S")],
        [(0, None), (1, 0), (2, 1)],
    ),
    "another wheel": (
        [("wheels: pandas 1", "a")],
        [("wheels: polars 1", "b")],
        [(0, None), (None, 0)],
    ),
    "a model and code of other names": (
        [("model: a.skops", "a"), ("code: src/a", "b")],
        [("model: b.skops", "A"), ("code: src/b", "B")],
        [(0, 0), (1, 1)],
    ),
    "two layers that changed places": (
        [("wheels: a 1", "a"), ("wheels: b 1", "b")],
        [("wheels: b 1", "b"), ("wheels: a 1", "a")],
        [(0, 1)],
    ),
    "no history": ([("", "a"), ("", "b")], [("", "A"), ("", "b"), ("", "c")], [(0, 0), (None, 2)]),
    "other tools' history": (
        [("RUN pip install a", "a"), ("COPY . /", "b")],
        [("RUN pip install b", "A"), ("COPY . /", "B")],
        [(0, 0), (1, 1)],
    ),
    "no layer at all": ([], [("code: y", "1")], [(None, 0)]),
}


@pytest.mark.parametrize("case", ALIGNMENTS)
def test_layers_are_paired_with_what_they_became(case: str, tmp_path: Path) -> None:
    a, b, expected = ALIGNMENTS[case]
    found = pairs_of(tmp_path, numbered(*a), numbered(*b))
    if case == "two layers that changed places":
        assert found in ([(0, 1)], [(1, 0)])
    else:
        assert sorted(found, key=str) == sorted(expected, key=str)


LAYERS = st.lists(
    st.tuples(
        st.sampled_from(["base: x", "wheels: a 1", "wheels: a 2", "code: y", ""]),
        st.sampled_from("abc"),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(LAYERS, LAYERS)
def test_every_layer_is_told_once_or_equal(
    tmp_path_factory: pytest.TempPathFactory, a: Layers, b: Layers
) -> None:
    folder = tmp_path_factory.mktemp("layers")
    found = compared(folder, numbered(*a), numbered(*b))
    for side, layers in (("a", a), ("b", b)):
        told = [getattr(one, side).position for one in found.layers if getattr(one, side)]
        assert len(told) == len(set(told))
        other = b if layers is a else a
        untold = [text for index, (_, text) in enumerate(layers) if index not in told]
        assert set(untold) <= {text for _, text in other}
    assert found.same == (a == b)


def test_layers_of_one_diff_id_are_not_read(tmp_path: Path) -> None:
    def never() -> AbstractContextManager[IO[bytes]]:
        raise AssertionError("it was read")

    made = numbered(("base: x", "1"), ("code: y", "2"))
    image = opened(str(write_archive(tmp_path / "a", made.both())), tmp_path)
    unread = replace(image, layers=tuple(replace(one, open=never) for one in image.layers))
    assert diff.compare(unread, unread).same
    other = tmp_path / "b"
    write_archive(other, numbered(("base: x", "1"), ("code: y", "3")).both())
    with pytest.raises(AssertionError, match="it was read"):
        diff.compare(unread, opened(str(other), tmp_path))


def test_memory_does_not_grow_with_a_layer(tmp_path: Path) -> None:
    size = 24 << 20
    made = [Made([("code: y", tar(member("x", bytes([one]) * size)))]) for one in (1, 2)]
    names = [str(write_archive(tmp_path / f"{i}", one.both())) for i, one in enumerate(made)]
    del made
    tracemalloc.start()
    found = diff.between(names[0], names[1], tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [one.kind for one in found.layers[0].paths] == ["content"]
    assert peak < size // 2


# --- Config and manifest ---------------------------------------------------------------------


def keys_of(tmp_path: Path, a: Any, b: Any) -> list[tuple[str, str | None, str | None]]:
    base = json.loads(Made([]).config_bytes())
    images = [Made([], config={**base, "config": one}) for one in (a, b)]
    return [(one.key, one.a, one.b) for one in compared(tmp_path, *images).config]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({"User": "1"}, {"User": "2"}, [(".config.User", '"1"', '"2"')]),
        ({"User": "1"}, {}, [(".config.User", '"1"', None)]),
        ({}, {"User": None}, [(".config.User", None, "null")]),
        (
            {"Labels": {"a.b": "1"}},
            {"Labels": {"a.b": "2"}},
            [('.config.Labels["a.b"]', '"1"', '"2"')],
        ),
        ({"Env": ["a", "b"]}, {"Env": ["a", "c", "b"]}, [(".config.Env[1]", None, '"c"')]),
        ({"Env": ["a", "b"]}, {"Env": ["b"]}, [(".config.Env[0]", '"a"', None)]),
        ({"Env": ["a", "b"]}, {"Env": ["a", "c"]}, [(".config.Env[1]", '"b"', '"c"')]),
        ({"x": 1}, {"x": True}, [(".config.x", "1", "true")]),
        ({"x": 1}, {"x": 1.0}, [(".config.x", "1", "1.0")]),
        ({"x": {"y": [1]}}, {"x": {"y": {}}}, [(".config.x.y", "[1]", "{}")]),
        ({"User": "1", "x": []}, {"x": [], "User": "1"}, "spelling"),
    ],
)
def test_a_config_is_compared_key_by_key(a: Any, b: Any, expected: Any, tmp_path: Path) -> None:
    found = keys_of(tmp_path, a, b)
    if expected == "spelling":
        ((key, one, other),) = found
        assert key == "."
        assert one != other
    else:
        assert found == expected
        assert keys_of(tmp_path, a, a) == []


def test_a_config_as_deep_as_can_be_is_compared(tmp_path: Path) -> None:
    deep: list[Any] = []
    for value in (1, 2):
        nested: Any = value
        for _ in range(150):
            nested = {"x": [nested]}
        deep.append(nested)
    ((key, one, other),) = keys_of(tmp_path, *deep)
    assert key.startswith(".config.x[0].x[0].x[0]")
    assert one != other


def test_diff_ids_are_told_as_layers_alone(tmp_path: Path) -> None:
    found = compared(tmp_path, numbered(("code: y", "1")), numbered(("code: y", "2")))
    assert found.config == ()
    assert len(found.layers) == 1
    assert not found.same


def test_another_compression_is_a_difference_of_manifests(tmp_path: Path) -> None:
    data = tar(member("x", b"text " * 1000))
    fast, best = (Made([("code: y", data)], level=level) for level in (1, 9))
    found = compared(tmp_path, fast, best)
    assert (found.config, found.layers, found.same) == ((), (), False)
    assert found.a.id == found.b.id
    assert found.a.manifest != found.b.manifest
    assert {one.key for one in found.manifest} == {".layers[0].digest", ".layers[0].size"}
    assert compared(tmp_path, fast, fast).same
    named = replace(fast, annotations={"compressor": "x"})
    (key,) = compared(tmp_path, fast, named).manifest
    assert key.key == ".annotations.compressor"


def test_without_a_manifest_the_image_alone_counts(tmp_path: Path) -> None:
    made = numbered(("code: y", "1"))
    a = write_archive(tmp_path / "a.tar", made.both())
    b = write_archive(tmp_path / "b.tar", made.docker())
    found = diff.between(str(a), str(b), tmp_path)
    assert found.same
    assert found.b.manifest is None


# --- The inside of a file --------------------------------------------------------------------


def inside_of(tmp_path: Path, a: bytes, b: bytes) -> inside.Inside:
    images = [Made([("code: y", tar(FILE, member("srv/x.txt", one)))]) for one in (a, b)]
    found = compared(tmp_path, *images).inside
    assert found is not None
    return found


def test_of_a_text_the_lines_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where no diffoscope is
    found = inside_of(tmp_path, b"a\nb\nc\nd\n", b"a\nb\nX\nd\n")
    assert (found.path, found.first_byte, found.tool) == ("srv/x.txt", 4, "unified diff")
    assert found.text.splitlines()[3:] == [" b", "-c", "+X", " d"]


@pytest.mark.parametrize(
    ("a", "b", "first"),
    [
        (b"\xff\x00", b"\xff\x01", 1),
        (b"a\0", b"b\0", 0),
        (b"a" * 70_000, b"a" * 70_001, 70_000),
        (b"a" * (3 << 20), b"a" * (2 << 20) + b"b" + b"a" * ((1 << 20) - 1), 2 << 20),
        (b"", b"\xff", 0),
    ],
)
def test_of_anything_else_the_first_byte_is_told(
    a: bytes, b: bytes, first: int, tmp_path: Path
) -> None:
    found = inside_of(tmp_path, a, b)
    assert (found.first_byte, found.tool, found.text) == (first, "", "")


def test_a_text_of_many_changes_is_cut(tmp_path: Path) -> None:
    a, b = ("\n".join(f"{i} {word * 300}" for i in range(100)).encode() for word in "ab")
    lines = inside_of(tmp_path, a, b).text.splitlines()
    assert len(lines) == 41
    assert max(map(len, lines)) == 200


def test_where_no_content_differs_there_is_no_inside(tmp_path: Path) -> None:
    a, b, _ = KINDS["mode"]
    images = [Made([("code: y", one)]) for one in (a, b)]
    assert compared(tmp_path, *images).inside is None


@pytest.mark.parametrize(
    ("script", "tool"),
    [
        ('echo "$@"; cat "$4" "$5"; exit 1', "diffoscope"),
        ("echo nothing; exit 0", "unified diff"),
        ("echo trouble; exit 2", "unified diff"),
        ("sleep 600 & sleep 600", "unified diff"),
    ],
    ids=["finds", "finds nothing", "fails", "hangs"],
)
def test_diffoscope_is_asked_if_it_is_there(
    script: str, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wiring alone: a stand-in says with what it was called."""
    stand_in(tmp_path / "bin", script, monkeypatch)
    monkeypatch.setattr(inside, "_SECONDS", 1 if "sleep" in script else 60)
    found = inside_of(tmp_path, b"one\n", b"two\n")
    assert (found.tool, found.first_byte) == (tool, 0)
    if tool == "diffoscope":
        first, *rest = found.text.splitlines()
        assert first.endswith("a/x.txt b/x.txt")
        assert rest == ["one", "two"]


def test_a_name_from_an_image_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "bin", 'echo "$4|$5|$#"; exit 1', monkeypatch)
    name = "srv/--html=$(x) ;\n.txt"
    images = [Made([("code: y", tar(member(name, one)))]) for one in (b"1", b"2")]
    found = compared(tmp_path, *images).inside
    assert found is not None
    assert found.text == "a/--html___x____.txt|b/--html___x____.txt|5\n"


# --- Damage ----------------------------------------------------------------------------------


def damaged(tmp_path: Path, blob: bytes, *, claimed: bytes = b"") -> str:
    """Compare a sound image with one whose layer is `blob`; say how it was refused."""
    good = write_archive(tmp_path / "good.tar", numbered(("code: y", "1")).both())
    made = Made([("code: y", claimed or blob)], blobs=[blob])
    bad = write_archive(tmp_path / "bad.tar", made.both())
    with pytest.raises(UsageError) as caught:
        diff.between(str(good), str(bad), tmp_path)
    assert caught.value.where.startswith(str(bad))
    return caught.value.what


def test_a_layer_that_is_not_what_it_says_is_refused(tmp_path: Path) -> None:
    assert "is damaged" in damaged(tmp_path, tar(FILE), claimed=tar(LINK))


def broken_header() -> bytes:
    data = bytearray(tar(FILE, LINK))
    data[1024 + 100] ^= 1
    return bytes(data)


def gzip_bomb_of_a_name() -> bytes:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    return gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"a" * (32 << 20), 1)


def sparse() -> bytes:
    keys = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "big"}
    size = {"GNU.sparse.size": str(1 << 60), "GNU.sparse.map": f"{(1 << 60) - 1},1"}
    return tar(member("x", b"x", pax_headers={**keys, **size}))


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        (b"", "is no tar"),
        (b"no tar at all" * 100, "is no tar"),
        (tar(FILE)[:700], "is no tar"),
        (tar(member("x", b"y" * 5000))[:2000], "is no tar"),
        (broken_header(), "broken header"),
        (gzip_bomb_of_a_name(), "has a header of"),
        (sparse(), "is a sparse file"),
    ],
    ids=["empty", "text", "short header", "short", "broken header", "bomb", "sparse"],
)
def test_a_layer_that_is_no_tar_is_refused(blob: bytes, expected: str, tmp_path: Path) -> None:
    claimed = gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else b""
    assert expected in damaged(tmp_path, blob, claimed=claimed)


def test_a_config_that_claims_the_diff_id_of_another_layer_is_refused(tmp_path: Path) -> None:
    """The manifest names every blob rightly, and the diff IDs alone would be the same."""
    made = numbered(("code: y", "1"))
    good = write_archive(tmp_path / "good.tar", made.both())
    bad = write_archive(tmp_path / "bad.tar", Made(made.layers, blobs=[tar(FILE)]).both())
    with pytest.raises(UsageError, match="layer code: y is not what its diff ID says"):
        diff.between(str(good), str(bad), tmp_path)


def test_a_layer_that_the_manifest_names_wrongly_is_refused(tmp_path: Path) -> None:
    made = numbered(("code: y", "1"))
    files = made.both()
    name = f"blobs/sha256/{digest(made.blob_list()[0])[7:]}"
    bad = write_archive(tmp_path / "bad.tar", {**files, name: gzip.compress(b"x")})
    with pytest.raises(UsageError, match="layer code: y is not what the manifest says"):
        diff.between(str(bad), str(bad), tmp_path)


def layer_of(data: bytes) -> OpenedLayer:
    return OpenedLayer("", "code: y", len(data), lambda: io.BytesIO(data))


def test_files_below_a_folder_are_read_forward() -> None:
    data = tar(
        member("srv", type=tarfile.DIRTYPE),
        member("./srv/a", b"1"),
        member("srv/b", b"not read"),
        member("srv/link", type=tarfile.SYMTYPE, linkname="a"),
        member("srv/../etc/x", b"out"),
        member("srvx", b"beside"),
        member("srv/c", b"3" * 100_000),
    )
    found = {
        path: (b"" if path == "srv/b" else stream.read(), size)
        for path, stream, size in files_below(layer_of(data), "srv/", "it")
    }
    assert found == {"srv/a": (b"1", 1), "srv/b": (b"", 8), "srv/c": (b"3" * 100_000, 100_000)}


@pytest.mark.parametrize(
    "data",
    [
        b"no tar at all" * 100,
        tar(member("x", b"y" * 5000))[:2000],
        broken_header(),
        gzip.decompress(gzip_bomb_of_a_name()),
        sparse(),
    ],
    ids=["text", "short", "broken header", "bomb", "sparse"],
)
def test_files_of_what_is_no_tar_are_refused(data: bytes) -> None:
    files = files_below(layer_of(data), "", "it")
    with pytest.raises(UsageError) as caught:
        sum(len(stream.read()) for _, stream, _ in files)
    assert caught.value.where == "it: layer code: y"


def test_a_damaged_docker_archive_is_refused_though_its_config_is_the_same(tmp_path: Path) -> None:
    """It names no digest but the diff ID, so nothing else would notice."""
    made = numbered(("code: y", "1"))
    good = write_archive(tmp_path / "good.tar", made.docker())
    files = {**made.docker(), "0/layer.tar": tar(FILE)}
    bad = write_archive(tmp_path / "bad.tar", files)
    with pytest.raises(UsageError, match="layer code: y is not what its diff ID says"):
        diff.between(str(good), str(bad), tmp_path)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_whatever_bytes_a_layer_has_is_compared_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = tar(FILE, LINK, member("é" * 120, b"x", pax_headers={"SCHILY.xattr.a": "b"}))
    at = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=20))
    changed = whole[:at] + junk + whole[at + len(junk) :]
    images = [Made([("code: y", one)]) for one in (whole, changed)]
    try:
        found = compared(tmp_path_factory.mktemp("layer"), *images)
    except UsageError:
        return
    assert found.same == (whole == changed)
    assert all(layer.paths for layer in found.layers)


# --- The command -----------------------------------------------------------------------------


def run_diff(tmp_path: Path, *words: str) -> tuple[int, str, str]:
    run = run_packager(tmp_path, tmp_path / "store", "diff", *words)
    assert "Traceback" not in run.stderr
    return run.returncode, run.stdout, run.stderr


def test_the_words_and_the_exit_codes(tmp_path: Path) -> None:
    made = Made([("wheels: nump 1.0", wheel("1.0"))], {"x": "\x1b[31mred"})
    other = Made([("wheels: nump 2.0", wheel("2.0", b"print()\n"))], {"x": "green"})
    a = str(write_archive(tmp_path / "a.tar", made.both()))
    b = str(write_folder(tmp_path / "b", other.layout()))
    assert run_diff(tmp_path, a, a)[::2] == (0, "")
    assert "The same image, and the same manifest." in run_diff(tmp_path, a, a)[1]
    code, printed, _ = run_diff(tmp_path, a, b)
    assert code == ClaimError.exit_code
    for expected in (
        ".config.Labels.x",
        'A  "\\u001b[31mred"',
        "layer 0: wheels: nump 1.0 → wheels: nump 2.0",
        "  content    /usr/local/bin/nump  (nump 1.0 → nump 2.0)",
        "  presence   /usr/local/lib/python3.11/dist-packages/nump-1.0.dist-info/",
        "and 1 more: content 1",
        "inside /usr/local/bin/nump: differs from byte 0 on",
        "  +print()",
    ):
        assert expected in printed
    assert "\x1b" not in printed


def test_the_inside_shown_is_no_mere_consequence(tmp_path: Path) -> None:
    """What repeats a digest of everything differs always, and explains nothing."""

    def image(text: bytes) -> Made:
        facts = member("srv/packager/image.json", b"digest of " + text)
        return Made([("code: x", tar(facts, member("usr/x.py", text)))])

    found = compared(tmp_path, image(b"1"), image(b"2"))
    assert found.layers[0].paths[0].path == "srv/packager/image.json"
    assert found.inside is not None
    assert found.inside.path == "usr/x.py"
    facts = [tar(member("srv/packager/image.json", one)) for one in (b"1", b"2")]
    alone = compared(tmp_path, *(Made([("code: x", one)]) for one in facts))
    assert alone.inside is not None
    assert alone.inside.path == "srv/packager/image.json"


def test_names_from_an_image_steer_no_terminal(tmp_path: Path) -> None:
    def image(text: bytes) -> Made:
        return Made([("code: \x1b[2J", tar(member("srv/\x1b]0;x\x07\udcff", text)))])

    a = str(write_archive(tmp_path / "a.tar", image(b"\x1b[31m1\n").both()))
    b = str(write_archive(tmp_path / "b.tar", image(b"2\n").both()))
    code, printed, _ = run_diff(tmp_path, a, b)
    assert code == ClaimError.exit_code
    assert "\x1b" not in printed
    assert r"/srv/\x1b]0;x\x07\udcff" in printed
    code, printed, _ = run_diff(tmp_path, "--json", a, b)
    assert json.loads(printed)["layers"][0]["paths"][0]["kind"] == "content"


def test_json_tells_everything(tmp_path: Path) -> None:
    a = str(write_archive(tmp_path / "a.tar", Made([("x", wheel("1.0"))], {"k": "1"}).both()))
    b = str(write_archive(tmp_path / "b.tar", Made([("x", wheel("1.0", b"!"))]).both()))
    code, printed, _ = run_diff(tmp_path, "--json", a, b)
    told = json.loads(printed)
    assert (code, told["same"]) == (1, False)
    assert told["config"] == [{"key": ".config.Labels.k", "a": "1"}]
    assert told["a"]["id"] == digest(Made([("x", wheel("1.0"))], {"k": "1"}).config_bytes())
    (layer,) = told["layers"]
    assert layer["a"] == {"position": 0, "diff_id": digest(wheel("1.0")), "what": "x"}
    assert [one["owner"] for one in layer["paths"]] == ["nump 1.0"] * 3 + [""]
    assert told["inside"]["first_byte"] == 0
    code, printed, _ = run_diff(tmp_path, "--json", a, a)
    assert (code, json.loads(printed)["same"]) == (0, True)


def test_what_is_no_image_ends_in_one_message(tmp_path: Path) -> None:
    a = write_archive(tmp_path / "a.tar", numbered(("x", "1")).both())
    half = tmp_path / "half.tar"
    half.write_bytes(a.read_bytes()[: a.stat().st_size // 4])
    code, printed, said = run_diff(tmp_path, "--json", str(a), str(half))
    assert code == UsageError.exit_code
    assert str(half) in json.loads(printed)["error"]["where"]
    assert str(half) in said


def test_an_engine_is_needed_only_for_its_images(tmp_path: Path) -> None:
    a = str(write_archive(tmp_path / "a.tar", numbered(("x", "1")).both()))
    none = {"DOCKER_HOST": "tcp://127.0.0.1:9"}
    assert run_packager(tmp_path, tmp_path / "store", "diff", a, a, **none).returncode == 0
    run = run_packager(tmp_path, tmp_path / "store", "diff", a, "tiny:1", **none)
    assert run.returncode == HostError.exit_code


def test_real_images_are_compared_wherever_they_are(
    tiny: Tiny, tmp_path: Path, engine: Engine
) -> None:
    """Two builds, one in the engine; and a container's changes, which packager did not make."""
    first, second = str(tmp_path / "first.tar"), str(tmp_path / "second.tar")
    built = tiny.built("-o", first, "--no-smoke")
    assert tiny.run("diff", first, str(built["tag"])).returncode == 0
    tiny.edit("src/tiny/predict.py", "self.factor = factor", "self.factor = 2 * factor")
    tiny.built("-o", second, "--no-load")
    run = tiny.run("diff", "--json", str(built["id"]), second)
    assert run.returncode == 1, run.stderr
    told = json.loads(run.stdout)
    assert [one["key"] for one in told["config"]] == ['.config.Labels["org.model-packager.inputs"]']
    (layer,) = told["layers"]
    assert layer["a"]["what"] == "code: src/tiny"
    owners = {one["path"].rpartition("/")[2]: one["owner"] for one in layer["paths"]}
    assert owners["predict.py"] == "tiny 0.1.0"
    assert owners["predict.cpython-311.pyc"] == "tiny 0.1.0"

    container = engine.client.containers.create(str(built["id"]))
    try:
        container.put_archive("/etc", tar(member("added", b"!")))
        changed = str(container.commit().id)
    finally:
        container.remove()
    try:
        run = tiny.run("diff", "--json", first, changed)
        assert run.returncode == 1, run.stderr
        told = json.loads(run.stdout)
        (layer,) = told["layers"]
        assert (layer["a"], layer["b"]["position"]) == (None, 5)
        assert ".container" in {one["key"] for one in told["config"]}
    finally:
        engine.client.images.remove(changed)
