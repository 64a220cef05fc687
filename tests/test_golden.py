"""Constant inputs and the digests that they must give, so that no rule changes unnoticed.

The rules are those of docs/image-format.md.  A digest that has to change here means another
format: raise its number in `formats.py`, for that number is in the key under which every
store keeps what the old rule made.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tarfile import TarInfo

import pytest
from conftest import Tiny, WheelMaker, write_tiny
from test_debian_layer import ar, member, packed
from test_elf import shared

from packager import assembling, claims, formats, image, project
from packager.claims import Examples
from packager.files import canonical_json
from packager.layers import deb, ldcache, tar, tree, wheel
from packager.layers.bytecode import Interpreter, compile_entries
from packager.layers.ldcache import Library
from packager.layers.making import Layer
from packager.layers.site import Site
from packager.layers.tar import Entry, data_entry
from packager.lock.debian import DebianPins, DebPin
from packager.lock.lockfile import Lock, WheelPin
from packager.outputs import archive
from packager.project import Project
from packager.reference import Reference
from packager.reporter import Silent
from packager.store import Blob, Store

pytest_plugins = ["debian_fixtures"]

SITE = Site.debian("3.11")
SYMLINK, HARDLINK, FOLDER = b"2", b"1", b"5"
MODULE = b'''\
"""A module with what marshal writes down in different ways."""

import json as data
from os import path

LIMIT, NAMES = 10**20, frozenset({"one", "two"})


class Thing:
    size: int = 3

    def all(self, *names, key=lambda name: name.lower()):
        try:
            return {key(name): f"{name!r:>{self.size}}" for name in names if name not in NAMES}
        except (KeyError, ValueError) as error:
            raise RuntimeError(path, data) from error
'''


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest(entries: Iterable[Entry]) -> str:
    out = io.BytesIO()
    tar.write(tar.merge(entries), out)
    return sha256(out.getvalue())


def content(entries: Iterable[Entry]) -> dict[str, str]:
    return {one.path: sha256(one.open().read()) for one in entries if one.open is not None}


def test_the_formats_are_those_of_these_digests() -> None:
    assert (formats.LAYERS, formats.BYTECODE, formats.LOCK) == (3, 2, 1)
    assert formats.COMPRESSOR == "gzip by libdeflate of deflate 0.9.0, level 6, 4 MiB members"


def test_tar() -> None:
    entries = [
        data_entry("usr/bin/tool", b"#!/bin/sh\n", mode=0o755),
        data_entry("é/" + "long/" * 30 + "name", b"x" * 1000),
        Entry("bin", kind="symlink", mode=0o777, target="usr/bin"),
        Entry("usr/bin/twin", kind="hardlink", mode=0o755, target="usr/bin/tool"),
        Entry("tmp", kind="dir", mode=0o1777),
    ]
    assert digest(entries) == "01ccbc75cb5998147f51482bcbaa56cc364d84670e86b2f3fae184413a2288a6"


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
    entries = wheel.wheel_entries(path, path.name, SITE)
    assert digest(entries) == "cf8af21821808c089247fc7861bc1632728957c12ef831c0df684cd217a017bb"


def test_wheel_with_everything_that_has_a_rule(make_wheel: WheelMaker) -> None:
    points = b"[gui_scripts]\nshow = golden.window:Main.run [extra]\n[other]\nx = y\n"
    path = make_wheel(
        "Golden_Wheel",
        "2.0",
        {
            "golden/libx.so": b"\x7fELF",
            "golden/__init__.py": b"",
            "Golden_Wheel-2.0.data/purelib/golden/pure.py": b"p = 1\n",
            "Golden_Wheel-2.0.data/platlib/golden/plat.py": b"p = 2\n",
            "Golden_Wheel-2.0.data/headers/golden.h": b"int x;\n",
            "Golden_Wheel-2.0.data/scripts/arguments": b"#!pythonw -O -x\r\npass\n",
            "Golden_Wheel-2.0.data/scripts/shell": b"#!/bin/sh\n",
            "Golden_Wheel-2.0.dist-info/entry_points.txt": points,
            "Golden_Wheel-2.0.dist-info/licenses/LICENSE": b"MIT\n",
        },
        executable=("golden/libx.so",),
    )
    entries = wheel.wheel_entries(path, path.name, SITE)
    assert digest(entries) == "ad2e86721c2467506759e47328f5595543f4c3f6a945e17b8767ce5656586dd3"


def debian_package(
    folder: Path, name: str, *members: tuple[TarInfo, bytes], script: str = ""
) -> tuple[DebPin, Path]:
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: amd64\n".encode()
    about = {"control": control, "md5sums": b"0  x\n", "postinst": script.encode()}
    described = packed(*(member(one, text) for one, text in about.items()))
    data = ar(
        {
            "debian-binary": b"2.0\n",
            "control.tar.xz": lzma.compress(described),
            "data.tar.xz": lzma.compress(packed(*members)),
        }
    )
    path = folder / f"{name}.deb"
    path.write_bytes(data)
    return DebPin(name, "1.0", "amd64", "", len(data), sha256(data), "base"), path


def base_of(folder: Path) -> list[tuple[DebPin, Path]]:
    """Make the smallest packages that a base can be made of, with something for each rule."""
    templates = [
        "base-files/motd",
        "libc-bin/nsswitch.conf",
        "base-files/profile",
        "debianutils/shells",
        "base-files/dot.bashrc",
        "base-files/dot.profile",
    ]
    alternative = "update-alternatives --install /bin/pick pick {} {} --slave /man/p p /gone\n"
    return [
        debian_package(
            folder,
            "files",
            *(member(f"usr/share/{name}", name.encode()) for name in templates),
            member("lib", kind=SYMLINK, to="usr/lib"),
            member("tmp", mode=0o1777, kind=FOLDER),
            member("root", mode=0o700, kind=FOLDER),
            member("var/run", mode=0o755, kind=FOLDER),
            member("usr/share/man/man1/x.1", b"left out"),
            member("usr/share/doc/files/README", b"left out"),
            member("usr/share/doc/files/copyright", b"kept"),
            member("usr/share/ca-certificates/b/Two.crt", b"TWO \n\n"),
            member("usr/share/ca-certificates/a.crt", b"ONE"),
        ),
        debian_package(
            folder,
            "tools",
            member("etc/ld.so.conf", b"include /etc/ld.so.conf.d/*.conf # all\n"),
            member("etc/ld.so.conf.d/x.conf", b"/lib/x86_64-linux-gnu\n"),
            member("lib/x86_64-linux-gnu/libx.so.1.2", shared(soname="libx.so.1"), mode=0o644),
            member("lib/x86_64-linux-gnu/libx.so.1", kind=SYMLINK, to="libx.so.1.2"),
            member("bin/one", b"1", mode=0o4755),
            member("bin/other", kind=HARDLINK, to="./bin/one"),
            member("usr/bin/two", b"2", mode=0o775),
            script=alternative.format("/bin/one", 10) + alternative.format("/usr/bin/two", 20),
        ),
    ]


def test_base_of_debian_packages(tmp_path: Path) -> None:
    entries = deb.base_entries(base_of(tmp_path), python="3.11", scratch=tmp_path)
    assert digest(entries) == "e24f6a15a3864db928e612575f21f8a58968e9e2929516d16de7aa03a17117d6"


def test_packages_on_top_of_a_base(tmp_path: Path) -> None:
    extra = debian_package(
        tmp_path,
        "extra",
        member("usr/bin/three", b"3", mode=0o755),
        member("usr/lib/libextra.so", shared(soname="libextra.so.3")),
        member("usr/lib/libextra.so.3", kind=SYMLINK, to="libextra.so"),
        script="update-alternatives --install /bin/pick pick /bin/three 30\n",
    )
    entries = deb.extra_entries(base_of(tmp_path), [extra], scratch=tmp_path)
    assert digest(entries) == "aedfb4b8d275f781a40c608589ef1458eb9e951298600b57a85f62d387deb7e1"


def test_linker_cache() -> None:
    libraries = [
        Library("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"),
        Library("libz.so.1", "/lib/x86_64-linux-gnu/libz.so.1"),
        Library("libstdc++.so.6", "/lib/x86_64-linux-gnu/libstdc++.so.6"),
    ]
    data = ldcache.write(libraries, "amd64")
    assert sha256(data) == "3e04bb4658a5d2366be04de09948dd1b9fd0859539699c10b81fa79aa9f3c387"


@pytest.fixture
def golden(tmp_path: Path) -> Project:
    """The tiny project, read, with something for each rule of its metadata."""
    root = tmp_path / "golden"
    write_tiny(root, "golden")
    path = root / "pyproject.toml"
    path.write_text(
        path.read_text()
        .replace('"A factor"', '"A  factor,\\n twö"')
        .replace("dependencies = []", 'dependencies = ["b>1", "a"]')
        .replace(
            "[tool.packager]",
            '[project.scripts]\nrun = "golden.predict : load"\n'
            '[project.entry-points."golden.more"]\nz = "golden"\na = "golden:x [y]"\n'
            '[project.urls]\nRepository = "https://example.org/golden"\n[tool.packager]',
        )
    )
    return project.load(root)


def test_model_file(golden: Project) -> None:
    model = tree.read_model(golden)
    assert model.digest == f"sha256:{sha256(b'2.5' + bytes([10]))}"
    assert (
        digest(model.entries) == "845b0b87847199b2072354bb78903c6866fad3c72b3fa786a09f2cd9d3ef4927"
    )


def test_model_folder(golden: Project) -> None:
    folder = golden.root / "models/model.txt"
    folder.unlink()
    (folder / "a").mkdir(parents=True)
    for name in ("b.txt", "a/c.bin", "a.txt"):
        (folder / name).write_text(name)
    (folder / "b.txt").chmod(0o755)
    model = tree.read_model(golden)
    lines = "".join(f"{sha256(name.encode())}  {name}\n" for name in ("a.txt", "a/c.bin", "b.txt"))
    assert model.digest == f"sha256:{sha256(lines.encode())}"
    assert (
        digest(model.entries) == "f1685d54a87581ebbc0ae793ff378b16fda0e4c1820a4d839bcc4db91d438013"
    )


def test_code_and_its_dist_info(golden: Project) -> None:
    entries = tree.code_entries(golden, tree.own_files(golden).code, SITE)
    assert digest(entries) == "f3ce526087f06b7ecd33ad8f69ad3e057ee7f4310f7a3210b42eba6025cea736"


def compiled(base: Blob, version: str, folder: Path) -> list[str]:
    interpreter = Interpreter(version, "amd64")
    run = interpreter.here(base, folder)
    assert run is not None
    star = b"from json import *\n\n\ndef f(b, *, c): return c\n"
    sources = [data_entry("usr/b.py", MODULE), data_entry("usr/a.py", star)]
    made = content(compile_entries(sources, interpreter.tag, run))
    return [made[f"usr/__pycache__/{name}.{interpreter.tag}.pyc"] for name in ("a", "b")]


def test_bytecode_of_bookworm(tiny: Tiny, tmp_path: Path) -> None:
    store = Store(tiny.store)
    inputs = assembling.gather(project.load(tiny.root), "linux/amd64")
    base = assembling.assemble(inputs, store, Silent()).image.layers[0].blob
    assert compiled(base, "3.11", tmp_path / "python") == [
        "7aa0c6c60efb991b9066126a1d5a8ec99c3435433cdccfeb3ba00406a89477a8",
        "35ba3dc82b7f1a4258145dfa176e8ab323af3968f05b72ae55c9853ee31382d3",
    ]


@pytest.mark.whole
def test_bytecode_of_trixie(fetch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, debs = fetch("trixie", "amd64")
    entries = tar.merge(deb.base_entries(debs, python="3.13", scratch=tmp_path))
    base = Store(tmp_path / "store").add(lambda out: tar.write(entries, out))
    assert compiled(base, "3.13", tmp_path / "python") == [
        "3f54f5764cb30e538d722abd9d6ed67758cb17ae755b2e9610ad7552b63db0e8",
        "0b0fa1b04046d58c995a58e69563218b20f4abda0ca9905de39542565beee72c",
    ]


def test_compressor(tmp_path: Path) -> None:
    text = b"".join(b"%d %d\n" % (number, number * number) for number in range(300_000))
    noise = hashlib.shake_256(b"golden").digest(formats.MEMBER)
    store = Store(tmp_path)
    layers = [
        Layer("model", "x", 1, store.add(lambda out, data=data: out.write(data)), cached=False)  # type: ignore[misc]
        for data in (b"\0" * 1024, text[: formats.MEMBER], text[: formats.MEMBER] + noise + b"x")
    ]
    made = image.manifest_of(image.Image("x", "1", "linux/amd64", b"{}", tuple(layers)), store)
    assert [blob.sha256 for blob in made.layers] == [
        "62539018952ddec37a4fcf8d77171cfbcd5b21fc3520f32028cd9cfdae546a31",
        "3684476052ced88f914ed00105641d25ed7b9920cae22fd4d29b72b903585a4a",
        "58a4d5b40cb8990a48c866a653690f83fdf231c002c22011bfc635d61bfd3a60",
    ]


def test_config_manifest_and_archive(golden: Project, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    bottom = store.add(lambda out: tar.write(tar.merge([data_entry("a", b"a")]), out))
    model = store.add(lambda out: tar.write(tar.merge(tree.read_model(golden).entries), out))
    layers = [
        Layer("base", "1 packages", 1, bottom, cached=False),
        Layer("model", "models/model.txt", 1, model, cached=True),
        Layer("code", "src/golden", 1, bottom, cached=False),  # a layer that comes twice
    ]
    labels = {image.LABEL_INPUTS: "sha256:inputs", image.LABEL_MODEL: "sha256:model"}
    made = image.assemble(golden, "linux/arm64", layers, labels)
    manifest = image.manifest_of(made, store)
    assert made.id == "sha256:ff249cd10c1234c778b06caaa09e64665feb623b9411958dff892b6b054990ca"
    assert (
        manifest.descriptor.sha256
        == "39441f70cd6735189cfaa24895bec81662fbd4fb02c294d3ba5af1927dd4fa86"
    )
    reference = Reference.of(golden.name, golden.version)
    annotations = {image.REVISION: "0" * 40, "org.model-packager.dirty": "false"}
    archive.write(tmp_path / "image.tar", made, manifest, reference, annotations)
    assert (
        sha256((tmp_path / "image.tar").read_bytes())
        == "1e3c657b535ba802a5f14232ee74b47f536ee92a93e0258c2462c4a99ffe78f9"
    )


def lock_of(golden: Project) -> Lock:
    """Write down a lock that no machine has resolved."""
    pins = (
        DebPin("base-files", "1.0", "amd64", "pool/b.deb", 1, sha256(b"base-files"), "base"),
        DebPin("libgomp1", "1.0", "amd64", "pool/l.deb", 1, sha256(b"libgomp1"), "extra"),
    )
    wheels = tuple(
        WheelPin("a", "1", f"a-1-{tag}.whl", 1, sha256(tag.encode()), (f"linux/{machine}",))
        for tag, machine in (("x", "amd64"), ("y", "arm64"))
    )
    maker = {
        "packager": "any",
        "format": 1,
        "bytecode": 1,
        "runtime": "sha256:r",
        "compressor": "any",
    }
    debian = {"linux/amd64": DebianPins("bookworm", "amd64", "20200101T000000Z", pins)}
    return Lock({"base": golden.base}, wheels, debian, maker)


def test_digest_of_the_inputs(golden: Project) -> None:
    code = [("src/golden/__init__.py", b'"""Golden."""\n')]
    examples = Examples(b"{}\n", 1, "", "")
    made = assembling._inputs_digest(
        golden, lock_of(golden), "linux/amd64", model="sha256:m", examples=examples, code=code
    )
    assert made == "sha256:839243c3641fc420bf75e30667824e9a1c538d6a8059256e0fdbc1190944e611"


def test_digest_of_the_inputs_with_a_card(golden: Project) -> None:
    made = assembling._inputs_digest(
        replace(golden, card=PurePosixPath("CARD.md")),
        lock_of(golden),
        "linux/amd64",
        model="sha256:m",
        examples=None,
        code=[],
        card=b"# Card\n",
    )
    assert made == "sha256:b3144cac65c7aa1220dee44a002a0d358b7bb9c01d705d433f7e6261ce6dd504"


def test_examples_as_they_are_sealed(golden: Project) -> None:
    examples = claims.read_examples(golden, tree.read_model(golden).digest)
    assert examples is not None
    assert (
        sha256(examples.data) == "96a9876819f43caa81593a217f8d9024a4727ebfa310c940e7bd50ae632eaad0"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": [1, 2.5, None, True], "a": "é\n"}, '{"a":"é\\n","b":[1,2.5,null,true]}'),
        ({"\uffff": 1, "😀": 2, "a": 3, "B": 4, "": 5}, '{"":5,"B":4,"a":3,"\uffff":1,"😀":2}'),
        ('\x7f\u2028\x1f\b\f\r\t"\\/', '"\x7f\u2028\\u001f\\b\\f\\r\\t\\"\\\\/"'),
        ([1.0, -0.0, 0.1, 1e15, 1e16, 1e22], "[1.0,-0.0,0.1,1000000000000000.0,1e+16,1e+22]"),
        ([1e-4, 1e-5, 1.5e-7, 5e-324], "[0.0001,1e-05,1.5e-07,5e-324]"),
        ([2**53 + 1, -(10**30)], "[9007199254740993,-1000000000000000000000000000000]"),
        ([[], {}, ""], '[[],{},""]'),
    ],
    ids=["order", "order of code points", "escapes", "floats", "small floats", "integers", "empty"],
)
def test_canonical_json(value: object, text: str) -> None:
    assert canonical_json(value) == text.encode()
    assert canonical_json(json.loads(text)) == text.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        canonical_json([value])
