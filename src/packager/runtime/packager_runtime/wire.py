"""One HTTP connection of uvicorn, with the bounds that uvicorn leaves to a proxy before it."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Connection"]

MOST_CONNECTIONS = 512
"""At one time; a client that comes later is told to come again."""

MOST_HEAD = 64 << 10
"""Bytes of a request's head that has not ended; what has is bounded by the application."""

HEAD_SECONDS = 10.0
"""For a request's head to arrive, from the connection or its first byte on."""

UNREAD_SECONDS = 30.0
"""For a client to take an answer."""


class Connection(HttpToolsProtocol):
    """A connection with a limit on its number, its requests' heads, and their time."""

    _answers = 0
    _head_bytes = 0
    _in_head = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._forget_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is a head that does not end."""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MOST_HEAD and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large")

    def on_message_begin(self) -> None:
        """Wait for the head of a request that has begun."""
        super().on_message_begin()
        if self._timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Hand the request on."""
        self._forget_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Be ready for the next head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Give the client its time to take the answer."""
        super().on_response_complete()
        self._answers += 1
        if self.transport.get_write_buffer_size():
            self.loop.call_later(UNREAD_SECONDS, self._unread, self._answers)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, as all else is refused."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def _forget_head(self) -> None:
        self._in_head = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._expect_head()  # the answer to the request before is still under way
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request's head did not arrive in time")

    def _unread(self, answer: int) -> None:
        if answer == self._answers and self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        body = json.dumps({"error": text})
        head: dict[str, Any] = {
            "content-type": "application/json",
            "content-length": len(body),
            "connection": "close",
        }
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            *(f"{k}: {v}" for k, v in head.items()),
        ]
        self.transport.write("\r\n".join([*lines, "", body]).encode())
        self.transport.close()
