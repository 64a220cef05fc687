"""Claims about reading images from everywhere, and about refusing what is none."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Tiny, run_packager
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_images import Made, digest, member, tar, write_archive, write_folder

from packager.errors import UsageError
from packager.outputs.engine import Engine
from packager.outputs.opened import Opened, OpenedLayer, damaged, opened, real_diff_id

BASE = tar(member("etc", type=tarfile.DIRTYPE, mode=0o755), member("etc/os", b"Debian\n"))
CODE = tar(member("srv/code.py", b"print()\n"))
IMAGE = Made([("base: 1 package", BASE), ("code: src", CODE)], labels={"x": "y"})


def read(layer: OpenedLayer) -> bytes:
    with layer.open() as stream:
        return stream.read()


def packed(files: dict[str, bytes], path: Path) -> Path:
    """Write a gzipped archive."""
    plain = write_archive(path.with_suffix(".tar"), files)
    path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


FORMS: dict[str, Callable[[Path], Path]] = {
    "archive": lambda path: write_archive(path, IMAGE.both()),
    "gzipped": lambda path: packed(IMAGE.both(), path),
    "oci": lambda path: write_archive(path, IMAGE.layout()),
    "dotted": lambda path: write_archive(path, {f"./{n}": d for n, d in IMAGE.layout().items()}),
    "docker": lambda path: write_archive(path, IMAGE.docker()),
    "folder": lambda path: write_folder(path, IMAGE.layout()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_reads_the_same(form: str, tmp_path: Path) -> None:
    image = opened(str(FORMS[form](tmp_path / "image")), tmp_path)
    assert image.id == digest(IMAGE.config_bytes())
    assert image.kind == ("layout" if form == "folder" else "archive")
    assert (image.platform, image.labels) == ("linux/amd64", {"x": "y"})
    assert [layer.what for layer in image.layers] == ["base: 1 package", "code: src"]
    assert [read(layer) for layer in image.layers] == [BASE, CODE]
    assert image.diff_ids == [digest(BASE), digest(CODE)]
    assert image.manifest == (None if form == "docker" else IMAGE.manifest_bytes())
    assert image.annotations == ({} if form == "docker" else {"a": "b"})
    assert damaged(image) == []


def test_the_real_thing_reads_the_same_from_everywhere(
    tiny: Tiny, tmp_path: Path, engine: Engine
) -> None:
    """As packager writes it, unpacked, in the engine, and as the engine exports it."""
    archive = tmp_path / "image.tar"
    built = tiny.built("-o", str(archive), "--no-smoke")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "layout", filter="data")
    exported = tmp_path / "exported.tar"
    with exported.open("wb") as out:
        out.writelines(engine.save(str(built["id"])))
    names = [str(archive), str(tmp_path / "layout"), str(built["tag"]), str(exported)]
    found = [opened(name, tmp_path) for name in names]
    assert [image.kind for image in found] == ["archive", "layout", "engine", "archive"]
    for image in found:
        assert (image.id, image.config) == (built["id"], found[0].config)
        assert [one.what for one in image.layers] == [one.what for one in found[0].layers]
        assert damaged(image) == []
    assert found[0].manifest == found[1].manifest
    assert found[0].manifest is not None
    assert digest(found[0].manifest) == built["manifest"]
    assert found[0].annotations["org.opencontainers.image.ref.name"] == "0.1.0"
    told = [json.loads(tiny.run("info", "--json", name).stdout) for name in names[:2]]
    assert told[0]["id"] == built["id"]
    assert told[0]["layers"] == told[1]["layers"]


def test_a_layer_that_an_engine_wrote_as_a_link_is_found(tmp_path: Path) -> None:
    files = [member(name, data) for name, data in IMAGE.docker().items() if name != "0/layer.tar"]
    beside = [
        member("first/layer.tar", BASE),
        member("0/layer.tar", type=tarfile.SYMTYPE, linkname="../first/layer.tar"),
    ]
    path = tmp_path / "image.tar"
    path.write_bytes(tar(*files, *beside))
    assert read(opened(str(path), tmp_path).layers[0]) == BASE


def test_what_an_image_needs_not_have_may_be_missing(tmp_path: Path) -> None:
    bare = {"os": "linux", "architecture": "arm64", "rootfs": {"diff_ids": [digest(BASE)]}}
    made = Made([("", BASE)], config=bare)
    image = opened(str(write_archive(tmp_path / "image.tar", made.layout())), tmp_path)
    assert (image.labels, image.platform, image.layers[0].what) == ({}, "linux/arm64", "")


def test_history_without_a_layer_is_skipped(tmp_path: Path) -> None:
    config = json.loads(IMAGE.config_bytes())
    config["history"].insert(1, {"created_by": "ENV x=y", "empty_layer": True})
    made = Made(IMAGE.layers, config=config)
    image = opened(str(write_archive(tmp_path / "image.tar", made.layout())), tmp_path)
    assert [layer.what for layer in image.layers] == ["base: 1 package", "code: src"]


def index_of(*images: Made, **facts: Any) -> dict[str, Any]:
    entries = [{"digest": digest(one.manifest_bytes()), **facts} for one in images]
    for entry, one in zip(entries, images, strict=True):
        entry["size"] = len(one.manifest_bytes())
    return {"schemaVersion": 2, "manifests": entries}


OTHER = Made([("base: 1 package", BASE)])


def test_an_image_with_several_names_is_one(tmp_path: Path) -> None:
    files = {**IMAGE.layout(), "index.json": json.dumps(index_of(IMAGE, IMAGE)).encode()}
    assert opened(str(write_archive(tmp_path / "x.tar", files)), tmp_path).manifest


def test_through_an_index_of_platforms_the_one_that_is_there_is_found(tmp_path: Path) -> None:
    """As an engine with containerd's store exports it, with a statement about the image."""
    inner = index_of(IMAGE, OTHER, Made([("base", CODE)]))
    inner["manifests"][1]["platform"] = {"os": "unknown", "architecture": "unknown"}
    nested = json.dumps(inner).encode()
    kind = "application/vnd.oci.image.index.v1+json"
    outer = {"manifests": [{"mediaType": kind, "digest": digest(nested), "size": len(nested)}]}
    files = {
        **IMAGE.layout(),
        **OTHER.layout(),
        f"blobs/sha256/{digest(nested)[7:]}": nested,
        "index.json": json.dumps(outer).encode(),
    }
    image = opened(str(write_archive(tmp_path / "x.tar", files)), tmp_path)
    assert image.manifest == IMAGE.manifest_bytes()


