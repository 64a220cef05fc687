"""Claims about hostile input: each is refused by one message that names it, or taken and harmless.

Where each kind that the project promises to refuse is tested (docs/limits.md says why):

| input | wheel | .deb | elsewhere |
| --- | --- | --- | --- |
| absolute path, `..` | here; test_wheel | here | model, code, keys: test_tree, test_project |
| link pointing out | here | here | model, examples: here, test_tree |
| device, pipe | here | test_debian_layer | model: here |
| setuid, setgid | here (taken, bits dropped) | test_debian_layer (the same) | |
| duplicate entry | here | here | two owners of a path: test_tar, test_debian_layer |
| names that differ in case alone | here (refused) | here (taken) | |
| bomb | here | here | sizes of lock, examples, settings: here |
| wrong RECORD | here | | |
| name that is not UTF-8 | here | here | model, code: test_tree |
| whiteout name | here | here | any entry: test_tar |
| damaged, cut | here; test_wheel | here; test_debian_layer | store: test_store |
| huge number, NaN, null | | | lock, examples: here; rows: test_runtime |
| wrong shape, deep nesting | | | examples: here, test_project; lock: here; rows: test_runtime |
| another encoding | | | lock, examples, settings: here; rows: test_runtime |

The same parsers are fuzzed in test_fuzz.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Tiny, write_tiny
from test_debian_layer import ar, make_deb, member, packed
from test_elf import shared

from packager import claims, files, project
from packager.errors import ClaimError, PackagerError, UsageError
from packager.layers import deb, debian_root, tar, tree, wheel
from packager.layers.site import Site
from packager.layers.tar import Entry, data_entry
from packager.lock import debian_index, elf, lockfile, resolve
from packager.reference import Reference
from packager.runtime.packager_runtime import facts

SITE = Site.debian("3.11")
INFO = "evil-1.0.dist-info"
WHEEL = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def hashed(data: bytes, algorithm: str = "sha256") -> str:
    digest = hashlib.new(algorithm, data).digest()
    return f"{algorithm}={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def record(members: Mapping[str, bytes], *, but: Mapping[str, str] | None = None) -> bytes:
    """Write an honest RECORD, but for some lines: an empty one is left out."""
    lines = {name: f"{name},{hashed(data)},{len(data)}" for name, data in members.items()}
    return "\n".join(line for line in {**lines, **(but or {})}.values() if line).encode()


def evil(folder: Path, members: Mapping[str, bytes] | None = None, **options: Any) -> Path:
    """Make a wheel of members that no build tool would write."""
    what = {**(members or {"evil.py": b"x = 1\n"}), f"{INFO}/WHEEL": WHEEL}
    listing = options.get("record") or record(what, but=options.get("but"))
    path = folder / "evil-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", options.get("compression", zipfile.ZIP_DEFLATED)) as archive:
        for name, data in {**what, f"{INFO}/RECORD": listing}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = options.get("modes", {}).get(name, 0o100644) << 16
            archive.writestr(info, data, compress_type=archive.compression)
    return path


def install(path: Path) -> dict[str, Entry]:
    """Make a layer of a wheel, as a build does."""
    entries = tar.merge(wheel.wheel_entries(path, path.name, SITE))
    tar.write(entries, io.BytesIO())
    return {entry.path: entry for entry in entries}


def edited(path: Path, old: bytes, new: bytes, *, count: int = -1) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))
    return path


def twice(folder: Path) -> Path:
    path = evil(folder, {"evil.py": b"1", "EVIL.py": b"1"})
    return edited(path, b"EVIL.py", b"evil.py")


def lying_about_size(folder: Path) -> Path:
    path = evil(folder, {"evil.py": b"0" * 5000}, but={"evil.py": f"evil.py,{hashed(b'0')},1"})
    size = struct.pack("<I", 5000)
    return edited(path, size, struct.pack("<I", 1))


def not_utf8(folder: Path) -> Path:
    path = evil(folder, {"evil_é.py": b"1"})
    return edited(path, "é".encode(), b"\xff\xfe")


def encrypted(folder: Path) -> Path:
    path = evil(folder)
    data = bytearray(path.read_bytes())
    for found in re.finditer(b"PK\x01\x02", bytes(data)):
        data[found.start() + 8] |= 1
    path.write_bytes(data)
    return path


def points(text: bytes) -> Callable[[Path], Path]:
    return lambda folder: evil(folder, {"evil.py": b"", f"{INFO}/entry_points.txt": text})


def named(name: str, data: bytes = b"1") -> Callable[[Path], Path]:
    return lambda folder: evil(folder, {name: data})


def mode(kind: int) -> Callable[[Path], Path]:
    return lambda folder: evil(folder, {"evil.py": b"/etc"}, modes={"evil.py": kind | 0o777})


def listed(line: str) -> Callable[[Path], Path]:
    return lambda folder: evil(folder, but={"evil.py": line})


def overlapping(folder: Path) -> Path:
    """Hide a file in the bytes of another, as bombs do that list the same bytes many times."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("hidden.py", b"1")
        hidden = archive.infolist()[0]
    hiding = {"evil.py": inner.getvalue()}
    also = {"hidden.py": f"hidden.py,{hashed(b'1')},1"}
    path = evil(folder, hiding, but=also, compression=zipfile.ZIP_STORED)
    hidden.header_offset = path.read_bytes().index(inner.getvalue())
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist.append(hidden)
        archive.writestr(f"{INFO}/RECORD.jws", b"{}")
    return path


