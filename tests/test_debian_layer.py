"""Packages become a base that works, without one of their scripts having run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import itertools
import json
import lzma
import os
import re
import secrets
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from debian.debfile import DebFile
from hypothesis import given
from hypothesis import strategies as st

from packager.errors import ClaimError
from packager.layers import deb, debian_root, ldcache, tar
from packager.layers.tar import Entry, data_entry
from packager.lock import debian
from packager.lock.debian import DebPin

pytest_plugins = ["debian_fixtures"]

EVERY = [(suite, machine) for suite in debian.SUITES for machine in ("amd64", "arm64")]
SEALED = {
    "network_mode": "none",
    "read_only": True,
    "tmpfs": {"/tmp": ""},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "user": "65532",
    "environment": {"LANG": "C.UTF-8", "HOME": "/tmp"},
}


def write(entries, path: Path) -> Path:
    with path.open("wb") as out:
        tar.write(tar.merge(entries), out)
    return path


@pytest.fixture(scope="session")
def base(fetch, tmp_path_factory):
    """The tar of a base, assembled once per suite and machine."""
    made = {}

    def assemble(suite, architecture):
        if (suite, architecture) not in made:
            _, debs = fetch(suite, architecture)
            scratch = tmp_path_factory.mktemp("scratch")
            entries = deb.base_entries(debs, python=debian.SUITES[suite], scratch=scratch)
            made[suite, architecture] = write(entries, scratch / "base.tar")
        return made[suite, architecture]

    return assemble


def members(layer: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(layer) as archive:
        return {one.name: one for one in archive}


def content(layer: Path, name: str) -> bytes:
    with tarfile.open(layer) as archive:
        return archive.extractfile(name).read()


# The whole base.


@pytest.mark.parametrize(("suite", "architecture"), EVERY)
def test_two_assemblies_are_one_tar(base, fetch, tmp_path, suite, architecture):
    _, debs = fetch(suite, architecture)
    entries = deb.base_entries(debs[::-1], python=debian.SUITES[suite], scratch=tmp_path)
    again = write(entries, tmp_path / "again.tar")
    assert again.read_bytes() == base(suite, architecture).read_bytes()


def real(found: dict[str, tarfile.TarInfo], path: str) -> str:
    """Follow links as the kernel does, by another way than the code under test."""
    for _ in range(40):
        parts = os.path.normpath(path).strip("/").split("/")
        for end in range(1, len(parts) + 1):
            here = found.get("/".join(parts[:end]))
            if here is not None and here.issym():
                path = str(Path("/", *parts[: end - 1], here.linkname, *parts[end:]))
                break
        else:
            return "/".join(parts)
    raise AssertionError(f"links in a circle: {path}")


@pytest.mark.parametrize(("suite", "architecture"), EVERY)
def test_a_base_holds_together(base, suite, architecture):
    found = members(base(suite, architecture))
    tops = {name for name, one in found.items() if "/" not in name and one.issym()}
    assert tops == {"bin", "lib", "sbin"} | ({"lib64"} if architecture == "amd64" else set())
    dangling = [
        name for name, one in found.items() if one.issym() and real(found, f"/{name}") not in found
    ]
    assert dangling == []
    assert {one.mode for one in found.values() if one.isfile()} == {0o644, 0o755}
    special = {name: one.mode for name, one in found.items() if one.isdir() and one.mode != 0o755}
    assert special == {
        "tmp": 0o1777,
        "var/tmp": 0o1777,
        "run/lock": 0o1777,
        "root": 0o700,
        "etc/ssl/private": 0o700,
        "var/cache/ldconfig": 0o700,
    }
    assert sum(one.size for one in found.values()) < 90e6


def test_licences_and_the_utf8_locale_stay_and_manuals_go(base, fetch):
    pins, _ = fetch("bookworm", "amd64")
    found = members(base("bookworm", "amd64"))
    for pin in pins.packages:
        assert real(found, f"/usr/share/doc/{pin.name}/copyright") in found, pin.name
    assert "usr/lib/locale/C.utf8/LC_CTYPE" in found
    documents = [
        name for name in found if name.startswith("usr/share/doc/") and found[name].isfile()
    ]
    assert {Path(name).name for name in documents} == {"copyright"}
    for gone in ("man", "info", "locale", "lintian", "bash-completion"):
        assert f"usr/share/{gone}" not in found


def test_scanners_see_every_package(base, fetch):
    pins, _ = fetch("bookworm", "amd64")
    folder = "var/lib/dpkg/status.d"
    with tarfile.open(base("bookworm", "amd64")) as archive:
        for pin in pins.packages:
            control = archive.extractfile(f"{folder}/{pin.name}").read().decode()
            assert f"Package: {pin.name}\n" in control
            assert f"Version: {pin.version}\n" in control
        # What the record says of a file is true of the file.
        lines = archive.extractfile(f"{folder}/bash.md5sums").read().decode().splitlines()
        sums = {path: md5 for md5, path in (line.split(maxsplit=1) for line in lines)}
        bash = archive.extractfile("usr/bin/bash").read()
    assert sums["bin/bash"] == hashlib.md5(bash, usedforsecurity=False).hexdigest()


# The base in an engine.


@pytest.fixture(scope="module")
def client(engine):
    """The Docker SDK's own client, for what no user of packager does."""
    return engine.client


