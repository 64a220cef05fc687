"""A library that is missing in the image is an error with a name, when the lock is made."""

from __future__ import annotations

import io
import posixpath
import struct

import pytest

from packager.errors import ClaimError
from packager.layers import deb
from packager.lock import debian, elf
from packager.lock.elf import ElfFacts, ElfFile

pytest_plugins = ["debian_fixtures"]

SITE = "usr/local/lib/python3.11/dist-packages"
LIBRARIES = ["usr/lib/x86_64-linux-gnu", "usr/lib"]
X86, ARM = 62, 183


def shared(needed=(), *, soname="", runpath="", rpath="", machine=X86) -> bytes:
    """Make the smallest ELF file that a dynamic linker would read (System V ABI, chapter 5)."""
    strings, tags = bytearray(b"\0"), []

    def add(tag: int, text: str) -> None:
        tags.append((tag, len(strings)))
        strings.extend(text.encode() + b"\0")

    for name in needed:
        add(1, name)
    for tag, text in ((14, soname), (15, rpath), (29, runpath)):
        if text:
            add(tag, text)
    start = 64 + 2 * 56
    table = start + 16 * (len(tags) + 3)
    tags += [(5, table), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    size = table + len(strings)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0),
    )
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, size, size, 1)
    place = struct.pack("<IIQQQQQQ", 2, 4, start, start, start, len(dynamic), len(dynamic), 8)
    return header + load + place + dynamic + bytes(strings)


def facts(data: bytes) -> ElfFacts:
    found = elf.needed(io.BytesIO(data))
    assert found is not None
    return found


def check(files, *, links=(), architecture="amd64"):
    """Check files given as path → (owner, bytes)."""
    elf.check(
        [ElfFile(path, owner, facts(data)) for path, (owner, data) in files.items()],
        paths=[*files, *links],
        architecture=architecture,
        library_dirs=LIBRARIES,
        python_dir=SITE,
    )


def test_what_a_linker_reads_is_read():
    data = shared(["libc.so.6", "libm.so.6"], soname="libx.so.1", runpath="$ORIGIN/../lib:/opt")
    assert facts(data) == ElfFacts(
        soname="libx.so.1",
        needed=("libc.so.6", "libm.so.6"),
        machine="EM_X86_64",
        search=("$ORIGIN/../lib", "/opt"),
    )
    assert facts(shared(rpath="/a", machine=ARM)).machine == "EM_AARCH64"
    # RPATH counts only where there is no RUNPATH.
    assert facts(shared(rpath="/a")).search == ("/a",)
    assert facts(shared(rpath="/a", runpath="/b")).search == ("/b",)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little end first", "big end first"])
def test_a_library_of_32_bits_is_read_in_either_order(order):
    strings = b"\0libc.so.6\0"
    start = 52 + 2 * 32
    table = start + 3 * 8
    size = table + len(strings)
    ident = b"\x7fELF\x01" + (b"\x01" if order == "<" else b"\x02") + b"\x01"
    data = (
        struct.pack(f"{order}16sHHIIIIIHHHHHH", ident, 3, 3, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
        + struct.pack(f"{order}8I", 1, 0, 4096, 4096, size, size, 4, 1)
        + struct.pack(f"{order}8I", 2, start, 4096 + start, 0, 24, 24, 4, 4)
        + struct.pack(f"{order}6I", 1, 1, 5, 4096 + table, 0, 0)
        + strings
    )
    assert facts(data) == ElfFacts("", ("libc.so.6",), "EM_386", ())


def claiming(data: bytes, **claims: int) -> bytes:
    """Write other numbers into a header or a tag of `shared`."""
    places = {"segments": ("<H", 56), "length": ("<Q", 64 + 56 + 32), "strings": ("<Q", 200)}
    changed = bytearray(data)
    for name, number in claims.items():
        layout, offset = places[name]
        struct.pack_into(layout, changed, offset, number)
    return bytes(changed)


@pytest.mark.parametrize(
    "claims",
    [{"segments": 0xFFFE}, {"length": elf._LONGEST_READ + 1}, {"strings": 1 << 63}],
    ids=["segments", "dynamic array", "address of strings"],
)
def test_a_header_that_claims_what_is_not_there_is_not_believed(claims):
    data = shared(["libc.so.6"])
    assert claiming(data, segments=2) == data
    assert elf.needed(io.BytesIO(claiming(data, **claims))) is None


def test_a_name_without_end_is_not_read():
    data = shared(["libc.so.6"]).rstrip(b"\0")
    assert facts(data + b"\0").needed == ("libc.so.6",)
    assert elf.needed(io.BytesIO(data + b"A" * 2 * elf._LONGEST_READ + b"\0")) is None


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF" + b"\xff" * 60])
def test_what_no_linker_reads_is_nothing(data):
    assert elf.needed(io.BytesIO(data)) is None


EXTENSION = f"{SITE}/pkg/_x.so"


def test_a_library_in_a_library_folder_is_found_also_behind_a_link():
    files = {EXTENSION: ("pkg", shared(["libz.so.1"]))}
    check(files, links=["usr/lib/x86_64-linux-gnu/libz.so.1"])
    with pytest.raises(ClaimError):
        check(files, links=["usr/lib/x86_64-linux-gnu/private/libz.so.1"])


@pytest.mark.parametrize("origin", ["$ORIGIN/../pkg.libs", "${ORIGIN}/../pkg.libs"])
def test_a_library_in_the_files_own_search_path_is_found(origin):
    check(
        {
            EXTENSION: ("pkg", shared(["libgomp-1234.so.1"], runpath=origin)),
            f"{SITE}/pkg.libs/libgomp-1234.so.1": ("pkg", shared()),
        }
    )


def test_a_search_path_below_a_merged_folder_is_found():
    program = shared(["libp.so"], runpath="/lib/x86_64-linux-gnu/private")
    folder = "usr/lib/x86_64-linux-gnu/private"
    check({"usr/bin/p": ("Debian's p", program)}, links=[f"{folder}/libp.so"])


def test_a_library_of_a_sister_package_is_found():
    files = {EXTENSION: ("pkg", shared(["libsister.so"]))}
    check({**files, f"{SITE}/sister/lib/libsister.so": ("sister", shared())})
    with pytest.raises(ClaimError):
        check({**files, "usr/lib/sister/lib/libsister.so": ("sister", shared())})


def test_a_missing_library_is_named_with_its_file_its_owner_and_a_remedy():
    with pytest.raises(ClaimError) as caught:
        check({EXTENSION: ("lightgbm-4.6.0", shared(["libgomp.so.1"]))})
    assert f"lightgbm-4.6.0 needs libgomp.so.1 (/{EXTENSION})" in caught.value.what
    assert "libgomp1" in caught.value.hint
    assert caught.value.where == "pyproject.toml, [tool.packager] os-packages"


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("libgomp.so.1", "libgomp1"),
        ("libgomp.so.1.0.0", "libgomp1"),
        ("libGL.so.1", "libgl1"),
        ("libX11.so.6", "libx11-6"),
        ("libsndio.so.7.0", "libsndio7.0"),
        ("libboost_regex.so.1", "libboost-regex1"),
    ],
)
def test_debians_naming_rule(library, package):
    with pytest.raises(ClaimError) as caught:
        check({EXTENSION: ("pkg", shared([library]))})
    assert caught.value.hint.endswith(f"naming rule {package}.")


