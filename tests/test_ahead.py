"""Claims about what an engine has: known again, believed only when seen, sent ahead of the rest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Tiny, copy_store

from packager import proof
from packager.errors import ClaimError, HostError
from packager.image import LABEL_BARE, Image
from packager.layers.making import Layer
from packager.outputs import ahead as sending
from packager.outputs import packing
from packager.outputs.ahead import Ahead
from packager.outputs.chains import Chains
from packager.outputs.engine import Engine, connect
from packager.outputs.packing import Packed
from packager.proof import Limits, Verdict
from packager.store import Blob, Store

pytestmark = pytest.mark.xdist_group("ahead")  # one image name for all


def image(name: str, *layers: str) -> Packed:
    blobs = [Blob(hashlib.sha256(one.encode()).hexdigest(), 1, Path(one)) for one in layers]
    made = tuple(Layer("wheels", one.path.name, 1, one, cached=True) for one in blobs)
    return packing.for_classic(Image(name, "1", "linux/amd64", name.encode(), made), None)


def holding(*images: Packed) -> dict[str, dict[str, object]]:
    return {one.id: {"RootFS": {"Layers": one.image.diff_ids}} for one in images}


# --- Chains --------------------------------------------------------------------------------


def test_the_longest_chain_is_known_and_of_each_image_only_once_asked(tmp_path: Path) -> None:
    old, new = image("old", "base", "numpy", "code"), image("new", "base", "numpy", "scipy", "code")
    asked = []
    engine = holding(old)

    def find(name: str) -> dict[str, object] | None:
        asked.append(name)
        return engine.get(name)

    chains = Chains(find, Store(tmp_path))
    assert chains.known(new) == 0
    chains.remember(old, lasting=True)
    assert chains.known(new) == 2
    assert asked == [old.id]
    assert Chains(find, Store(tmp_path)).known(new) == 2  # another run knows it, too
    assert Chains(find, None).known(new) == 0


def test_an_image_that_does_not_last_is_forgotten_by_other_runs(tmp_path: Path) -> None:
    part, whole = image("part", "base", "numpy"), image("whole", "base", "numpy", "code")
    find = holding(part).get
    chains = Chains(find, Store(tmp_path))
    chains.remember(part, lasting=False)
    assert chains.known(whole) == 2
    assert Chains(find, Store(tmp_path)).known(whole) == 0


def test_what_was_noted_is_believed_only_if_the_engine_shows_it(tmp_path: Path) -> None:
    old, new = image("old", "base", "numpy", "code"), image("new", "base", "numpy", "scipy")
    Chains(holding(old).get, Store(tmp_path)).remember(old, lasting=True)
    gone, other = {}, {old.id: {"RootFS": {"Layers": old.image.diff_ids[:1]}}}
    assert Chains(gone.get, Store(tmp_path)).known(new) == 0
    assert Chains(other.get, Store(tmp_path)).known(new) == 1


def test_an_image_that_is_gone_does_not_hide_an_older_one_with_the_same_layers(
    tmp_path: Path,
) -> None:
    old, new = image("old", "base", "numpy", "a"), image("new", "base", "numpy", "b")
    both = Chains(holding(old, new).get, Store(tmp_path))
    both.remember(old, lasting=True)
    both.remember(new, lasting=True)
    assert Chains(holding(old).get, Store(tmp_path)).known(image("x", "base", "numpy", "c")) == 2
    assert Chains(holding().get, Store(tmp_path)).known(image("x", "base", "numpy", "c")) == 0


def test_what_one_engine_has_is_not_looked_for_in_another(tmp_path: Path) -> None:
    old, new = image("old", "base", "numpy", "code"), image("new", "base", "numpy", "scipy")
    Chains(holding(old).get, Store(tmp_path), "one").remember(old, lasting=True)
    asked: list[str] = []
    assert Chains(asked.append, Store(tmp_path), "other").known(new) == 0
    assert asked == []
    assert Chains(holding(old).get, Store(tmp_path), "one").known(new) == 2


def test_one_layer_over_another_parent_is_another_chain(tmp_path: Path) -> None:
    one, other = image("one", "base", "numpy", "scipy"), image("other", "base", "scipy")
    chains = Chains(holding(one).get, Store(tmp_path))
    chains.remember(one, lasting=True)
    assert chains.known(other) == 1


# --- Ahead ---------------------------------------------------------------------------------


@pytest.fixture
def unseen(tiny: Tiny, tmp_path: Path) -> Iterator[Tiny]:
    """A project whose base no engine has: its lock is the tests' own, its store a copy."""
    tiny.edit("pyproject.toml", 'name = "tiny"', 'name = "ahead"')
    tiny.edit("pyproject.toml", 'description = "A factor"', f'description = "{tmp_path}"')
    store = copy_store(tiny.store, tmp_path / "store")
    for note in (store / "notes").glob("holders-*"):
        note.unlink()
    tiny.store = store
    yield tiny
    subprocess.run(["docker", "rmi", "-f", "ahead:0.1.0"], check=False, capture_output=True)


