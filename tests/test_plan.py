"""Claims about which layers an image has: in which order, and what a change leaves as it was."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from conftest import WheelMaker, write_tiny
from hypothesis import given
from hypothesis import strategies as st

from packager import assembling, project
from packager.layers import tree
from packager.layers.making import Layer
from packager.layers.plan import Plan
from packager.lock.debian_pins import DebianPins, DebPin
from packager.lock.lockfile import Lock, WheelPin
from packager.store import Blob, Store

MB, KB = 1_000_000, 1_000


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def pin(name: str, size: int, version: str = "1") -> WheelPin:
    file = f"{name}-{version}-py3-none-any.whl"
    return WheelPin(name, version, file, size, sha256(file), ("linux/amd64",))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, locked by nobody."""
    root = tmp_path_factory.mktemp("plan")
    write_tiny(root / "tiny")
    return root


def plan(root: Path, *wheels: WheelPin, bytecode: bool = True) -> Plan:
    deb = DebPin("python3.11-minimal", "1", "amd64", "pool/p.deb", 1, sha256("deb"), "base")
    debian = {"linux/amd64": DebianPins("bookworm", "amd64", "20200101T000000Z", (deb,))}
    lock = Lock({"base": "debian:bookworm"}, wheels, debian, {})
    tiny = replace(project.load(root / "tiny"), bytecode=bytecode)
    return Plan(tiny, lock, "linux/amd64", Store(root / "store"))


def layers(made: Plan) -> dict[str, str]:
    """List an image's layers, bottom first, each with its key."""
    model = tree.read_model(made.project)
    recipes = made.recipes(model, [], {})
    return {f"{one.role}: {one.what}": one.key for one in recipes}


def wheel_layers(*wheels: WheelPin, root: Path) -> list[str]:
    kept = layers(plan(root, *wheels, bytecode=False))
    return [name for name in kept if name.startswith("wheels")]


def test_what_changes_least_lies_lowest(root: Path) -> None:
    wheels = [pin("b", 9 * MB), pin("a", 3 * MB), pin("m", MB), pin("s", KB), pin("t", KB)]
    assert list(layers(plan(root, *wheels))) == [
        "base: 1 packages",
        "bytecode: of the base",
        "wheels: a 1",
        "wheels: b 1",
        "bytecode: of the big wheels",
        "runtime: packager_runtime",
        "wheels: 1 medium wheels",
        "bytecode: of the medium wheels",
        "wheels: 2 small wheels",
        "bytecode: of the small wheels",
        "model: models/model.txt",
        "code: src/tiny",
    ]


def test_without_wheels_and_without_bytecode_there_are_no_layers_of_them(root: Path) -> None:
    left = ["runtime: packager_runtime", "model: models/model.txt", "code: src/tiny"]
    assert list(layers(plan(root)))[2:] == left
    plain = list(layers(plan(root, pin("a", KB), bytecode=False)))
    assert plain == ["base: 1 packages", left[0], "wheels: 1 small wheels", *left[1:]]


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (3_000_000, "x 1"),
        (2_999_999, "1 medium wheels"),
        (200_000, "1 medium wheels"),
        (199_999, "1 small wheels"),
    ],
)
def test_a_wheel_goes_by_its_size(size: int, kind: str, root: Path) -> None:
    assert wheel_layers(pin("x", size), root=root) == [f"wheels: {kind}"]


def test_of_more_big_wheels_than_an_engine_likes_the_smallest_are_medium(root: Path) -> None:
    wheels = [pin(f"big{number:02}", (90 - number) * MB) for number in range(40)]
    assert wheel_layers(*wheels, root=root) == [
        *(f"wheels: big{number:02} 1" for number in range(32)),
        "wheels: 8 medium wheels",
    ]


def test_wheels_that_share_a_path_are_medium_whatever_their_size(
    root: Path, make_wheel: WheelMaker
) -> None:
    wheels = [pin("shares", 9 * MB), pin("sharing", KB), pin("alone", 5 * MB), pin("apart", KB)]
    contents = {
        one.sha256: make_wheel(
            one.name,
            one.version,
            {f"{'both' if one.name.startswith('shar') else one.name}.py": b"same = 1\n"},
        )
        for one in wheels
    }
    made = plan(root, *wheels, bytecode=False)
    assert list(layers(made))[1:-2] == [
        "wheels: alone 1",
        "wheels: shares 1",
        "runtime: packager_runtime",
        "wheels: 2 small wheels",
    ]
    assert made.settle(contents.__getitem__)
    assert list(layers(made))[1:-2] == [
        "wheels: alone 1",
        "runtime: packager_runtime",
        "wheels: 2 medium wheels",
        "wheels: 1 small wheels",
    ]
    assert not made.settle(contents.__getitem__)  # it is known now, to later plans too
    assert not plan(root, *wheels).settle(contents.__getitem__)


@given(
    sizes=st.lists(st.sampled_from([9 * MB, MB, KB]), min_size=1, max_size=9),
    which=st.integers(min_value=0),
)
def test_another_release_changes_no_layer_of_other_wheels(
    sizes: list[int], which: int, root: Path
) -> None:
    before = [pin(f"w{number}", size) for number, size in enumerate(sizes)]
    after = list(before)
    changed = which % len(sizes)
    after[changed] = pin(f"w{changed}", sizes[changed], "2")
    kinds = {9 * MB: "big", MB: "medium", KB: "small"}
    kind = kinds[sizes[changed]]
    first, second = layers(plan(root, *before)), layers(plan(root, *after))
    differs = {name for name in first if first[name] != second.get(name)}
    count = sizes.count(sizes[changed])
    own = f"w{changed} 1" if kind == "big" else f"{count} {kind} wheels"
    assert differs == {f"wheels: {own}", f"bytecode: of the {kind} wheels"}


@pytest.mark.parametrize("bytecode", [True, False])
def test_wheels_and_their_bytecode_are_told_in_one_row(bytecode: bool, root: Path) -> None:
    wheels = [pin("b", 9 * MB), pin("a", 3 * MB), pin("m", MB), pin("s", KB), pin("t", KB)]
    made = plan(root, *wheels, bytecode=bytecode)
    blob = Blob(sha256(""), 0, root)
    kept = [
        Layer(one.role, one.what, one.count, blob, cached=False)
        for one in made.recipes(tree.read_model(made.project), [], {})
    ]
    kept.append(Layer("model", "models/of wheels", 1, blob, cached=False))
    rows = [(row, list(group)) for row, group in groupby(kept, assembling._row_of)]
    told = [assembling._wheels_of(group) for row, group in rows if row == "wheels"]
    assert told == (["2 and their bytecode", "3 and their bytecode"] if bytecode else ["2", "3"])
