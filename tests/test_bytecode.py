"""Claims about bytecode: made by the image's Python, of sources alone, and used by it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from conftest import Tiny

from packager.layers.bytecode import wants_bytecode
from packager.layers.tar import data_entry
from packager.outputs.engine import Engine


def layer_members(archive: Path, config_role: str) -> dict[str, bytes]:
    """Read the files of the layers of one role out of an image archive."""
    with tarfile.open(archive) as image:
        entry = json.loads(image.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
        config = json.loads(image.extractfile(entry["Config"]).read())  # type: ignore[union-attr]
        found: dict[str, bytes] = {}
        for name, made in zip(entry["Layers"], config["history"], strict=True):
            if made["created_by"].startswith(f"packager: {config_role}: "):
                with tarfile.open(fileobj=image.extractfile(name)) as layer:
                    found |= {
                        one.name: layer.extractfile(one).read()  # type: ignore[union-attr]
                        for one in layer
                        if one.isfile()
                    }
    return found


def test_every_module_but_tests_and_broken_ones_is_compiled_unchecked(
    tiny: Tiny, tmp_path: Path
) -> None:
    (tiny.root / "src/tiny/tests").mkdir()
    (tiny.root / "src/tiny/tests/__init__.py").write_text("")
    (tiny.root / "src/tiny/template.py").write_text("this is { not } Python\n")
    (tiny.root / "src/tiny/odd.py").write_text("pattern = '\\d'\n")
    tiny.built("--no-load", "-o", str(tmp_path / "image.tar"))
    code = layer_members(tmp_path / "image.tar", "code")
    made = {name.rpartition("/")[2]: data for name, data in code.items() if name.endswith(".pyc")}
    names = {"__init__", "predict", "odd"}
    assert set(made) == {f"{name}.cpython-311.pyc" for name in names}
    for data in made.values():
        # PEP 552: flags 1 say that the file is found by hash, and never checked.
        assert data[4:8] == (1).to_bytes(4, "little")
        assert str(tiny.root).encode() not in data
    base = layer_members(tmp_path / "image.tar", "bytecode")
    assert "usr/lib/python3.11/json/__pycache__/__init__.cpython-311.pyc" in base


def test_the_image_uses_it(tiny: Tiny, tmp_path: Path, engine: Engine) -> None:
    version = f"0.2.{abs(hash(tmp_path)) % 10**9}"
    tiny.edit("pyproject.toml", 'version = "0.1.0"', f'version = "{version}"')
    tiny.built()
    code = "import json, tiny.predict; print(json.__cached__, tiny.predict.__spec__.cached)"
    # -v tells where each module's code came from.
    printed = engine.client.containers.run(
        f"tiny:{version}",
        ["-v", "-c", code],
        entrypoint="/usr/bin/python3.11",
        remove=True,
        stderr=True,
    )
    lines = printed.decode().splitlines()
    for module in ("tiny/__pycache__/predict", "json/__pycache__/__init__"):
        assert any("matches" in line and module in line for line in lines), module
    engine.client.images.remove(f"tiny:{version}")


def test_it_can_be_left_out(tiny: Tiny, tmp_path: Path) -> None:
    tiny.edit("pyproject.toml", "[tool.packager]", "[tool.packager]\nbytecode = false")
    result = tiny.built("--no-load", "-o", str(tmp_path / "image.tar"))
    layers = result["layers"]
    assert isinstance(layers, list)
    assert "bytecode" not in {layer["role"] for layer in layers}
    code = layer_members(tmp_path / "image.tar", "code")
    assert code
    assert not [name for name in code if name.endswith(".pyc")]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("a/b.py", True),
        ("a/testing.py", True),
        ("a/tests/b.py", False),
        ("a/test/b.py", False),
        ("a/b.pyi", False),
        ("a/b", False),
    ],
)
def test_what_is_worth_compiling(path: str, wanted: bool) -> None:
    assert wants_bytecode(data_entry(path, b"")) is wanted
