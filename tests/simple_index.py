"""A package index on loopback, laid out as PyTorch's own is: PEP 503 pages, wheels beside them."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote

PLACE = "whl/cpu"


@dataclass(frozen=True)
class SimpleIndex:
    """Where it is, and which wheels were got from it so far."""

    address: str
    got: list[str] = field(default_factory=list)


@contextmanager
def served(folder: Path, *wheels: Path) -> Iterator[SimpleIndex]:
    """Serve wheels out of an empty folder for as long as the block runs."""
    root = folder / PLACE
    for wheel in wheels:
        page = root / wheel.name.partition("-")[0].replace("_", "-")
        page.mkdir(parents=True, exist_ok=True)
        (root / wheel.name).symlink_to(wheel)
        with wheel.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        link = f"/{PLACE}/{quote(wheel.name)}#sha256={digest}"
        with (page / "index.html").open("a") as html:
            html.write(f'<a href="{link}">{wheel.name}</a><br/>\n')
    got: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            if self.path.endswith(".whl"):
                got.append(unquote(self.path.rpartition("/")[2]))

    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleIndex(f"http://127.0.0.1:{server.server_port}/{PLACE}", got)
        server.shutdown()