def parts(engine: Engine) -> set[str]:
    """The parts of images that are there: other tests' builds may send some at the same time."""
    found = engine.client.images.list(all=True, filters={"label": LABEL_BARE})
    return {str(one.id) for one in found}


def layers_of(tiny: Tiny, *, backwards: bool = False) -> tuple[Image, Store]:
    store = Store(tiny.store)
    built = tiny.built("--no-load", "-o", str(tiny.root.parent / "ahead.tar"))
    found = [store.get(str(one["diff_id"])[7:]) for one in built["layers"]]  # type: ignore[attr-defined]
    made = [Layer("wheels", "", 1, blob, cached=True) for blob in found if blob]
    made = made[::-1] if backwards else made
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"test": str(tiny.root)}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one.blob.sha256}" for one in made]},
        }
    ).encode()
    return Image("ahead", "1", "linux/amd64", config, tuple(made)), store


def test_an_image_that_was_sent_in_parts_is_whole_and_its_parts_are_gone(
    unseen: Tiny, engine: Engine
) -> None:
    whole, store = layers_of(unseen)
    with Ahead(lambda: connect(store), "linux/amd64") as way:
        for layer in whole.layers[:-1]:
            way.add(layer)
            while way._ready.qsize():  # so that there are parts, however quick we are
                threading.Event().wait(0.01)
        loaded = way.load(whole)
        assert parts(engine) & {*way._images}
    assert loaded.sent == len(whole.layers)
    assert not loaded.existed
    assert engine.get(whole.id)["RootFS"]["Layers"] == whole.diff_ids
    assert not parts(engine) & {*way._images}
    engine.remove(whole.id)


def test_what_the_engine_has_is_not_sent_again_however_layers_come(
    unseen: Tiny, engine: Engine
) -> None:
    whole, store = layers_of(unseen)
    with Ahead(lambda: connect(store), "linux/amd64") as way:
        way.load(whole)
    with Ahead(lambda: connect(store), "linux/amd64") as way:
        for layer in whole.layers:
            way.add(layer)
            while way._ready.qsize():
                threading.Event().wait(0.01)
        assert way.load(whole).sent == 0
        assert way._images == []
    engine.remove(whole.id)


def test_an_image_whose_lower_part_did_not_arrive_is_sent_whole(
    unseen: Tiny, engine: Engine
) -> None:
    # In an order that no other test's image has.
    whole, store = layers_of(unseen, backwards=True)
    loaded = connect(store).load(whole, skip=len(whole.layers) - 1)
    assert loaded.sent == len(whole.layers)
    assert engine.get(whole.id)["RootFS"]["Layers"] == whole.diff_ids
    engine.remove(whole.id)


def test_what_was_sent_ahead_of_a_failure_is_gone(unseen: Tiny, engine: Engine) -> None:
    whole, store = layers_of(unseen)
    with contextlib.suppress(ClaimError), Ahead(lambda: connect(store), "linux/amd64") as way:
        way.add(whole.layers[0])
        while not way._images:
            threading.Event().wait(0.01)
        way._finish()
        assert parts(engine) >= {*way._images}
        raise ClaimError("a layer cannot be made")
    assert not parts(engine) & {*way._images}


