"""For any input, each parser of ours gives a value or an error of ours, within bounded memory.

Inputs are valid ones that were damaged: bytes changed, cut, repeated, numbers made huge, values
of a document replaced by any others.  A quick part runs always, fifty times as much with
``-m whole``.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import hashlib
import io
import json
import lzma
import resource
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from conftest import tiny_examples, write_tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_debian_layer import ar, member, packed
from test_elf import shared
from test_hostile import INFO, WHEEL, lock, record

from packager import project
from packager.errors import PackagerError
from packager.files import canonical_json
from packager.layers import deb, debian_root, image_root, tar, wheel
from packager.layers.site import Site
from packager.layers.tar import data_entry
from packager.lock import debian_archive, debian_index, elf, lockfile, registry, resolve
from packager.lock.debian import DebPin
from packager.outputs.opened import damaged, opened
from packager.reference import Reference
from packager.runtime.packager_runtime import facts

QUICK, WHOLE = 60, 3000
MEMORY = 1 << 30


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Let this process take so much more and no more: what wants it fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# How inputs are damaged.

PIECES = st.sampled_from(
    [b"\0", b"\xff" * 8, b"9" * 30, b"-1", b"\n", b"../", b"(", b"[", b"{", b'"']
)


@st.composite
def broken(draw: st.DrawFn, seed: bytes) -> bytes:
    """Change a few bytes of something valid."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        size = draw(st.integers(0, 16))
        new = draw(st.binary(max_size=8) | PIECES)
        match draw(st.sampled_from(["change", "cut", "insert", "repeat", "end"])):
            case "change":
                data[at : at + len(new)] = new
            case "cut":
                del data[at : at + size]
            case "insert":
                data[at:at] = new * draw(st.integers(1, 50))
            case "repeat":
                data[at:at] = data[at : at + 512]
            case "end":
                del data[at + size * 50 :]
    return bytes(data)


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**30), 1e308])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def replaced(draw: st.DrawFn, document: dict[str, Any], values: st.SearchStrategy[Any]) -> Any:
    """Replace, drop or add a value somewhere in a document."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        here: Any = document
        while True:
            keys = sorted(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = here[key]
            if isinstance(inner, dict | list) and inner and draw(st.booleans()):
                here = inner
                continue
            if isinstance(here, dict) and draw(st.integers(0, 5)) == 0:
                del here[key]
            else:
                here[key] = draw(values)
            break
    return document


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Make a tar whose headers say anything, with a right checksum."""
    out = b""
    for _ in range(draw(st.integers(1, 4))):
        info = tarfile.TarInfo("a")
        info.name = draw(st.sampled_from(["a", "./a", "a/b", "b", "/c", "../d", "e\n"]))
        info.linkname = draw(st.sampled_from(["", "a", "./a", "/x", "../y"]))
        info.type = draw(
            st.sampled_from([b"0", b"1", b"2", b"5", b"x", b"g", b"L", b"K", b"S", b"7"])
        )
        info.size = draw(st.integers(-(2**40), 2**62) | st.integers(0, 2048))
        info.mode = draw(st.integers(0, 0o7777))
        content = draw(
            st.binary(max_size=600) | st.sampled_from([b"30 path=\xff\n", b"18 size=-1024\n"])
        )
        out += info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        out += content + b"\0" * (-len(content) % 512)
    return out + b"\0" * draw(st.sampled_from([0, 512, 1024]))


# What is valid, and what reads it.


def a_wheel(changes: dict[str, bytes]) -> bytes:
    points = b"[console_scripts]\nevil = evil:main\n"
    inside = {
        "evil.py": b"x = 1\n",
        "evil-1.0.data/scripts/run": b"#!python\n",
        f"{INFO}/WHEEL": WHEEL,
        f"{INFO}/entry_points.txt": points,
    }
    inside = {**inside, **{name: data for name, data in changes.items() if name in inside}}
    members = {**inside, f"{INFO}/RECORD": changes.get("RECORD", record(inside))}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


CONTENT = packed(
    member("etc/a", b"1" * 700),
    member("etc/b", kind=tarfile.SYMTYPE, to="a"),
    member("etc/c", kind=tarfile.LNKTYPE, to="./etc/a"),
    member("etc/ld.so.conf", b"include /etc/*.conf\n/opt\n"),
)

