"""Claims about resolving and choosing wheels, on an index of made-up wheels on loopback."""

from __future__ import annotations

import base64
import hashlib
import html
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import WheelMaker, run_packager, write_tiny
from test_elf import shared

from packager.errors import ClaimError, HostError, UsageError
from packager.lock import wheels
from packager.lock.indexes import Found
from packager.lock.lockfile import WheelPin
from packager.lock.requirements import Pinned, read_requirements


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; one that holds a file `password` asks for it."""

    def do_GET(self) -> None:
        password = Path(self.directory) / "password"
        if password.exists():
            expected = f"Basic {base64.b64encode(password.read_bytes()).decode()}"
            if self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="tests"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        super().do_GET()

    def log_request(self, *_: object) -> None:
        with (Path(self.directory) / "asked").open("a") as log:
            log.write(f"{self.path}\n")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Path]:
    """A simple index (PEP 503) of plain folders; yields its root, and serves it."""
    root = tmp_path / "index"
    root.mkdir()
    handler = partial(Handler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (root / "address").write_text(f"http://127.0.0.1:{server.server_port}/")
        yield root
        server.shutdown()


def publish(index: Path, *files: Path, python: str = "") -> None:
    """Offer files on the index, each with its hash; the files may want a Python."""
    for file in files:
        folder = index / file.name.split("-")[0].replace("_", "-")
        folder.mkdir(exist_ok=True)
        (folder / file.name).write_bytes(file.read_bytes())
        (digest,) = digests(file)
        wants = f' data-requires-python="{html.escape(python)}"' if python else ""
        with (folder / "index.html").open("a") as page:
            page.write(f'<a href="{file.name}#sha256={digest}"{wants}>{file.name}</a>\n')


def asked(index: Path) -> list[str]:
    """List what the index was asked for since this was called last."""
    log = index / "asked"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def pinned_in(path: Path) -> list[Pinned]:
    return read_requirements(path.read_bytes(), path.name)


def digests(file: Path) -> frozenset[str]:
    return frozenset({hashlib.sha256(file.read_bytes()).hexdigest()})


def settings(index: Path) -> dict[str, str]:
    """Point pip, and so packager, at the made-up index alone."""
    return {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": (index / "address").read_text(),
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    write_tiny(root)
    return root


def depend(root: Path, *names: str, dev: tuple[str, ...] = ()) -> None:
    path = root / "pyproject.toml"
    text = path.read_text().replace("dependencies = []", f"dependencies = {list(names)!r}")
    if dev:
        text = text.replace(
            "[tool.packager]",
            f"[project.optional-dependencies]\ndev = {list(dev)!r}\n\n[tool.packager]",
        )
    path.write_text(text)


@pytest.mark.parametrize("resolver", ["pip-tools", "uv"])
def test_both_resolvers_write_the_same_pins_with_hashes_and_no_place(
    resolver: str, root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    one = [make_wheel("one", version, requires=("two",)) for version in ("1.0", "2.0")]
    two = make_wheel("two")
    publish(index, *one, two, make_wheel("tool", requires=("two", "one<3")))
    depend(root, "one<2", dev=("tool",))
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(f'{text}resolver = "{resolver}"\n')
    run = run_packager(root, shared_store, "lock", **settings(index))
    assert run.returncode == 0, run.stderr
    assert resolver in run.stdout
    image = (root / "requirements.txt").read_text()
    expected = [Pinned(path.name.split("-")[0], "1.0", digests(path)) for path in (one[0], two)]
    assert pinned_in(root / "requirements.txt") == expected
    development = pinned_in(root / "requirements-dev.txt")
    assert [(pin.name, pin.version) for pin in development] == [
        ("one", "1.0"),
        ("tool", "1.0"),
        ("two", "1.0"),
    ]
    lock = (root / "packager.lock").read_text()
    for written in (image, (root / "requirements-dev.txt").read_text(), lock):
        for secret in ("127.0.0.1", "http", str(root), "--index-url", "--find-links"):
            assert secret not in written
    assert 'file = "one-1.0-py3-none-any.whl"' in lock
    assert "tool" not in lock.partition("[[wheel]]")[2]


@pytest.mark.parametrize("resolver", ["pip-tools", "uv"])
def test_what_the_image_s_exact_python_cannot_run_is_no_candidate(
    resolver: str, root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    publish(index, make_wheel("one"), python=">=3.11")
    publish(index, make_wheel("one", "2.0"), python=">=3.11.3")
    depend(root, "one")
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(f'{text}resolver = "{resolver}"\n')
    run = run_packager(root, shared_store, "lock", **settings(index))
    assert run.returncode == 0, run.stderr
    assert [pin.version for pin in pinned_in(root / "requirements.txt")] == ["1.0"]


def test_pins_stay_until_they_are_moved(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    publish(index, make_wheel("one"), make_wheel("two"))
    depend(root, "one", "two")
    lock = partial(run_packager, root, shared_store, "lock", **settings(index))

    def pins() -> dict[str, str]:
        pinned = pinned_in(root / "requirements.txt")
        return {pin.name: pin.version for pin in pinned}

    assert lock().returncode == 0
    publish(index, make_wheel("one", "2.0"), make_wheel("two", "2.0"))
    assert lock().returncode == 0
    assert pins() == {"one": "1.0", "two": "1.0"}
    moved = lock("--upgrade", "one")
    assert moved.returncode == 0
    assert pins() == {"one": "2.0", "two": "1.0"}
    assert "one 1.0 became 2.0" in moved.stdout
    assert lock("--upgrade").returncode == 0
    assert pins() == {"one": "2.0", "two": "2.0"}


FILES = ("requirements.txt", "requirements-dev.txt", "packager.lock")


def test_locking_again_asks_nobody_and_changes_nothing(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    publish(index, make_wheel("one"), make_wheel("tool"))
    depend(root, "one", dev=("tool",))
    lock = partial(run_packager, root, shared_store, "lock")
    assert lock(**settings(index)).returncode == 0
    before = [(root / name).read_bytes() for name in FILES]
    publish(index, make_wheel("one", "2.0"))
    asked(index)
    again = lock(**settings(index))
    assert again.returncode == 0, again.stderr
    assert asked(index) == []
    assert [(root / name).read_bytes() for name in FILES] == before
    # A file that is not as it was locked is resolved again, its pins kept.
    with (root / "requirements.txt").open("a") as file:
        file.write("\n")
    assert lock(**settings(index)).returncode == 0
    assert "/one/" in asked(index)
    assert [(root / name).read_bytes() for name in FILES] == before


def test_a_new_dependency_moves_no_other_pin(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    publish(index, make_wheel("one"), make_wheel("two"))
    depend(root, "one")
    lock = partial(run_packager, root, shared_store, "lock", **settings(index))
    assert lock().returncode == 0
    publish(index, make_wheel("one", "2.0"))
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(text.replace("['one']", "['one', 'two']"))
    more = lock()
    assert more.returncode == 0, more.stderr
    assert "two 1.0 is new" in more.stdout
    versions = {pin.name: pin.version for pin in pinned_in(root / "requirements.txt")}
    assert versions == {"one": "1.0", "two": "1.0"}


@pytest.mark.parametrize("damage", ["a wheel is gone", "a hash is another"])
def test_a_lock_that_was_edited_is_made_whole_again(
    damage: str, root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    one, two = make_wheel("one"), make_wheel("two")
    publish(index, one, two)
    depend(root, "one", "two")
    lock = partial(run_packager, root, shared_store, "lock", **settings(index))
    assert lock().returncode == 0
    whole = (root / "packager.lock").read_text()
    if damage == "a wheel is gone":
        start = whole.index('[[wheel]]\nname = "two"')
        edited = whole[:start] + whole[whole.index("[[debian]]") :]
    else:
        (digest,) = digests(two)
        edited = whole.replace(digest, "0" * 64)
    assert edited != whole
    (root / "packager.lock").write_text(edited)
    assert lock().returncode == 0
    assert (root / "packager.lock").read_text() == whole


def test_no_index_is_asked_for_what_its_pages_do_not_say(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    publish(index, make_wheel("one"), make_wheel("one", tag="cp310-cp310-win_amd64"))
    depend(root, "one")
    run = run_packager(root, shared_store, "lock", **settings(index))
    assert run.returncode == 0, run.stderr
    paths = asked(index)
    assert "/one/" in paths
    assert not [path for path in paths if path.endswith("json") or "win_amd64" in path]
    # Where a page states no hash, the file itself is what tells.
    (index / "bare").mkdir()
    bare = make_wheel("bare")
    (index / "bare" / bare.name).write_bytes(bare.read_bytes())
    (index / "bare" / "index.html").write_text(f'<a href="{bare.name}">{bare.name}</a>')
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(text.replace("['one']", "['one', 'bare']"))
    run = run_packager(root, shared_store, "lock", **settings(index))
    assert run.returncode == 0, run.stderr
    assert f"/bare/{bare.name}" in asked(index)
    assert digests(bare) in {pin.hashes for pin in pinned_in(root / "requirements.txt")}


def test_a_library_that_is_missing_is_missing_each_time(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    library = shared(["libnowhere.so.7"])
    publish(index, make_wheel("one", "1.0", {"one.py": b"", "one.libs/libone.so": library}))
    publish(index, make_wheel("two", "1.0", {"two.py": b"", "libtwo.so": shared(["libc.so.6"])}))
    depend(root, "one")
    lock = partial(run_packager, root, shared_store, "lock", **settings(index))
    for _ in range(2):  # what was seen in a wheel is remembered, what follows from it is not
        failed = lock()
        assert failed.returncode == ClaimError.exit_code
        assert "needs libnowhere.so.7" in failed.stderr
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(text.replace("['one']", "['two']"))
    for _ in range(2):
        fine = lock()
        assert fine.returncode == 0, fine.stderr


def test_a_pin_that_stays_keeps_its_wheels_unless_its_hashes_differ() -> None:
    pin = Pinned("one", "1.0", frozenset({"0" * 64}))
    had = WheelPin("one", "1.0", "one-1.0-py3-none-any.whl", 1, "0" * 64, ("linux/amd64",))

    class Silent:
        def files(self, name: str) -> list[Found]:
            raise AssertionError(f"asked for {name}")

    choose = partial(
        wheels.choose,
        indexes=Silent(),  # type: ignore[arg-type]
        python="3.11",
        glibc=36,
        platforms=["linux/amd64"],
        known={pin: [had]},
    )
    assert choose([pin]) == (had,)
    with pytest.raises(AssertionError, match="asked for one"):
        choose([Pinned("one", "1.0", frozenset({"0" * 64, "1" * 64}))])


LIGHT = ("lockfile", "requirements", "debian_pins", "elf")
HEAVY = {"requests", "pypi_simple", "docker", "debian", "pysequoia", "tomlkit", "bs4", "truststore"}


@pytest.mark.parametrize("module", [f"packager.lock.{name}" for name in LIGHT])
def test_what_checking_and_building_need_of_a_lock_is_light(module: str) -> None:
    assert not HEAVY & imported_by(module)


def test_what_locking_needs_is_heavy() -> None:
    assert {"requests", "debian", "pysequoia"} <= imported_by("packager.lock.debian")


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def test_check_is_offline_and_names_what_changed(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    publish(index, make_wheel("one"), make_wheel("two"))
    depend(root, "one")
    assert run_packager(root, shared_store, "lock", **settings(index)).returncode == 0
    nowhere = {**settings(index), "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    check = partial(run_packager, root, shared_store, "lock", "--check", **nowhere)
    fresh = check()
    assert fresh.returncode == 0, fresh.stderr
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(text.replace("['one']", "['one', 'two']"))
    stale = check()
    assert stale.returncode == 1
    assert "dependencies: two was added" in stale.stderr
    (root / "pyproject.toml").write_text(text)
    assert check().returncode == 0
    with (root / "requirements.txt").open("a") as file:
        file.write("\n")
    stale = check()
    assert stale.returncode == 1
    assert "requirements.txt was changed" in stale.stderr
    (root / "packager.lock").unlink()
    missing = check()
    assert missing.returncode == 1
    assert "there is no lock yet" in missing.stderr


def test_line_endings_of_a_checkout_do_not_make_a_lock_stale(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    publish(index, make_wheel("one"))
    depend(root, "one")
    assert run_packager(root, shared_store, "lock", **settings(index)).returncode == 0
    for name in ("requirements.txt", "packager.lock", "pyproject.toml"):
        (root / name).write_bytes((root / name).read_bytes().replace(b"\n", b"\r\n"))
    check = run_packager(root, shared_store, "lock", "--check")
    assert check.returncode == 0, check.stderr


def test_a_lock_that_cannot_be_completed_leaves_the_old_files(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    publish(index, make_wheel("one"))
    depend(root, "one")
    lock = partial(run_packager, root, shared_store, "lock", **settings(index))
    assert lock().returncode == 0
    names = ("requirements.txt", "packager.lock")
    before = [(root / name).read_bytes() for name in names]
    broken = make_wheel("one", "2.0", {"one.py": b"", "one-2.0.data/data/../x": b""})
    publish(index, broken)
    (index / "one" / broken.name).write_bytes(b"not what the index states")
    failed = lock("--upgrade", "one")
    assert failed.returncode != 0
    assert [(root / name).read_bytes() for name in names] == before


def test_a_name_that_is_not_pinned_cannot_be_moved(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    publish(index, make_wheel("one"))
    depend(root, "one")
    lock = partial(run_packager, root, shared_store, "lock", **settings(index))
    assert lock().returncode == 0
    unknown = lock("--upgrade", "tow")
    assert unknown.returncode == UsageError.exit_code
    assert "no pin of tow" in unknown.stderr


def test_requirements_written_by_hand_are_set_aside(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    publish(index, make_wheel("one"))
    depend(root, "one")
    (root / "requirements.txt").write_text("-r base.txt\none\n")
    run = run_packager(root, shared_store, "lock", **settings(index))
    assert run.returncode == 0, run.stderr
    assert "requirements.in" in run.stdout
    assert (root / "requirements.in").read_text() == "-r base.txt\none\n"
    assert [pin.name for pin in pinned_in(root / "requirements.txt")] == ["one"]


def test_a_hash_edited_in_the_lock_is_found_by_check(
    root: Path, index: Path, make_wheel: WheelMaker, shared_store: Path
) -> None:
    wheel = make_wheel("one")
    publish(index, wheel)
    depend(root, "one")
    assert run_packager(root, shared_store, "lock", **settings(index)).returncode == 0
    (digest,) = digests(wheel)
    text = (root / "packager.lock").read_text()
    assert digest in text
    (root / "packager.lock").write_text(text.replace(digest, "0" * 64))
    check = run_packager(root, shared_store, "lock", "--check")
    assert check.returncode == 1
    assert "one-1.0-py3-none-any.whl is not among those of requirements.txt" in check.stderr


@pytest.mark.parametrize("resolver", ["pip-tools", "uv"])
@pytest.mark.parametrize("offer", ["older only", "wheel for Windows", "sdist"])
def test_requirements_that_no_wheel_meets_are_refused_by_name(
    offer: str,
    resolver: str,
    root: Path,
    index: Path,
    tmp_path: Path,
    make_wheel: WheelMaker,
    shared_store: Path,
) -> None:
    if offer == "older only":
        publish(index, make_wheel("one"))
        depend(root, "one>5")
    elif offer == "wheel for Windows":
        publish(index, make_wheel("one", tag="cp311-cp311-win_amd64"))
        depend(root, "one")
    else:
        (tmp_path / "one-1.0.tar.gz").write_bytes(b"never opened")
        publish(index, tmp_path / "one-1.0.tar.gz")
        depend(root, "one")
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(f'{text}resolver = "{resolver}"\n')
    run = run_packager(root, shared_store, "lock", **settings(index))
    assert run.returncode == UsageError.exit_code, run.stderr
    assert "one" in run.stderr
    assert run.stderr.count("\nerror:") + run.stderr.startswith("error:") == 1
    assert "Traceback" not in run.stderr
    assert not (root / "requirements.txt").exists()
    assert not (root / "packager.lock").exists()


@pytest.mark.parametrize("resolver", ["pip-tools", "uv"])
def test_an_index_out_of_reach_is_an_error_of_the_surroundings(
    resolver: str, root: Path, index: Path, shared_store: Path
) -> None:
    depend(root, "one")
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(f'{text}resolver = "{resolver}"\n')
    nowhere = {**settings(index), "PIP_INDEX_URL": "http://user:hunter2canary@127.0.0.1:9/"}
    nowhere |= {"PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0"}
    run = run_packager(root, shared_store, "lock", **nowhere)
    assert run.returncode == HostError.exit_code, run.stderr
    assert "hunter2canary" not in run.stderr + run.stdout
    assert "Traceback" not in run.stderr


def test_credentials_open_an_index_and_are_written_nowhere(
    root: Path, index: Path, tmp_path: Path, make_wheel: WheelMaker
) -> None:
    publish(index, make_wheel("one"))
    depend(root, "one")
    (index / "password").write_text("user:hunter2canary")
    store = tmp_path / "store"
    closed = run_packager(root, store, "lock", **settings(index))
    assert closed.returncode != 0
    address = (index / "address").read_text().replace("http://", "http://user:hunter2canary@")
    opened = {**settings(index), "PIP_INDEX_URL": address}
    locked = run_packager(root, store, "lock", **opened)
    assert locked.returncode == 0, locked.stderr
    for blob in (store / "blobs").iterdir():
        blob.unlink()
    output = ["build", "--no-load", "-o", str(tmp_path / "image.tar")]
    built = run_packager(root, store, *output, **opened)
    assert built.returncode == 0, built.stderr
    for run in (closed, locked, built):
        assert "hunter2canary" not in run.stdout + run.stderr
    kept = [path for path in [*root.rglob("*"), *store.rglob("*")] if path.is_file()]
    assert not [path for path in kept if b"hunter2canary" in path.read_bytes()]


def test_a_dependency_without_a_wheel_for_the_target_is_refused_by_name() -> None:
    digest = "0" * 64
    pins = [Pinned("one", "1.0", frozenset({digest}))]
    offered = [Found("one-1.0-cp311-cp311-win_amd64.whl", "", "", digest, 1)]

    class OneIndex:
        def files(self, _: str) -> list[Found]:
            return offered

    with pytest.raises(UsageError, match=r"one 1\.0: no wheel for CPython 3\.11 on linux"):
        wheels.choose(pins, OneIndex(), python="3.11", glibc=36, platforms=["linux/amd64"])  # type: ignore[arg-type]
    offered[0] = Found("one-1.0.tar.gz", "", "", digest, 1)
    with pytest.raises(UsageError, match="only an sdist"):
        wheels.choose(pins, OneIndex(), python="3.11", glibc=36, platforms=["linux/amd64"])  # type: ignore[arg-type]


def test_target_tags_are_those_of_pip_on_such_a_system() -> None:
    tags = [str(tag) for tag in wheels.target_tags("3.11", 36, "linux/amd64")]
    order = [
        "cp311-cp311-manylinux_2_36_x86_64",
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux2014_x86_64",
        "cp311-cp311-manylinux1_x86_64",
        "cp311-cp311-linux_x86_64",
        "cp311-abi3-manylinux_2_28_x86_64",
        "cp38-abi3-manylinux2014_x86_64",
        "py3-none-any",
    ]
    assert [tags.index(tag) for tag in order] == sorted(tags.index(tag) for tag in order)
    assert not [tag for tag in tags if "2_37" in tag or "musl" in tag or "win" in tag]
    arm = [str(tag) for tag in wheels.target_tags("3.13", 41, "linux/arm64")]
    assert "cp313-cp313-manylinux_2_41_aarch64" in arm
    assert not [tag for tag in arm if "x86_64" in tag or "manylinux1" in tag]


@pytest.mark.parametrize(
    "line", ["one", "one>=1 --hash=sha256:00", "one==1", "one==1 --hash=md5:0"]
)
def test_a_requirement_that_pins_no_bytes_is_refused(line: str) -> None:
    with pytest.raises(ClaimError, match=r"requirements\.txt: .*not pinned and hashed"):
        read_requirements(f"# a comment\n{line}\n".encode(), "requirements.txt")
