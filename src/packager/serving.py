"""Start an image's server on this machine, show its log, and stop it gracefully."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from packager.errors import HostError, PackagerError, UsageError
from packager.outputs.containers import Served
from packager.outputs.engine import Engine
from packager.predicting import broke_off
from packager.proof import Limits
from packager.reporter import printable

__all__ = ["GRACE", "serve"]

GRACE = 30
"""Seconds for the server to end when it is told to; it gives its requests less by itself."""

_READY = "/v2/health/ready"
_PAUSE = 0.05
_ASK_SECONDS = 2
_LAST_LINES = 20
_TITLE = "org.opencontainers.image.title"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what the user chose to open


def serve(
    engine: Engine,
    image: str,
    address: tuple[str, int],
    limits: Limits,
    *,
    tell: Callable[[str], None],
    log: Callable[[str], None],
) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    engine : Engine
        Has the image, and is on this machine.
    image : str
        ID or reference.
    address : tuple of str and int
        Where the server is to be reached; port 0 takes a free one.
    limits : Limits
        Of the container; the seconds are for it to become ready.
    tell : callable
        Gets what the user should know.
    log : callable
        Gets the server's lines.

    Raises
    ------
    ClaimError
        When the server ends by itself, or is not ready in time.
    UsageError
        When there is no such image, or the port is taken.
    HostError
        When the engine cannot start it.
    """
    found = engine.get(image)
    name = ((found["Config"] or {}).get("Labels") or {}).get(_TITLE, "NAME")
    _check_free(*address)
    with engine.served(
        found["Id"], ["serve"], address=address, memory=limits.memory, processes=limits.processes
    ) as server:
        shown = _Log(server, log)
        shown.start()
        try:
            host = _ANYWHERE.get(address[0], address[0])
            if _wait(shown, host, server.port, limits.seconds):
                _greet(tell, image, name, host, server.port)
                shown.wait()
        except KeyboardInterrupt:
            tell("stopping")
            server.stop(GRACE)
            shown.wait()
            if server.end().exit_code == 0:
                return
        run = replace(server.end(), stderr=shown.last())
    raise broke_off(run, image, limits)


class _Log(threading.Thread):
    """Hands a server's lines on, and keeps the last ones, until it has ended."""

    def __init__(self, server: Served, log: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self._server, self._log = server, log
        self._last: deque[bytes] = deque(maxlen=_LAST_LINES)

    def run(self) -> None:
        with contextlib.suppress(PackagerError):  # asking how it ended tells more
            for line in self._server.lines():
                self._last.append(line)
                self._log(printable(line.decode("utf-8", "replace").rstrip("\r")))

    def wait(self) -> None:
        """Wait for the end, such that an interrupt gets through."""
        while self.is_alive():
            self.join(1)

    def last(self) -> bytes:
        """Give the last lines."""
        return b"\n".join(self._last)


def _check_free(host: str, port: int) -> None:
    """Refuse a port that is taken, in fewer words than engines have for it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"cannot listen at port {port}: {reason}", where=host, hint="Choose another --port."
            ) from None


def _wait(shown: _Log, host: str, port: int, seconds: float) -> bool:
    """Wait until the server is ready; False if it ended before."""
    end = time.monotonic() + seconds
    while shown.is_alive():
        if _is_ready(host, port):
            return True
        if time.monotonic() > end:
            raise HostError(
                f"the server is not ready after {seconds:g} s",
                where=f"{host}, port {port}",
                hint="--timeout gives it longer.  The engine must be on this machine.",
            )
        time.sleep(_PAUSE)
    return False


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=_ASK_SECONDS)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", _READY)
        return connection.getresponse().status == http.client.OK
    return False


def _greet(tell: Callable[[str], None], image: str, name: str, host: str, port: int) -> None:
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    tell(f"{image} is ready: {address}/ is its page; Ctrl-C stops it.  To ask it, type")
    tell(f"  docker run --rm {image} examples --to v2 > rows.json")
    tell(f"  curl --json @rows.json {address}/v2/models/{name}/infer")
