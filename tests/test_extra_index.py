"""Claims about a second index, such as PyTorch's for wheels that need no GPU.

The names are made up: `fire` stands for torch, whose ordinary wheel drags gigabytes in.
`template/test_frameworks.py` does the same with the real one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shutil import copytree

import pytest
from conftest import WheelMaker, run_packager
from hypothesis import given
from hypothesis import strategies as st
from simple_index import SimpleIndex, served

from packager import net, pip
from packager.errors import HostError, UsageError
from packager.lock import indexes
from packager.project import Hints

LOCKS = ("requirements.txt", "requirements-dev.txt", "packager.lock")
WHEEL = "fire-2.13.0+cpu-py3-none-any.whl"


@pytest.fixture
def fire(make_wheel: WheelMaker, tmp_path: Path) -> list[Path]:
    """What only the second index has, in two versions; the bytes are this test's own."""
    files = {"fire/__init__.py": repr(tmp_path.name).encode()}
    return [make_wheel("fire", version, files) for version in ("2.12.0+cpu", "2.13.0+cpu")]


@pytest.fixture
def ordinary(tmp_path: Path, make_wheel: WheelMaker) -> Iterator[dict[str, str]]:
    """Pip's settings for the ordinary index: it has fire too, the one that nobody wants."""
    wheels = (make_wheel("fire", "2.13.0", requires=("gigabytes",)), make_wheel("gigabytes"))
    with served(tmp_path / "ordinary", *wheels) as index:
        yield {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": index.address,
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
        }


@pytest.fixture
def second(tmp_path: Path, fire: list[Path]) -> Iterator[SimpleIndex]:
    with served(tmp_path / "second", *fire) as index:
        yield index


@pytest.fixture
def root(tmp_path: Path, locked_tiny: Path) -> Path:
    """A project that needs fire, for its image and for its tools; its base is locked already."""
    root = tmp_path / "project"
    copytree(locked_tiny, root)
    path = root / "pyproject.toml"
    text = path.read_text().replace("dependencies = []", 'dependencies = ["fire>=2"]')
    dev = '[project.optional-dependencies]\ndev = ["fire"]\n\n[tool.packager]'
    path.write_text(text.replace("[tool.packager]", dev))
    return root


def hint(root: Path, address: str, *more: str) -> None:
    with (root / "pyproject.toml").open("a") as file:
        file.write("\n".join([f'extra-index-urls = ["{address}"]', *more, ""]))


def wheels_in(lock: Path) -> list[dict[str, str]]:
    wheels: list[dict[str, str]] = tomllib.loads(lock.read_text())["wheel"]
    return wheels


@pytest.mark.parametrize("resolver", ["pip-tools", "uv"])
def test_the_second_index_s_build_is_locked_without_its_address(
    resolver: str, root: Path, ordinary: dict[str, str], second: SimpleIndex, shared_store: Path
) -> None:
    hint(root, second.address, f'resolver = "{resolver}"')
    run = run_packager(root, shared_store, "lock", **ordinary)
    assert run.returncode == 0, run.stderr
    for name in LOCKS:
        text = (root / name).read_text()
        assert "127.0.0.1" not in text
        assert "http" not in text
        assert "gigabytes" not in text
    for name in LOCKS[:2]:
        lines = (root / name).read_text().splitlines()
        assert [line for line in lines if line.startswith("fire")] == ["fire==2.13.0+cpu \\"]
    (locked,) = wheels_in(root / "packager.lock")
    assert (locked["name"], locked["version"], locked["file"]) == ("fire", "2.13.0+cpu", WHEEL)


def test_without_the_hint_the_ordinary_index_decides(
    root: Path, ordinary: dict[str, str], second: SimpleIndex, shared_store: Path
) -> None:
    run = run_packager(root, shared_store, "lock", **ordinary)
    assert run.returncode == 0, run.stderr
    locked = [(wheel["name"], wheel["version"]) for wheel in wheels_in(root / "packager.lock")]
    assert locked == [("fire", "2.13.0"), ("gigabytes", "1.0")]
    assert second.got == []


