"""The claim that docs/image-format.md suffices: its rules, written once more from its text alone.

Nothing of packager makes the bytes that are compared here, but for bytecode, which is the
image's own Python's business; the compressor is the library that the document names.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import tomllib
from base64 import urlsafe_b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import deflate
import pytest
from conftest import REPOSITORY, Tiny, git, write_tiny
from hypothesis import given
from hypothesis import strategies as st
from test_tar import PATHS, without_clashes

from packager import __version__, image, project, runtime
from packager.layers import tar, tree
from packager.layers.making import Layer
from packager.layers.tar import Entry, data_entry
from packager.store import Store

EXAMPLE = (REPOSITORY / "docs/image-format.md").read_text("utf-8").split("## A worked example")[1]
ROOT, SITE = "srv/packager", "usr/local/lib/python3.11/dist-packages"
TIME = 315619200

Files = dict[str, bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(value: object) -> bytes:
    # No number in a config, manifest or index is written with a point.
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


# The tar of a layer.


def octal(number: int, size: int) -> bytes:
    return b"%0*o\0" % (size - 1, number)


def block(
    name: str, kind: bytes, *, mode: int = 0, size: int = 0, time: int = 0, link: str = ""
) -> bytes:
    def text(value: str) -> bytes:
        return bytes(ord(one) if one < "\x80" else 63 for one in value)[:100].ljust(100, b"\0")

    begin = text(name) + octal(mode, 8) + octal(0, 8) * 2 + octal(size, 12) + octal(time, 12)
    end = kind + text(link) + b"ustar\x0000" + bytes(247)
    checksum = sum(begin + b" " * 8 + end)
    return begin + b"%06o\0 " % checksum + end


def filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = next(n for n in range(len(rest), len(rest) + 9) if len(str(n)) + len(rest) == n)
    return str(length).encode() + rest


def header(path: str, kind: str, mode: int, size: int, link: str) -> bytes:
    name, records = path + "/" * (kind == "dir"), b""
    for key, value in (("path", name), ("linkpath", link)):
        if len(value) > 100 or not value.isascii():
            records += record(key, value)
    if size >= 2**33:
        records, size = records + record("size", str(size)), 0
    pax = block("././@PaxHeader", b"x", size=len(records)) + filled(records) if records else b""
    types = {"file": b"0", "hardlink": b"1", "symlink": b"2", "dir": b"5"}
    return pax + block(name, types[kind], mode=mode, size=size, time=TIME, link=link)


def archive(entries: dict[str, tuple[str, int, bytes, str]]) -> bytes:
    """Make a tar of path → (kind, mode, content, target)."""
    for path in list(entries):
        above = path.split("/")[:-1]
        for depth in range(1, len(above) + 1):
            entries.setdefault("/".join(above[:depth]), ("dir", 0o755, b"", ""))
    order = sorted(entries, key=lambda path: [part.encode() for part in path.split("/")])
    parts = []
    for path in order:
        kind, mode, data, link = entries[path]
        parts += [header(path, kind, mode, len(data), link), filled(data)]
    return b"".join([*parts, bytes(1024)])


def archive_of(files: Files, commands: Files | None = None) -> bytes:
    plain = {path: ("file", 0o644, data, "") for path, data in files.items()}
    extra = {path: ("file", 0o755, data, "") for path, data in (commands or {}).items()}
    return archive({**plain, **extra})


MODES = st.sampled_from([0o644, 0o755, 0o600, 0o1777])
# What sorts below "/" and above it, so that an order of whole paths would be another.
NEAR = st.lists(st.sampled_from(["a", "a b", "a.b", "ab", "é"]), min_size=1, max_size=3).map(
    "/".join
)
TARGETS = st.builds(str.__add__, st.sampled_from(["", "/", "./"]), PATHS)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, tuple[str, int, bytes, str]]:
    paths = list(without_clashes(dict.fromkeys(draw(st.lists(PATHS | NEAR, max_size=8)), b"")))
    file = ("file", draw(MODES), draw(st.binary(max_size=1600)), "")
    kinds = {
        "file": st.tuples(st.just("file"), MODES, st.binary(max_size=1600), st.just("")),
        "dir": st.tuples(st.just("dir"), MODES, st.just(b""), st.just("")),
        "symlink": st.tuples(st.just("symlink"), st.just(0o777), st.just(b""), TARGETS),
        "hardlink": st.tuples(st.just("hardlink"), MODES, st.just(b""), st.just("A/file")),
    }
    return {path: draw(st.one_of(list(kinds.values()))) for path in paths} | {"A/file": file}


@given(trees())
def test_the_document_suffices_to_write_the_tar_of_a_layer(
    found: dict[str, tuple[str, int, bytes, str]],
) -> None:
    entries = [
        replace(data_entry(path, data), kind=kind, mode=mode, target=link)  # type: ignore[arg-type]
        for path, (kind, mode, data, link) in found.items()
    ]
    out = io.BytesIO()
    tar.write(tar.merge(entries), out)
    assert out.getvalue() == archive(dict(found))


@pytest.mark.parametrize("length", [98, 99, 100, 101, 120, 974, 975, 9975])
@pytest.mark.parametrize("kind", ["file", "dir", "symlink"])
def test_the_document_suffices_where_lengths_tip_over(length: int, kind: str) -> None:
    path, link = "p" * length, "t" * length if kind == "symlink" else ""
    entry = Entry(path, kind=kind, target=link, open=io.BytesIO)  # type: ignore[arg-type]
    assert tar._header(entry) == header(path, kind, 0o644, 0, link)


@pytest.mark.parametrize("size", [2**33 - 1, 2**33, 2**40])
def test_the_document_suffices_for_files_of_any_size(size: int) -> None:
    entry = Entry("big", size=size, open=io.BytesIO)
    assert tar._header(entry) == header("big", "file", 0o644, size, "")


# The worked example.


def test_the_worked_example_is_what_the_rules_give_and_what_packager_does(tmp_path: Path) -> None:
    config, manifest = map(json.loads, re.findall(r"```json\n(.*?)```", EXAMPLE, re.DOTALL))
    layer = archive_of({f"{ROOT}/model/model.txt": b"2.5\n"})
    assert {
        "model's digest": f"sha256:{sha256(bytes([50, 46, 53, 10]))}",
        "checksum of the file's header": layer[3 * 512 + 148 : 3 * 512 + 154].decode(),
        "bytes of the tar": str(len(layer)),
        "diff ID": f"sha256:{sha256(layer)}",
        "bytes of the compressed layer": str(len(compressed(layer))),
        "its digest": f"sha256:{sha256(compressed(layer))}",
        "image ID": f"sha256:{sha256(canonical(config))}",
        "manifest's digest": f"sha256:{sha256(canonical(manifest))}",
    } == dict(re.findall(r"^\| ([^|]+?) \| `?([^`|]+?)`? \|$", EXAMPLE, re.MULTILINE)[2:])

    write_tiny(tmp_path / "tiny")
    loaded, store = project.load(tmp_path / "tiny"), Store(tmp_path / "store")
    model = tree.read_model(loaded)
    blob = store.add(lambda out: tar.write(tar.merge(model.entries), out))
    labels = {image.LABEL_MODEL: model.digest}
    layers = [Layer("model", str(loaded.model), 1, blob, cached=False)]
    made = image.assemble(loaded, "linux/amd64", layers, labels)
    assert made.config == canonical(config)
    assert image.manifest_of(made, store).data == canonical(manifest)


# A whole image, of the project that needs nothing but the base.


def disagreements(path: Path, root: Path) -> list[str]:
    """Make an archive's files from the repository by the document; name those that differ."""
    with tarfile.open(path) as opened:
        found = {one.name: opened.extractfile(one).read() for one in opened if one.isfile()}  # type: ignore[union-attr]
    [listed] = json.loads(found["manifest.json"])
    tars = {name: gzip.decompress(found[name]) for name in listed["Layers"]}
    named, lock = read_toml(root / "pyproject.toml")["project"], read_toml(root / "packager.lock")

    blobs = {f"blobs/sha256/{sha256(data)}": data for data in map(compressed, tars.values())}
    inputs = digest_of_inputs(named, lock, root)
    diffs = [sha256(data) for data in tars.values()]
    diffs[-3:] = [sha256(archive_of(files)) for files in own_layers(named, root, inputs, tars)]
    config = canonical(config_of(named, lock, root, inputs, diffs))
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("image.config.v1+json", config),
            "layers": [descriptor("image.layer.v1.tar+gzip", one) for one in blobs.values()],
            "annotations": {"org.model-packager.compressor": lock["made-by"]["compressor"]},
        }
    )
    where = {
        "io.containerd.image.name": f"docker.io/library/tiny:{named['version']}",
        "org.opencontainers.image.ref.name": named["version"],
        "org.opencontainers.image.revision": git(root, "rev-parse", "HEAD").strip(),
        "org.model-packager.builder": f"packager {__version__}",
        "org.model-packager.dirty": "false",
    }
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor("image.manifest.v1+json", manifest) | {"annotations": where}],
    }
    for_old = {
        "Config": f"blobs/sha256/{sha256(config)}",
        "Layers": list(blobs),
        "RepoTags": [f"tiny:{named['version']}"],
    }
    made = blobs | {
        f"blobs/sha256/{sha256(config)}": config,
        f"blobs/sha256/{sha256(manifest)}": manifest,
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": canonical(index),
        "manifest.json": canonical([for_old]),
    }
    wrong = sorted(name for name in made if made[name] != found.get(name))
    return wrong + ["the tar"] * (archive_of(made) != path.read_bytes())