@pytest.mark.usefixtures("engine")
def test_small_layers_are_not_worth_an_archive_of_their_own(
    unseen: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, store = layers_of(unseen)
    monkeypatch.setattr(sending, "_WORTH", whole.size + 1)
    with Ahead(lambda: connect(store), "linux/amd64") as way:
        for layer in whole.layers:
            way.add(layer)
        way._finish()
        assert way._images == []


def test_without_an_engine_nothing_is_made(unseen: Tiny) -> None:
    for note in (unseen.store / "notes").glob("layer-*"):
        note.unlink()
    run = unseen.run("build", DOCKER_HOST=f"unix://{unseen.root}/no.sock")
    assert run.returncode == HostError.exit_code
    assert not list((unseen.store / "notes").glob("layer-*"))


# --- Nothing changed ------------------------------------------------------------------------------

NO_SDK = """
import sys
from packager import cli
try:
    cli.run()
finally:
    print(*sorted({"docker", "requests", "pydantic", "installer", "filelock"} & set(sys.modules)),
          file=sys.stderr)
"""


def modules_of(tiny: Tiny, *arguments: str) -> tuple[str, list[str]]:
    run = subprocess.run(
        [sys.executable, "-c", NO_SDK, "build", *arguments],
        cwd=tiny.root,
        env={**os.environ, "PACKAGER_CACHE": str(tiny.store), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout, run.stderr.split()


def test_a_build_that_changes_nothing_recalls_its_proof_and_imports_no_sdk(unseen: Tiny) -> None:
    assert "passed before" not in unseen.run("build").stdout
    told, imported = modules_of(unseen)
    assert "passed before" in told
    assert "the engine has it" in told
    assert not {"docker", "requests", "pydantic", "installer"} & set(imported)
    again = unseen.built()
    assert again["smoke"]["remembered"]  # type: ignore[index]


@pytest.mark.parametrize("change", ["limits", "code", "tag", "image"])
def test_a_proof_holds_for_that_image_in_those_limits_alone(
    change: str, unseen: Tiny, engine: Engine
) -> None:
    first = unseen.built()
    arguments = ["--memory", "3g"] if change == "limits" else []
    if change == "code":
        unseen.edit("src/tiny/__init__.py", "Tiny", "Tinier")
    if change == "tag":  # the name is another image's now, but the image is there and was proved
        engine.client.api.tag(str(first["id"]), "ahead", "kept", force=True)
        engine.client.images.remove("ahead:0.1.0")
    if change == "image":
        engine.client.images.remove(str(first["id"]), force=True)
    second = unseen.built(*arguments)
    assert second["smoke"]["remembered"] == (change == "tag")  # type: ignore[index]
    assert engine.client.images.get("ahead:0.1.0").id == second["id"]
    if change == "tag":
        engine.client.images.remove("ahead:kept")


def test_an_image_that_was_never_proved_is_proved_by_the_next_build(unseen: Tiny) -> None:
    unseen.built("--no-smoke")
    told = unseen.run("build").stdout  # it is there, but nothing was proved
    assert (told.count("\n  load "), told.count("  passed\n")) == (1, 1)


# --- Proofs --------------------------------------------------------------------------------


def test_a_proof_is_of_one_image_in_one_engine_within_its_limits(tmp_path: Path) -> None:
    store, limits = Store(tmp_path), Limits(memory="1g")
    verdict = Verdict(3, [{"name": "y", "largest_difference": 0.5}], {"load": 0.1})
    proof.remember(store, "sha256:a", "engine", limits, verdict)
    known = proof.recall(store, "sha256:a", "engine", limits)
    assert known is not None
    assert known.remembered
    assert (known.examples, known.largest_difference) == (3, 0.5)
    assert proof.recall(store, "sha256:b", "engine", limits) is None
    assert proof.recall(store, "sha256:a", "another", limits) is None
    assert proof.recall(store, "sha256:a", "engine", Limits(memory="2g")) is None
    shutil.rmtree(tmp_path / "notes")
    assert proof.recall(store, "sha256:a", "engine", limits) is None
