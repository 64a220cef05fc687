"""Claims about bytecode: made by the image's Python, of sources alone, and used by it."""

from __future__ import annotations

import json
import os
import platform
import random
import tarfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import Tiny

from packager import assembling
from packager import image as images
from packager.assembling import _workshop
from packager.errors import ClaimError, HostError
from packager.layers import bytecode, deb, tar
from packager.layers.bytecode import Interpreter, Run, compile_entries, wants_bytecode
from packager.layers.making import Bench
from packager.layers.tar import Entry, data_entry
from packager.outputs.engine import Engine
from packager.project import load
from packager.reporter import Silent
from packager.store import Blob, Store

if TYPE_CHECKING:
    from debian_fixtures import Fetch

pytest_plugins = ["debian_fixtures"]
pytestmark = pytest.mark.xdist_group("bytecode")

PYTHON = Interpreter("3.11", "amd64")


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
        network_mode="none",
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


@pytest.fixture(scope="module")
def base(locked_tiny: Path, shared_store: Path) -> Blob:
    """The tiny project's base layer."""
    inputs = assembling.gather(load(locked_tiny), "linux/amd64")
    built = assembling.assemble(inputs, Store(shared_store), Silent())
    return built.image.layers[0].blob


@pytest.fixture(scope="module")
def here(base: Blob, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The image's Python on this host, without a container."""
    run = PYTHON.here(base, tmp_path_factory.mktemp("python"))
    assert run is not None
    return run


@pytest.fixture
def elsewhere_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not execute the image's programs."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")


@pytest.fixture
def fresh_store(tiny: Tiny, tmp_path: Path) -> Store:
    """A store that has all that was fetched, and has made nothing yet."""
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "blobs").symlink_to(tiny.store / "blobs")
    return Store(tmp_path / "fresh")


def library(base: Blob) -> list[Entry]:
    return [one for one in tar.read(base.path, "base") if one.path.startswith("usr/lib/python3")]


def made(entries: list[Entry], run: Run, tag: str = PYTHON.tag) -> dict[str, bytes]:
    found = {}
    for entry in compile_entries(entries, tag, run):
        assert entry.open is not None
        with entry.open() as stream:
            found[entry.path] = stream.read()
    return found


def module(source: bytes, name: str = "m/a.py") -> Entry:
    return data_entry(name, source, owner="somebody")


def test_of_a_base_s_links_copies_are_unpacked(tmp_path: Path) -> None:
    targets = {"b.py": "a.py", "c.py": "../python3.11/b.py", "gone.py": "none.py", "d.py": "d.py"}
    entries = [
        Entry(f"usr/lib/python3.11/{name}", "symlink", 0o777, target=target, owner="test")
        for name, target in targets.items()
    ]
    entries.append(module(b"A = 1", "usr/lib/python3.11/a.py"))
    blob = Store(tmp_path / "store").add(lambda out: tar.write(tar.merge(entries), out))
    assert PYTHON.here(blob, tmp_path / "here") is None
    placed = list((tmp_path / "here" / "usr/lib/python3.11").iterdir())
    assert {path.name: path.read_bytes() for path in placed} == dict.fromkeys(
        ("a.py", "b.py", "c.py"), b"A = 1"
    )
    assert not any(path.is_symlink() for path in placed)


def test_a_container_gives_the_bytes_that_the_host_gives(
    base: Blob, here: Run, engine: Engine, tmp_path: Path
) -> None:
    entries = library(base)
    with engine.workshop([base], "amd64") as work:
        there = PYTHON.there(work, tmp_path)
        assert there is not None
        in_container = made(entries, there)
    on_host = made(entries, here)
    assert len(on_host) > 400
    assert in_container == on_host


