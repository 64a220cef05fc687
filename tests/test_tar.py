"""Claims about canonical tars: the same set of entries gives the same bytes, whatever the order."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
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
    ["/etc/passwd", "a/../../b", "a//b", ".", "", "a/.wh.b", "lib/x", "bin/sh", "lib64/ld.so"],
)
def test_a_path_that_would_do_harm_is_refused(path: str) -> None:
    with pytest.raises(ClaimError, match="culprit"):
        tar.merge([data_entry(path, b"", owner="culprit")])


@pytest.mark.parametrize(
    ("size", "sha256"), [(5, ""), (4, "0" * 64)], ids=["another size", "another digest"]
)
def test_a_file_that_changes_while_it_is_read_is_refused(size: int, sha256: str) -> None:
    entry = Entry("a", size=size, open=lambda: io.BytesIO(b"four"), owner="culprit", sha256=sha256)
    with pytest.raises(ClaimError, match="culprit"):
        tar.write([entry], io.BytesIO())
