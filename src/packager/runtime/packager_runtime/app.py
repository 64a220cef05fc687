"""The server's routes: which request gets which answer, and what each may cost."""

from __future__ import annotations

import asyncio
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import answers, info, openapi
from .exchange import Gone, Receive, Refused, Request, Response, Scope, Send, as_json, respond
from .facts import Image, InputError, Recording
from .log import Log
from .metrics import TEXT_FORMAT, Metrics
from .protocol import Signature
from .worker import ModelError, Overloaded, RowsError, Worker

if TYPE_CHECKING:
    from .page import Page

__all__ = ["App", "Limits"]

EXTENSIONS = ["nullable", "binary_tensor_data"]
"""Of the protocol: null for a missing value, and values in binary form behind the JSON."""

RETRY = {"retry-after": "1"}
"""Seconds after which a client may come again."""

_OURS = {500, 504}
# Asked every few seconds: they would bury the rest.
_QUIET = {"/v2/health/live", "/v2/health/ready", "/v2/models/{model}/ready", "/metrics"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost.

    Parameters
    ----------
    body : int
        Bytes of a body.
    seconds : float
        For a body to arrive, and again for its answer.
    """

    body: int
    seconds: float

    @property
    def all_bodies(self) -> int:
        """Bytes of all bodies that are in memory at one time."""
        return max(64 << 20, 2 * self.body)


class App:
    """An ASGI application for one model.

    Parameters
    ----------
    image : Image
        The facts of the image.
    examples : Recording or None
        The recorded examples.
    worker : Worker
        The model.
    limits : Limits
        What one request may cost.
    log : Log
        Told of each request, but for the good ones of health and metrics.
    """

    def __init__(
        self,
        image: Image,
        examples: Recording | None,
        worker: Worker,
        limits: Limits,
        log: Log,
    ) -> None:
        self._image, self._examples = image, examples
        self._worker, self._limits = worker, limits
        self._log = log
        self.metrics = Metrics(image.name, image.version, image.model_digest)
        self._page: Page | None = None
        self._held = 0
        self.stopping = False
        model = f"/v2/models/{image.name}"
        # Versions are optional in the protocol, and a project may have none.
        models = [model, f"{model}/versions/{image.version}"] if image.version else [model]
        get: dict[str, Callable[[], Response]] = {
            "/": self._front,
            "/openapi.json": self._openapi,
            "/metrics": self._metrics_text,
            "/v2": self._server,
            "/v2/": self._server,
            "/v2/health/live": lambda: as_json({"live": True}),
            "/v2/health/ready": self._ready,
        }
        self._get = (
            get
            | dict.fromkeys(models, self._model)
            | {f"{path}/ready": self._model_ready for path in models}
        )
        self._infer = {f"{path}/infer" for path in models}
        self._routes = {path: path for path in get} | {"/v2/": "/v2"}
        self._routes |= dict.fromkeys(models, "/v2/models/{model}")
        for verb in ("ready", "infer"):
            self._routes |= {f"{path}/{verb}": f"/v2/models/{{model}}/{verb}" for path in models}

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self._worker.ready and not self.stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        self.metrics.in_flight += 1
        request = Request(scope, receive)
        status, size = 499, 0  # what proxies write down for a client that went away
        try:
            response = await self._answered(request)
            status, size = response.status, len(response.body)
            await respond(request, response, send, close=self.stopping)
        except Gone:
            pass
        finally:
            self._held -= request.held
            self.metrics.in_flight -= 1
            seconds = time.perf_counter() - started
            self._count(request, status, size, seconds)

    def _count(self, request: Request, status: int, size: int, seconds: float) -> None:
        route = self._routes.get(request.path, "other")
        known = request.method in {"GET", "HEAD", "POST"}
        self.metrics.count(route, request.method if known else "other", status, seconds)
        if route in _QUIET and status in {200, 503}:
            return
        self._log(
            "error" if status in _OURS else "info",
            "request",
            method=request.method,
            path=request.path[:200],
            status=status,
            ms=round(seconds * 1000, 2),
            bytes=size,
            id=request.id,
        )

    async def _answered(self, request: Request) -> Response:
        try:
            request.refuse_large_head()
            if request.path in self._infer:
                request.refuse_others("POST")
                return await self._inferred(request)
            if request.path not in self._get:
                raise Refused(404, self._unknown(request.path))
            request.refuse_others("GET", "HEAD")
            return self._get[request.path]()
        except Refused as refused:
            return refused.response
        except Gone:
            raise
        except asyncio.CancelledError:  # the time of grace is over
            return Refused(503, "the server was stopped before there was an answer").response
        except Exception as wrong:  # noqa: BLE001 - a mistake of ours must not look like theirs
            place = traceback.extract_tb(wrong.__traceback__)[-1]
            kind = type(wrong).__name__
            self._log("error", "server failed", type=kind, file=place.filename, line=place.lineno)
            return Refused(500, f"the server failed: {kind}").response

    def _unknown(self, path: str) -> str:
        if path.startswith("/v2/models/"):
            version = f", version {self._image.version}" if self._image.version else ""
            return f"unknown model, version or path; the model here is {self._image.name}{version}"
        return "unknown path; /openapi.json tells those that there are"

    # --- what there is to look at

    def _front(self) -> Response:
        if self._page is None:
            from . import page  # long, and not every server is looked at

            signature = self._signature()
            self._page = page.render(
                self._image,
                self._examples,
                signature.inputs,
                signature.outputs,
                info.citation(self._image),
            )
        policy = {"content-security-policy": self._page.policy}
        return Response(200, self._page.html, "text/html; charset=utf-8", policy)

    def _openapi(self) -> Response:
        signature, most = self._signature(), self._limits.body
        return as_json(openapi.document(self._image, self._examples, signature, most))

    def _metrics_text(self) -> Response:
        return Response(200, self.metrics.text(self.ready).encode(), TEXT_FORMAT)

    def _server(self) -> Response:
        name, version = self._image.name, self._image.version
        return as_json({"name": name, "version": version, "extensions": EXTENSIONS})

    def _ready(self) -> Response:
        return as_json({"ready": self.ready}, 200 if self.ready else 503)

    def _model_ready(self) -> Response:
        told = {"name": self._image.name, "ready": self.ready}
        return as_json(told, 200 if self.ready else 503)

    def _model(self) -> Response:
        signature = self._signature()
        told: dict[str, Any] = {"name": self._image.name}
        if self._image.version:
            told["versions"] = [self._image.version]
        told["platform"] = "packager"
        told["inputs"] = [answers.describe(tensor) for tensor in signature.inputs]
        told["outputs"] = [answers.describe(tensor) for tensor in signature.outputs]
        return as_json(told)

    def _signature(self) -> Signature:
        if self._worker.signature is None:
            raise Refused(503, "the model is being loaded", RETRY)
        return self._worker.signature

    # --- what there is to ask

    async def _inferred(self, request: Request) -> Response:
        if not self._worker.loaded:
            raise Refused(503, "the model is being loaded", RETRY)
        json_bytes = _json_bytes(request)
        body = await self._body(request)
        try:
            reply = await self._worker.answer(body, json_bytes)
        except InputError as wrong:
            raise Refused(400, str(wrong)) from None
        except RowsError as wrong:
            raise Refused(422, str(wrong)) from None
        except ModelError as wrong:
            raise Refused(500, str(wrong)) from None
        except Overloaded:
            text = "too many requests are waiting for the model"
            raise Refused(503, text, RETRY) from None
        except TimeoutError:
            self.metrics.late += 1
            text = f"no answer of the model within {self._limits.seconds:g} s"
            raise Refused(504, text) from None
        self.metrics.rows += reply.rows
        if reply.json_bytes is None:
            return Response(200, reply.body)
        length = {"inference-header-content-length": str(reply.json_bytes)}
        return Response(200, reply.body, "application/octet-stream", length)

    async def _body(self, request: Request) -> bytes:
        limits = self._limits
        if request.length > limits.body:
            raise Refused(413, _too_large(limits))
        parts, size = [], 0
        try:
            async with asyncio.timeout(limits.seconds):
                while not request.read:
                    part = await request.part()
                    parts.append(part)
                    size += len(part)
                    request.held += len(part)
                    self._held += len(part)
                    if size > limits.body:
                        raise Refused(413, _too_large(limits))
                    if self._held > limits.all_bodies:
                        text = "too many large requests at one time"
                        raise Refused(503, text, RETRY)
        except TimeoutError:
            text = f"the body was not here within {limits.seconds:g} s"
            raise Refused(408, text) from None
        return b"".join(parts)


def _json_bytes(request: Request) -> int | None:
    """Read the headers that say what the body is."""
    if request.header(b"content-encoding") not in {None, b"identity"}:
        raise Refused(415, "send the body uncompressed, without Content-Encoding")
    kind = (request.header(b"content-type") or b"application/json").partition(b";")[0]
    length = request.header(b"inference-header-content-length")
    kinds = {b"application/json"} | ({b"application/octet-stream"} if length else set())
    if kind.strip().lower() not in kinds:
        raise Refused(415, "the body is JSON: say so with Content-Type: application/json")
    if length is None:
        return None
    if not re.fullmatch(rb"\d{1,12}", length):
        raise Refused(400, "Inference-Header-Content-Length is not a number of bytes")
    return int(length)


def _too_large(limits: Limits) -> str:
    return f"the body is larger than {limits.body} bytes; ask in several requests"