@pytest.mark.usefixtures("elsewhere_only")
def test_an_image_is_the_same_where_only_a_container_executes_its_python(
    tiny: Tiny, tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    bases = []
    bare = images.bare
    monkeypatch.setattr(images, "bare", lambda *of: bases.append(bare(*of)) or bases[-1])
    inputs = assembling.gather(load(tiny.root), "linux/amd64")
    built = assembling.assemble(inputs, fresh_store, Silent())
    assert not any(layer.cached for layer in built.image.layers)
    monkeypatch.undo()
    assert built.image.id == tiny.built("--no-load", "-o", str(tmp_path / "i.tar"))["id"]
    # The base alone is gone again, and with it what was made from it: it could not go before.
    assert [engine.find(one.id) for one in bases] == [None]


@pytest.mark.usefixtures("elsewhere_only")
def test_where_neither_can_an_error_says_so(
    tiny: Tiny, tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    inputs = assembling.gather(load(tiny.root), "linux/amd64")
    with pytest.raises(HostError, match=r"runs neither on Darwin .* nor in a container") as caught:
        assembling.assemble(inputs, fresh_store, Silent())
    assert "no container engine answers" in str(caught.value)
    assert "bytecode = false" in str(caught.value)
    # What the hint says works.
    tiny.edit("pyproject.toml", "[tool.packager]", "[tool.packager]\nbytecode = false")
    without = assembling.gather(load(tiny.root), "linux/amd64")
    assert assembling.assemble(without, fresh_store, Silent()).image.layers


def test_programs_for_another_processor_run_nowhere(tmp_path: Path) -> None:
    # An ELF file for a machine that nobody has (0xfeed) stands for a foreign processor's.
    foreign = b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\xed\xfe\1\0\0\0" + bytes(100)
    paths = ["usr/bin/python3.11", "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"]
    entries = tar.merge(data_entry(path, foreign, mode=0o755) for path in paths)
    entries.append(Entry("tmp", kind="dir", mode=0o1777))
    blob = Store(tmp_path / "store").add(lambda out: tar.write(entries, out))
    with (
        Bench(
            tmp_path, lambda: blob, partial(_workshop, Store(tmp_path / "store")), {}, {}
        ) as bench,
        pytest.raises(HostError, match=r"runs neither on Linux .* nor in a container"),
    ):
        bench.python(Interpreter("3.11", "arm64"))


def test_a_module_has_one_bytecode_in_whatever_company(base: Blob, here: Run) -> None:
    entries = [one for one in library(base) if wants_bytecode(one)]
    together = made(entries, here)
    shuffled = random.Random(1).sample(entries, len(entries))
    half = len(entries) // 2
    assert made(shuffled[:half], here) | made(shuffled[half:], here) == together
    for entry in shuffled[:10]:
        assert made([entry], here).items() <= together.items()


@pytest.mark.whole
def test_all_of_this_holds_for_python_3_13(fetch: Fetch, tmp_path: Path, engine: Engine) -> None:
    _, debs = fetch("trixie", "amd64")
    root = tar.merge(deb.base_entries(debs, python="3.13", scratch=tmp_path))
    base = Store(tmp_path / "store").add(lambda out: tar.write(root, out))
    python = Interpreter("3.13", "amd64")
    here = python.here(base, tmp_path / "python")
    assert here is not None
    entries = [one for one in library(base) if wants_bytecode(one)]
    together = made(entries, here, python.tag)
    assert len(together) > 400
    shuffled = random.Random(1).sample(entries, len(entries))
    half = len(entries) // 2
    apart = made(shuffled[:half], here, python.tag) | made(shuffled[half:], here, python.tag)
    assert apart == together
    with engine.workshop([base], "amd64") as work:
        there = python.there(work, tmp_path)
        assert there is not None
        assert made(entries, there, python.tag) == together


def test_company_would_show_if_nothing_were_done_about_it(
    here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    star, other = module(b"from x import *\n"), module(b"y = '*'\n", "m/b.py")
    (alone,) = made([other], here).values()
    assert alone in made([star, other], here).values()
    script = bytecode._script()
    assert b'sys.intern("*")' in script
    monkeypatch.setattr(bytecode, "_script", lambda: script.replace(b'sys.intern("*")', b"pass"))
    (alone,) = made([other], here).values()
    assert alone not in made([star, other], here).values()


def test_nothing_of_the_host_reaches_the_bytes(
    base: Blob, here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [*library(base)[:80], module(b"x = 1\ny = x is 1\n")]
    before = made(entries, here)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "_imp.py").write_text("raise SystemExit")
    for name, value in {
        "PYTHONHASHSEED": "7",
        "PYTHONWARNINGS": "error",  # were it heard, the module above would not compile
        "PYTHONPATH": str(tmp_path),
        "PYTHONOPTIMIZE": "2",
        "PYTHONUTF8": "0",
        "LC_ALL": "tr_TR.ISO-8859-9",
        "TZ": "Pacific/Kiritimati",
        "SOURCE_DATE_EPOCH": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert made(entries, here) == before
    assert any("m/__pycache__/a" in path for path in before)


def test_a_bytecode_is_that_of_its_source_and_path(here: Run) -> None:
    one = made([module(b"def f(): pass\n")], here)
    assert one != made([module(b"def g(): pass\n")], here)
    (path, data), *_ = made([module(b"def f(): pass\n", "m/b.py")], here).items()
    assert path == "m/__pycache__/b.cpython-311.pyc"
    assert data not in one.values()
    assert b"/m/b.py" in data


ODD = {
    "NUL": (b"x = 1\0\n", False),
    "Latin-1": ("# coding: latin-1\ns = '\xe9'\n".encode("latin-1"), True),
    "EUC-JP": ("# -*- coding: euc-jp -*-\ns = '\u65e5'\n".encode("euc-jp"), True),
    "UTF-8 with a mark": (b"\xef\xbb\xbfs = 1\n", True),
    "a mark and another encoding": (b"\xef\xbb\xbf# coding: latin-1\n", False),
    "not UTF-8": (b"s = '\xe9'\n", False),
    "UTF-16": ("s = 1\n".encode("utf-16"), False),
    "an encoding that nobody knows": (b"# coding: klingon\n", False),
    "an encoding that is none of text": (b"# coding: hex\nab\n", False),
    "a warning of the syntax": (b"x = 1\ny = x is 1\n", True),
    "an escape that is none": (b"x = '\\d'\n", True),
    "Windows' line ends": (b"x = 1\r\ny = 2\r\n", True),
    "nothing": (b"", True),
    "too many parentheses": (b"(" * 300 + b")" * 300, False),
    "too deep a recursion": (b"x = 1" + b"+1" * 100_000, False),
    "too long a number": (b"x = " + b"9" * 100_000, False),
    "another Python's": (b"print 'x'\n", False),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_sources(name: str, here: Run) -> None:
    source, compiles = ODD[name]
    neighbours = [module(b"from x import *\ny = '*'\n", f"m/{letter}.py") for letter in "az"]
    found = made([*neighbours, module(source, "m/odd.py")], here)
    assert ("m/__pycache__/odd.cpython-311.pyc" in found) is compiles
    # The others do not notice.
    assert made(neighbours, here).items() <= found.items()


def test_a_source_that_exhausts_the_compiler_is_named(here: Run) -> None:
    modules = [module(b""), module(b"x = " + b"-" * 100_000 + b"1\n", "m/deep.py")]
    with pytest.raises(ClaimError, match=r"broke off while it compiled /m/deep\.py") as caught:
        made([*modules, module(b"", "m/z.py")], here)
    assert caught.value.where == "somebody"


@pytest.mark.parametrize("left", [0, 1, 3])
def test_where_a_process_dies_the_module_is_named(here: Run, left: int) -> None:
    modules = [module(b"x = 1\n", f"m/{number}.py") for number in range(4)]

    def dies(request: Iterable[bytes]) -> Path:
        answer = here(request)
        os.truncate(answer, 4 + (answer.stat().st_size - 4) // 4 * left + 6)
        return answer

    with pytest.raises(ClaimError, match=rf"compiled /m/{left}\.py"):
        made(modules, dies)