def test_every_missing_library_is_in_one_message():
    with pytest.raises(ClaimError) as caught:
        check(
            {
                EXTENSION: ("pkg", shared(["liba.so.1", "libb.so.1"])),
                f"{SITE}/pkg/_y.so": ("pkg", shared(["liba.so.1"])),
                "usr/bin/tool": ("Debian's tool", shared(["libc.so.1"])),
            }
        )
    said = caught.value.what
    assert [said.count(name) for name in ("liba.so.1", "libb.so.1", "libc.so.1")] == [1, 1, 1]


def test_what_the_host_lends_with_a_graphics_card_is_not_missed():
    check({EXTENSION: ("torch", shared(["libcuda.so.1", "libnvidia-ml.so.1"]))})


def test_a_plugin_of_a_debian_package_is_left_to_debian():
    plugin = ("Debian's libcaca0", shared(["libglut.so.3"]))
    check({"usr/lib/x86_64-linux-gnu/caca/libgl_plugin.so": plugin})
    with pytest.raises(ClaimError):
        check({"usr/lib/x86_64-linux-gnu/libgl_plugin.so": plugin})


def test_a_wheel_for_another_machine_only_is_refused():
    arm = ("pkg", shared(machine=ARM))
    with pytest.raises(
        ClaimError, match=r"pkg holds /.*_x.so, which is for EM_AARCH64, and nothing for amd64"
    ):
        check({EXTENSION: arm})
    check({EXTENSION: arm}, architecture="arm64")


def test_a_wheel_may_carry_files_for_other_machines_beside_its_own():
    files = {
        f"{SITE}/pkg/amd64.so": ("pkg", shared()),
        f"{SITE}/pkg/arm64.so": ("pkg", shared(["libgone.so.1"], machine=ARM)),
    }
    check(files)
    # But what is for another machine provides nothing.
    with pytest.raises(ClaimError, match=r"needs arm64\.so"):
        check({**files, f"{SITE}/pkg/z.so": ("pkg", shared(["arm64.so"]))})


@pytest.mark.parametrize("suite", debian.SUITES)
def test_a_real_base_lacks_nothing_and_one_package_less_is_noticed(fetch, tmp_path, suite):
    _, debs = fetch(suite, "amd64")
    entries = deb.base_entries(debs, python=debian.SUITES[suite], scratch=tmp_path)
    files = []
    for entry in entries:
        if entry.kind == "file":
            with entry.open() as stream:
                found = elf.needed(stream)
            if found is not None:
                files.append(ElfFile(entry.path, entry.owner, found))
    assert len(files) > 400
    paths = [entry.path for entry in entries if entry.kind != "dir"]
    where = {"architecture": "amd64", "library_dirs": LIBRARIES, "python_dir": SITE}
    elf.check(files, paths=paths, **where)
    without = [path for path in paths if not posixpath.basename(path).startswith("libselinux.so")]
    with pytest.raises(ClaimError, match=r"Debian's coreutils needs libselinux\.so\.1"):
        elf.check(files, paths=without, **where)