def far_away(folder: Path) -> Path:
    path = evil(folder)
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02") + 42
    data[start : start + 4] = struct.pack("<I", len(data))
    path.write_bytes(data)
    return path


WHEELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "absolute path": (named("/etc/passwd"), "leaves the root|Can't mix absolute"),
    "dot dot": (named("../../../../../etc/passwd"), "leaves the root"),
    "dot dot in a script's name": (
        points(b"[console_scripts]\n../../../bin/sh = evil:main\n"),
        "leaves the root",
    ),
    "backslash": (named("evil\\x.py"), "another path on another system"),
    "symbolic link": (mode(stat.S_IFLNK), "a link or device"),
    "device": (mode(stat.S_IFCHR), "a link or device"),
    "pipe": (mode(stat.S_IFIFO), "a link or device"),
    "duplicate": (twice, "'evil.py', and that name twice"),
    "case": (lambda f: evil(f, {"evil.py": b"1", "Evil.py": b"2"}), "that name twice"),
    "bomb": (named("evil.py", bytes(tar.SPARE + 1)), r"a bomb: its \d+ bytes unpack to 6\d{7}"),
    "bomb that says it is small": (lying_about_size, "not a valid wheel: Bad CRC-32"),
    "large RECORD": (
        lambda f: evil(f, record=b"\n" * (tar.MOST_TEXT + 1)),
        "its RECORD has 16777217 bytes",
    ),
    "large script": (
        named("evil-1.0.data/scripts/x", b"#!python\n" + bytes(tar.MOST_TEXT)),
        "too many for such a file",
    ),
    "encrypted": (encrypted, "is encrypted"),
    "lzma, whose header takes memory": (
        lambda f: evil(f, compression=zipfile.ZIP_LZMA),
        "compressed by other than deflate",
    ),
    "file that RECORD does not list": (listed(""), "holds 'evil.py', which its RECORD lists w"),
    "file that RECORD lists without a hash": (listed("evil.py,,"), "lists without a hash"),
    "file that RECORD lists and is not there": (
        lambda f: evil(f, but={"gone": "gone.py,sha256=AA,1"}),
        r"does not hold 'gone\.py'",
    ),
    "wrong hash": (
        listed(f"evil.py,{hashed(b'other')},6"),
        r"/dist-packages/evil\.py is not what its RECORD says",
    ),
    "wrong hash of a script": (
        lambda f: evil(
            f,
            {"evil-1.0.data/scripts/x": b"#!python\n"},
            but={"evil-1.0.data/scripts/x": f"evil-1.0.data/scripts/x,{hashed(b'')},9"},
        ),
        "scripts/x' is not what its RECORD says",
    ),
    "wrong size": (listed(f"evil.py,{hashed(b'x = 1' + bytes([10]))},7"), "its RECORD says '7'"),
    "weak hash": (listed(f"evil.py,{hashed(b'', 'md5')},6"), "by 'md5', which proves nothing"),
    "wrong strong hash": (
        listed(f"evil.py,{hashed(b'', 'sha512')},6"),
        "is not what its RECORD says",
    ),
    "hash that is no base64": (listed("evil.py,sha256=A,6"), "not a valid wheel"),
    "RECORD that is no table": (lambda f: evil(f, record=b"a,b\n"), "not a valid wheel"),
    "RECORD that is not UTF-8": (lambda f: evil(f, record=b"\xff"), "not a valid wheel.*utf-8"),
    "name that is not UTF-8": (not_utf8, "not a valid wheel: 'utf-8'"),
    "name with an escape": (named("evil/\x1b[2J.py"), r"not one line of UTF-8: '.*\\x1b\[2J"),
    "whiteout": (named(".wh.evil.py"), "reserved for whiteouts"),
    "whiteout of a folder": (named(".wh.numpy/evil.py"), "reserved for whiteouts"),
    "long name": (named("e" * 256), "too long or too deep"),
    "deep path": (named("e/" * 100 + "e"), "too long or too deep"),
    "entry points that contradict themselves": (points(b"[a]\nb=c:d\nb=c:d\n"), "not a valid"),
    "header that names another file": (
        lambda f: edited(evil(f), b"evil.py", b"good.py", count=1),
        "not a valid wheel: File name in directory",
    ),
    "file within a file": (overlapping, r"'evil\.py', which reaches into 'hidden\.py'"),
    "file beyond the end": (far_away, "'evil.py', which would begin outside of the wheel"),
    "cut": (lambda f: edited(evil(f), b"PK\x05\x06", b"PK\x05\x05"), "not a valid wheel"),
}


