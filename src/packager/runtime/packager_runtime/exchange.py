"""One request and its answer in HTTP, whatever they are about."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from .answers import dump

__all__ = [
    "Gone",
    "Receive",
    "Refused",
    "Request",
    "Response",
    "Scope",
    "Send",
    "as_json",
    "respond",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_HEAD = 32 << 10
"""Bytes of a request's headers."""

_REQUEST_ID = re.compile(rb"[\w.:-]{1,128}", re.ASCII)
_LINGER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Response:
    """An answer in HTTP.

    Parameters
    ----------
    status : int
        Of HTTP.
    body : bytes
        Of `kind`.
    kind : str
        Its media type.
    headers : dict of str to str
        Beyond those that every answer has.
    """

    status: int
    body: bytes
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818 - it is an answer
    """A request that gets an error for an answer.

    Parameters
    ----------
    status : int
        Of HTTP.
    text : str
        What is wrong, for the client.
    headers : dict of str to str, optional
        Beyond those that every answer has.
    """

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.response = Response(status, dump({"error": text}), headers=headers or {})


class Gone(Exception):  # noqa: N818 - clients may go
    """The client went away before its body was here."""


class Request:
    """A request whose body is read part by part.

    Parameters
    ----------
    scope, receive
        As ASGI hands them over.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._receive = receive
        self.held = 0
        length = self.header(b"content-length")
        self.length = int(length) if length else 0
        # Without either header there is no body, so that nothing is left to be read.
        self.read = self.length == 0 and self.header(b"transfer-encoding") is None
        given = self.header(b"x-request-id") or b""
        self.id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)

    def header(self, name: bytes) -> bytes | None:
        """Find a header by its name in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    def refuse_large_head(self) -> None:
        """Refuse more headers than any client sends."""
        if sum(len(name) + len(value) for name, value in self.headers) > MOST_HEAD:
            raise Refused(431, f"the headers have more than {MOST_HEAD} bytes")

    def refuse_others(self, *methods: str) -> None:
        """Refuse other methods than these."""
        if self.method not in methods:
            allow = ", ".join(methods)
            text = f"{self.method} is not for this path, {allow} is"
            raise Refused(405, text, {"allow": allow})

    async def part(self) -> bytes:
        """Wait for more of the body."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Gone
        self.read = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part


def as_json(value: object, status: int = 200) -> Response:
    """Answer with a value."""
    return Response(status, dump(value))


async def respond(request: Request, response: Response, send: Send, *, close: bool) -> None:
    """Send an answer.

    Parameters
    ----------
    request : Request
        To be answered, maybe before all of it is here.
    response : Response
        The answer.
    send
        As ASGI hands it over.
    close : bool
        Whether the connection ends here.  It does if there is more of the request.
    """
    headers = {
        "content-type": response.kind,
        "content-length": str(len(response.body)),
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-request-id": request.id,
        **({} if request.read and not close else {"connection": "close"}),
        **response.headers,
    }
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    body = response.body
    await send({"type": "http.response.start", "status": response.status, "headers": encoded})
    if not request.read:
        # To close while a client still sends takes the answer away from it: read on for a while.
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await _linger(request)
        body = b""
    await send({"type": "http.response.body", "body": body})


async def _linger(request: Request) -> None:
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while not request.read:
                await request.part()
    except (TimeoutError, Gone):
        pass
