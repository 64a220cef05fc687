"""A lab's network on loopback: names that its proxy alone resolves, and indexes of its own.

The proxy is proxy.py's and demands a login; the indexes are pypiserver's, behind TLS and a path,
as whoever runs several of them has them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socketserver
import ssl
import subprocess
import sys
import time
import warnings
import wsgiref.simple_server
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from wsgiref.types import WSGIApplication

from proxy.http.proxy import HttpProxyBasePlugin
from registries import WAIT_SECONDS, serving

USER, PASSWORD = "researcher", "Kanarie@lab/7"
PROXY_USER, PROXY_PASSWORD = "guest", "Kanarie@proxy/7"
DOMAIN = "lab.example"  # nobody else knows such a name (RFC 6761)
LOGIN = f"{USER}:{quote(PASSWORD, safe='')}@"


class Names(HttpProxyBasePlugin):  # type: ignore[misc]
    """Has every name lead to this machine: there is no other way out."""

    def resolve_dns(self, host: str, port: int) -> tuple[str, None]:
        del host, port
        return "127.0.0.1", None


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the lab's own, and what it vouches for: every name in the lab."""

    certificate: Path
    chain: Path
    key: Path

    @classmethod
    def made(cls, folder: Path) -> Authority:
        folder.mkdir()
        files = {name: str(folder / f"{name}.pem") for name in ("ca", "ca-key", "chain", "key")}
        new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        own = ["-subj", "/CN=The lab's own", "-addext", "keyUsage=critical,keyCertSign"]
        run = [*new, *own, "-keyout", files["ca-key"], "-out", files["ca"]]
        subprocess.run(run, check=True, capture_output=True)
        names = ["-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:*.{DOMAIN}"]
        by = ["-CA", files["ca"], "-CAkey", files["ca-key"], "-addext", "basicConstraints=CA:FALSE"]
        run = [*new, *names, *by, "-keyout", files["key"], "-out", files["chain"]]
        subprocess.run(run, check=True, capture_output=True)
        return cls(*(Path(files[name]) for name in ("ca", "chain", "key")))


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of who hangs up, as who does not trust the certificate does."""


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def indexes(authority: Authority, public: Path, private: Path) -> Iterator[int]:
    """Serve two indexes, of which one wants to know who asks; gives the port."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the cgi that it imports
        import pypiserver

    apps: Mapping[str, WSGIApplication] = {
        "/public/pypi": pypiserver.app(roots=[public], disable_fallback=True),
        "/team/a": pypiserver.app(
            roots=[private],
            disable_fallback=True,
            authenticate=["list", "download"],
            auther=lambda user, password: (user, password) == (USER, PASSWORD),
        ),
    }

    def behind_paths(environ: dict[str, Any], start: Any) -> Any:
        for prefix, app in apps.items():
            if environ["PATH_INFO"].startswith(f"{prefix}/"):
                environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(prefix)
                environ["SCRIPT_NAME"] = prefix
                return app(environ, start)
        start("404 Not Found", [])
        return []

    server = wsgiref.simple_server.make_server("127.0.0.1", 0, behind_paths, _Server, _Quiet)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.chain, authority.key)
    # The handshake is each connection's own affair: one that fails must keep nobody waiting.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    with serving(server):
        yield server.server_port


@dataclass(frozen=True)
class Proxy:
    """A proxy that answers."""

    port: int
    log: Path

    def address(self, password: str = PROXY_PASSWORD) -> str:
        return f"http://{PROXY_USER}:{quote(password, safe='')}@127.0.0.1:{self.port}"


@contextlib.contextmanager
def proxy(folder: Path) -> Iterator[Proxy]:
    """Run a proxy that lets in who knows the password."""
    folder.mkdir()
    port, log = folder / "port", folder / "log"
    words = ["--hostname=127.0.0.1", "--port=0", f"--port-file={port}", f"--log-file={log}"]
    words += ["--num-acceptors=1", "--num-workers=1", "--plugins=lab.Names"]
    words += ["--basic-auth", f"{PROXY_USER}:{PROXY_PASSWORD}", f"--data-dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", *words],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # its workers, too, end with it
    )
    try:
        end = time.monotonic() + WAIT_SECONDS
        while not (port.exists() and port.read_text().strip()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield Proxy(int(port.read_text()), log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
