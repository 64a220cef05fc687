"""Claims about the words: what the command line refuses, how it says so, how it ends."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import pytest
from conftest import Tiny, run_packager, write_tiny
from hypothesis import given
from hypothesis import strategies as st

from packager import smoke
from packager.errors import ClaimError, HostError, UsageError
from packager.outputs.engine import Engine
from packager.reference import Reference

NO_ENGINE = {"DOCKER_HOST": "tcp://127.0.0.1:9"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that is not even locked: whatever is refused is refused before any work."""
    write_tiny(tmp_path / "project")
    return tmp_path / "project"


def refused(root: Path, *words: str, **environment: str) -> str:
    """Run a command that must be refused as a usage error; return what it says."""
    run = run_packager(root, root.parent / "store", *words, **environment)
    assert run.returncode == UsageError.exit_code, run.stderr
    assert "Traceback" not in run.stderr
    return run.stderr


# --- References ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "short", "full"),
    [
        ("foo", "foo:latest", "docker.io/library/foo:latest"),
        ("lab/foo:1", "lab/foo:1", "docker.io/lab/foo:1"),
        ("docker.io/foo:1", "foo:1", "docker.io/library/foo:1"),
        ("registry:5000/x/y", "registry:5000/x/y:latest", "registry:5000/x/y:latest"),
        ("localhost/x:1", "localhost/x:1", "localhost/x:1"),
        ("registry.example/x:1", "registry.example/x:1", "registry.example/x:1"),
        ("[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"),
    ],
)
def test_a_reference_is_read_as_an_engine_reads_it(text: str, short: str, full: str) -> None:
    found = Reference.parse(text)
    assert (str(found), found.full) == (short, full)
    assert Reference.parse(found.full) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "Bad Tag:1", "Foo", "a..b", "a___b", "foo:", "foo:.x", f"foo:{'1' * 129}"),
        *("a/", "/a", f"foo@sha256:{'0' * 64}", "reg_.example/x", "x" * 300),
    ],
)
def test_what_no_engine_would_take_is_no_reference(text: str) -> None:
    with pytest.raises(UsageError, match="names no image"):
        Reference.parse(text)


@given(
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,80}[A-Za-z0-9])?", fullmatch=True),
    st.from_regex(
        r"([0-9]!)?[0-9]+(\.[0-9]+){0,3}((a|rc|\.post)[0-9])?(\+[a-z0-9.]+)?", fullmatch=True
    ),
)
def test_every_project_has_a_name_that_is_a_reference(name: str, version: str) -> None:
    found = Reference.of(name, version[:100])
    assert Reference.parse(str(found)) == found


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [("a..b", "1!2.0", "a-b:1_2.0"), ("Foo_Bar", "1+cpu", "foo-bar:1_cpu"), ("x", "1", "x:1")],
)
def test_a_project_gives_its_image_a_legal_name(name: str, version: str, expected: str) -> None:
    assert str(Reference.of(name, version)) == expected


def test_the_engine_agrees_with_the_reference(engine: Engine) -> None:
    """A legal name is only unknown to it, an illegal one is no name at all."""
    for text in ("registry:5000/x/y", "a-b:1_2.0", "localhost/x:1", "a__b:1", "a--b:1"):
        with pytest.raises(docker.errors.ImageNotFound):
            engine.client.images.get(str(Reference.parse(text)))
    for text in ("Bad Tag:1", "a..b", "foo:.x"):
        with pytest.raises(docker.errors.APIError, match="invalid reference format"):
            engine.client.images.get(text)


def test_an_illegal_tag_is_refused_before_any_work(project: Path) -> None:
    assert "'Bad Tag'" in refused(project, "build", "-t", "Bad Tag:1", **NO_ENGINE)


def test_a_legal_tag_gets_past_that(project: Path) -> None:
    run = run_packager(project, project.parent / "store", "build", "-t", "r:5000/x/y", **NO_ENGINE)
    assert run.returncode == ClaimError.exit_code
    assert "there is no lock yet" in run.stderr