@pytest.fixture
def load(client, tmp_path):
    """Load layers as an image without a name, gone after the test."""
    loaded = []

    def make(*layers: Path):
        config = {
            "architecture": "amd64",
            "os": "linux",
            # No two are one: another worker may be running, or removing, the same layers.
            "config": {"Labels": {"test": secrets.token_hex(8)}},
            "rootfs": {"type": "layers", "diff_ids": []},
        }
        archive = tmp_path / "image.tar"
        with tarfile.open(archive, "w") as out:
            names = []
            for number, layer in enumerate(layers):
                with layer.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                config["rootfs"]["diff_ids"].append(f"sha256:{digest}")
                names.append(f"{number}.tar")
                out.add(layer, names[-1])
            for name, data in {
                "config.json": config,
                "manifest.json": [{"Config": "config.json", "RepoTags": None, "Layers": names}],
            }.items():
                body = json.dumps(data).encode()
                info = tarfile.TarInfo(name)
                info.size = len(body)
                out.addfile(info, io.BytesIO(body))
        with archive.open("rb") as stream:
            [image] = client.images.load(stream)
        loaded.append(image)
        return image

    yield make
    for image in loaded:
        client.images.remove(image.id, force=True)


def run(client, image, *command: str, **options) -> str:
    options = options or SEALED
    return client.containers.run(image.id, list(command), remove=True, **options).decode()


PROBE = """
import bz2, ctypes, ctypes.util, curses, decimal, lzma, readline, sqlite3, ssl, uuid, zlib
import datetime, json, locale, os, pwd, socket, sys, time, zoneinfo
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "libc": ctypes.util.find_library("c"),
    "c++": ctypes.util.find_library("stdc++"),
    "loaded": bool(ctypes.CDLL("libstdc++.so.6")),
    "authorities": ssl.create_default_context().cert_store_stats()["x509_ca"],
    "locale": locale.setlocale(locale.LC_ALL, ""),
    "encoding": locale.getpreferredencoding(),
    "zone": time.tzname[0],
    "berlin": str(zoneinfo.ZoneInfo("Europe/Berlin").utcoffset(datetime.datetime(2020, 7, 1))),
    "user": pwd.getpwuid(os.getuid()).pw_name,
    "sql": sqlite3.connect(":memory:").execute("select 6 * 7").fetchone()[0],
    "https": socket.getservbyname("https"),
    "site": [path for path in sys.path if path.startswith("/usr/local")],
}))
"""


@pytest.mark.parametrize("suite", debian.SUITES)
def test_a_base_works_sealed(base, load, client, suite):
    image = load(base(suite, "amd64"))
    version = debian.SUITES[suite]
    said = run(client, image, "/bin/sh", "-c", "echo ok; whoami; which awk; awk 'BEGIN{print 1}'")
    assert said.split() == ["ok", "nonroot", "/usr/bin/awk", "1"]
    assert json.loads(run(client, image, f"/usr/bin/python{version}", "-c", PROBE)) == {
        "version": version,
        "libc": "libc.so.6",
        "c++": "libstdc++.so.6",
        "loaded": True,
        "authorities": pytest.approx(150, abs=49),
        "locale": "C.UTF-8",
        "encoding": "UTF-8",
        "zone": "UTC",
        "berlin": "2:00:00",
        "user": "nonroot",
        "sql": 42,
        "https": 443,
        "site": [f"/usr/local/lib/python{version}/dist-packages"],
    }


def entries_of(cache: bytes) -> list[tuple[int, str, str, int, int]]:
    magic, count, _, endian = struct.unpack_from("<20sIIB", cache)
    assert (magic, endian) == (b"glibc-ld.so.cache1.1", 2)

    def text(offset: int) -> str:
        return cache[offset : cache.index(b"\0", offset)].decode()

    rows = (struct.unpack_from("<iIIIQ", cache, 48 + 24 * row) for row in range(count))
    return [(flags, text(key), text(value), os_, cpu) for flags, key, value, os_, cpu in rows]