# --- Damage ----------------------------------------------------------------------------------


def test_a_layer_that_is_not_what_the_config_says_is_found(tmp_path: Path) -> None:
    """The manifest is right about every blob; only reading a layer shows the lie."""
    blobs = [gzip.compress(BASE), gzip.compress(tar(member("srv/code.py", b"evil()\n")))]
    made = Made(IMAGE.layers, blobs=blobs)
    image = opened(str(write_archive(tmp_path / "image.tar", made.both())), tmp_path)
    assert [layer.what for layer in damaged(image)] == ["code: src"]


def refused(path: Path, scratch: Path) -> str:
    """Open what must be refused, and read it; say how it was."""
    with pytest.raises(UsageError) as caught:
        damaged(opened(str(path), scratch))
    assert str(path) in caught.value.where
    return str(caught.value)


def test_every_flipped_byte_of_a_blob_is_noticed(tmp_path: Path) -> None:
    for name, data in IMAGE.layout().items():
        if name.startswith("blobs/"):
            flipped = bytes([data[0] ^ 1]) + data[1:]
            path = write_archive(tmp_path / "image.tar", {**IMAGE.layout(), name: flipped})
            if data in IMAGE.blob_list():
                at = IMAGE.blob_list().index(data)
                image = opened(str(path), tmp_path)
                assert damaged(image) == [image.layers[at]]
                assert not image.layers[at].sound
            else:
                assert "does not have the digest" in refused(path, tmp_path)


@pytest.mark.parametrize("facts", [{"size": 1}, {}], ids=["size", "digest"])
def test_a_layer_that_the_manifest_names_wrongly_is_damaged_though_its_tar_is_right(
    facts: dict[str, int], tmp_path: Path
) -> None:
    blobs = IMAGE.blob_list()
    manifest = json.loads(MANIFEST)
    manifest["layers"][0] |= facts
    files = docs(manifest=manifest)
    if not facts:  # compressed in another way
        other = gzip.compress(BASE, 0, mtime=1)
        manifest["layers"][0]["size"] = len(other)
        files = {**docs(manifest=manifest), f"blobs/sha256/{digest(blobs[0])[7:]}": other}
    image = opened(str(write_archive(tmp_path / "image.tar", files)), tmp_path)
    assert real_diff_id(image.layers[0]) == image.layers[0].diff_id
    assert damaged(image) == [image.layers[0]]