# --- Usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--memory", "foo"],
        ["--memory", "1k"],
        ["--memory", "0"],
        ["--timeout", "0"],
        ["--timeout", "-1"],
        ["--timeout", "nan"],
        ["-o", "/nonexistent/x.tar"],
        ["-o", "/dev/null/x.tar"],
        ["--no-load"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_bad_option_is_refused_before_any_work(
    words: list[str], as_json: bool, project: Path
) -> None:
    command = ["build", *words, *(["--json"] if as_json else [])]
    run = run_packager(project, project.parent / "store", *command, **NO_ENGINE)
    assert run.returncode == UsageError.exit_code, run.stderr
    assert "Traceback" not in run.stderr
    assert words[-1].removesuffix("/x.tar") in run.stderr
    if as_json:
        assert json.loads(run.stdout)["error"]["what"]
    else:
        assert not run.stdout


@pytest.mark.parametrize("memory", ["6m", "1.5g", "512MB", "8000000"])
def test_a_good_option_gets_past_that(memory: str, project: Path) -> None:
    words = ["build", "--memory", memory, "--timeout", "1", "-o", "image.tar"]
    run = run_packager(project, project.parent / "store", *words, **NO_ENGINE)
    assert "there is no lock yet" in run.stderr


@pytest.mark.parametrize("command", ["smoke", "info"])
@pytest.mark.parametrize("name", ["tiny:no-such-tag", "Bad Tag:1"])
def test_an_image_that_is_not_there_is_said_so(command: str, name: str, project: Path) -> None:
    said = refused(project, command, name)
    assert f"has no image {name}" in said
    assert "packager build makes one" in said


def on_a_terminal(root: Path, *words: str, **environment: str) -> bytes:
    """Run packager with standard error on a terminal, and read what arrives there."""
    ours, theirs = pty.openpty()
    clean = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    with subprocess.Popen(
        [sys.executable, "-m", "packager", *words],
        cwd=root,
        env={**clean, "TERM": "xterm", **environment},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ):
        os.close(theirs)
        received = b""
        try:
            while piece := os.read(ours, 4096):
                received += piece
        except OSError:  # how Linux says that the other side of a terminal is closed
            pass
    os.close(ours)
    return received


def test_an_error_is_red_unless_colours_are_switched_off(project: Path) -> None:
    words = ["build", "-t", "Bad Tag:1"]
    assert b"\x1b[31m" in on_a_terminal(project, *words)
    for plain in (
        on_a_terminal(project, *words, NO_COLOR="1"),
        on_a_terminal(project, "--no-color", *words),
    ):
        assert b"error:" in plain
        assert b"\x1b" not in plain


# --- Ending --------------------------------------------------------------------------------


def test_a_reader_that_leaves_early_breaks_nothing(tiny: Tiny, tmp_path: Path) -> None:
    output = tmp_path / "image.tar"
    command = [sys.executable, "-m", "packager", "build", "--no-load", "-o", str(output)]
    environment = {**os.environ, "PACKAGER_CACHE": str(tiny.store)}
    for words in (command, [*command[:3], "info", str(output)]):
        with subprocess.Popen(
            words,
            cwd=tiny.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as run:
            assert run.stdout is not None
            run.stdout.close()
            _, said = run.communicate()
        assert (run.returncode, said) == (0, b"")
    assert tarfile.is_tarfile(output)


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on loopback while the block lasts; gives the address for DOCKER_HOST."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Silence(BaseHTTPRequestHandler):
    """An engine that takes a question and never answers."""

    asked = threading.Event()
    over = threading.Event()

    def do_GET(self) -> None:
        self.asked.set()
        self.over.wait()


def test_sigterm_ends_it_as_ctrl_c_does(project: Path) -> None:
    with serving(Silence) as address:
        for number in (signal.SIGTERM, signal.SIGINT):
            Silence.asked.clear()
            with subprocess.Popen(
                [sys.executable, "-m", "packager", "smoke", "tiny"],
                cwd=project,
                env={**os.environ, "DOCKER_HOST": address},
                stderr=subprocess.PIPE,
                text=True,
            ) as run:
                assert Silence.asked.wait(60)
                run.send_signal(number)
                _, said = run.communicate()
            assert (run.returncode, said.strip()) == (130, "interrupted")
        # Only now may its threads end: an answer would end the command, too.
        Silence.over.set()


# --- Engines -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["DOCKER_CONTEXT", "config.json"])
def test_a_context_that_does_not_exist_is_an_error(where: str, project: Path) -> None:
    config = project.parent / "docker"
    config.mkdir()
    environment = {"DOCKER_CONFIG": str(config), "DOCKER_HOST": ""}
    if where == "DOCKER_CONTEXT":
        environment["DOCKER_CONTEXT"] = "nope"
    else:
        (config / "config.json").write_text('{"currentContext": "nope"}')
    run = run_packager(project, project.parent / "store", "info", "tiny:1", **environment)
    assert run.returncode == HostError.exit_code
    assert f"{where}: " in run.stderr or f"{where}: currentContext: " in run.stderr
    assert "there is no docker context nope" in run.stderr


def test_a_context_that_exists_is_used(project: Path) -> None:
    environment = {"DOCKER_CONTEXT": "default", "DOCKER_HOST": ""}
    run = run_packager(project, project.parent / "store", "info", "tiny:no-such", **environment)
    assert "has no image tiny:no-such" in run.stderr


@pytest.mark.parametrize(
    ("host", "said"), [("ssh://127.0.0.1:1", "ssh"), ("ssh://", "names no host")]
)
def test_an_engine_that_ssh_does_not_reach_is_said_in_its_words(
    host: str, said: str, project: Path
) -> None:
    run = run_packager(project, project.parent / "store", "info", "tiny:1", DOCKER_HOST=host)
    assert run.returncode == HostError.exit_code
    assert re.search(f"DOCKER_HOST: .*{said}.*: no container engine answers", run.stderr)


def test_certificates_that_are_not_there_are_said(project: Path) -> None:
    where = str(project / "none")
    environment = {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_CERT_PATH": where}
    run = run_packager(project, project.parent / "store", "info", "tiny:1", **environment)
    assert run.returncode == HostError.exit_code
    assert f"DOCKER_CERT_PATH={where}: is no folder with certificates" in run.stderr


@pytest.mark.parametrize("meta", ["{", "[]", '{"Endpoints": {"docker": 1}}'])
def test_a_context_that_cannot_be_read_is_an_error(meta: str, project: Path) -> None:
    folder = project.parent / "docker/contexts/meta" / hashlib.sha256(b"odd").hexdigest()
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(meta)
    environment = {
        "DOCKER_CONFIG": str(project.parent / "docker"),
        "DOCKER_HOST": "",
        "DOCKER_CONTEXT": "odd",
    }
    run = run_packager(project, project.parent / "store", "info", "tiny:1", **environment)
    assert run.returncode == HostError.exit_code
    assert "docker context odd: cannot be read: " in run.stderr


# --- The seal ------------------------------------------------------------------------------


@pytest.fixture
def damaged(engine: Engine) -> Iterator[str]:
    """An image for this machine whose only program is none."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        program = tarfile.TarInfo("program")
        program.size, program.mode = 4, 0o755
        archive.addfile(program, io.BytesIO(b"\0\0\0\0"))
    client = engine.client.api
    told = client.import_image_from_data(data.getvalue(), changes=['ENTRYPOINT ["/program"]'])
    name = json.loads(told.strip().splitlines()[-1])["status"]
    yield name
    engine.client.images.remove(name, force=True)


def test_what_no_machine_executes_has_failed(damaged: str, engine: Engine) -> None:
    # Only of images for other machines it can be said that they were not tested.
    with pytest.raises(ClaimError, match="no verdict") as caught:
        smoke.replay(engine, damaged)
    assert "exec format error" in caught.value.hint


def test_a_full_disk_behind_standard_output_is_said_once() -> None:
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [sys.executable, "-m", "packager", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert run.returncode == HostError.exit_code
    assert run.stderr == "error: standard output: cannot be written: No space left on device\n"


ENDING = """
import atexit, sys
from packager import cli
class Kept:
    def __del__(self):
        print("taken apart")
kept = Kept()
atexit.register(print, "tidied up")
sys.argv = ["packager", "--version"]
cli.{0}()
"""


@pytest.mark.parametrize(("way", "says"), [("main", []), ("run", ["taken apart"])])
def test_an_interpreter_is_not_taken_apart_under_threads_that_still_listen(
    way: str, says: list[str]
) -> None:
    # Python, left to itself, does it: now and then a build that failed early crashed so.
    run = subprocess.run(
        [sys.executable, "-c", ENDING.format(way)], check=True, capture_output=True, text=True
    )
    assert run.stdout.splitlines()[1:] == ["tidied up", *says]