def ldconfig(client, image) -> bytes:
    """Let the image's own ldconfig make the cache anew."""
    script = "rm /etc/ld.so.cache && ldconfig && base64 /etc/ld.so.cache"
    return base64.b64decode(run(client, image, "/bin/sh", "-c", script, network_mode="none"))


@pytest.mark.parametrize("suite", debian.SUITES)
def test_the_linkers_cache_is_what_ldconfig_would_write(base, load, client, suite):
    image = load(base(suite, "amd64"))
    ours = content(base(suite, "amd64"), "etc/ld.so.cache")
    assert len(entries_of(ours)) > 40
    assert entries_of(ours) == entries_of(ldconfig(client, image))
    listed = run(client, image, "/sbin/ldconfig", "-p")
    assert "libstdc++.so.6 (libc6,x86-64) => /lib/x86_64-linux-gnu/libstdc++.so.6\n" in listed


def test_packages_on_top_bring_their_alternatives_and_a_new_cache(
    fetch, base, load, client, tmp_path
):
    _, debs = fetch("bookworm", "amd64", "libgomp1", "libopenblas0", "gawk")
    below = [one for one in debs if one[0].role == "base"]
    above = [one for one in debs if one[0].role == "extra"]
    entries = deb.extra_entries(below, above, scratch=tmp_path)
    layer = write(entries, tmp_path / "extra.tar")
    found = members(layer)
    name = "libblas.so.3-x86_64-linux-gnu"
    assert found["usr/lib/x86_64-linux-gnu/libblas.so.3"].linkname == f"/etc/alternatives/{name}"
    assert "openblas-pthread" in found[f"etc/alternatives/{name}"].linkname
    assert found["etc/alternatives/awk"].linkname == "/usr/bin/gawk"
    assert "etc/alternatives/which" not in found
    image = load(base("bookworm", "amd64"), layer)
    probe = """
import ctypes, ctypes.util
print(ctypes.util.find_library("gomp"), ctypes.util.find_library("blas"))
blas = ctypes.CDLL("libblas.so.3")
blas.cblas_ddot.restype = ctypes.c_double
row = (ctypes.c_double * 3)(1, 2, 3)
print(blas.cblas_ddot(3, row, 1, row, 1))
"""
    assert run(client, image, "/usr/bin/python3", "-c", probe).split() == [
        "libgomp.so.1",
        "libblas.so.3",
        "14.0",
    ]
    assert "GNU Awk" in run(client, image, "/usr/bin/awk", "--version")
    ours = content(layer, "etc/ld.so.cache")
    assert entries_of(ours) == entries_of(ldconfig(client, image))


# Single packages, made up.


def ar(members: Mapping[str, bytes]) -> bytes:
    """Make an ar archive: the outer shell of a package, deb(5)."""
    out = [b"!<arch>\n"]
    for name, data in members.items():
        out.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        out.append(data + b"\n" * (len(data) % 2))
    return b"".join(out)


def member(name: str, data: bytes = b"", mode: int = 0o644, kind: bytes = tarfile.REGTYPE, to=""):
    """Make a member of a package's content."""
    info = tarfile.TarInfo(f"./{name}")
    info.size, info.mode, info.type, info.linkname = len(data), mode, kind, to
    return info, data


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_deb(folder: Path, name: str, *members, data: str = "data.tar.xz") -> tuple[DebPin, Path]:
    """Make a small package out of members, and the pin that names it."""
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: amd64\n"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": lzma.compress(packed(member("control", control.encode()))),
        data: lzma.compress(packed(*members)),
    }
    path = folder / f"{name}.deb"
    path.write_bytes(ar(parts))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = f"pool/main/{name[0]}/{name}/{name}_1.0_amd64.deb"
    return DebPin(name, "1.0", "amd64", file, path.stat().st_size, digest, "base"), path


def entries(tmp_path, *members, **options) -> dict[str, Entry]:
    pair = make_deb(tmp_path, "made-up", *members, **options)
    (tmp_path / "scratch").mkdir(exist_ok=True)
    [read] = deb._read([pair], tmp_path / "scratch")
    return {entry.path: entry for entry in read.entries}


