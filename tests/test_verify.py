"""Claims about `packager verify`: it finds the sources, rebuilds, compares, and says so."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from chroots import chroot, or_skip
from conftest import REPOSITORY, Tiny, git, tiny_examples, write_tiny

from packager.files import canonical_json
from packager.outputs.engine import Engine

SCHEMA = json.loads((REPOSITORY / "src/packager/verification.schema.json").read_text())
OCI = "application/vnd.oci.image"
NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


@pytest.fixture
def archive(tiny: Tiny, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.tar"
    tiny.built("--no-load", "-o", str(path))
    return path


def verified(
    tiny: Tiny, image: Path | str, *options: str, code: int = 0, **environment: str
) -> dict[str, Any]:
    """Verify, and hold the report against its schema whatever it says."""
    run = tiny.run("verify", str(image), "--json", *options, **{**NO_ENGINE, **environment})
    assert run.returncode == code, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    jsonschema.validate(report, SCHEMA, format_checker=jsonschema.FormatChecker())
    written = json.loads((tiny.root / "tiny-0.1.0.verification.json").read_text())
    assert written == report
    assert report["verdict"] == ("changed" if code else "reproduced")
    return report


def levels(report: dict[str, Any]) -> dict[str, str]:
    return {level["name"]: level["verdict"] for level in report["levels"]}


def refused(tiny: Tiny, image: Path | str, *options: str) -> str:
    run = tiny.run("verify", str(image), *options, **NO_ENGINE)
    assert run.returncode == 1, run.stdout + run.stderr
    assert not list(tiny.root.glob("*.verification.json"))
    return run.stderr


# --- Reproduced ------------------------------------------------------------------------------


def test_an_archive_is_rebuilt_from_its_commit(tiny: Tiny, archive: Path) -> None:
    before = hashlib.sha256(archive.read_bytes()).hexdigest()
    report = verified(tiny, archive)
    assert levels(report) == {"image": "same", "manifest": "same", "engine": "not compared"}
    assert report["sources"] == {
        "commit": git(tiny.root, "rev-parse", "HEAD").strip(),
        "code": "commit",
        "model": "commit",
        "examples": "commit",
    }
    assert report["rebuilt"]["layers"] == report["image"]["layers"]
    assert report["model_retrained"] is False
    assert report["difference"] is None
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == before


def test_a_person_reads_reproduced_and_that_nothing_was_retrained(
    tiny: Tiny, archive: Path
) -> None:
    run = tiny.run("verify", str(archive), "--by", "A Reviewer", **NO_ENGINE)
    assert run.returncode == 0, run.stderr
    assert "image reproduced: sha256:" in run.stdout
    assert "no model was retrained" in run.stdout
    report = json.loads((tiny.root / "tiny-0.1.0.verification.json").read_text())
    assert report["by"] == "A Reviewer"


def test_an_old_image_is_found_among_the_commits(tiny: Tiny, archive: Path, tmp_path: Path) -> None:
    first = git(tiny.root, "rev-parse", "HEAD").strip()
    tiny.edit("src/tiny/__init__.py", "Tiny.", "Tiny, changed.")
    git(tiny.root, "commit", "-qam", "Change")
    (tiny.root / "README.md").write_text("# Another\n")
    git(tiny.root, "commit", "-qam", "Words")
    unnamed = Parts.of(archive)
    unnamed.annotations = {}
    for image in (archive, unnamed.write(tmp_path / "unnamed.tar")):
        assert verified(tiny, image)["sources"]["commit"] == first


def test_a_commit_that_was_amended_away_is_still_found(tiny: Tiny, archive: Path) -> None:
    first = git(tiny.root, "rev-parse", "HEAD").strip()
    tiny.edit("src/tiny/__init__.py", "Tiny.", "Tiny, amended.")
    git(tiny.root, "commit", "-qa", "--amend", "-m", "Tiny, amended")
    assert verified(tiny, archive)["sources"]["commit"] == first


def test_what_was_built_without_a_commit_is_found_in_the_working_tree(
    tiny: Tiny, tmp_path: Path
) -> None:
    tiny.edit("src/tiny/__init__.py", "Tiny.", "Tiny, not committed.")
    path = tmp_path / "dirty.tar"
    tiny.built("--no-load", "-o", str(path))
    report = verified(tiny, path)
    assert (report["sources"]["commit"], report["sources"]["code"]) == (None, "working tree")


def test_a_source_zip_without_history_verifies_as_well(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    git(tiny.root, "archive", "--format=zip", "-o", str(tmp_path / "tiny.zip"), "HEAD")
    with zipfile.ZipFile(tmp_path / "tiny.zip") as source:
        source.extractall(tmp_path / "unzipped")
    report = verified(Tiny(tmp_path / "unzipped", tiny.store), archive)
    assert report["sources"]["code"] == "working tree"


def test_a_model_that_is_in_no_commit_is_taken_from_the_working_tree_or_the_image(
    tiny: Tiny, archive: Path
) -> None:
    git(tiny.root, "rm", "-q", "--cached", "models/model.txt", "models/examples.json")
    (tiny.root / ".gitignore").write_text("models/\n*.verification.json\n")
    git(tiny.root, "add", "-A")
    git(tiny.root, "commit", "-q", "--amend", "-m", "Tiny, without its model")
    git(tiny.root, "reflog", "expire", "--expire=now", "--all")
    there = verified(tiny, archive)["sources"]
    assert (there["code"], there["model"], there["examples"]) == (
        "commit",
        "working tree",
        "working tree",
    )
    (tiny.root / "models/model.txt").write_text("9\n")
    (tiny.root / "models/examples.json").unlink()
    gone = verified(tiny, archive)["sources"]
    assert (gone["code"], gone["model"], gone["examples"]) == ("commit", "image", "image")


def test_after_training_again_the_image_brings_its_own_model(tiny: Tiny, archive: Path) -> None:
    """What is here is sound, and of another model: that must not end the search."""
    git(tiny.root, "rm", "-q", "--cached", "models/model.txt", "models/examples.json")
    (tiny.root / ".gitignore").write_text("models/\n*.verification.json\n")
    git(tiny.root, "add", "-A")
    git(tiny.root, "commit", "-qm", "The model is kept elsewhere")
    model = b"3.5\n"
    (tiny.root / "models/model.txt").write_bytes(model)
    (tiny.root / "models/examples.json").write_text(json.dumps(tiny_examples(model)))
    unnamed = Parts.of(archive)
    unnamed.annotations = {}
    git(tiny.root, "reflog", "expire", "--expire=now", "--all")
    sources = verified(tiny, unnamed.write(archive.with_name("unnamed.tar")))["sources"]
    assert (sources["code"], sources["model"], sources["examples"]) == ("commit", "image", "image")


def test_a_model_that_git_lfs_keeps_is_taken_from_the_working_tree(
    tiny: Tiny, archive: Path
) -> None:
    model = (tiny.root / "models/model.txt").read_bytes()
    (tiny.root / "models/model.txt").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"
    )
    git(tiny.root, "commit", "-qa", "--amend", "-m", "As git LFS stores it")
    git(tiny.root, "reflog", "expire", "--expire=now", "--all")
    (tiny.root / "models/model.txt").write_bytes(model)
    sources = verified(tiny, archive)["sources"]
    assert (sources["code"], sources["model"]) == ("commit", "working tree")


def test_a_model_that_is_a_folder_is_taken_from_the_image(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny.root / "models/net"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/weights.bin").write_bytes(b"\0\1")
    (folder / "factor.txt").write_text("2.5\n")
    tiny.edit("pyproject.toml", 'model = "models/model.txt"', 'model = "models/net"')
    tiny.edit("pyproject.toml", 'examples = "models/examples.json"\n', "")
    path = tmp_path / "folder.tar"
    tiny.built("--no-load", "-o", str(path))
    subprocess.run(["rm", "-r", str(folder)], check=True)
    sources = verified(tiny, path)["sources"]
    assert (sources["model"], sources["examples"]) == ("image", None)


@pytest.mark.whole
@pytest.mark.xdist_group("chroots")
def test_another_debian_and_another_python_reproduce_an_archive(tiny: Tiny, archive: Path) -> None:
    with or_skip(), chroot("trixie") as root:
        version = root.run([root.python, "-c", "import sys; print(sys.version_info[:2])"])
        assert version.stdout.strip() == "(3, 13)"
        done = root.run(
            [root.packager, "verify", archive, "--json", "--empty-store"],
            cwd=tiny.root,
            shared=[archive.parent],
            environment={"PACKAGER_CACHE": "/tmp/store"},
        )
    report = json.loads(done.stdout)
    assert levels(report) == {"image": "same", "manifest": "same", "engine": "not compared"}
    assert report["versions"]["python"].startswith("3.13.")
    assert "trixie" in report["host"]["distribution"]


def test_an_empty_store_is_filled_anew(tiny: Tiny, archive: Path) -> None:
    assert verified(tiny, archive, "--empty-store")["rebuilt"]["empty_store"] is True


def test_what_the_engine_holds_is_exported_and_compared(tiny: Tiny, engine: Engine) -> None:
    tiny.built("--no-smoke", "-t", "verify:one")
    try:
        run = tiny.run("verify", "verify:one", "--json")
        assert run.returncode == 0, run.stderr
        report = json.loads(run.stdout)
        assert levels(report) == {"image": "same", "manifest": "not compared", "engine": "same"}
        assert engine.find("verify:one")["Id"] == report["image"]["id"]  # type: ignore[index]
    finally:
        engine.client.images.remove("verify:one", force=True)


# --- Changed ---------------------------------------------------------------------------------


@dataclass
class Parts:
    """An archive's parts, to be changed and written again."""

    config: dict[str, Any]
    layers: list[bytes]
    annotations: dict[str, str]
    compressed_by: dict[str, str]

    @classmethod
    def of(cls, archive: Path) -> Parts:
        blobs = contents(archive)
        entry = json.loads(blobs["index.json"])["manifests"][0]
        manifest = json.loads(blobs[f"blobs/sha256/{entry['digest'][7:]}"])
        layers = [blobs[f"blobs/sha256/{one['digest'][7:]}"] for one in manifest["layers"]]
        config = json.loads(blobs[f"blobs/sha256/{manifest['config']['digest'][7:]}"])
        return cls(config, layers, entry["annotations"], manifest["annotations"])

    def replace_code(self, old: bytes, new: bytes, *, honest: bool) -> None:
        """Change the code's layer, and the config with it or not."""
        layer = gzip.decompress(self.layers[-1])
        assert old in layer
        changed = layer.replace(old, new)
        self.layers[-1] = gzip.compress(changed)
        if honest:
            self.config["rootfs"]["diff_ids"][-1] = _digest(changed)

    def write(self, path: Path) -> Path:
        """Write an archive in which every digest but those of the config fits."""
        config = canonical_json(self.config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": _descriptor("config.v1+json", config),
            "layers": [_descriptor("layer.v1.tar+gzip", layer) for layer in self.layers],
            "annotations": self.compressed_by,
        }
        data = canonical_json(manifest)
        entry = {**_descriptor("manifest.v1+json", data), "annotations": self.annotations}
        blobs = {f"blobs/sha256/{_digest(one)[7:]}": one for one in (config, data, *self.layers)}
        blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
        with tarfile.open(path, "w") as archive:
            for name, content in blobs.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {
            member.name: opened.extractfile(member).read()  # type: ignore[union-attr]
            for member in opened
            if member.isfile()
        }


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": f"{OCI}.{kind}", "digest": _digest(data), "size": len(data)}


