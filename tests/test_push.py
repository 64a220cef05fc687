"""Claims about `packager push`, against Debian's docker-registry on loopback, TLS and logins on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Tiny
from registries import (
    PASSWORD,
    USER,
    Certificate,
    Handler,
    Running,
    Start,
    TokenServer,
    basic,
    running,
    serving,
)

from packager.outputs.engine import Engine

pytest_plugins = ["registry_fixtures"]
pytestmark = pytest.mark.xdist_group("push")

UNTESTED = ("--no-smoke",)


@pytest.fixture
def registry(tmp_path: Path, certificate: Certificate) -> Iterator[Running]:
    with running(tmp_path / "registry", certificate, basic(tmp_path)) as made:
        made.log_in()
        yield made


def push(tiny: Tiny, registry: Running, name: str = "lab/tiny:1", *words: str) -> dict[str, Any]:
    """Push, and read the result."""
    run = tiny.run(
        "push", f"{registry.address}/{name}", "--json", *UNTESTED, *words, **registry.environment
    )
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout)
    return told


def refused(
    tiny: Tiny, registry: Running, *words: str, name: str = "lab/tiny:1", **environment: str
) -> str:
    """Push in vain; nothing must have got the tag."""
    names = {**registry.environment, **environment}
    run = tiny.run("push", f"{registry.address}/{name}", *UNTESTED, *words, **names)
    assert run.returncode in {1, 2, 3}, run.stderr
    assert "Traceback" not in run.stderr
    assert not list((registry.folder / "data").rglob("tags/*"))
    return run.stderr


def test_the_registry_holds_what_the_archive_holds(
    tiny: Tiny, registry: Running, tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    built = tiny.built("--no-load", "-o", str(archive))
    told = push(tiny, registry)
    assert told["id"] == built["id"]
    assert told["pushed"]["manifest"] == told["manifest"] == built["manifest"]
    with tarfile.open(archive) as members:
        blobs = [one for one in members if one.isfile() and "blobs/" in one.name]
        assert len(blobs) == told["pushed"]["sent"] + 1  # the manifest
        for one in blobs:
            stream = members.extractfile(one)
            assert stream
            assert registry.blob(Path(one.name).name).read_bytes() == stream.read()


def test_only_what_is_missing_is_sent(tiny: Tiny, registry: Running) -> None:
    first = push(tiny, registry)["pushed"]
    assert (first["mounted"], first["there"]) == (0, 0)
    assert first["size"] == sum(size for size in blob_sizes(registry))
    again = push(tiny, registry)["pushed"]
    assert (again["sent"], again["size"], again["there"]) == (0, 0, first["sent"])
    tiny.edit("src/tiny/predict.py", "A model", "The model")
    changed = push(tiny, registry, "lab/tiny:2")["pushed"]
    assert changed["sent"] == 2  # the code's layer, and the config
    assert changed["manifest"] != first["manifest"]
    assert 0 < changed["size"] < 100_000


def blob_sizes(registry: Running) -> list[int]:
    """Sizes of all layers and configs that a registry keeps."""
    manifests = {
        path.parent.name
        for path in (registry.folder / "data").rglob("_manifests/revisions/sha256/*/link")
    }
    blobs = (registry.folder / "data").rglob("blobs/sha256/*/*/data")
    return [path.stat().st_size for path in blobs if path.parent.name not in manifests]


@pytest.mark.whole
def test_another_repository_of_the_registry_gives_what_it_has(
    tiny: Tiny, registry: Running
) -> None:
    first = push(tiny, registry)["pushed"]
    moved = push(tiny, registry, "other/tiny:1")["pushed"]
    assert (moved["sent"], moved["mounted"], moved["size"]) == (0, first["sent"], 0)
    assert moved["manifest"] == first["manifest"]
    # Where it has lost them they are sent again.
    shutil.rmtree(registry.folder / "data")
    third = push(tiny, registry, "third/tiny:1")["pushed"]
    assert (third["sent"], third["mounted"]) == (first["sent"], 0)


@pytest.mark.whole
def test_a_blob_that_got_lost_is_sent_again(tiny: Tiny, registry: Running) -> None:
    push(tiny, registry)
    lost = max((registry.folder / "data").rglob("blobs/*/*/*/data"), key=lambda p: p.stat().st_size)
    data = lost.read_bytes()
    lost.unlink()
    assert push(tiny, registry)["pushed"]["sent"] == 1
    assert lost.read_bytes() == data


@pytest.mark.parametrize(
    "case",
    [
        "wrong password",
        pytest.param("wrong user", marks=pytest.mark.whole),
        pytest.param("no login", marks=pytest.mark.whole),
    ],
)
def test_who_is_not_known_is_told_so(tiny: Tiny, registry: Running, case: str) -> None:
    match case:
        case "wrong password":
            registry.log_in(password="sekret")
        case "wrong user":
            registry.log_in(user="stranger")
        case _:
            registry.configure({})
    said = refused(tiny, registry)
    assert ("does not accept the login" in said) == (case != "no login")
    assert f"docker login {registry.address}" in said
    assert "sekret" not in said


@pytest.mark.whole
def test_a_certificate_that_nobody_vouches_for_is_refused(tiny: Tiny, registry: Running) -> None:
    said = refused(tiny, registry, SSL_CERT_FILE="/dev/null")
    assert "certificate" in said.lower()
    run = tiny.run(
        *("push", f"{registry.address}/lab/tiny:1", *UNTESTED, "--insecure"),
        **registry.environment | {"SSL_CERT_FILE": "/dev/null"},
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.whole
def test_a_registry_without_tls_is_for_who_asks_for_it(
    tiny: Tiny, tmp_path: Path, certificate: Certificate
) -> None:
    with running(tmp_path / "registry", certificate, basic(tmp_path), tls=False) as registry:
        registry.log_in()
        refused(tiny, registry)
        assert push(tiny, registry, "lab/tiny:1", "--insecure")["pushed"]["sent"]


@pytest.mark.whole
def test_a_helper_program_may_hold_the_login(tiny: Tiny, registry: Running, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-tests"
    secret = json.dumps({"ServerURL": registry.address, "Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{secret}'\n")
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    registry.configure({"credHelpers": {registry.address: "tests"}})
    said = refused(tiny, registry)  # not on PATH
    assert "docker-credential-tests" in said
    assert "UserWarning" not in said
    path = f"{programs}:{os.environ['PATH']}"
    run = tiny.run(
        *("push", f"{registry.address}/lab/tiny:1", *UNTESTED),
        **registry.environment | {"PATH": path},
    )
    assert run.returncode == 0, run.stderr


# --- who else has to get on with it -------------------------------------------------------------


@pytest.mark.whole
def test_an_engine_pulls_and_runs_what_was_pushed(
    tiny: Tiny, registry: Running, engine: Engine
) -> None:
    tiny.edit("pyproject.toml", 'name = "tiny"', 'name = "pushed"')  # an image of its own
    run = tiny.run("push", f"{registry.address}/lab/tiny:1", "--json", **registry.environment)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["smoke"]["examples"] == 3
    images = engine.client.images
    repository = f"{registry.address}/lab/tiny"
    try:
        engine.remove(told["id"])  # else there would be nothing to pull
        login = {"username": USER, "password": PASSWORD}
        pulled = images.pull(repository, "1", auth_config=login)
        assert pulled.id == told["id"]
        assert pulled.attrs["RepoDigests"] == [f"{repository}@{told['pushed']['manifest']}"]
        said = engine.client.containers.run(pulled.id, ["selftest"], remove=True, network="none")
        assert b"passed" in said
    finally:
        images.remove(told["id"], force=True)


@pytest.mark.whole
def test_skopeo_copies_what_was_pushed(tiny: Tiny, registry: Running, tmp_path: Path) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("there is no skopeo")
    told = push(tiny, registry)
    source = f"docker://{registry.address}/lab/tiny:1"
    login = ("--src-creds", f"{USER}:{PASSWORD}", "--src-tls-verify=false")
    command = ["skopeo", "--insecure-policy", "copy", "--preserve-digests", *login]
    subprocess.run([*command, source, f"dir:{tmp_path / 'copy'}"], check=True, capture_output=True)
    data = (tmp_path / "copy" / "manifest.json").read_bytes()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == told["pushed"]["manifest"]


@pytest.mark.whole
def test_what_fails_its_smoke_test_is_not_pushed(tiny: Tiny, registry: Running) -> None:
    tiny.edit("pyproject.toml", 'name = "tiny"', 'name = "unpushed"')  # an image of its own
    tiny.edit("models/examples.json", "-5.0", "-5.1")
    said = tiny.run("push", f"{registry.address}/lab/tiny:1", **registry.environment)
    assert said.returncode == 1, said.stderr
    assert not (registry.folder / "data").exists()


# --- what is attached ---------------------------------------------------------------------------


def attach(
    tiny: Tiny, registry: Running, file: Path, *words: str, name: str = "lab/tiny:1"
) -> dict[str, Any]:
    words = (f"{registry.address}/{name}", str(file), *words)
    run = tiny.run("attach", *words, "--json", **registry.environment)
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout)
    return told


def test_a_file_is_attached_and_listed_by_a_tag(
    tiny: Tiny, registry: Running, tmp_path: Path
) -> None:
    image = push(tiny, registry)["manifest"]
    report, notes = tmp_path / "report.json", tmp_path / "notes.txt"
    report.write_text("{}")
    notes.write_text("Tried.")
    first = attach(tiny, registry, report)
    assert (first["subject"], first["listed"]) == (image, image.replace(":", "-"))
    manifest = json.loads(blob_of(registry, first["manifest"]))
    assert manifest["subject"]["digest"] == image
    assert blob_of(registry, manifest["layers"][0]["digest"]) == b"{}"
    assert manifest["layers"][0]["annotations"] == {"org.opencontainers.image.title": "report.json"}
    kind = "application/vnd.example.notes"
    second = attach(tiny, registry, notes, "--type", kind)
    by_digest = attach(tiny, registry, report, name=f"lab/tiny@{image}")
    assert by_digest | {"reference": first["reference"]} == first  # once is enough
    (link,) = (registry.folder / "data").rglob(f"tags/{first['listed']}/current/link")
    listed = json.loads(blob_of(registry, link.read_text()))["manifests"]
    assert [(one["digest"], one["artifactType"]) for one in listed] == [
        (first["manifest"], "application/json"),
        (second["manifest"], kind),
    ]
    assert push(tiny, registry)["manifest"] == image
    # What is not there is not attached, nor to what is not there.
    missing = tmp_path / "missing"
    for name, file, code in (
        ("tiny:1", missing, 2),
        ("tiny@sha256:1", report, 2),
        ("tiny:2", report, 3),
        (f"tiny@sha256:{'0' * 64}", report, 3),
    ):
        reference = f"{registry.address}/lab/{name}"
        run = tiny.run("attach", reference, str(file), **registry.environment)
        assert run.returncode == code, run.stderr
        assert "Traceback" not in run.stderr


def blob_of(registry: Running, digest: str) -> bytes:
    return registry.blob(digest.removeprefix("sha256:")).read_bytes()


@pytest.mark.whole
def test_a_registry_that_lists_referrers_gets_no_tag_for_them(
    tiny: Tiny, between: Start, tmp_path: Path
) -> None:
    kept: dict[str, bytes] = {}

    def lists(handler: Handler, body: bytes) -> bytes | None:
        """Do with a manifest that has a subject what registries of version 1.1 do."""
        if handler.command == "PUT" and b'"subject"' in body:
            kept[handler.path] = body
            handler.answer(201, headers={"OCI-Subject": json.loads(body)["subject"]["digest"]})
            return None
        if handler.command == "GET" and handler.path in kept:
            handler.answer(200, kept[handler.path])
            return None
        return body

    registry, _ = between(lists)
    image = push(tiny, registry)["manifest"]
    (tmp_path / "report.json").write_text("{}")
    told = attach(tiny, registry, tmp_path / "report.json")
    assert (told["subject"], told["listed"]) == (image, "")
    tags = [path.name for path in (registry.folder / "data").rglob("_manifests/tags/*")]
    assert tags == ["1"]


# --- tokens ------------------------------------------------------------------------------------


@pytest.fixture
def tokens(certificate: Certificate) -> Iterator[TokenServer]:
    server = TokenServer(certificate)
    with serving(server):
        yield server


@pytest.fixture
def token_registry(
    tmp_path: Path, certificate: Certificate, tokens: TokenServer
) -> Iterator[Running]:
    with running(tmp_path / "registry", certificate, tokens.auth()) as made:
        made.log_in()
        yield made


@pytest.mark.whole
def test_a_token_is_got_for_what_is_to_be_done(
    tiny: Tiny, token_registry: Running, tokens: TokenServer
) -> None:
    push(tiny, token_registry)
    assert tokens.asked
    assert all("repository:lab/tiny:pull,push" in asked["scope"] for asked in tokens.asked)
    tokens.asked.clear()
    assert push(tiny, token_registry, "other/tiny:1")["pushed"]["mounted"]
    assert any("repository:lab/tiny:pull" in asked["scope"] for asked in tokens.asked)
    token_registry.log_in(password="sekret")
    run = tiny.run(
        *("push", f"{token_registry.address}/lab/tiny:2", *UNTESTED), **token_registry.environment
    )
    assert run.returncode == 3
    assert "does not accept the login" in run.stderr


@pytest.mark.whole
def test_an_identity_token_is_as_good_as_a_password(
    tiny: Tiny, token_registry: Running, tokens: TokenServer
) -> None:
    token_registry.configure({"auths": {token_registry.address: {"identitytoken": PASSWORD}}})
    push(tiny, token_registry)
    assert tokens.asked[0]["grant_type"] == ["refresh_token"]
    token_registry.configure({"auths": {token_registry.address: {"identitytoken": "sekret"}}})
    shutil.rmtree(token_registry.folder / "data")
    assert "does not accept the login token" in refused(tiny, token_registry)


# --- registries that fail ----------------------------------------------------------------------


@pytest.mark.whole
def test_who_meddles_with_nothing_does_no_harm(tiny: Tiny, between: Start) -> None:
    registry, _ = between(lambda _, body: body)
    assert push(tiny, registry)["pushed"]["sent"]


def test_bytes_that_change_on_the_way_are_refused(tiny: Tiny, between: Start) -> None:
    def flip(handler: Handler, body: bytes) -> bytes:
        return bytes([body[0] ^ 1]) + body[1:] if handler.command == "PATCH" else body

    registry, _ = between(flip)
    assert "DIGEST_INVALID" in refused(tiny, registry)


@pytest.mark.whole
def test_a_registry_that_changes_a_manifest_is_found_out(tiny: Tiny, between: Start) -> None:
    def reformat(handler: Handler, body: bytes) -> bytes:
        manifest = handler.command == "PUT" and "/manifests/" in handler.path
        return json.dumps(json.loads(body), indent=1).encode() if manifest else body

    registry, _ = between(reformat)
    run = tiny.run("push", f"{registry.address}/lab/tiny:1", *UNTESTED, **registry.environment)
    assert run.returncode == 1, run.stderr
    assert "holds the manifest sha256:" in run.stderr


@pytest.mark.whole
def test_a_registry_that_keeps_a_blob_of_another_size_is_found_out(
    tiny: Tiny, registry: Running
) -> None:
    push(tiny, registry)
    largest = max(
        (registry.folder / "data").rglob("blobs/*/*/*/data"), key=lambda p: p.stat().st_size
    )
    largest.write_bytes(largest.read_bytes()[:-1])
    run = tiny.run("push", f"{registry.address}/lab/tiny:1", *UNTESTED, **registry.environment)
    assert run.returncode == 1, run.stderr
    assert f"sha256:{largest.parent.name}" in run.stderr


@pytest.mark.whole
@pytest.mark.parametrize("command", ["HEAD", "POST", "PATCH", "PUT"])
def test_a_registry_that_is_busy_is_asked_again(tiny: Tiny, between: Start, command: str) -> None:
    put_off: list[str] = []

    def busy(handler: Handler, body: bytes) -> bytes | None:
        if handler.command == command and len(put_off) < 2:
            put_off.append(handler.path)
            handler.answer(429, headers={"Retry-After": "1"})
            return None
        return body

    registry, server = between(busy)
    told = push(tiny, registry)["pushed"]
    wanted = {"PUT": told["sent"] + 1}.get(command, told["sent"])  # the manifest
    assert server.seen.count(command) == wanted + 2
    assert (told["there"], told["mounted"]) == (0, 0)


@pytest.mark.whole
def test_an_upload_that_is_cut_is_sent_again(tiny: Tiny, between: Start) -> None:
    cut: list[str] = []

    def hang_up(handler: Handler, body: bytes) -> bytes | None:
        if handler.command == "PATCH" and not cut:
            cut.append(handler.path)
            handler.close_connection = True
            handler.connection.close()
            return None
        return body

    registry, server = between(hang_up)
    told = push(tiny, registry)["pushed"]
    assert cut
    assert server.seen.count("PATCH") == told["sent"] + 1


@pytest.mark.whole
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_login_stays_with_its_registry(tiny: Tiny, between: Start, elsewhere: bool) -> None:
    logins: list[str | None] = []

    def storage(handler: Handler, _: bytes) -> None:
        logins.append(handler.headers["Authorization"])
        handler.answer(401, headers={"WWW-Authenticate": 'Basic realm="give"'})

    _, other = between(storage)

    def place(handler: Handler, body: bytes) -> bytes | None:
        if not handler.headers["Authorization"]:
            handler.answer(401, headers={"WWW-Authenticate": 'Basic realm="the registry"'})
            return None
        port = (other if elsewhere else handler.server).server_port
        if handler.command == "POST":
            handler.answer(202, headers={"Location": f"https://127.0.0.1:{port}/place"})
            return None
        return storage(handler, body) if handler.path == "/place" else body

    registry, _ = between(place)
    registry.log_in()
    refused(tiny, registry)
    assert logins
    assert all((login is None) == elsewhere for login in logins)


@pytest.mark.whole
def test_what_is_no_registry_is_told_so(tiny: Tiny, between: Start) -> None:
    def page(handler: Handler, _: bytes) -> None:
        handler.answer(404, b"<html>")

    registry, server = between(page)
    assert "404" in refused(tiny, registry)
    assert server.seen == ["GET"]  # before anything is made