def test_paths_move_to_merged_usr_and_links_stay_as_they_are(tmp_path):
    found = entries(
        tmp_path,
        member("bin", mode=0o755, kind=tarfile.DIRTYPE),
        member("bin/tool", b"#!", 0o755),
        member("lib64/ld.so", kind=tarfile.SYMTYPE, to="/lib/x/ld.so"),
        member("usr/lib/a", kind=tarfile.SYMTYPE, to="../b"),
        member("sbin", kind=tarfile.SYMTYPE, to="usr/sbin"),
    )
    assert set(found) == {"usr/bin", "usr/bin/tool", "usr/lib64/ld.so", "usr/lib/a"}
    assert found["usr/lib64/ld.so"].target == "/lib/x/ld.so"
    assert found["usr/lib/a"].target == "../b"


def test_rights_that_a_sealed_container_was_denied_cannot_be_gained(tmp_path):
    found = entries(
        tmp_path,
        member("usr/bin/su", b"x", 0o4755),
        member("usr/bin/wall", b"x", 0o2755),
        member("etc/shared", b"x", 0o664),
        member("etc/secret", b"x", 0o600),
        member("var/local", mode=0o2775, kind=tarfile.DIRTYPE),
        member("var/drop", mode=0o1777, kind=tarfile.DIRTYPE),
    )
    assert {path: oct(entry.mode) for path, entry in found.items()} == {
        "usr/bin/su": "0o755",
        "usr/bin/wall": "0o755",
        "etc/shared": "0o644",
        "etc/secret": "0o600",
        "var/local": "0o755",
        "var/drop": "0o1777",
    }


@pytest.mark.parametrize("order", list(itertools.permutations(["usr/c", "usr/b", "bin/a"])))
def test_the_path_that_sorts_first_carries_the_content_of_hard_links(tmp_path, order):
    first, *others = order
    found = entries(
        tmp_path,
        member(first, b"same", 0o755),
        *(member(path, kind=tarfile.LNKTYPE, to=f"./{first}") for path in others),
    )
    layer = write(found.values(), tmp_path / "layer.tar")
    with tarfile.open(layer) as archive:
        assert [one.name for one in archive if one.isreg()] == ["usr/b"]
        assert {archive.extractfile(path).read() for path in found} == {b"same"}
        assert len(found) == 3


def test_a_hard_link_to_a_manual_page_that_is_left_out_keeps_its_content(tmp_path):
    found = entries(
        tmp_path,
        member("usr/share/man/page", b"text"),
        member("usr/share/kept", kind=tarfile.LNKTYPE, to="./usr/share/man/page"),
    )
    assert found["usr/share/kept"].open().read() == b"text"
    assert set(found) == {"usr/share/kept"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path, kind):
    with pytest.raises(ClaimError, match="Debian's made-up holds a device or pipe: /dev/thing"):
        entries(tmp_path, member("dev/thing", kind=kind))


def test_a_compression_that_debian_does_not_use_is_refused(tmp_path):
    with pytest.raises(ClaimError, match=r"compressed in a way that Debian does not use: \.zst"):
        entries(tmp_path, data="data.tar.zst")