@pytest.mark.parametrize("name", WHEELS)
def test_a_hostile_wheel_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, says = WHEELS[name]
    with pytest.raises(ClaimError, match=r"(?s)evil-1\.0-py3-none-any\.whl.*" + f"({says})"):
        install(make(tmp_path))


def test_the_same_wheel_without_malice_is_taken(tmp_path: Path) -> None:
    signature = {f"{INFO}/RECORD.jws": ""}
    found = install(
        evil(
            tmp_path,
            {"evil.py": b"x = 1\n", "zeros": bytes(10**6), f"{INFO}/RECORD.jws": b"{}"},
            but={**signature, "evil.py": f"evil.py,{hashed(b'x = 1' + bytes([10]), 'sha512')},6"},
            modes={"evil.py": stat.S_IFREG | 0o6777},
        )
    )
    # Setuid and setgid are dropped: a wheel's file is one of two modes.
    assert found[f"{SITE.packages}/evil.py"].mode == 0o755
    assert found[f"{SITE.packages}/zeros"].size == 10**6


# Debian packages.


def read_deb(tmp_path: Path, pair: Any) -> dict[str, Entry]:
    [read] = deb._read([pair], tmp_path)
    return {entry.path: entry for entry in tar.merge(read.entries)}


def of(*members: Any) -> Callable[[Path], Any]:
    return lambda folder: make_deb(folder, "evil", *members)


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> Any:
    return member(name, kind=kind, to=to)


def absolute(info: tuple[tarfile.TarInfo, bytes]) -> Any:
    info[0].name = info[0].name.removeprefix(".")
    return info


def rebuilt(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Callable[[Path], Any]:
    """Make a package, and change its parts."""

    def make(folder: Path) -> Any:
        pin, path = make_deb(folder, "evil", member("etc/a", b"1"))
        parts = {
            "debian-binary": b"2.0\n",
            "control.tar.xz": lzma.compress(packed(member("control", b"Package: evil\n"))),
            "data.tar.xz": lzma.compress(packed(member("etc/a", b"1"))),
        }
        path.write_bytes(ar(change(parts)))
        return pin, path

    return make


def data(content: bytes) -> Callable[[Path], Any]:
    return rebuilt(lambda parts: {**parts, "data.tar.xz": lzma.compress(content)})


def pax(**headers: str) -> bytes:
    info = tarfile.TarInfo("etc/a")
    info.pax_headers = headers
    return info.tobuf(tarfile.PAX_FORMAT) + b"\0" * 1024


def header(**values: Any) -> bytes:
    info = tarfile.TarInfo("etc/a")
    for key, value in values.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024


def negative_member(folder: Path) -> Any:
    pin, path = make_deb(folder, "evil", member("etc/a", b"1"))
    found = re.search(rb"data\.tar\.xz {36,}(\d+ *)`", path.read_bytes())
    old = path.read_bytes()
    start = old.index(b"data.tar.xz") + 48
    assert found or old[start : start + 10].strip().isdigit()
    path.write_bytes(old[:start] + b"-60       " + old[start + 10 :])
    return pin, path


def greedy_xz() -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    small = lzma.compress(packed(member("etc/a", b"1")), filters=filters)
    # The dictionary's size is one byte of a header that has a checksum of its own.
    start = 12
    length = (small[start] + 1) * 4
    block = bytearray(small[start : start + length - 4])
    block[block.index(b"\x21\x01") + 2] = 40
    return small[:start] + block + struct.pack("<I", zlib.crc32(block)) + small[start + length :]


DEBS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absolute path": (of(absolute(member("etc/a", b"1"))), "path that leaves the root: '/etc/a'"),
    "dot dot": (of(member("etc/../../a", b"1")), "path that leaves the root"),
    "link out": (of(link("etc/a", "../../etc/shadow")), "link that leaves the root: '../../etc"),
    "absolute link out": (of(link("etc/a", "/../x")), "link that leaves the root"),
    "file below a link": (
        of(link("opt/a", "/etc"), member("opt/a/passwd", b"1")),
        "/opt/a is a symlink",
    ),
    "hard link out": (
        of(link("etc/a", "../../etc/shadow", tarfile.LNKTYPE)),
        r"a hard link to no file of its: '\.\./\.\./etc/shadow'",
    ),
    "hard link to a link": (
        of(link("etc/a", "b"), link("etc/c", "./etc/a", tarfile.LNKTYPE)),
        "a hard link to no file",
    ),
    "duplicate": (of(member("etc/a", b"1"), member("etc/a", b"2")), "holds /etc/a twice"),
    "whiteout": (of(member("etc/.wh.passwd", b"")), "reserved for whiteouts"),
    "name that is not UTF-8": (of(member("etc/\udcff", b"")), r"not one line of UTF-8: 'etc/\\u"),
    "name of two lines": (of(member("etc/a\nb", b"")), "not one line of UTF-8"),
    "link of two lines": (of(link("etc/a", "b\nc")), "not one line of UTF-8"),
    "long name": (of(member("etc/" + "a" * 256, b"")), "too long or too deep"),
    "bomb": (data(bytes(tar.SPARE + (4 << 20))), r"a bomb: its data\.tar\.xz unpacks to m"),
    "bomb in its control part": (
        rebuilt(lambda parts: {**parts, "control.tar.xz": lzma.compress(bytes(tar.SPARE + 1))}),
        r"a bomb: its control\.tar\.xz unpacks",
    ),
    "large control file": (
        rebuilt(
            lambda parts: {
                **parts,
                "control.tar.xz": lzma.compress(
                    packed(member("control", bytes(tar.MOST_TEXT + 1)))
                ),
            }
        ),
        "its control has 16777217 bytes",
    ),
    "script that is not UTF-8": (
        rebuilt(
            lambda parts: {
                **parts,
                "control.tar.xz": lzma.compress(packed(member("postinst", b"\xff"))),
            }
        ),
        "cannot be read: 'utf-8'",
    ),
    "xz that wants 4 GiB of memory": (
        rebuilt(lambda parts: {**parts, "data.tar.xz": greedy_xz()}),
        "cannot be read: Memory usage limit",
    ),
    "no content": (
        rebuilt(lambda parts: {k: v for k, v in parts.items() if k != "data.tar.xz"}),
        "holds 0 members data.tar",
    ),
    "two contents": (
        rebuilt(lambda parts: {**parts, "data.tar.gz": b""}),
        "holds 2 members data.tar",
    ),
    "member that ends before it begins": (negative_member, "a member of negative size"),
    "tar that is cut": (data(packed(member("etc/a", b"1" * 600))[:1024]), "a tar that is damaged"),
    "tar without an end": (data(header()[:512]), "it ends without an end"),
    "tar with a broken header": (
        data(header()[:512] + b"x" * 512 + header()),
        "it ends without an end",
    ),
    "file that ends before it begins": (data(header(size=-1024)), "a tar that is damaged"),
    "file of 8 EiB": (data(header(size=1 << 62)), "a tar that is damaged"),
    "PAX header of 8 EiB": (data(header(type=b"x", size=1 << 62)), "a header of \\d+ bytes"),
    "negative PAX size": (data(pax(size="-1024")), "a tar that is damaged"),
    "PAX headers without end": (
        data(b"".join(pax(comment="x")[:1024] for _ in range(5000)) + header()),
        "a tar that is damaged",
    ),
    "sparse file": (data(pax(**{"GNU.sparse.size": "9", "GNU.sparse.map": "0,1"})), "a sparse"),
}