def test_a_forged_layer_is_changed_and_the_path_is_named(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    parts = Parts.of(archive)
    parts.replace_code(b"value * self.factor", b"value + self.factor", honest=True)
    forged = parts.write(tmp_path / "forged.tar")
    report = verified(tiny, forged, code=1)
    assert levels(report) == {"image": "changed", "manifest": "changed", "engine": "not compared"}
    assert "tiny/predict.py" in json.dumps(report["difference"])
    run = tiny.run("verify", str(forged), **NO_ENGINE)
    assert run.returncode == 1
    assert "image changed" in run.stdout
    assert "tiny/predict.py" in run.stdout


def test_a_layer_that_is_not_what_the_config_says_is_changed(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    """As in an engine whose disk was written to behind its back."""
    parts = Parts.of(archive)
    parts.replace_code(b"value * self.factor", b"value + self.factor", honest=False)
    report = verified(tiny, parts.write(tmp_path / "rotten.tar"), code=1)
    assert report["image"]["id"] == report["rebuilt"]["id"]
    assert "code: src/tiny" in report["levels"][0]["why"]
    assert "tiny/predict.py" in json.dumps(report["difference"])


def test_a_layer_that_is_no_tar_any_more_is_changed(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    parts = Parts.of(archive)
    parts.layers[-1] = gzip.compress(b"nothing that a tar could be")
    report = verified(tiny, parts.write(tmp_path / "no-tar.tar"), code=1)
    assert "code: src/tiny" in report["levels"][0]["why"]
    assert report["difference"] is None


def test_a_label_that_was_changed_is_changed(tiny: Tiny, archive: Path, tmp_path: Path) -> None:
    parts = Parts.of(archive)
    parts.config["config"]["Labels"]["org.opencontainers.image.licenses"] = "MIT"
    report = verified(tiny, parts.write(tmp_path / "label.tar"), code=1)
    assert "licenses" in json.dumps(report["difference"])


def test_a_flipped_byte_in_the_archive_is_changed(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    data = bytearray(archive.read_bytes())
    layer = Parts.of(archive).layers[-1]
    data[data.index(layer) + len(layer) // 2] ^= 1
    flipped = tmp_path / "flipped.tar"
    flipped.write_bytes(data)
    assert levels(verified(tiny, flipped, code=1))["image"] == "changed"


def test_a_layer_that_packager_cannot_read_is_neither_changed_nor_the_same(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    parts = Parts.of(archive)
    parts.layers[0] = b"\x28\xb5\x2f\xfd" + b"zstd would follow"
    run = tiny.run("verify", str(parts.write(tmp_path / "zstd.tar")), **NO_ENGINE)
    assert run.returncode == 2
    assert "compressed with zstd" in run.stderr


def test_another_compressor_is_no_change_of_the_image(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    """As after another tool's copy, which may compress anew."""
    parts = Parts.of(archive)
    parts.layers = [gzip.decompress(layer) for layer in parts.layers]
    parts.compressed_by = {}
    report = verified(tiny, parts.write(tmp_path / "copy.tar"))
    assert levels(report) == {
        "image": "same",
        "manifest": "not compared",
        "engine": "not compared",
    }
    parts.compressed_by = Parts.of(archive).compressed_by  # which is a lie now
    report = verified(tiny, parts.write(tmp_path / "lie.tar"), code=1)
    assert levels(report)["manifest"] == "changed"


def test_a_file_that_would_leave_its_folder_is_not_taken(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    """What is taken out of an image is named by whoever made it."""
    victim = tmp_path / "victim"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as made:
        for name in (f"srv/packager/{victim}", f"srv/packager/model/../../{victim.name}"):
            member = tarfile.TarInfo(name)
            member.size = 4
            made.addfile(member, io.BytesIO(b"evil"))
    parts = Parts.of(archive)
    parts.layers[-1] = gzip.compress(layer.getvalue())
    (tiny.root / "models/model.txt").unlink()
    git(tiny.root, "commit", "-qam", "No model")
    tiny.run("verify", str(parts.write(tmp_path / "evil.tar")), **NO_ENGINE)
    assert not list(tmp_path.rglob("victim"))
    assert not victim.exists()


def test_no_path_reaches_the_report_of_a_changed_image(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    parts = Parts.of(archive)
    parts.replace_code(b"value * self.factor", b"value + self.factor", honest=True)
    report = verified(tiny, parts.write(tmp_path / "forged.tar"), code=1)
    assert str(tmp_path) not in json.dumps(report)
    assert report["difference"]["a"]["name"] == "image"


@pytest.mark.parametrize("annotations", [None, [], {"org.model-packager.compressor": 1}])
def test_strange_annotations_are_those_of_another_tool(
    annotations: Any, tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    parts = Parts.of(archive)
    parts.compressed_by = annotations
    run = tiny.run("verify", str(parts.write(tmp_path / "strange.tar")), **NO_ENGINE)
    assert "Traceback" not in run.stderr
    assert run.returncode in {0, 2}, run.stderr


# --- Refused ---------------------------------------------------------------------------------


def test_sources_that_are_not_here_are_said_to_be_missing(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    write_tiny(stranger, name="stranger")
    subprocess.run(["cp", str(tiny.root / "packager.lock"), str(stranger)], check=True)
    says = refused(Tiny(stranger, tiny.store), archive)
    assert "no sources here" in says
    assert "(1 tried)" in says


def test_a_forged_digest_of_the_inputs_finds_no_sources(tiny: Tiny, tmp_path: Path) -> None:
    tiny.edit("src/tiny/__init__.py", "Tiny.", "Tiny, once.")
    path = tmp_path / "once.tar"
    tiny.built("--no-load", "-o", str(path))
    tiny.edit("src/tiny/__init__.py", "Tiny, once.", "Tiny.")
    says = refused(tiny, path)
    assert "no sources here" in says
    assert "(2 tried)" in says


def test_the_report_does_not_replace_a_part_of_a_layout(
    tiny: Tiny, archive: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    with tarfile.open(archive) as whole:
        whole.extractall(layout)
    before = (layout / "index.json").read_bytes()
    run = tiny.run("verify", str(layout), "--report", str(layout / "index.json"), **NO_ENGINE)
    assert run.returncode == 2
    assert (layout / "index.json").read_bytes() == before
    assert levels(verified(tiny, layout))["manifest"] == "same"


def test_the_report_does_not_replace_the_image(tiny: Tiny, archive: Path) -> None:
    before = archive.read_bytes()
    run = tiny.run("verify", str(archive), "--report", str(archive), **NO_ENGINE)
    assert run.returncode == 2
    assert "would replace the image" in run.stderr
    assert archive.read_bytes() == before


@pytest.mark.parametrize("broken", ["nothing.tar", "README.md"])
def test_what_is_no_image_is_said_to_be_none(tiny: Tiny, broken: str) -> None:
    run = tiny.run("verify", broken, **NO_ENGINE)
    assert run.returncode in {2, 3}
    assert "Traceback" not in run.stderr
    assert broken in run.stderr or "no container engine" in run.stderr