def test_gzip_is_read_as_well(tmp_path):
    pin, path = make_deb(tmp_path, "made-up", member("etc/a", b"1"))
    with DebFile(path) as read:
        parts = {name: read.getmember(name).read() for name in read.getnames()}
    parts["data.tar.gz"] = gzip.compress(lzma.decompress(parts.pop("data.tar.xz")))
    path.write_bytes(ar(parts))
    [read] = deb._read([(pin, path)], tmp_path)
    assert read.entries[0].open().read() == b"1"


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"no package"])
def test_a_damaged_package_is_refused_by_name(tmp_path, damage):
    pin, path = make_deb(tmp_path, "made-up", member("etc/a", os.urandom(5000)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ClaimError, match=r"pool/main/m/made-up/.*cannot be read"):
        deb._read([(pin, path)], tmp_path)


def test_a_package_on_top_may_not_replace_a_file_of_the_base(tmp_path):
    below = make_deb(tmp_path, "below", member("etc/a", b"1"))
    above = make_deb(tmp_path, "above", member("etc/a", b"2"))
    with pytest.raises(ClaimError, match="Debian's below and Debian's above both own /etc/a"):
        deb.extra_entries([below], [above], scratch=tmp_path)


# Alternatives, update-alternatives(1).


def alternatives(entries: list[str], **scripts: str) -> dict[str, str]:
    made = debian_root.alternatives(scripts, [data_entry(path, b"") for path in entries])
    return {entry.path: entry.target for entry in made}


def test_the_highest_priority_wins_and_its_slaves_with_it():
    scripts = {
        "low": "update-alternatives --install /usr/bin/x x /usr/bin/low 5 \\\n"
        "  --slave /usr/bin/y y /usr/bin/low",
        "high": "  update-alternatives --quiet --install /bin/x x /usr/bin/high 10 \\\n"
        "  --slave /usr/share/man/x.1.gz x.1.gz /usr/share/man/high.1.gz || true",
    }
    assert alternatives(["usr/bin/low", "usr/bin/high"], **scripts) == {
        "bin/x": "/etc/alternatives/x",
        "etc/alternatives/x": "/usr/bin/high",
    }
    assert alternatives(["usr/bin/low"], **scripts) == {
        "usr/bin/x": "/etc/alternatives/x",
        "etc/alternatives/x": "/usr/bin/low",
        "usr/bin/y": "/etc/alternatives/y",
        "etc/alternatives/y": "/usr/bin/low",
    }


def test_what_is_not_an_installation_is_no_alternative():
    script = (
        "# update-alternatives --install $a\n"
        "update-alternatives --remove rcp /usr/bin/scp\n"
        "update-alternatives --install /usr/bin/cc cc /usr/bin/gcc 20 \\\n"
        "   #--slave $no\n"
    )
    assert alternatives(["usr/bin/gcc"], gcc=script)["etc/alternatives/cc"] == "/usr/bin/gcc"


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/$name $name /usr/bin/$name.x 10",
        "/usr/bin/x x `which x` 10",
        "/usr/bin/x x /usr/bin/y $priority",
        "/usr/bin/x x /usr/bin/y",
        "/usr/bin/x x /usr/bin/y 10 --slave /usr/bin/z z",
        "'/usr/bin/x x",
    ],
)
def test_an_alternative_that_only_a_shell_understands_is_refused_by_name(command):
    with pytest.raises(ClaimError, match="the Debian package jre registers an alternative"):
        alternatives(["usr/bin/y"], jre=f"update-alternatives --install {command}")


# The linker's cache, and slices of archives.


def libcmp(one: str, two: str) -> int:
    """glibc's _dl_cache_libcmp, told again character by character."""
    a, b = one + "\0", two + "\0"
    i = j = 0
    while a[i] != "\0":
        if a[i] in "0123456789":
            if b[j] not in "0123456789":
                return 1
            left = re.match(r"[0-9]+", a[i:])[0]
            right = re.match(r"[0-9]+", b[j:])[0]
            if int(left) != int(right):
                return int(left) - int(right)
            i, j = i + len(left), j + len(right)
        elif b[j] in "0123456789":
            return -1
        elif a[i] != b[j]:
            return ord(a[i]) - ord(b[j])
        else:
            i, j = i + 1, j + 1
    return ord(a[i]) - ord(b[j])


NAMES = st.lists(st.text("libstdc+-_.so0123456789", min_size=1, max_size=12), max_size=40)


@given(NAMES, st.sampled_from(["amd64", "arm64"]))
def test_the_linkers_bisection_finds_every_library(names, architecture):
    libraries = [ldcache.Library(name, f"/{n}/{name}") for n, name in enumerate(names)]
    found = entries_of(ldcache.write(libraries, architecture))
    assert sorted(row[1:3] for row in found) == sorted((one.name, one.path) for one in libraries)
    for library in libraries:
        low, high, hit = 0, len(found) - 1, None
        while low <= high and hit is None:
            middle = (low + high) // 2
            order = libcmp(library.name, found[middle][1])
            if order == 0:
                hit = middle
            elif order < 0:
                low = middle + 1
            else:
                high = middle - 1
        assert hit is not None
        while hit and libcmp(found[hit - 1][1], library.name) == 0:
            hit -= 1
        # The first of equal names is the one from the folder that was listed first.
        same = [one.path for one in libraries if libcmp(one.name, library.name) == 0]
        assert found[hit][2] == same[0]


@given(st.binary(max_size=200), st.data())
def test_a_slice_reads_like_the_bytes_it_stands_for(tmp_path_factory, data, choose):
    path = tmp_path_factory.getbasetemp() / "sliced"
    path.write_bytes(data)
    start = choose.draw(st.integers(0, len(data)))
    size = choose.draw(st.integers(0, len(data) - start))
    expected = io.BytesIO(data[start : start + size])
    with tar.Slice.open(path, start, size) as stream:
        for _ in range(5):
            offset = choose.draw(st.integers(0, size + 3))
            count = choose.draw(st.integers(-1, size + 3))
            assert stream.seek(offset) == expected.seek(offset)
            assert stream.read(count) == expected.read(count)
        assert stream.seek(0, os.SEEK_END) == size