@pytest.mark.parametrize("name", DEBS)
def test_a_hostile_package_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, says = DEBS[name]
    with pytest.raises(ClaimError, match=rf"(?s)(Debian's evil|pool/main/e/evil/).*({says})"):
        read_deb(tmp_path, make(tmp_path))


def test_what_real_packages_do_is_taken(tmp_path: Path) -> None:
    found = read_deb(
        tmp_path,
        make_deb(
            tmp_path,
            "evil",
            member("usr/share/terminfo/E", kind=tarfile.DIRTYPE),
            member("usr/share/terminfo/E/x", b"1"),
            member("usr/share/terminfo/e", kind=tarfile.DIRTYPE),
            member("usr/share/terminfo/e/x", b"2"),
            link("etc/absolute", "/usr/share/terminfo"),
            link("usr/share/up", "../../etc"),
            link("usr/share/again", "./usr/share/terminfo/e/x", tarfile.LNKTYPE),
            member("etc/ca/Főtanúsítvány.crt", b"1"),
        ),
    )
    assert {path for path, entry in found.items() if entry.kind != "dir"} == {
        "usr/share/terminfo/E/x",
        "usr/share/terminfo/e/x",
        "etc/absolute",
        "usr/share/up",
        "usr/share/again",
        "etc/ca/Főtanúsítvány.crt",
    }


def test_a_linker_s_configuration_that_includes_itself_is_read_once() -> None:
    files = {
        "etc/ld.so.conf": b"include\ninclude /etc/ld.so.conf.d/*.conf\n",
        "etc/ld.so.conf.d/a.conf": b"include /etc/ld.so.conf.d/*.conf\n/opt/a\n\xff\n",
        "etc/ld.so.conf.d/b.conf": b"include /etc/ld.so.conf\n/opt/b\n",
        "opt/b/libb.so": shared(soname="libb.so"),
    }
    entries = [data_entry(path, data) for path, data in files.items()]
    entries.append(Entry("etc/ld.so.conf.d/c.conf", "symlink", target="/proc/self/environ"))
    made = debian_root.linker_cache(entries, "amd64")
    assert made.open is not None
    assert b"/opt/b/libb.so" in made.open().read()


