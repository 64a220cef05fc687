"""Claims about canonical tars: the same set of entries gives the same bytes, whatever the order."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packager.errors import ClaimError
from packager.layers import tar
from packager.layers.tar import Entry, data_entry

PART = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs", "Cc"]),
    min_size=1,
    max_size=60,
).filter(lambda part: part not in {".", ".."} and not part.startswith(".wh."))
PATHS = st.lists(PART, min_size=1, max_size=5).map(lambda parts: "/".join(["root", *parts]))
FILES = st.dictionaries(PATHS, st.binary(max_size=3000), max_size=12)


def without_clashes(files: dict[str, bytes]) -> dict[str, bytes]:
    """Drop files that other files lie below of."""
    return {
        path: data
        for path, data in files.items()
        if not any(other.startswith(f"{path}/") for other in files)
    }


def content(entry: Entry) -> bytes:
    assert entry.open is not None
    with entry.open() as stream:
        return stream.read()


def written(entries: list[Entry]) -> bytes:
    out = io.BytesIO()
    tar.write(tar.merge(entries), out)
    return out.getvalue()


@given(FILES.map(without_clashes), st.randoms(use_true_random=False))
def test_order_of_entries_does_not_matter_and_contents_survive(
    files: dict[str, bytes], chance: random.Random
) -> None:
    entries = [data_entry(path, data) for path, data in files.items()]
    shuffled = entries.copy()
    chance.shuffle(shuffled)
    first = written(entries)
    assert first == written(shuffled)
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        found = {}
        for member in archive:
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            assert member.mtime == tar.MTIME
            if member.isfile():
                found[member.name] = archive.extractfile(member).read()  # type: ignore[union-attr]
                assert member.mode == 0o644
            else:
                assert member.mode == 0o755
        names = archive.getnames()
    assert found == files
    assert len(names) == len(set(names))
    for path in files:
        parts = path.split("/")
        parents = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        places = [names.index(one) for one in [*parents, path]]
        assert places == sorted(places)


# Lengths about those at which a name no longer fits, of letters of which one is not ASCII.
NAMES = st.one_of(
    PATHS,
    st.integers(95, 105).map("a".__mul__),
    st.integers(95, 101).map(lambda length: "é" + "a" * length),
)


@given(
    NAMES,
    st.sampled_from(["file", "dir", "symlink", "hardlink"]),
    st.integers(0, 0o177777),
    st.integers(0, 8**12),
    st.one_of(st.just(""), NAMES),
)
@example("a", "file", 0o644, 8**11 - 1, "")
@example("a", "file", 0o644, 8**11, "")
def test_a_header_is_what_tarfile_writes(
    path: str, kind: Any, mode: int, size: int, target: str
) -> None:
    entry = Entry(path, kind, mode, size, target)
    info = tarfile.TarInfo(path)
    info.type, info.linkname = tar._TYPES[kind], target
    info.mode, info.mtime = mode, tar.MTIME
    info.size = size if kind == "file" else 0
    assert tar._header(entry) == info.tobuf(tarfile.PAX_FORMAT)


@given(st.lists(st.lists(st.text("!-0é", min_size=1), min_size=1).map("/".join), unique=True))
def test_a_folder_and_what_is_in_it_stand_together(paths: list[str]) -> None:
    """Though some characters come before the slash."""
    entries = [Entry(f"root/{path}", kind="dir") for path in paths]
    found = [entry.path.split("/") for entry in tar.merge(entries)]
    assert found == sorted(found)


@pytest.mark.parametrize(
    "sizes", [[], [1] * 3000, [5 << 20], [(1 << 20) - 1536], [100, 1 << 20, 100, 3 << 20, 0]]
)
def test_a_tar_comes_in_parts_of_a_size(sizes: list[int]) -> None:
    entries = [data_entry(f"{number:04}", bytes(size)) for number, size in enumerate(sizes)]
    parts = list(tar.chunks(entries))
    assert b"".join(parts) == written(entries)
    assert all(1 << 20 <= len(part) < 2 << 20 for part in parts[:-1])
    assert 0 < len(parts[-1]) < 2 << 20


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_what_was_written_is_read_again(size: int, tmp_path: Path) -> None:
    entries = [data_entry("a", b"before"), data_entry("b", b"12" * size), data_entry("c", b"after")]
    (tmp_path / "a.tar").write_bytes(written(entries))
    found = tar.read(tmp_path / "a.tar", "it")
    assert [content(entry) for entry in found] == [content(entry) for entry in entries]


def test_gnu_tar_reads_what_is_written(tmp_path: Path) -> None:
    long = "a" * 90 + "/" + "é" * 90 + "/" + "c" * 99
    data = written([data_entry(long, b"x", mode=0o755), Entry("l", kind="symlink", target=long)])
    (tmp_path / "a.tar").write_bytes(data)
    subprocess.run(["tar", "-xf", "a.tar"], cwd=tmp_path, check=True)
    assert (tmp_path / long).read_bytes() == b"x"
    assert (tmp_path / "l").readlink() == Path(long)


def test_equal_files_of_two_owners_become_one() -> None:
    merged = tar.merge([data_entry("a/b", b"x", owner="one"), data_entry("a/b", b"x", owner="two")])
    assert [entry.path for entry in merged] == ["a", "a/b"]


@pytest.mark.parametrize(
    "other",
    [
        data_entry("a/b", b"y", owner="two"),
        data_entry("a/b", b"x", mode=0o755, owner="two"),
        Entry("a/b", kind="symlink", target="c", owner="two"),
        data_entry("a/b/c", b"x", owner="two"),
    ],
    ids=["content", "mode", "kind", "file below a file"],
)
def test_a_path_of_two_owners_that_disagree_is_refused_by_name(other: Entry) -> None:
    with pytest.raises(ClaimError, match=r"one.*two|two.*one"):
        tar.merge([data_entry("a/b", b"x", owner="one"), other])


def test_a_hard_link_comes_after_its_file() -> None:
    """Whoever unpacks a tar front to back could not make it otherwise."""
    file = data_entry("b/tool", b"x")
    tar.merge([file, Entry("b/twin", kind="hardlink", target="b/tool")])
    with pytest.raises(ClaimError, match=r"culprit.*comes after it"):
        tar.merge([file, Entry("b/same", kind="hardlink", target="b/tool", owner="culprit")])


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "a/../../b",
        "a//b",
        ".",
        "",
        "a/.wh.b",
        "lib/x",
        "bin/sh",
        "lib64/ld.so",
        ".wh.b/a",
    ],
)
def test_a_path_that_would_do_harm_is_refused(path: str) -> None:
    with pytest.raises(ClaimError, match="culprit"):
        tar.merge([data_entry(path, b"", owner="culprit")])


@pytest.mark.parametrize("path", ["a/.b", "...", "a/..b", "a/b.wh.c", "a/.who", "usr/lib/x"])
def test_a_path_that_only_looks_like_it_is_taken(path: str) -> None:
    assert tar.merge([data_entry(path, b"")])[-1].path == path


@pytest.mark.parametrize(
    ("size", "sha256"), [(5, ""), (4, "0" * 64)], ids=["another size", "another digest"]
)
def test_a_file_that_changes_while_it_is_read_is_refused(size: int, sha256: str) -> None:
    entry = Entry("a", size=size, open=lambda: io.BytesIO(b"four"), owner="culprit", sha256=sha256)
    with pytest.raises(ClaimError, match="culprit"):
        tar.write([entry], io.BytesIO())
