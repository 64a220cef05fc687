"""Claims about what an image ID depends on, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Tiny

from packager import assembling, formats, project
from packager.assembling import Built
from packager.errors import ClaimError
from packager.lock import lockfile
from packager.reporter import Silent
from packager.store import Store


def image_id(tiny: Tiny) -> str:
    return built(tiny).image.id


def built(tiny: Tiny) -> Built:
    loaded = project.load(tiny.root)
    store = Store(tiny.store)
    inputs = assembling.gather(loaded, loaded.platforms[0])
    return assembling.assemble(inputs, store, Silent())


def test_another_version_of_packager_or_compressor_gives_the_same_image(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = image_id(tiny)
    monkeypatch.setattr(formats, "COMPRESSOR", "another one")
    tiny.edit(
        "packager.lock",
        "gzip by libdeflate of deflate 0.9.0, level 6, 4 MiB members",
        "another one",
    )
    tiny.edit("packager.lock", 'packager = "0.1.0"', 'packager = "0.1.1"')
    assert image_id(tiny) == before


def test_another_format_is_refused_and_says_whose_lock_it_is(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = formats.LAYERS
    monkeypatch.setattr(formats, "LAYERS", 99)
    tiny.edit("packager.lock", 'packager = "0.1.0"', 'packager = "0.0.9"')
    said = rf"(?s)format: {was} became 99.*model-packager==0\.0\.9"
    with pytest.raises(ClaimError, match=said):
        image_id(tiny)
    tiny.edit("packager.lock", 'packager = "0.0.9"', 'packager = "0.1.0"')
    with pytest.raises(ClaimError, match=rf"(?s)another build.*format: {was} became 99.*\n  Run "):
        image_id(tiny)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('version = "0.1.0"', 'version = "0.1.1"'),
        ('license = "Apache-2.0"', 'license = "MIT"'),
        ('description = "A factor"', 'description = "Another"'),
        ('base = "debian:bookworm"', 'base = "debian:bookworm"\nbytecode = false'),
        (
            'base = "debian:bookworm"',
            'base = "debian:bookworm"\ncode = ["src/tiny", "src/tiny/predict.py"]',
        ),
    ],
)
def test_each_input_changes_the_image(old: str, new: str, tiny: Tiny) -> None:
    before = built(tiny)
    tiny.edit("pyproject.toml", old, new)
    after = built(tiny)
    assert after.image.id != before.image.id
    assert after.inputs.digest != before.inputs.digest


def test_what_is_no_input_does_not(tiny: Tiny) -> None:
    before = image_id(tiny)
    tiny.edit("pyproject.toml", "[tool.packager]", "[tool.other]\nkey = 1\n\n[tool.packager]")
    (tiny.root / "notes.txt").write_text("Not code.")
    (tiny.root / "src/tiny/__pycache__").mkdir()
    (tiny.root / "src/tiny/__pycache__/x.cpython-311.pyc").write_bytes(b"stale")
    assert image_id(tiny) == before


def test_code_may_not_take_the_place_of_the_runtime(tiny: Tiny) -> None:
    hiding = tiny.root / "src" / "packager_runtime"
    hiding.mkdir()
    (hiding / "__init__.py").write_text("")
    with pytest.raises(ClaimError, match=r"would replace /.*packager_runtime/__init__\.py"):
        image_id(tiny)


def test_a_model_that_changes_while_it_is_read_poisons_nothing(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny.store = tmp_path / "store"
    before = image_id(tiny)
    tiny.store = tmp_path / "other"
    original = lockfile.image_inputs

    def change_then_go_on(*arguments: object) -> object:
        (tiny.root / "models/model.txt").write_text("9.9\n")
        return original(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(lockfile, "image_inputs", change_then_go_on)
        with pytest.raises(ClaimError, match="changed while it was read"):
            image_id(tiny)
    (tiny.root / "models/model.txt").write_text("2.5\n")
    assert image_id(tiny) == before