FOREIGN = {"zstd": b"\x28\xb5\x2f\xfd" + BASE, "xz": lzma.compress(BASE)}
UNREADABLE = {
    "half a gzip": gzip.compress(BASE)[:-9],
    "rotten gzip": b"\x1f\x8b" + b"\xff" * 99,
    "junk after gzip": gzip.compress(BASE) + b"junk",
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_layer_that_cannot_be_decompressed_is_damaged(case: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "image.tar", with_blobs(UNREADABLE[case], CODE))
    image = opened(str(path), tmp_path)
    assert damaged(image) == [image.layers[0]]
    assert real_diff_id(image.layers[0]) == ""


@pytest.mark.parametrize("case", FOREIGN)
def test_a_layer_in_a_compression_that_is_not_read_is_said_to_be(case: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "image.tar", with_blobs(FOREIGN[case], CODE))
    image = opened(str(path), tmp_path)
    with pytest.raises(UsageError, match=f"compressed with {case}"):
        damaged(image)


def test_a_docker_archive_whose_config_is_not_what_its_name_says(tmp_path: Path) -> None:
    files = IMAGE.docker()
    name = next(iter(files))
    path = write_archive(tmp_path / "x.tar", {**files, name: files[name] + b"\n"})
    assert "does not have the digest" in refused(path, tmp_path)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    whole = write_archive(tmp_path / "whole.tar", IMAGE.layout()).read_bytes()
    path = tmp_path / "image.tar"
    for size in range(0, len(whole.rstrip(b"\0")), 256):
        path.write_bytes(whole[:size])
        refused(path, tmp_path)


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    path = packed(IMAGE.both(), tmp_path / "image.tar.gz")
    path.write_bytes(path.read_bytes()[:-200])
    assert "cannot be decompressed" in refused(path, tmp_path)


def with_blobs(*blobs: bytes) -> dict[str, bytes]:
    return Made(IMAGE.layers, blobs=list(blobs)).both()


def docs(config: Any = None, manifest: Any = None, index: Any = None) -> dict[str, bytes]:
    made = Made(IMAGE.layers, IMAGE.labels, config=config, manifest=manifest, index=index)
    return made.layout()


def changed(data: bytes, **values: Any) -> Any:
    return {**json.loads(data), **values}


CONFIG, MANIFEST = IMAGE.config_bytes(), IMAGE.manifest_bytes()
ROOTFS = {"type": "layers"}
HOSTILE: dict[str, tuple[dict[str, bytes], str]] = {
    "nothing of an image": ({"README": b"hello"}, "no index.json and no manifest.json"),
    "deep json": ({"index.json": b"[" * 200_000}, "is no JSON"),
    "deep objects": ({"index.json": b'{"a":' * 200_000}, "is no JSON"),
    "huge json": ({"index.json": b" " * (17 << 20)}, "more than anybody reads"),
    "no utf-8": ({"index.json": b'{"\xff": 1}'}, "is no JSON"),
    "utf-16": ({"index.json": "{}".encode("utf-16")}, "is no JSON"),
    "nan": (docs(config=b'{"os": NaN}'), "is no JSON"),
    "infinity": (docs(config=b'{"os": 1e999}'), "is no JSON"),
    "half a character": (docs(config=b'{"os": "\\ud800"}'), "is no JSON"),
    "a huge number": (docs(config=b'{"os": ' + b"9" * 5000 + b"}"), "is no JSON"),
    "a list for a config": (docs(config=[]), "is not what it should be"),
    "a text for a config": (docs(config="x"), "is not what it should be"),
    "no manifests": (docs(index={}), "a list is missing"),
    "no entries": (docs(index={"manifests": []}), "it holds 0 images"),
    "an entry of text": (docs(index={"manifests": ["x"]}), "is no object"),
    "no digest": (docs(index={"manifests": [{}]}), "None is no sha256 digest"),
    "a digest that leads out": (
        docs(index={"manifests": [{"digest": "sha256:../../../../etc/passwd", "size": 1}]}),
        "is no sha256 digest",
    ),
    "a digest that is no text": (docs(index={"manifests": [{"digest": [1]}]}), "no sha256 digest"),
    "a blob that is missing": (
        docs(index={"manifests": [{"digest": f"sha256:{'0' * 64}", "size": 1}]}),
        "it has no file blobs/sha256/0000",
    ),
    "a wrong size": (
        docs(index={"manifests": [{"digest": digest(MANIFEST), "size": 1}]}),
        "does not have the digest and size",
    ),
    "two images": (
        {**OTHER.layout(), **docs(index=index_of(IMAGE, OTHER))},
        "it holds 2 images",
    ),
    "no config": (docs(manifest=changed(MANIFEST, config=None)), "None is no sha256 digest"),
    "layers that are no list": (docs(manifest=changed(MANIFEST, layers={})), "a list is missing"),
    "a layer too few": (
        docs(manifest=changed(MANIFEST, layers=[])),
        "names 2 layers, and it has 0",
    ),
    "no rootfs": (docs(config=changed(CONFIG, rootfs=None)), "a list is missing"),
    "no diff IDs": (docs(config=changed(CONFIG, rootfs=ROOTFS)), "a list is missing"),
    "diff IDs that are none": (
        docs(config=changed(CONFIG, rootfs={"diff_ids": [1, "x"]})),
        "is no sha256 digest",
    ),
    "labels that are none": (docs(config=changed(CONFIG, config={"Labels": [1]})), "no texts"),
    "a label that is a number": (
        docs(config=changed(CONFIG, config={"Labels": {"x": 1}})),
        "no texts",
    ),
    "a config that is none": (docs(config=changed(CONFIG, config=[1])), "config is no object"),
    "an os that is none": (docs(config=changed(CONFIG, os=[])), "os is no text"),
    "a history that is none": (docs(config=changed(CONFIG, history=1)), "a list is missing"),
    "two faces": (
        {**IMAGE.both(), "manifest.json": OTHER.both()["manifest.json"], **OTHER.layout()}
        | {"index.json": IMAGE.layout()["index.json"]},
        "name different images",
    ),
    "two images for docker": (
        {**IMAGE.docker(), "manifest.json": b"[{}, {}]"},
        "it holds 2 images",
    ),
    "no image for docker": ({"manifest.json": b"[]"}, "it holds 0 images"),
    "an object for docker": ({"manifest.json": b"{}"}, "is not what it should be"),
    "no config for docker": ({"manifest.json": b"[{}]"}, "it has no file None"),
    "a config for docker that leads out": (
        {"manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'},
        "it has no file ../../etc/passwd",
    ),
}


def doubled(data: bytes, key: str, other: str) -> bytes:
    """Put a key with another value before one that is there."""
    return data.replace(f'"{key}":'.encode(), f'"{other}": null, "{key}":'.encode(), 1)


INDEX, DOCKER = IMAGE.layout()["index.json"], IMAGE.both()["manifest.json"]
AMBIGUOUS = {
    "index": docs(index=doubled(INDEX, "manifests", "Manifests")),
    "entry": docs(index=doubled(INDEX, "digest", "DIGEST")),
    "manifest": docs(manifest=doubled(MANIFEST, "config", "Config")),
    "layers": docs(manifest=doubled(MANIFEST, "layers", "layer\u017f")),
    "exact": docs(manifest=doubled(MANIFEST, "layers", "layers")),
    "docker": {**IMAGE.both(), "manifest.json": doubled(DOCKER, "Config", "config")},
    "config": docs(config=doubled(CONFIG, "rootfs", "rootfs")),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_a_document_that_readers_understand_differently_is_refused(
    case: str, tmp_path: Path
) -> None:
    """Go ignores the case of keys: what is good here could be evil in an engine."""
    path = write_archive(tmp_path / "image.tar", AMBIGUOUS[case])
    assert "an object has a key twice" in refused(path, tmp_path)


def test_a_nested_index_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    nested = doubled(json.dumps(index_of(IMAGE)).encode(), "manifests", "MANIFESTS")
    kind = "application/vnd.oci.image.index.v1+json"
    outer = {"manifests": [{"mediaType": kind, "digest": digest(nested), "size": len(nested)}]}
    files = {**docs(index=outer), f"blobs/sha256/{digest(nested)[7:]}": nested}
    path = write_archive(tmp_path / "image.tar", files)
    assert "an object has a key twice" in refused(path, tmp_path)


def test_labels_may_differ_in_case_alone(tmp_path: Path) -> None:
    made = Made(IMAGE.layers, labels={"a": "1", "A": "2"})
    path = write_archive(tmp_path / "image.tar", made.both())
    assert opened(str(path), tmp_path).labels == {"a": "1", "A": "2"}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("form", [write_archive, write_folder], ids=["archive", "folder"])
def test_what_is_no_image_is_refused_by_name(
    case: str, form: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path
) -> None:
    files, expected = HOSTILE[case]
    assert expected in refused(form(tmp_path / "image", files), tmp_path)


NO_TAR = {
    "empty": b"",
    "text": b"hello " * 200,
    "zeros": b"\0" * 10_240,
    "random": bytes(range(256)) * 8,
    "an endless header": tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT).replace(b"0", b"\xff"),
}


@pytest.mark.parametrize("case", NO_TAR)
def test_what_is_no_tar_is_refused(case: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(NO_TAR[case])
    refused(path, tmp_path)


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Readers take the first or the last; an image must not depend on who reads."""
    files = [*IMAGE.both().items(), ("./index.json", b"{}")]
    path = tmp_path / "image.tar"
    path.write_bytes(tar(*(member(name, data) for name, data in files)))
    assert "'index.json' twice" in refused(path, tmp_path)


LINK = {"type": tarfile.SYMTYPE, "linkname": "."}
ELSEWHERE = {
    "below a link": ([member("d", **LINK), member("d/manifest.json", b"[]")], "below 'd'"),
    "link after": ([member("d/manifest.json", b"[]"), member("./d", **LINK)], "below 'd'"),
    "deep below": ([member("d/e/f/g"), member("d-e"), member("d", **LINK)], "below 'd'"),
    "below a file": ([member("d"), member("d/x")], "below 'd'"),
    "all below a link": ([member(".", **LINK)], "below '.'"),
    "a link that becomes a folder": (
        [member("d", **LINK), member("d", type=tarfile.DIRTYPE)],
        "'d' twice",
    ),
    "hard link": ([member("x", type=tarfile.LNKTYPE, linkname="index.json")], "a hard link"),
    "absolute": ([member("/x")], "leads out"),
    "up": ([member("d/../x")], "leads out"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_what_would_be_unpacked_elsewhere_is_refused(case: str, tmp_path: Path) -> None:
    """An engine unpacks an archive; it must not get another manifest.json than is read here."""
    more, expected = ELSEWHERE[case]
    path = tmp_path / "image.tar"
    path.write_bytes(tar(*(member(*one) for one in IMAGE.both().items()), *more))
    assert expected in refused(path, tmp_path)


def test_a_link_through_a_link_is_not_followed(tmp_path: Path) -> None:
    """By name, d/../x is x; unpacked, it is deep/x."""
    files = [member(*one) for one in IMAGE.layout().items() if one[0] != "index.json"]
    links = [
        member("d", type=tarfile.SYMTYPE, linkname="deep/er"),
        member("index.json", type=tarfile.SYMTYPE, linkname="d/../x"),
    ]
    path = tmp_path / "image.tar"
    path.write_bytes(tar(*files, *links, member("x", INDEX), member("deep/x", b"{}")))
    assert "no index.json" in refused(path, tmp_path)


@pytest.mark.parametrize(
    "facts",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "index.json"},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5},
        {"type": tarfile.DIRTYPE},
    ],
    ids=["link out", "link to itself", "fifo", "device", "folder"],
)
def test_a_document_in_an_archive_is_a_file(facts: dict[str, Any], tmp_path: Path) -> None:
    files = [member(*one) for one in IMAGE.layout().items() if one[0] != "index.json"]
    path = tmp_path / "image.tar"
    path.write_bytes(tar(*files, member("index.json", **facts)))
    assert "no index.json" in refused(path, tmp_path)


@pytest.mark.parametrize("kind", ["link out", "circle", "fifo", "device", "folder"])
def test_a_document_in_a_layout_is_a_file_of_that_folder(kind: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "image", IMAGE.layout())
    index = folder / "index.json"
    outside = index.rename(tmp_path / "index.json")
    match kind:
        case "link out":
            index.symlink_to(outside)
        case "circle":
            index.symlink_to(index)
        case "fifo":
            os.mkfifo(index)
        case "device":
            index.symlink_to("/dev/zero")
        case "folder":
            index.mkdir()
    assert "no index.json" in refused(folder, tmp_path)


def test_a_blob_in_a_layout_is_a_file_of_that_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "image", IMAGE.layout())
    blobs = folder / "blobs" / "sha256"
    moved = blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(moved)
    assert "it has no file blobs/sha256/" in refused(folder, tmp_path)


def test_links_inside_a_layout_are_followed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "image", IMAGE.layout())
    (folder / "index.json").rename(folder / "real.json")
    (folder / "index.json").symlink_to("real.json")
    assert opened(str(folder), tmp_path).manifest == MANIFEST


def test_more_files_than_any_image_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(tar(*(member(f"{index}") for index in range(10_001))))
    assert "more than 10000 files" in refused(path, tmp_path)


def test_indexes_without_end_are_refused(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    kind = "application/vnd.oci.image.index.v1+json"
    inner = b'{"manifests": []}'
    for _ in range(6):
        files[f"blobs/sha256/{digest(inner)[7:]}"] = inner
        entry = {"mediaType": kind, "digest": digest(inner), "size": len(inner)}
        inner = json.dumps({"manifests": [entry]}).encode()
    path = write_archive(tmp_path / "image.tar", {**files, "index.json": inner})
    assert "nested too deep" in refused(path, tmp_path)


@pytest.mark.parametrize(
    "name",
    ["tiny:no-such-tag", "no/such.tar", "../info", "x?y#z", "", "\udcff", "\x1b[31m", "a..b"],
)
def test_what_is_nowhere_is_said_to_be_nowhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file, no folder and no image of docker"):
        opened(name, tmp_path)


def test_a_folder_that_is_no_layout_points_at_the_image_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "penguins").mkdir()
    run = run_packager(tmp_path, tmp_path / "store", "info", "penguins")
    assert run.returncode == UsageError.exit_code
    assert "penguins:latest" in run.stderr
    assert "Traceback" not in run.stderr


# --- Anything at all -------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just(digest(BASE))
    | st.just(digest(b"")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                *("manifests", "config", "layers", "digest", "size", "annotations", "mediaType"),
                *("rootfs", "diff_ids", "history", "created_by", "os", "Labels", "platform"),
            ]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=8,
)


def replaced(value: Any, path: list[int], by: Any) -> Any:
    """Put something else into a document, at a place that `path` leads to."""
    if not path or not isinstance(value, dict | list) or not value:
        return by
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced(value[key], path[1:], by)
    return copy


def open_or_refuse(files: dict[str, bytes]) -> Opened | None:
    """Give the image, or None if it was refused; nothing else may happen."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_archive(Path(folder, "image.tar"), files)
        try:
            image = opened(str(path), Path(folder))
            damaged(image)
        except UsageError:
            return None
        assert isinstance(image.labels, dict)
        assert isinstance(image.platform, str)
        return image


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["config", "manifest", "index", "docker"]),
    st.lists(st.integers(0, 9), max_size=5),
    JSON,
)
def test_whatever_a_document_says_is_read_or_refused(which: str, path: list[int], by: Any) -> None:
    """Digests are made to agree with what is written, so that it is looked at."""
    if which == "docker":
        files = IMAGE.both()
        document = replaced(json.loads(files["manifest.json"]), path, by)
        open_or_refuse({**files, "manifest.json": json.dumps(document).encode()})
        return
    original = {
        "config": CONFIG,
        "manifest": MANIFEST,
        "index": IMAGE.layout()["index.json"],
    }[which]
    document = replaced(json.loads(original), path, by)
    open_or_refuse(Made(IMAGE.layers, **{which: document}).layout())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_bytes_an_archive_has_is_read_or_refused(data: st.DataObject) -> None:
    whole = tar(*(member(name, content) for name, content in IMAGE.both().items()))
    at = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=20))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.tar")
        path.write_bytes(whole[:at] + junk + whole[at + len(junk) :])
        try:
            image = opened(str(path), Path(folder))
        except UsageError:
            return
        # What was let through is what it was, or is known not to be.
        assert image.id == digest(CONFIG)
        assert damaged(image) or [read(layer) for layer in image.layers] == [BASE, CODE]