def test_a_build_that_no_index_has_is_refused_by_name(
    root: Path, ordinary: dict[str, str], shared_store: Path
) -> None:
    path = root / "pyproject.toml"
    path.write_text(path.read_text().replace('"fire>=2"', '"fire==2.13.0+cpu"'))
    run = run_packager(root, shared_store, "lock", **ordinary)
    assert run.returncode == UsageError.exit_code
    assert "fire" in run.stderr
    assert not (root / "requirements-dev.txt").exists()


def forget(root: Path, store: Path) -> None:
    """Take the wheels' bytes out of the store, which keeps the base's."""
    for wheel in wheels_in(root / "packager.lock"):
        (store / "blobs" / wheel["sha256"]).unlink()


@pytest.mark.whole
def test_an_index_that_moved_leaves_the_locks_valid_and_is_asked_at_its_new_place(
    root: Path, ordinary: dict[str, str], fire: list[Path], tmp_path: Path, shared_store: Path
) -> None:
    run = partial(run_packager, root, shared_store, **ordinary)
    build = ("build", "--no-load", "-o", str(tmp_path / "image.tar"))
    with served(tmp_path / "first", *fire) as first:
        hint(root, first.address)
        assert run("lock").returncode == 0
    forget(root, shared_store)
    gone = run(*build)
    assert gone.returncode == HostError.exit_code, gone.stderr
    assert "Traceback" not in gone.stderr
    assert not (tmp_path / "image.tar").exists()
    with served(tmp_path / "moved", *fire) as moved:
        path = root / "pyproject.toml"
        path.write_text(path.read_text().replace(first.address, moved.address))
        built = run(*build)
        assert built.returncode == 0, built.stderr
        assert moved.got == [WHEEL]


# --- One file of a page --------------------------------------------------------------------

names = st.from_regex(r"[a-z0-9_]{1,8}-[0-9.]{1,5}(\+cpu)?-py3-none-any\.whl", fullmatch=True)
anchors = st.builds(
    '<a href="{}{}#sha256={}"{}>{}</a>'.format,
    st.sampled_from(["", "../files/", "https://files.example/"]),
    names,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.sampled_from(["", ' data-requires-python="&gt;=3.8"', ' data-requires-python=">=3"']),
    names,
)


@given(
    st.lists(anchors, min_size=1, max_size=6),
    st.sampled_from(["", '<base href="https://elsewhere.example/">', "<!-- <a -->"]),
    st.data(),
)
def test_a_file_is_found_on_its_page_as_if_all_of_it_were_read(
    links: list[str], head: str, data: st.DataObject
) -> None:
    page = f"<html><head>{head}</head><body>{'<br/>'.join(links)}</body></html>".encode()
    every = indexes._links([page], "https://index.example/x/")
    wanted = data.draw(st.sampled_from([one.file for one in every] or ["none.whl"]))
    few = indexes._link(page, wanted, "https://index.example/x/")
    found = [one for one in every if one.file == wanted]
    assert [(one.file, one.url, one.sha256) for one in few] in (
        [],
        [(one.file, one.url, one.sha256) for one in found[:1]],
    )
    assert indexes._link(page, "absent.whl", "https://index.example/x/") == []


def test_a_page_that_is_not_simple_is_read_as_a_whole(
    tmp_path: Path, make_wheel: WheelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel("plain")
    with served(tmp_path / "served", wheel) as index:
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", index.address)
        pip.forget()
        for page in (tmp_path / "served").rglob("*.html"):
            page.write_text(page.read_text().replace(f">{wheel.name}</a>", f"> {wheel.name} </a>"))
        places = indexes.Indexes(net.session, Hints()).places("plain", wheel.name)
        assert next(places).partition("#")[0].endswith(wheel.name)
    pip.forget()
