"""The server: it listens at once, loads the model, and ends without losing an answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

import uvicorn

from .app import App, Limits
from .facts import Image, InputError, Recording
from .log import Log
from .wire import Connection
from .worker import ModelError, Worker

__all__ = ["Options", "listen", "run"]

BACKLOG = 1024
"""Connections that the system keeps until they are taken."""

KEEP_ALIVE_SECONDS = 30
"""That a connection without a request stays open."""

_LAST_REQUESTS_SECONDS = 0.5
_LAST_ANSWERS_SECONDS = 0.1
_TURNS = 3  # of the event loop, until what asyncio accepted last is a connection of its own


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    Parameters
    ----------
    host : str
        Address to listen at.
    port : int
        0 for any that is free, which the log names.
    max_mb : float
        Of a request's body.
    seconds : float
        For a body to arrive, and again for its answer.
    grace : int
        Seconds for the requests that are there when the server is told to stop.
    """

    host: str
    port: int
    max_mb: float
    seconds: float
    grace: int


def run(
    image: Image, examples: Recording | None, options: Options, out: TextIO, started: float
) -> int:
    """Serve until told to stop.

    Parameters
    ----------
    image : Image
        The facts of the image.
    examples : Recording or None
        The recorded examples.
    options : Options
        What the command line says.
    out : TextIO
        Gets all that the model's code prints, so that standard error is the log's alone.
    started : float
        When the process did, by `time.perf_counter`.

    Returns
    -------
    int
        0 if all requests were answered, 1 if the model does not work, 128 and the signal's
        number if the time of grace was over before.

    Raises
    ------
    InputError
        When the address is not to be had.
    """
    listener = listen(options.host, options.port)
    log = Log(os.fdopen(os.dup(2), "wb", buffering=0))
    logging.getLogger("uvicorn").addHandler(log)
    for descriptor in (1, 2):
        os.dup2(out.fileno(), descriptor)
    worker = Worker(image, examples, options.seconds, log)
    limits = Limits(int(options.max_mb * 1e6), options.seconds)
    app = App(image, examples, worker, limits, log)
    server = _Server(app, log, options.grace)
    return asyncio.run(_serve(server, listener, worker, started))


async def _serve(server: _Server, listener: socket.socket, worker: Worker, started: float) -> int:
    host, port, *_ = listener.getsockname()
    server.log("info", "listening", host=host, port=port)
    opening = asyncio.create_task(_open(server, worker, started))
    await server.serve(sockets=[listener])
    opening.cancel()
    server.log("info", "stopped", exit=server.exit_code)
    return server.exit_code


async def _open(server: _Server, worker: Worker, started: float) -> None:
    try:
        await worker.open()
    except Exception as wrong:  # noqa: BLE001 - whatever it is, this server will not be ready
        told = str(wrong) if isinstance(wrong, ModelError) else repr(wrong)
        server.log("error", "model failed", error=told)
        server.exit_code, server.should_exit = 1, True
        return
    seconds = round(time.perf_counter() - started, 3)
    server.app.metrics.load_seconds = seconds
    server.log("info", "ready", seconds=seconds)


class _Server(uvicorn.Server):
    """Uvicorn's server, but it loses no request that it has begun to read when it is stopped."""

    def __init__(self, app: App, log: Log, grace: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=grace,
            )
        )
        self.app, self.log = app, log
        self.exit_code = 0
        self._stopped_by = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals; uvicorn's own way would raise them again in the end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop: whoever asks is told not to send more."""
        self.app.stopping = True
        self._stopped_by = sig
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was sent, and end."""
        self.app.stopping = True
        await self._stop_listening(sockets or [])
        self.log("info", "stopping", signal=self._stopped_by, requests=len(self.server_state.tasks))
        # A client may have sent its next request just now: it is answered, and told to close.
        await asyncio.sleep(_LAST_REQUESTS_SECONDS if self.server_state.connections else 0)
        await super().shutdown(sockets)
        if left := len(self.server_state.tasks):
            self.log("error", "grace is over", requests=left)
            self.exit_code = self.exit_code or 128 + self._stopped_by
            await asyncio.sleep(_LAST_ANSWERS_SECONDS)

    async def _stop_listening(self, listeners: list[socket.socket]) -> None:
        """End listening, but take the connections that are made already: a close resets them."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            loop.remove_reader(listener)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        last = [connection for listener in listeners for connection in _last_of(listener)]
        for server in self.servers:
            server.close()
        for connection in last:
            await loop.connect_accepted_socket(self._connection, connection)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)


def _last_of(listener: socket.socket) -> Iterator[socket.socket]:
    try:
        while True:
            yield listener.accept()[0]
    except BlockingIOError:
        listener.shutdown(socket.SHUT_RDWR)  # at once: whoever came in between would be lost


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address.

    Parameters
    ----------
    host : str
        A name or address of this machine; with a colon it is one of IPv6.
    port : int
        0 for any that is free.

    Returns
    -------
    socket
        Its connections send without waiting for more to send.

    Raises
    ------
    InputError
        When the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as wrong:
        what = wrong.strerror if isinstance(wrong, OSError) else wrong
        raise InputError(f"{host}, port {port}: {what}: choose another --port") from None
    # Connections inherit it.  Without it an answer's body waits 40 ms for its head to be confirmed:
    # asyncio sets it where the socket names its protocol, and such a listener does not.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