def read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


def compressed(layer: bytes) -> bytes:
    members = (layer[at : at + 4194304] for at in range(0, len(layer), 4194304))
    return b"".join(deflate.gzip_compress(member, 6) for member in members)


def descriptor(kind: str, data: bytes) -> dict[str, Any]:
    media = f"application/vnd.oci.{kind}"
    return {"mediaType": media, "digest": f"sha256:{sha256(data)}", "size": len(data)}


def project_files(root: Path) -> tuple[bytes, bytes, Files]:
    """Read model, examples as they are sealed, and code by where it is in the repository."""
    examples = json.loads((root / "models/examples.json").read_bytes())
    code = {f"src/tiny/{path.name}": path.read_bytes() for path in (root / "src/tiny").glob("*.py")}
    return (root / "models/model.txt").read_bytes(), canonical(examples) + b"\n", code


def digest_of_inputs(named: dict[str, Any], lock: dict[str, Any], root: Path) -> str:
    model, examples, code = project_files(root)
    debian = lock["debian"][0]["package"]
    maker = {key: lock["made-by"][key] for key in ("format", "bytecode", "runtime")}
    body = {
        "lock": [[], debian, lock["inputs"]["base"], maker],
        "platform": "linux/amd64",
        "project": [named["name"], named["version"], named["description"], named["license"]],
        "requires": [named["requires-python"], named["dependencies"], ""],
        "entry-points": {},
        "predictor": ["tiny.predict:load", False],
        "bytecode": True,
        "model": ["models/model.txt", f"sha256:{sha256(model)}"],
        "examples": sha256(examples),
        "code": [["src/tiny"], [[name, sha256(code[name])] for name in sorted(code)]],
    }
    for card in root.glob("MODEL_CARD.md"):
        body["card"] = ["MODEL_CARD.md", sha256(card.read_bytes())]
    return f"sha256:{sha256(canonical(body))}"


