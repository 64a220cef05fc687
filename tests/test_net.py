"""Claims about the way to the network: what pip's settings say counts, and no secret is told."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from conftest import WheelMaker, write_tiny
from urllib3 import HTTPResponse

from packager import net, pip, project
from packager.errors import HostError, UsageError, without_credentials
from packager.lock import resolve
from packager.lock.indexes import Indexes
from packager.project import Hints


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Nothing of this machine's pip counts; a test sets what it needs, as a user would."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    pip.forget()
    yield monkeypatch
    pip.forget()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers that it is down, unless it is told what to answer, and counts."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.kind)
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        self.wfile.write(self.server.page)

    def log_message(self, *_: object) -> None: ...


class Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = 0
        self.status, self.kind, self.page = 403, "text/html", b""

    def answers(self, kind: str, page: bytes) -> None:
        self.status, self.kind, self.page = 200, kind, page

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.server_port}/"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:sekret@host/simple", "https://host/simple"),
        ("https://sekret@host/simple", "https://host/simple"),
        ("Failed to parse: http://u:sek@ret@", "Failed to parse: http://"),
        ("see http://u:sekret@a/b, then https://sekret@c", "see http://a/b, then https://c"),
        ("https://u:pa/ss@word@host:80/simple", "https://host:80/simple"),
        ("u:sekret@proxy:3128 is no address", "proxy:3128 is no address"),
        ("403 for https://host/file?X-Signature=sekret today", "403 for https://host/file?… today"),
        ("https://host/@scope/file?at=a@b#c@d", "https://host/@scope/file?…#c@d"),
        ("https://host:8080/@scope and [::1]:80/@x?", "https://host:8080/@scope and [::1]:80/@x?"),
        ("someone@example.org: why?", "someone@example.org: why?"),
    ],
)
def test_credentials_go_and_everything_else_stays(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_the_reason_of_a_failure_does_not_tell_the_proxys_password(
    settings: pytest.MonkeyPatch,
) -> None:
    settings.setenv("PIP_PROXY", "http://user:sekret@proxy:99999")
    with pytest.raises(requests.RequestException, match="sekret") as caught:
        net.session().get("http://127.0.0.1:9/")
    assert net.reasons(caught.value) == "Failed to parse: http://proxy:99999"


def test_a_reason_may_be_a_mere_word() -> None:
    inner = ssl.SSLCertVerificationError(1, "certificate verify failed")
    inner.reason = "CERTIFICATE_VERIFY_FAILED"
    assert "certificate verify failed" in net.reasons(requests.ConnectionError(inner))


@pytest.mark.parametrize("asked", ["3600", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_server_cannot_make_us_wait_for_an_hour(asked: str) -> None:
    retry = net.session().get_adapter("http://host/").max_retries.new()
    assert retry.get_retry_after(HTTPResponse(headers={"Retry-After": asked})) == 30
    assert retry.get_retry_after(HTTPResponse(headers={"Retry-After": "2"})) == 2
    assert retry.get_retry_after(HTTPResponse()) is None


@pytest.fixture
def self_signed(server: Server, tmp_path: Path) -> Server:
    """A server with a certificate that nobody vouches for."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.status = 200
    return server


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("port", ["", ":{port}"])
def test_only_a_trusted_host_needs_no_certificate(
    self_signed: Server, settings: pytest.MonkeyPatch, port: str
) -> None:
    host = "127.0.0.1" + port.format(port=self_signed.server_port)
    settings.setenv("PIP_TRUSTED_HOST", f"another.example {host}")
    address = self_signed.url("https").replace("//", "//user:password@")
    assert net.session().get(address).ok
    pip.forget()
    settings.setenv("PIP_TRUSTED_HOST", "another.example 127.0.0.1:9")
    with pytest.raises(requests.exceptions.SSLError, match="certificate"):
        no_retries().get(address)


