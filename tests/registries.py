"""Debian's docker-registry on loopback, with TLS and logins, started by the tests themselves."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import re
import shutil
import socketserver
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "researcher", "pass:word/é"
# bcrypt, the only hash that the registry takes.
HTPASSWD = f"{USER}:$2b$04$AauOohbo007yzOmwLScoLucaX4AJaAdMFlvFbWbs5kNPYNnNfUpUG\n"
_SERVICE, _ISSUER = "the registry", "the tests"
WAIT_SECONDS = 30


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 that only the tests' own CA file vouches for."""

    key: Path
    chain: Path

    def context(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.chain, self.key)
        return made


def certified(folder: Path) -> Certificate:
    """Make a certificate, and its key, in a folder."""
    made = Certificate(folder / "key.pem", folder / "chain.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.chain)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return made


@dataclass
class Running:
    """A registry that answers."""

    address: str
    folder: Path
    certificate: Certificate

    @property
    def environment(self) -> dict[str, str]:
        """Whom a user of this registry trusts, and where Docker keeps the login."""
        return {
            "SSL_CERT_FILE": str(self.certificate.chain),
            "DOCKER_CONFIG": str(self.folder / "docker"),
        }

    def log_in(self, user: str = USER, password: str = PASSWORD) -> None:
        """Store a login as `docker login` does."""
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.configure({"auths": {self.address: {"auth": pair}}})

    def configure(self, config: dict[str, Any]) -> None:
        (self.folder / "docker").mkdir(exist_ok=True)
        (self.folder / "docker" / "config.json").write_text(json.dumps(config))

    def blob(self, sha256: str) -> Path:
        """Say where the registry keeps a blob."""
        blobs = self.folder / "data" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return blobs / sha256[:2] / sha256 / "data"

    def requests(self, method: str) -> list[str]:
        """List the paths that were asked for by a method, from the registry's own log."""
        log = (self.folder / "log").read_text()
        return re.findall(rf'"{method} (\S+) HTTP/1.1" 2', log)


@contextlib.contextmanager
def running(
    folder: Path, certificate: Certificate, auth: dict[str, Any], *, tls: bool = True
) -> Iterator[Running]:
    """Run a registry in a folder until the context ends."""
    folder.mkdir()
    files = {"certificate": str(certificate.chain), "key": str(certificate.key)}
    config = {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {
            "addr": "127.0.0.1:0",
            "secret": "none",
            "relativeurls": True,
            **({"tls": files} if tls else {}),
        },
        "auth": auth,
    }
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    program = shutil.which("docker-registry")
    assert program, "make registry installs Debian's docker-registry"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    try:
        yield Running(f"127.0.0.1:{_port(process, folder / 'log')}", folder, certificate)
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until the registry says at which port the kernel lets it listen."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def basic(folder: Path) -> dict[str, Any]:
    """Let in who knows the password."""
    path = folder / "htpasswd"
    path.write_text(HTPASSWD)
    return {"htpasswd": {"realm": "the registry", "path": str(path)}}


class TokenServer(http.server.ThreadingHTTPServer):
    """Gives tokens as the distribution project specifies it, to who knows the password."""

    def __init__(self, certificate: Certificate) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.certificate = certificate
        self.socket = certificate.context().wrap_socket(self.socket, server_side=True)
        self.asked: list[dict[str, list[str]]] = []

    def auth(self) -> dict[str, Any]:
        """Say in a registry's configuration that this one is to be asked."""
        realm = f"https://127.0.0.1:{self.server_port}/token"
        bundle = str(self.certificate.chain)
        return {
            "token": {
                "realm": realm,
                "service": _SERVICE,
                "issuer": _ISSUER,
                "rootcertbundle": bundle,
            }
        }

    def token(self, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        chain = ssl.PEM_cert_to_DER_cert(self.certificate.chain.read_text())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(chain).decode()]}
        claims = {
            "iss": _ISSUER,
            "aud": _SERVICE,
            "sub": USER,
            "nbf": now - 10,
            "exp": now + 300,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        signed = b".".join(_url64(json.dumps(part).encode()) for part in (head, claims))
        sign = ["openssl", "dgst", "-sha256", "-sign", str(self.certificate.key)]
        made = subprocess.run(sign, input=signed, check=True, capture_output=True).stdout
        return (signed + b"." + _url64(made)).decode()


class _TokenHandler(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        self._answer(query, known=self.headers["Authorization"] == f"Basic {pair}")

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        form["scope"] = form["scope"][0].split(" ")
        self._answer(form, known=form["refresh_token"] == [PASSWORD])

    def _answer(self, query: dict[str, list[str]], *, known: bool) -> None:
        self.server.asked.append(query)
        body = json.dumps({"token": self.server.token(query["scope"])} if known else {}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def _url64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Have a server answer until the context ends."""
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


Meddle = Callable[["Handler", bytes], bytes | None]
"""Changes what a client sends, or answers itself and gives None."""


class Between(http.server.ThreadingHTTPServer):
    """Stands between a client and a registry, and may meddle."""

    def __init__(self, registry: Running, certificate: Certificate, meddle: Meddle) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.registry, self.meddle = registry, meddle
        self.seen: list[str] = []
        self.socket = certificate.context().wrap_socket(self.socket, server_side=True)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Between
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        self.server.seen.append(self.command)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        meddled = self.server.meddle(self, body)
        if meddled is None:
            return
        connection = http.client.HTTPConnection(self.server.registry.address, timeout=60)
        headers = {**self.headers, "Content-Length": str(len(meddled))}
        connection.request(self.command, self.path, meddled, headers)
        answer = connection.getresponse()
        data = answer.read()
        self.answer(answer.status, data, dict(answer.getheaders()))
        connection.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _pass_on  # noqa: N815

    def answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


Start = Callable[[Meddle], tuple[Running, Between]]