def own_layers(
    named: dict[str, Any], root: Path, inputs: str, tars: Files
) -> tuple[Files, Files, Files]:
    """Make runtime, model and code; their bytecode alone is taken from what packager made."""
    model, examples, code = project_files(root)
    facts = {
        "format": 1,
        **{key: named[key] for key in ("name", "version", "description", "license")},
        "model": {"path": "model/model.txt", "digest": f"sha256:{sha256(model)}"},
        "examples": "examples.json",
        "predictor": "tiny.predict:load",
        "trust_pickle": False,
        "base": "debian:bookworm",
        "platform": "linux/amd64",
        "python": "3.11",
        "inputs_digest": inputs,
    }
    ours = {f"{SITE}/packager_runtime/{name}": data for name, data in runtime.files()}
    theirs = {f"{SITE}/{name.removeprefix('src/')}": data for name, data in code.items()}
    runtime_tar, _, code_tar = list(tars.values())[-3:]
    card = {f"{ROOT}/card.md": one.read_bytes() for one in root.glob("MODEL_CARD.md")}
    facts |= {"card": "card.md"} if card else {}
    sealed = {f"{ROOT}/image.json": canonical(facts), f"{ROOT}/examples.json": examples, **card}
    return (
        ours | bytecode(ours, runtime_tar),
        {f"{ROOT}/model/model.txt": model},
        theirs | bytecode(theirs, code_tar) | dist_info(named, theirs) | sealed,
    )