def test_a_star_in_a_linker_s_configuration_stands_for_no_slash() -> None:
    """As glob(3) has it, and so as ldconfig reads it."""
    files = {
        "etc/ld.so.conf": b"include /etc/*.conf\n",
        "etc/near.conf": b"/opt/near\n",
        "etc/below/far.conf": b"/opt/far\n",
        "opt/near/libnear.so": shared(soname="libnear.so"),
        "opt/far/libfar.so": shared(soname="libfar.so"),
    }
    entries = [data_entry(path, data) for path, data in files.items()]
    made = debian_root.linker_cache(entries, "amd64")
    assert made.open is not None
    cache = made.open().read()
    assert b"/opt/near/libnear.so" in cache
    assert b"libfar.so" not in cache


# The lock.

PIN = {
    "name": "evil",
    "version": "1.0",
    "file": "evil-1.0-py3-none-any.whl",
    "size": 10,
    "sha256": "0" * 64,
    "platforms": ["linux/amd64"],
}
PACKAGE = {
    "name": "evil",
    "version": "1.0",
    "architecture": "amd64",
    "file": "pool/main/e/evil/evil_1.0_amd64.deb",
    "size": 10,
    "sha256": "0" * 64,
    "role": "base",
}


def toml(value: object) -> str:
    """Write a value in TOML, which is JSON but for its tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {toml(item)}' for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def lock(**changes: object) -> str:
    """Write a lock, with changed keys of its tables: `wheel_size`, `debian_suite`, `inputs`."""
    base: dict[str, Any] = {
        "platform": "linux/amd64",
        "suite": "bookworm",
        "architecture": "amd64",
        "timestamp": "20261120T143000Z",
    }
    wheels, package = dict(PIN), dict(PACKAGE)
    top: dict[str, Any] = {
        "version": 1,
        "made-by": {"packager": "0.1.0"},
        "inputs": {"base": "debian:bookworm", "platforms": ["linux/amd64"]},
    }
    tables = {"wheel": wheels, "package": package, "debian": base}
    for key, value in changes.items():
        table, _, inner = key.partition("_")
        if inner:
            tables[table][inner] = value
        else:
            top[key.replace("made", "made-by")] = value
    top.setdefault("wheel", [wheels])
    top.setdefault("debian", [{**base, "package": [package]}])
    return "".join(f"{key} = {toml(value)}\n" for key, value in top.items())


IMAGE: dict[str, Any] = {
    "platform": "linux/amd64",
    "manifest": "0" * 64,
    "python": "3.11.2",
    "glibc": 36,
    "prefix": "usr",
    "env": [],
    "labels": {},
    "layer": [{"sha256": "0" * 64, "size": 1, "diff_id": "0" * 64}],
}


def read_lock(root: Path, content: str | bytes) -> lockfile.Lock:
    (root / lockfile.FILE).write_bytes(content.encode() if isinstance(content, str) else content)
    return lockfile.read(root)


LOCKS: dict[str, tuple[str | bytes, str]] = {
    "size beyond any disk": (lock(wheel_size=10**30), "evil: size is not a number of bytes"),
    "negative size": (lock(package_size=-1), "evil: size is not a number of bytes"),
    "size that is NaN": (lock(wheel_size=float("nan")), "evil: size is not a number"),
    "size that is infinite": (lock(wheel_size=float("inf")), "evil: size is not a number"),
    "size that is true": (lock(wheel_size=True), "evil: size is not a number of bytes"),
    "size of 5000 digits": (lock(wheel_size=10).replace("10", "9" * 5000), "not valid TOML"),
    "sha256 with a newline": (lock(wheel_sha256="0" * 63 + "\n"), "sha256 is not one word"),
    "sha256 in capitals": (lock(wheel_sha256="A" * 64), "sha256 is not 64 hex digits"),
    "wheel out of its folder": (lock(wheel_file="../x-1-py3-none-any.whl"), "file leads out"),
    "wheel that is none": (lock(wheel_file="evil.tar.gz"), "InvalidWheelFilename"),
    "package out of the archive": (lock(package_file="/etc/passwd"), "file leads out"),
    "name with an escape": (lock(package_name="\x1b[2J"), "name is not one word"),
    "unknown role": (lock(package_role="root"), "role is neither base nor extra"),
    "unknown platform of a wheel": (lock(wheel_platforms=["z/os"]), "platforms is not a list of"),
    "platforms that are text": (lock(wheel_platforms="linux/amd64"), "platforms is not a list"),
    "unknown platform": (lock(debian_platform="z/os"), "KeyError: 'z/os'"),
    "unknown suite": (lock(debian_suite="sid"), "'sid' for 'amd64' is no base"),
    "another machine": (lock(debian_architecture="arm64"), "for 'arm64' is no base"),
    "moment that is none": (lock(debian_timestamp="now"), "time data 'now'"),
    "unknown key": (lock(wheel_url="https://example.org"), "keys .*'url'"),
    "wheels that are a number": (lock(wheel=3), "TypeError"),
    "wheel that is a number": (lock(wheel=[3]), "TypeError: wheel or package is no table"),
    "base that is a list": (lock(debian=[[]]), "TypeError"),
    "base twice": (lock(debian=[]).replace("[]", "[]"), "nothing is locked for linux/amd64"),
    "two bases": (lock(image=[IMAGE]), "a platform has two bases"),
    "image twice": (lock(image=[IMAGE] * 2, package_role="extra"), "a platform occurs twice"),
    "inputs that are text": (lock(inputs="x"), "inputs is no table"),
    "inputs without platforms": (lock(inputs={}), "KeyError: 'platforms'"),
    "maker that is text": (lock(made="x"), "made-by is no table"),
    "other version by nobody": (lock(version=99, made="x"), "format version 99"),
    "no inputs": ("version = 1\n", "KeyError: 'inputs'"),
    "deep nesting": ("x = " + "[" * 100_000, "nested too deeply"),
    "deep tables": ("x = " + "{a = " * 10_000, "nested too deeply"),
    "UTF-16": (lock().encode("utf-16"), "not valid TOML: it is not UTF-8"),
    "latin-1": (b"x = '\xe9'", "not valid TOML: it is not UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf" + lock().encode(), "not valid TOML"),
    "NUL": (b"x = 1\0", "not valid TOML"),
    "too large": (b"#" * (files.MOST_TOML + 1), f"more than {files.MOST_TOML} bytes"),
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_hostile_lock_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, says = LOCKS[name]
    with pytest.raises(ClaimError, match=rf"(?s)^packager\.lock: .*({says})"):
        read_lock(tmp_path, content)


def test_the_same_lock_without_malice_is_taken(tmp_path: Path) -> None:
    read = read_lock(tmp_path, lock())
    assert [(pin.file, pin.size) for pin in read.wheels] == [("evil-1.0-py3-none-any.whl", 10)]
    assert read.debian["linux/amd64"].packages[0].name == "evil"
    on_top = read_lock(tmp_path, lock(image=[IMAGE], package_role="extra"))
    assert on_top.platforms == ["linux/amd64"]


def test_a_lock_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / lockfile.FILE).mkdir()
    with pytest.raises(ClaimError, match=r"^packager\.lock: damaged.*it is no file"):
        lockfile.read(tmp_path)


# Examples and settings.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    write_tiny(folder)
    return folder


def read_examples(root: Path) -> claims.Examples | None:
    loaded = project.load(root)
    return claims.read_examples(loaded, tree.read_model(loaded).digest)


def signed(**changes: object) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP64", "shape": [-1], **changes}
    outputs = [{"name": "y", "datatype": "FP64", "shape": [-1]}]
    return {"signature": {"inputs": [tensor], "outputs": outputs}}


def given(value: object, **changes: object) -> dict[str, Any]:
    return {"inputs": {"x": [1.0, value, 2.0]}, **(signed(**changes) if changes else {})}


DEEP: Any = 1.0
for _ in range(500):
    DEEP = [DEEP]

EXAMPLES: dict[str, tuple[dict[str, Any] | Callable[[bytes], bytes], str]] = {
    "huge number": (given(10**400), "inputs: row 2, column 'x': .* is too large for FP64"),
    "huge number for FP32": (given(1e39, datatype="FP32"), "too large for FP32"),
    "huge whole number": (given(2**63, datatype="INT64"), "row 1|row 2, column 'x'"),
    "number that overflows": (lambda text: text.replace(b"-2.0", b"1e999"), "not a finite number"),
    "number of 5000 digits": (lambda text: text.replace(b"-2.0", b"9" * 5000), "cannot be read"),
    "NaN": (given(float("nan")), "NaN is no JSON; null says missing"),
    "NaN in outputs": ({"outputs": {"y": [1, float("nan"), 2]}}, "NaN is no JSON"),
    "infinity": (given(float("-inf")), "-Infinity is no JSON"),
    "null where nothing may be missing": (given(None), "row 2, column 'x': is missing, and the"),
    "text for a number": (given("1"), "row 2, column 'x': '1' is not a number"),
    "true for a number": (given(True), "row 2, column 'x': True is not a number"),
    "list for a number": (given([1.0]), r"row 2, column 'x': \[1\.0\] is not a number"),
    "wrong shape": (given([1.0], shape=[-1, 2]), "row 1, column 'x': 1.0 is not a list of 2"),
    "wrong shape of an output": (
        {"outputs": {"y": [1.0, [2.0], 3.0]}},
        "outputs: row 2, column 'y'",
    ),
    "deep value": (given(DEEP), "row 2, column 'x': .* is not a number"),
    "deep shape": (signed(shape=[-1] * 100), "a shape is at most 32 whole numbers"),
    "shape of a fraction": (signed(shape=[-1, 1.5]), "a shape is at most"),
    "shape that is negative": (signed(shape=[-1, -2]), "a shape is at most"),
    "shape that is a number": (signed(shape=3), "not a file of recorded examples"),
    "shape that is endless": (signed(shape=[-1, float("inf")]), "Infinity is no JSON"),
    "datatype that is a list": (signed(datatype=[]), "not a file of recorded examples"),
    "name that is a number": (signed(name=3), "is not an object with a name"),
    "column twice": (
        {"signature": {"inputs": [signed()["signature"]["inputs"][0]] * 2, "outputs": []}},
        "one column twice|columns are not those",
    ),
    "columns that are pairs": ({"inputs": [["x", [1, 2, 3]]]}, "are objects of columns"),
    "rows that are text": ({"data": {"rows": "3", "source": "", "license": ""}}, "data.rows is"),
    "rows that are a fraction": (
        {"data": {"rows": 3.5, "source": "", "license": ""}},
        "data.rows is 3.5, not a whole number",
    ),
    "UTF-16": (lambda text: text.decode().encode("utf-16"), "cannot be read as JSON: 'utf-8'"),
    "UTF-32": (lambda text: text.decode().encode("utf-32"), "cannot be read as JSON"),
    "latin-1": (lambda text: text.replace(b"made up", b"\xe9"), "cannot be read as JSON: 'utf-8'"),
    "byte order mark": (lambda text: b"\xef\xbb\xbf" + text, "cannot be read as JSON.*BOM"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_hostile_examples_are_refused_by_name(name: str, root: Path) -> None:
    change, says = EXAMPLES[name]
    path = root / "models/examples.json"
    if callable(change):
        changed = change(path.read_bytes())
        assert changed != path.read_bytes()
    else:
        changed = json.dumps(json.loads(path.read_text()) | change).encode()
    path.write_bytes(changed)
    with pytest.raises(UsageError, match=rf"(?s)^models/examples\.json: .*({says})"):
        read_examples(root)


@pytest.mark.parametrize(
    "change",
    [given(None, nullable=True), {"outputs": {"y": [1.0, None, 3]}}],
    ids=["null where a value may be missing", "null for what a model gave that is not finite"],
)
def test_a_missing_value_is_legal_where_the_signature_says_so(
    change: dict[str, Any], root: Path
) -> None:
    path = root / "models/examples.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    examples = read_examples(root)
    assert examples is not None
    assert b"null" in examples.data


def test_examples_too_large_to_read_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "MOST_JSON", 100)
    with pytest.raises(UsageError, match="it has more than 100 bytes"):
        read_examples(root)


def link_model(root: Path) -> None:
    (root.parent / "secret").write_text("secret")
    (root / "models/model.txt").unlink()
    (root / "models/model.txt").symlink_to("../../secret")


def link_folder(root: Path) -> None:
    (root / "models").rename(root.parent / "elsewhere")
    (root / "models").symlink_to(root.parent / "elsewhere")


def link_examples(root: Path) -> None:
    (root / "models/examples.json").rename(root.parent / "examples.json")
    (root / "models/examples.json").symlink_to("../../examples.json")


def link_circle(root: Path) -> None:
    (root / "models/model.txt").unlink()
    (root / "models/model.txt").symlink_to("model.txt")


def pipe(root: Path) -> None:
    (root / "models/model.txt").unlink()
    os.mkfifo(root / "models/model.txt")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (link_model, r"models/model\.txt is a link out of the repository"),
        (link_folder, r"models/model\.txt is a link out of the repository"),
        (link_examples, r"models/examples\.json is a link out of the repository"),
        (link_circle, r"models/model\.txt does not exist"),
        (pipe, r"models/model\.txt is"),
    ],
    ids=["model", "model's folder", "examples", "circle", "pipe"],
)
def test_what_is_not_in_the_repository_does_not_enter_an_image(
    change: Callable[[Path], None], says: str, root: Path
) -> None:
    change(root)
    with pytest.raises(UsageError, match=says):
        read_examples(root)


def setting(line: str) -> Callable[[bytes], bytes]:
    return lambda text: text.replace(b'model = "models/model.txt"', line.encode())


SETTINGS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "UTF-16": (lambda text: text.decode().encode("utf-16"), "not valid TOML: it is not UTF-8"),
    "latin-1": (lambda text: text.replace(b"A factor", b"\xe9"), "it is not UTF-8"),
    "byte order mark": (lambda text: b"\xef\xbb\xbf" + text, "not valid TOML"),
    "deep nesting": (lambda text: text + b"x = " + b"[" * 100_000, "nested too deeply"),
    "number of 5000 digits": (lambda text: text + b"x = " + b"9" * 5000, "not valid TOML"),
    "too large": (lambda text: text + b"#" * files.MOST_TOML, "more than 4194304 bytes"),
    "path with NUL": (setting('model = "a\\u0000b"'), "tool.packager.model: must be a path that"),
    "path of two lines": (setting('model = "a\\nb"'), "tool.packager.model: must be a path that"),
    "long path": (setting(f'model = "{"a" * 300}"'), "tool.packager.model: must be a path that"),
    "deep requirement": (
        lambda text: text.replace(
            b"dependencies = []", f'dependencies = ["a; {"(" * 20_000}"]'.encode()
        ),
        "project.dependencies: 'a; .* is no requirement",
    ),
    "endless version": (
        lambda text: text.replace(b'"0.1.0"', b'"' + b"9" * 5000 + b'"'),
        "project.version",
    ),
    "endless python": (
        lambda text: text.replace(b">=3.11", b">=" + b"9" * 5000),
        "project.requires-python",
    ),
    "endless packager": (
        setting(f'model = "models/model.txt"\nrequires = "=={"9" * 5000}"'),
        "tool.packager.requires",
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_settings_are_refused_by_name(name: str, root: Path) -> None:
    change, says = SETTINGS[name]
    path = root / "pyproject.toml"
    changed = change(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(PackagerError, match=rf"(?s)pyproject\.toml.*({says})"):
        project.load(root)


# Requirements, names of images, lists of packages, libraries.


@pytest.mark.parametrize(
    "line",
    [
        b"a; " + b"(" * 20_000,
        b"a==" + b"9" * 5000 + b" --hash=sha256:00",
        b"a==1.* --hash=sha256:00",
        b"a==1,==2 --hash=sha256:00",
        b"\xff",
        "a==1 --hash=sha256:00".encode("utf-16"),
    ],
    ids=["deep", "endless version", "any version", "two versions", "latin-1", "UTF-16"],
)
def test_hostile_requirements_are_refused_by_name(line: bytes) -> None:
    with pytest.raises(ClaimError, match=r"^requirements\.txt: .* is not pinned and hashed"):
        resolve.read_requirements(line, "requirements.txt")


@pytest.mark.parametrize(
    "name", ["", ":", "/", "a//b", "a:", "../a", "a b", "A", "a\n", "é", "a" * 300, "a-" * 50_000]
)
def test_a_hostile_name_of_an_image_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="names no image"):
        Reference.parse(name)


@pytest.mark.parametrize(
    ("stanza", "says"),
    [
        ("Package: evil\n", "damaged at 'evil'"),
        ("Package: evil\nVersion: not a version\n", "damaged at 'evil'"),
        ("Package: evil\nVersion: 1\nDepends: b (~ 1)\n", r"evil needs b \(~ 1\)"),
        ("Package: evil\nVersion: 1\nDepends: b (=> 1)\n", "evil has a Depends that is no list"),
        ("Package: evil\nVersion: 1\nDepends: b (>= a:b)\n", "evil has a Depends that is no list"),
    ],
    ids=["no version", "wrong version", "no comparison", "unknown comparison", "wrong bound"],
)
def test_a_hostile_list_of_packages_is_refused_by_name(stanza: str, says: str) -> None:
    index = debian_index.Index([f"{stanza}\n\nPackage: b\nVersion: 1\n".encode()])
    with pytest.raises(PackagerError, match=says):
        debian_index.closure(index, ["evil"], {})


def table_in_a_circle() -> bytes:
    # 65,534 program headers, all of them the first.
    data = bytearray(shared(["libc.so.6"]))
    struct.pack_into("<HH", data, 54, 0, 0xFFFE)
    return bytes(data)


def names_without_end() -> bytes:
    data = bytearray(shared(["libc.so.6"]))
    return bytes(data).rstrip(b"\0") + b"A" * (elf._LONGEST_READ * 16)


@pytest.mark.parametrize(
    "make", [table_in_a_circle, names_without_end], ids=["table in a circle", "endless name"]
)
def test_a_hostile_library_takes_little_time_and_memory(make: Callable[[], bytes]) -> None:
    found = elf.needed(io.BytesIO(make()))
    assert found is None or max(map(len, found.needed), default=0) <= elf._LONGEST_READ


# What a user sees, and what is written down.


@pytest.mark.parametrize("name", ["lock", "examples"])
def test_a_user_gets_one_message_and_no_traceback(name: str, tiny: Tiny) -> None:
    path = tiny.root / {"lock": lockfile.FILE, "examples": "models/examples.json"}[name]
    path.write_bytes(path.read_bytes().decode().encode("utf-16"))
    run = tiny.run("build", "--no-load", "-o", "image.tar")
    assert run.returncode in {ClaimError.exit_code, UsageError.exit_code}
    assert run.stderr.count("error:") == 1
    assert "Traceback" not in run.stderr
    assert not (tiny.root / "image.tar").exists()


def test_every_limit_is_in_the_docs() -> None:
    text = (REPOSITORY / "docs/limits.md").read_text()
    for number in (
        f"{tar.MOST_ENTRIES:,}",
        f"{tar.MOST_TIMES} times",
        f"{tar.SPARE >> 20} MiB",
        f"{tar.MOST_TEXT >> 20} MiB",
        f"{tar.LONGEST_PATH:,}",
        f"{tar.LONGEST_NAME}",
        f"{tar.DEEPEST_PATH} parts",
        f"{deb._XZ_MEMORY >> 20} MiB",
        f"{files.MOST_TOML >> 20} MiB",
        f"{facts.MOST_JSON >> 20} MiB",
        f"{facts.MOST_DIMENSIONS} dimensions",
        f"{elf._LONGEST_READ >> 10} KiB",
    ):
        assert number in text