def test_certificates_that_openssl_reads_by_itself_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(net.system_certificates().read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    adapter = net.session().get_adapter("https://host/")
    bundle.unlink()
    adapter.trust(str(bundle))
    with pytest.raises(HostError, match="no certificates can be read"):
        adapter.trust(str(tmp_path / "another.pem"))


def no_retries() -> requests.Session:
    session = net.session()
    for adapter in session.adapters.values():
        adapter.max_retries = 0  # type: ignore[attr-defined]
    return session


def test_uv_gets_the_proxy_and_the_trusted_hosts_of_pips_settings(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.setenv("PIP_PROXY", "http://proxy.example:3128")
    settings.setenv("PIP_TRUSTED_HOST", "one.example two.example")
    given: dict[str, str] = {}
    settings.setattr(resolve, "_run", lambda _command, _work, extra, _project: given.update(extra))
    write_tiny(tmp_path)
    resolve._uv_compile(project.load(tmp_path), tmp_path, "requirements.txt", None)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        assert given[name] == "http://proxy.example:3128"
    assert given["UV_INSECURE_HOST"] == "one.example two.example"
    pip.forget()
    settings.delenv("PIP_PROXY")
    given.clear()
    resolve._uv_compile(project.load(tmp_path), tmp_path, "requirements.txt", None)
    assert "HTTPS_PROXY" not in given  # the user's own stays


def indexes(*extra: str, links: tuple[str, ...] = ()) -> Indexes:
    session = no_retries()
    return Indexes(lambda: session, Hints(extra, links))


def test_building_passes_over_an_index_that_is_down_and_locking_does_not(
    server: Server, tmp_path: Path, make_wheel: WheelMaker
) -> None:
    file = make_wheel("one", folder=tmp_path / "wheels")
    places = indexes(server.url(), links=(str(file.parent),))
    for _ in range(3):
        assert list(places.places("One", file.name)) == [file.as_uri()]
    assert server.requests == 1
    with pytest.raises(HostError, match=r"cannot be asked for one.*403|403.*cannot be asked"):
        places.files("one")


def test_a_file_that_no_place_has_is_blamed_on_the_place_that_is_down(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(HostError, match=f"{server.url()}.*cannot be asked"):
        list(indexes(server.url(), links=(str(tmp_path),)).places("one", "one-1.0.whl"))
    assert list(indexes(links=(str(tmp_path),)).places("one", "one-1.0.whl")) == []


JSON = "application/vnd.pypi.simple.v1+json"


def listing(*files: str) -> bytes:
    """A page of PEP 691."""
    listed = [{"filename": name, "url": f"../files/{name}", "hashes": {}} for name in files]
    return json.dumps({"meta": {"api-version": "1.0"}, "name": "one", "files": listed}).encode()


def test_one_file_is_found_on_a_page_in_json(server: Server) -> None:
    server.answers(JSON, listing("one-1.0.whl", "one-2.0.whl", "one-3.0.whl"))
    places = indexes(server.url())
    assert [*places.places("one", "one-2.0.whl")] == [f"{server.url()}files/one-2.0.whl"]
    assert [*places.places("one", "one-4.0.whl")] == []
    assert len(places.files("one")) == 3


@pytest.mark.parametrize("page", [b"[]", b"{}", b'{"files": [1]}', b'{"files": 1}', b"{"])
def test_json_that_is_no_list_of_files_is_blamed_on_the_index(server: Server, page: bytes) -> None:
    server.answers(JSON, page)
    for ask in (indexes(server.url()).places, lambda name, _: indexes(server.url()).files(name)):
        with pytest.raises(HostError, match="cannot be asked for one"):
            [*ask("one", "one-1.0.whl")]


def test_a_place_is_not_asked_where_one_before_it_serves(
    server: Server, tmp_path: Path, make_wheel: WheelMaker
) -> None:
    file = make_wheel("one", folder=tmp_path / "index" / "one")
    (file.parent / "index.html").write_text(f'<a href="{file.name}">{file.name}</a>')
    local = (tmp_path / "index").as_uri()
    assert next(indexes(local, server.url()).places("one", file.name)) == file.as_uri()
    assert server.requests == 0


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_find_links_that_cannot_be_read_are_named(tmp_path: Path, content: bytes | None) -> None:
    link = tmp_path / "nowhere"
    if content:
        link.write_bytes(content)
    with pytest.raises(UsageError, match=f"{link}: find-links cannot be read") as caught:
        indexes(links=(str(link),)).files("one")
    assert "tool.packager" in caught.value.hint


def configured(root: Path, setting: str) -> project.Project:
    write_tiny(root)
    with (root / "pyproject.toml").open("a") as file:
        file.write(setting)
    return project.load(root)


def test_relative_find_links_are_the_projects_wherever_one_stands(
    tmp_path: Path, settings: pytest.MonkeyPatch
) -> None:
    links = ["wheels", "../a@b", "https://host/wheels", "file:///srv/wheels"]
    loaded = configured(tmp_path / "project", f"find-links = {links!r}\n")
    settings.chdir("/")
    assert loaded.hints.find_links == (
        str(tmp_path / "project" / "wheels"),
        str(tmp_path / "a@b"),
        *links[2:],
    )


@pytest.mark.parametrize("user", ["TOKEN", "user:password", "user:", ":password"])
@pytest.mark.parametrize("key", ["extra-index-urls", "find-links", "debian-mirror"])
def test_no_kind_of_credentials_enters_a_project(tmp_path: Path, user: str, key: str) -> None:
    value: object = f"https://{user}@host/simple"
    with pytest.raises(UsageError, match="must not hold credentials") as caught:
        configured(tmp_path, f"{key} = {value if key == 'debian-mirror' else [value]!r}\n")
    assert user not in str(caught.value)


def test_secrets_in_addresses_are_known() -> None:
    assert net.holds_secret("https://token@host/file")
    assert net.holds_secret("https://host/file?signature=x")
    assert not net.holds_secret("https://host/a@b/file#fragment")