LAYER = b"".join(tar.chunks(tar.merge([data_entry("é/a", b"1" * 700), data_entry("b", b"")])))


def a_deb(content: bytes, control: bytes = b"Package: evil\n") -> bytes:
    about = packed(member("control", control))
    return ar(
        {
            "debian-binary": b"2.0\n",
            "control.tar.xz": lzma.compress(about),
            "data.tar.xz": lzma.compress(content),
        }
    )


def an_archive() -> bytes:
    layer = packed(member("a", b"1"))
    diff = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": ["evil:1"], "Layers": ["layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        files = {name: config, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


STANZAS = b"""\
Package: evil
Version: 1:2.0-1
Depends: b (>= 1) | c, d
Provides: e (= 1), f
Conflicts: g (<< 3~)

Package: b
Version: 1.0
Breaks: evil (<< 1)

Package: d
Version: 2
"""
RELEASE = b"""\
-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Origin: Debian
Codename: bookworm
Date: Sat, 21 Nov 2026 10:00:00 UTC
-----BEGIN PGP SIGNATURE-----

iQIzBAEBCAAdFiEE
-----END PGP SIGNATURE-----
"""
REQUIREMENTS = (
    b"numpy==2.4.1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11 # via x\nscipy==1.0\n"
)


def read_tar(data: bytes, folder: Path) -> None:
    (folder / "x.tar").write_bytes(data)
    tar.write(tar.merge(tar.read(folder / "x.tar", "x.tar")), io.BytesIO())


def read_wheel(data: bytes, folder: Path) -> None:
    path = folder / "evil-1.0-py3-none-any.whl"
    path.write_bytes(data)
    entries = wheel.wheel_entries(path, path.name, Site.debian("3.11"))
    tar.write(tar.merge(entries), io.BytesIO())


def read_deb(data: bytes, folder: Path) -> None:
    (folder / "evil.deb").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    pin = DebPin("evil", "1", "amd64", "pool/evil.deb", len(data), digest, "base")
    [read] = deb._read([(pin, folder / "evil.deb")], folder)
    debian_root.linker_cache(read.entries, "amd64")
    debian_root.alternatives({"evil": read.postinst}, read.entries)
    tar.write(tar.merge(read.entries), io.BytesIO())


def read_base(data: bytes, folder: Path) -> None:
    (folder / "packed").write_bytes(data)
    with (folder / "layer.tar").open("wb") as out:
        image_root.unpack(folder / "packed", out, "evil:1")
    found = image_root.entries([folder / "layer.tar"] * 2, "evil:1")
    canonical_json([*found, *image_root.library_folders(found)])
    image_root.refuse_taken(found, Site.debian("3.11"), ["evil"], "evil:1")
    offer = project.Target("3.11.2", 36, "usr/local")
    tar.write(tar.merge(image_root.programs(found, offer, "amd64")), io.BytesIO())
    image_root.offered(found, "amd64", "evil:1")


def read_base_config(data: bytes, _: Path) -> None:
    read = registry.config("evil:1", data, "linux/amd64", 1)
    canonical_json([read.diff_ids, read.env, read.labels])


def read_base_manifest(data: bytes, _: Path) -> None:
    registry.manifest("evil:1", data)


def read_index(data: bytes, _: Path) -> None:
    packages = debian_index.closure(debian_index.Index([data]), ["evil"], {})
    debian_index.refuse_conflicts(packages)


def read_release(data: bytes, _: Path) -> None:
    debian_archive._field(data.decode("utf-8", "replace"), "Origin")
    debian_archive._verified("https://example.org/debian", "bookworm", data)


def read_lock(data: bytes, folder: Path) -> None:
    (folder / lockfile.FILE).write_bytes(data)
    read = lockfile.read(folder)
    for platform in read.inputs["platforms"]:
        canonical_json(lockfile.image_inputs(read, platform))


def read_examples(data: bytes, folder: Path) -> None:
    (folder / "examples.json").write_bytes(data)
    facts.read_examples(folder / "examples.json")


def read_image(data: bytes, folder: Path) -> None:
    (folder / "image.json").write_bytes(data)
    facts.read_image(folder)


def read_project(data: bytes, folder: Path) -> None:
    (folder / "pyproject.toml").write_bytes(data)
    project.load(folder)


def read_library(data: bytes, _: Path) -> None:
    elf.needed(io.BytesIO(data))


def read_configuration(data: bytes, _: Path) -> None:
    entries = [data_entry("etc/ld.so.conf", data), data_entry("opt/libx.so", shared(soname="x"))]
    debian_root.linker_cache(entries, "amd64")


def read_script(data: bytes, _: Path) -> None:
    debian_root.alternatives({"evil": data.decode("utf-8", "replace")}, [data_entry("a", b"")])


def read_reference(data: bytes, _: Path) -> None:
    Reference.parse(data.decode("utf-8", "surrogateescape"))


def read_archive(data: bytes, folder: Path) -> None:
    (folder / "image.tar").write_bytes(data)
    assert damaged(opened(str(folder / "image.tar"), folder)) is not None


IMAGE = {
    **dict.fromkeys(("name", "version", "description", "license", "base", "platform"), "x"),
    "format": 1,
    "model": {"path": "model/model.txt", "digest": "sha256:00"},
    "examples": "examples.json",
    "predictor": "tiny.predict:load",
    "trust_pickle": False,
    "python": "3.11",
    "inputs_digest": "sha256:00",
    "packager": "0.1.0",
}
LOCK = tomlkit.parse(lock()).unwrap()
BASED_LOCK = {key: value for key, value in LOCK.items() if key != "debian"} | {
    "image": [
        {
            "platform": "linux/amd64",
            "manifest": "0" * 64,
            "python": "3.12.4",
            "glibc": 36,
            "prefix": "usr/local",
            "env": ["PATH=/bin"],
            "labels": {"maintainer": "evil"},
            "layer": [{"sha256": "0" * 64, "size": 1, "diff_id": "1" * 64}],
        }
    ]
}
PROJECT: dict[str, Any] = {
    "project": {
        "name": "tiny",
        "version": "0.1.0",
        "license": {"text": "MIT"},
        "requires-python": ">=3.11",
        "dependencies": ["numpy>=2; python_version > '3'"],
        "optional-dependencies": {"dev": ["pytest"]},
        "scripts": {"run": "tiny:main"},
        "urls": {"Source": "https://example.org"},
    },
    "tool": {
        "packager": {
            "requires": ">=0",
            "base": "debian:bookworm",
            "platforms": ["linux/amd64"],
            "os-packages": ["libgomp1"],
            "model": "models/model.txt",
            "examples": "models/examples.json",
            "predictor": "tiny.predict:load",
            "code": ["src/tiny"],
            "find-links": ["wheels"],
            "debian-mirror": "https://example.org/debian",
        }
    },
}
# TOML has no null, and a text of it no lone surrogate.
PLAIN = ANYTHING.filter(lambda value: "null" not in json.dumps(value))


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def as_toml(value: dict[str, Any]) -> bytes:
    return tomlkit.dumps(value).encode()


@dataclass(frozen=True)
class Target:
    """A parser, damaged inputs for it, and one that it takes."""

    read: Callable[[bytes, Path], object]
    inputs: st.SearchStrategy[bytes]
    valid: bytes | None


DIGEST = f"sha256:{'0' * 64}"
BASE_CONFIG = {
    "os": "linux",
    "architecture": "amd64",
    "config": {"Env": ["PATH=/bin", "LANG=C"], "Labels": {"maintainer": "evil"}},
    "rootfs": {"diff_ids": [DIGEST]},
}
BASE_MANIFEST = {
    "config": {"digest": DIGEST, "size": 1},
    "layers": [{"digest": DIGEST, "size": 1}],
}
BASE_LAYER = packed(
    member("usr/local/bin/python3.11", b"\x7fELF"),
    member("usr/lib/.wh.gone", b""),
    member("etc/ld.so.conf.d/x.conf", b"/usr/local/lib\n"),
)

TARGETS = {
    "base's layer": Target(read_base, broken(BASE_LAYER) | headers(), None),
    "base's packed layer": Target(read_base, broken(gzip.compress(BASE_LAYER)), None),
    "base's config": Target(
        read_base_config, replaced(BASE_CONFIG, ANYTHING).map(as_json), as_json(BASE_CONFIG)
    ),
    "base's manifest": Target(
        read_base_manifest, replaced(BASE_MANIFEST, ANYTHING).map(as_json), as_json(BASE_MANIFEST)
    ),
    "tar": Target(read_tar, broken(LAYER) | headers(), LAYER),
    "wheel": Target(read_wheel, broken(a_wheel({})), a_wheel({})),
    "wheel's RECORD": Target(
        read_wheel,
        broken(zipfile.ZipFile(io.BytesIO(a_wheel({}))).read(f"{INFO}/RECORD")).map(
            lambda data: a_wheel({"RECORD": data})
        ),
        None,
    ),
    "wheel's entry points": Target(
        read_wheel,
        broken(b"[console_scripts]\nevil = evil:main [x]\n[a.b]\nc=d\n").map(
            lambda data: a_wheel({f"{INFO}/entry_points.txt": data})
        ),
        None,
    ),
    "wheel's WHEEL": Target(
        read_wheel, broken(WHEEL).map(lambda data: a_wheel({f"{INFO}/WHEEL": data})), None
    ),
    ".deb": Target(read_deb, broken(a_deb(CONTENT)), a_deb(CONTENT)),
    ".deb's content": Target(read_deb, (broken(CONTENT) | headers()).map(a_deb), None),
    ".deb's control": Target(
        read_deb, broken(b"Package: evil\n").map(lambda data: a_deb(CONTENT, data)), None
    ),
    "list of packages": Target(read_index, broken(STANZAS), STANZAS),
    "release file": Target(read_release, broken(RELEASE), None),
    "lock's text": Target(read_lock, broken(lock().encode()), lock().encode()),
    "lock's values": Target(read_lock, replaced(LOCK, PLAIN).map(as_toml), as_toml(LOCK)),
    "lock on an image": Target(
        read_lock, replaced(BASED_LOCK, PLAIN).map(as_toml), as_toml(BASED_LOCK)
    ),
    "examples' text": Target(
        read_examples, broken(as_json(tiny_examples(b""))), as_json(tiny_examples(b""))
    ),
    "examples' values": Target(
        read_examples, replaced(tiny_examples(b""), ANYTHING).map(as_json), None
    ),
    "image.json": Target(read_image, replaced(IMAGE, ANYTHING).map(as_json), as_json(IMAGE)),
    "settings' text": Target(read_project, broken(as_toml(PROJECT)), as_toml(PROJECT)),
    "settings' values": Target(read_project, replaced(PROJECT, PLAIN).map(as_toml), None),
    "requirements": Target(
        lambda data, _: resolve.read_requirements(data, "requirements.txt"),
        broken(REQUIREMENTS),
        REQUIREMENTS.rpartition(b"scipy")[0],
    ),
    "library": Target(
        read_library, broken(shared(["libc.so.6"], soname="x", runpath="$ORIGIN")), shared()
    ),
    "linker's configuration": Target(
        read_configuration, broken(b"include /etc/*.conf\n/opt # x\n"), b"/opt\n"
    ),
    "installation script": Target(
        read_script,
        broken(b"update-alternatives --install /a b /c 10 \\\n --slave /d e /f\n"),
        b"",
    ),
    "name of an image": Target(
        read_reference, broken(b"registry.example:5000/lab/penguins:1"), b"lab/penguins:1"
    ),
    "image in an archive": Target(read_archive, broken(an_archive()) | headers(), an_archive()),
}


def fuzz(target: Target, folder: Path, count: int) -> None:
    write_tiny(folder)

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def claim(data: bytes) -> None:
        with contextlib.suppress(PackagerError, facts.InputError):
            target.read(data, folder)

    with bounded_memory():
        claim()


@pytest.mark.filterwarnings("ignore:Skip installing")
@pytest.mark.parametrize("name", TARGETS)
def test_any_input_is_read_or_refused(name: str, tmp_path: Path) -> None:
    fuzz(TARGETS[name], tmp_path, QUICK)


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore:Skip installing")
@pytest.mark.parametrize("name", TARGETS)
def test_any_of_many_inputs_is_read_or_refused(name: str, tmp_path: Path) -> None:
    fuzz(TARGETS[name], tmp_path, WHOLE)


@pytest.mark.parametrize("name", [name for name in TARGETS if TARGETS[name].valid is not None])
def test_what_is_damaged_was_valid(name: str, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    valid = TARGETS[name].valid
    assert valid is not None
    TARGETS[name].read(valid, tmp_path)


def test_a_parser_that_takes_too_much_memory_would_be_caught() -> None:
    with bounded_memory(), pytest.raises(MemoryError):
        bytearray(2 * MEMORY)
