"""The wire to an engine: what the SDK would say, over the socket, and where engines are found."""

from __future__ import annotations

import io
import socketserver
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from packager.errors import HostError
from packager.outputs import finding
from packager.outputs.begun import Begun
from packager.outputs.engine import Engine, connect
from packager.outputs.finding import Address, addresses
from packager.outputs.wire import RefusedError, Wire, through_client

pytestmark = pytest.mark.xdist_group("wired")  # one image name for all


@pytest.fixture
def wires(engine: Engine) -> dict[str, Wire]:
    """The same engine over its socket and through the SDK."""
    return {"socket": engine._wire, "client": Wire(through_client(engine.client))}


@pytest.fixture
def image(engine: Engine, tmp_path: Path) -> Iterator[str]:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(tmp_path.name))
    made = engine.client.api.import_image_from_data(data.getvalue(), repository="wired", tag="1")
    yield made.rpartition('"')[0].rpartition('"')[2]
    for name in ("wired:1", "wired:2"):
        if engine.find(name):
            engine.client.images.remove(name)


@pytest.mark.parametrize("way", ["socket", "client"])
def test_a_wire_says_what_the_sdk_says(
    way: str, wires: dict[str, Wire], image: str, engine: Engine
) -> None:
    wire, sdk = wires[way], engine.client.images.get("wired:1")
    assert wire.image("wired:1") == sdk.attrs == wire.image(image)
    assert wire.history(image) == sdk.history()
    assert wire.facts("info")["ID"] == engine.client.info()["ID"]
    assert wire.image("wired:none") is None
    assert wire.image("") is None
    assert wire.image("No Such/NAME:../x") is None


@pytest.mark.parametrize("way", ["socket", "client"])
def test_a_wire_names_and_removes(way: str, wires: dict[str, Wire], image: str) -> None:
    wire = wires[way]
    wire.tag(image, "wired", "2")
    assert wire.image("wired:2") == wire.image("wired:1")
    wire.remove_image("wired:2")
    assert wire.image("wired:2") is None
    wire.remove_image("wired:2")  # gone is gone
    assert wire.image("wired:1")


@pytest.mark.parametrize("way", ["socket", "client"])
def test_a_wire_finds_containers_by_their_label(
    way: str, wires: dict[str, Wire], image: str, engine: Engine
) -> None:
    made = engine.client.api.create_container(image, "true", labels={"wired": way})["Id"]
    assert wires[way].containers(f"wired={way}") == [made]
    assert wires[way].containers("wired=other") == []
    wires[way].remove_container(made)
    assert wires[way].containers(f"wired={way}") == []
    wires[way].remove_container(made)


@pytest.mark.parametrize("way", ["socket", "client"])
def test_what_an_engine_refuses_is_told_in_its_own_words(way: str, wires: dict[str, Wire]) -> None:
    with pytest.raises(RefusedError, match=r"(?i)no such image"):
        wires[way].tag("sha256:" + "0" * 64, "wired", "1")
    with pytest.raises(RefusedError, match=r"invalid|EOF|archive"):
        wires[way].load(iter([b"no archive" * 1000]))


# --- A load that is begun before there is an image -----------------------------------------------


@pytest.mark.parametrize("way", ["socket", "client"])
def test_an_engine_that_was_asked_beforehand_takes_an_archive_like_any_other(
    way: str, wires: dict[str, Wire], image: str, engine: Engine
) -> None:
    begun = Begun(wires[way])
    saved = b"".join(engine.client.images.get(image).save())
    engine.client.images.remove(image, force=True)
    assert engine.find(image) is None
    begun.send(iter([saved[:100], saved[100:]]))
    assert engine.find(image)


@pytest.mark.parametrize("way", ["socket", "client"])
def test_an_engine_that_was_asked_for_nothing_in_the_end_is_content(
    way: str, wires: dict[str, Wire]
) -> None:
    begun = Begun(wires[way])
    begun.give_up()
    begun.done.result()  # raises what the engine refuses


@pytest.mark.parametrize("way", ["socket", "client"])
def test_what_is_no_archive_is_refused_however_early_it_was_asked_for(
    way: str, wires: dict[str, Wire]
) -> None:
    with pytest.raises(RefusedError, match=r"invalid|EOF|archive"):
        Begun(wires[way]).send(iter([b"no archive" * 1000]))


# --- What answers, and where ---------------------------------------------------------------------


class Odd(BaseHTTPRequestHandler):
    """An engine that answers something else."""

    body = b"[]"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("body", [b"[1]", b"no JSON", b'"a"'])
def test_what_answers_oddly_is_no_engine(
    body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = type("Handler", (Odd,), {"body": body})
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "s"), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
        with pytest.raises(HostError, match="no container engine answers"):
            connect()
        server.shutdown()


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"DOCKER_HOST": "tcp://example.org:1"}, ["DOCKER_HOST"]),
        ({"DOCKER_CONTEXT": "default"}, ["docker.sock"]),
        ({}, ["docker.sock"]),
    ],
)
def test_engines_are_looked_for_where_the_user_says(
    environment: dict[str, str],
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(finding, "_SOCKET", tmp_path / "docker.sock")
    found = [Path(address.name).name for address in addresses()]
    assert found[: len(names)] == names
    assert ("podman.sock" in found) == Path("/run/podman/podman.sock").exists() * (
        "DOCKER_HOST" not in environment
    )


@pytest.mark.parametrize("config", [None, "{", "[]", "{}", '{"currentContext": "default"}'])
def test_a_configuration_without_a_context_leaves_the_usual_socket(
    config: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    first = next(iter(addresses()))
    assert first == Address("/var/run/docker.sock", "unix:///var/run/docker.sock")