def bytecode(sources: Files, layer: bytes) -> Files:
    made = {}
    with tarfile.open(fileobj=io.BytesIO(layer)) as opened:
        for path in sources:
            folder, _, name = path.rpartition("/")
            cached = f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-311.pyc"
            made[cached] = opened.extractfile(cached).read()  # type: ignore[union-attr]
            assert made[cached][4:8] == b"\x01\0\0\0"
    return made


def dist_info(named: dict[str, Any], code: Files) -> Files:
    folder = f"{SITE}/tiny-{named['version']}.dist-info"
    metadata = (
        f"Metadata-Version: 2.4\nName: tiny\nVersion: {named['version']}\n"
        f"Summary: {named['description']}\nLicense-Expression: {named['license']}\n"
        f"Requires-Python: {named['requires-python']}\n"
    ).encode()
    made = {f"{folder}/INSTALLER": b"packager\n", f"{folder}/METADATA": metadata}
    rows = [f"{folder.removeprefix(f'{SITE}/')}/RECORD,,\n"]
    for path, data in (code | made).items():
        hashed = urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        rows.append(f"{path.removeprefix(f'{SITE}/')},sha256={hashed},{len(data)}\n")
    return made | {f"{folder}/RECORD": "".join(sorted(rows)).encode()}


def config_of(
    named: dict[str, Any], lock: dict[str, Any], root: Path, inputs: str, diffs: list[str]
) -> dict[str, Any]:
    """Fill in the config of the worked example."""
    [config, _] = map(json.loads, re.findall(r"```json\n(.*?)```", EXAMPLE, re.DOTALL))
    label = "org.opencontainers.image"
    config["config"]["Labels"] = {
        f"{label}.title": named["name"],
        f"{label}.version": named["version"],
        f"{label}.description": named["description"],
        f"{label}.licenses": named["license"],
        f"{label}.base.name": "debian:bookworm",
        "org.model-packager.inputs": inputs,
        "org.model-packager.model": f"sha256:{sha256((root / 'models/model.txt').read_bytes())}",
    }
    config["rootfs"]["diff_ids"] = [f"sha256:{one}" for one in diffs]
    number = len(lock["debian"][0]["package"])
    texts = [f"base: {number} packages", "bytecode: of the base", "runtime: packager_runtime"]
    texts += ["model: models/model.txt", "code: src/tiny"]
    created = config["created"]
    config["history"] = [{"created": created, "created_by": f"packager: {one}"} for one in texts]
    return dict(config)


@pytest.mark.parametrize("card", [None, "# A card\n"])
def test_the_document_suffices_to_make_an_image_again(
    card: str | None, tiny: Tiny, tmp_path: Path
) -> None:
    if card:
        (tiny.root / "MODEL_CARD.md").write_text(card)
        tiny.edit("pyproject.toml", 'examples = "', 'card = "MODEL_CARD.md"\nexamples = "')
        git(tiny.root, "add", "-A")
        git(tiny.root, "commit", "-qm", "A card")
    tiny.built("--no-load", "-o", str(tmp_path / "image.tar"))
    assert disagreements(tmp_path / "image.tar", tiny.root) == []


def test_an_image_of_another_repository_is_told_apart(tiny: Tiny, tmp_path: Path) -> None:
    tiny.built("--no-load", "-o", str(tmp_path / "image.tar"))
    tiny.edit("models/model.txt", "2.5", "2.6")
    wrong = disagreements(tmp_path / "image.tar", tiny.root)
    # A new config and manifest, what names them, and so another archive.
    assert {"index.json", "manifest.json", "the tar"} < set(wrong)
    assert len(wrong) == len({"index.json", "manifest.json", "the tar", "config", "manifest"})
