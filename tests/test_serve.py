"""The server inside the image, as a process on loopback: what it answers, refuses and survives."""

from __future__ import annotations

import asyncio
import http.client
import io
import itertools
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy
import pytest
import schemathesis
import tritonclient.http
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families
from schemathesis import GenerationMode
from served import INFER, Answer, Server, ask, rows, serving, write_models
from test_runtime import SIGNATURE, Sealed

from packager.runtime.packager_runtime import serve
from packager.runtime.packager_runtime.app import App, Limits
from packager.runtime.packager_runtime.facts import read_image
from packager.runtime.packager_runtime.log import Log
from packager.runtime.packager_runtime.worker import Reply, Worker

pytestmark = pytest.mark.skipif(os.name == "nt", reason="images are Linux: named pipes, signals")

MODEL = "/v2/models/penguins"


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests that leave it as it is; at the end it must still answer."""
    sealed = Sealed(tmp_path_factory.mktemp("server"))
    sealed.write(kind="Picky")
    with serving(sealed, "--max-mb", "0.1", "--seconds", "20") as server:
        yield server
        assert server.ask(INFER, rows("m")).status == 200
        assert server.stop() == 0


def events(server: Server, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in server.lines]
    return [line for line in found if line["event"] == event]


# --- being ready


def test_it_answers_at_once_and_is_ready_once_the_model_has_answered(sealed: Sealed) -> None:
    sealed.image["predictor"] = "doubler:load_slowly"
    sealed.write(kind="Doubler")
    with serving(sealed, ready=False) as server:
        assert server.ask("/v2/health/live").json == {"live": True}
        ready = server.ask("/v2/health/ready")
        assert (ready.status, ready.json) == (503, {"ready": False})
        ready = server.ask(MODEL + "/ready")
        assert (ready.status, ready.json) == (503, {"name": "penguins", "ready": False})
        early = server.ask(INFER, rows("m"))
        assert (early.status, early.headers["retry-after"]) == (503, "1")
        assert early.json == {"error": "the model is being loaded"}
        for path in ("/", "/v2", MODEL, "/openapi.json", "/metrics"):
            assert server.ask(path).status == 200
        server.let_go()
        assert server.wait_for("ready")["seconds"] > 0
        ready = server.ask("/v2/health/ready")
        assert (ready.status, ready.json) == (200, {"ready": True})
        ready = server.ask(MODEL + "/ready")
        assert (ready.status, ready.json) == (200, {"name": "penguins", "ready": True})
        assert server.ask(INFER, rows("m")).status == 200


def test_without_examples_it_is_ready_once_the_model_is_loaded(sealed: Sealed) -> None:
    sealed.examples = None
    sealed.write(kind="Doubler")
    with serving(sealed) as server:
        told = server.ask(MODEL).json
        assert (told["inputs"], told["outputs"]) == ([], [])
        outputs = server.ask(INFER, rows("m", "f")).json["outputs"]
        assert [output["data"] for output in outputs] == [[0.0, 2.0], ["M", "F"]]
        assert server.ask("/openapi.json").status == 200
        assert server.ask("/").status == 200
        assert server.ask(INFER, {"inputs": []}).status == 400


def _other_number(sealed: Sealed) -> None:
    assert sealed.examples
    sealed.examples["outputs"]["double"][0] = 3.1


def _other_text(sealed: Sealed) -> None:
    assert sealed.examples
    sealed.examples["outputs"]["label"][0] = "m"


def _bad_input(sealed: Sealed) -> None:
    assert sealed.examples
    sealed.examples["inputs"]["size"][0] = "wide"


@pytest.mark.parametrize(
    ("kind", "change", "error"),
    [
        ("Unknown", None, "the model does not load: KeyError: 'Unknown'"),
        ("Broken", None, "the first recorded example: the model failed on these rows: Runtime"),
        ("Leaver", None, "the first recorded example: the model failed on these rows: SystemExit"),
        ("Other", None, "the first recorded example: the model gave no output 'double'"),
        ("Doubler", _other_number, "'double' was 3.1, now the model gives 3.0"),
        ("Doubler", _other_text, "'label' was 'm', now the model gives 'M'"),
        ("Doubler", _bad_input, "the first recorded example: row 1, column 'size': 'wide' is not"),
    ],
)
def test_a_model_that_does_not_work_ends_it(
    sealed: Sealed, kind: str, change: Callable[[Sealed], None] | None, error: str
) -> None:
    if change:
        change(sealed)
    sealed.write(kind=kind)
    with serving(sealed, ready=False) as server:
        assert error in server.wait_for("model failed")["error"]
        assert server.end() == 1
        assert events(server, "ready") == []


def test_what_is_within_the_tolerance_is_the_same(sealed: Sealed) -> None:
    assert sealed.examples
    sealed.examples["outputs"]["double"][0] = 3.1
    sealed.examples["tolerance"]["atol"] = 0.2
    sealed.write(kind="Doubler")
    with serving(sealed) as server:
        assert server.stop() == 0


def test_without_its_packages_it_says_how_to_get_them(sealed: Sealed) -> None:
    (sealed.folder / "uvicorn.py").write_text(
        "raise ModuleNotFoundError('No module named uvicorn', name='uvicorn')"
    )
    code, out, err = sealed.run("serve", "--port", "0")
    assert (code, out) == (2, "")
    assert err.startswith("error: uvicorn is not in this image: say serve = true")
    assert err.count("\n") == 1


def test_a_port_that_is_taken_is_said_in_one_line(sealed: Sealed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = sealed.run("serve", "--host", "127.0.0.1", "--port", port)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: 127.0.0.1, port {port}: ")
    assert err.count("\n") == 1


def test_an_answer_does_not_wait_for_its_own_head() -> None:
    with serve.listen("127.0.0.1", 0) as listener:  # noqa: SIM117 - its name comes first
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    "words",
    [
        *("--port 65536", "--port x", "--host 300.1.1.1", "--max-mb 0", "--grace x"),
        *("--seconds -1", "--seconds inf", "--seconds nan"),
    ],
)
def test_limits_that_are_none_are_refused(sealed: Sealed, words: str) -> None:
    code, out, err = sealed.run("serve", "--port", "0", *words.split())
    assert (code, out) == (2, "")
    assert "error: " in err
    assert "Traceback" not in err


# --- what there is to look at


def test_the_server_and_the_model_say_what_they_are(server: Server) -> None:
    for path in ("/v2", "/v2/"):
        told = server.ask(path).json
        assert (told["name"], told["version"]) == ("penguins", "0.1.0")
        assert told["extensions"] == ["nullable", "binary_tensor_data"]
    for path in (MODEL, MODEL + "/versions/0.1.0"):
        assert server.ask(path).json == {
            "name": "penguins",
            "versions": ["0.1.0"],
            "platform": "packager",
            "inputs": [
                {
                    "name": "size",
                    "datatype": "FP64",
                    "shape": [-1],
                    "parameters": {"nullable": True},
                },
                {"name": "sex", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": SIGNATURE["outputs"],
        }
    assert server.ask(MODEL + "/versions/0.1.0/ready").json == {"name": "penguins", "ready": True}


@pytest.mark.parametrize(
    "path", ["/", "/v2", "/v2/health/live", "/v2/health/ready", MODEL, "/openapi.json"]
)
def test_head_is_get_without_the_body(server: Server, path: str) -> None:
    whole, head = server.ask(path), server.ask(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))
    assert server.ask(path + "?format=json&x").body == whole.body


def test_the_page_comes_with_its_policy(server: Server) -> None:
    page = server.ask("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert b"penguins 0.1.0" in page.body


def test_answers_are_not_kept_and_not_guessed_at(server: Server) -> None:
    for answer in (server.ask("/v2"), server.ask("/nowhere"), server.ask(INFER, rows("m"))):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
        assert "server" not in answer.headers


# --- what there is to ask


def test_infer_answers_with_and_without_the_version(server: Server) -> None:
    for path in (INFER, MODEL + "/versions/0.1.0/infer"):
        assert server.ask(path, rows("m", "f", id="7")).json == {
            "model_name": "penguins",
            "model_version": "0.1.0",
            "id": "7",
            "outputs": [
                {"name": "double", "shape": [2], "datatype": "FP64", "data": [0.0, 2.0]},
                {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["M", "F"]},
            ],
        }


def test_outputs_can_be_chosen(server: Server) -> None:
    told = server.ask(INFER, rows("é", outputs=[{"name": "label"}])).json
    assert [output["data"] for output in told["outputs"]] == [["É"]]


def test_what_was_recorded_is_a_request(sealed: Sealed) -> None:
    assert sealed.examples
    code, body, _ = sealed.run("examples", "--to", "v2")
    assert code == 0
    with serving(sealed) as server:
        outputs = server.ask(INFER, json.loads(body)).json["outputs"]
    assert {output["name"]: output["data"] for output in outputs} == sealed.examples["outputs"]


@pytest.mark.parametrize("target", ["csv", "jsonl"])
def test_what_was_recorded_is_a_table(sealed: Sealed, target: str) -> None:
    assert sealed.examples
    code, table, err = sealed.run("examples", "--to", target)
    assert (code, err) == (0, "")
    found = sealed.predict(table)
    assert {name: [row[name] for row in found] for name in found[0]} == sealed.examples["outputs"]


def test_without_examples_there_is_nothing_to_write(sealed: Sealed) -> None:
    sealed.examples = None
    sealed.write(kind="Doubler")
    code, out, err = sealed.run("examples")
    assert (code, out) == (2, "")
    assert err == "error: there are no recorded examples in this image\n"


@pytest.mark.parametrize(
    ("path", "method", "status", "allow"),
    [
        ("/nowhere", "GET", 404, None),
        ("/nowhere", "POST", 404, None),
        ("/v2/models", "GET", 404, None),
        ("/v2/models/puffins", "GET", 404, None),
        ("/v2/models/puffins/infer", "POST", 404, None),
        (MODEL + "/versions/2", "GET", 404, None),
        (MODEL + "/versions/2/infer", "POST", 404, None),
        (MODEL + "/", "GET", 404, None),
        (INFER, "GET", 405, "POST"),
        (INFER, "HEAD", 405, "POST"),
        (INFER, "OPTIONS", 405, "POST"),
        (INFER, "DELETE", 405, "POST"),
        (MODEL, "POST", 405, "GET, HEAD"),
        ("/v2/health/live", "PUT", 405, "GET, HEAD"),
        ("/", "TRACE", 405, "GET, HEAD"),
    ],
)
def test_what_there_is_not_is_refused(
    server: Server, path: str, method: str, status: int, allow: str | None
) -> None:
    answer = server.ask(path, method=method)
    assert (answer.status, answer.headers.get("allow")) == (status, allow)
    if method != "HEAD":
        assert list(answer.json) == ["error"]


GOOD = json.dumps(rows("m")).encode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Content-Type": "application/json"}, 200),
        ({"Content-Type": "Application/JSON; charset=utf-8"}, 200),
        ({"Content-Encoding": "identity"}, 200),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/octet-stream"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Inference-Header-Content-Length": str(len(GOOD))}, 200),
        ({"Inference-Header-Content-Length": "5"}, 400),
        ({"Inference-Header-Content-Length": "-5"}, 400),
        ({"Inference-Header-Content-Length": "many"}, 400),
    ],
)
def test_a_body_is_what_its_headers_say(
    server: Server, headers: dict[str, str], status: int
) -> None:
    answer = server.ask(INFER, GOOD, **{key.replace("-", "_"): headers[key] for key in headers})
    assert answer.status == status
    assert status == 200 or list(answer.json) == ["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{}", "inputs is not a list"),
        (rows("m", "f")["inputs"], "the body is not an object"),
        (rows("m", outputs=[{"name": "x"}]), "outputs: 'x' is none of 'double', 'label'"),
        (b'{"inputs":' * 5000, "nested too deeply"),
        ({"inputs": rows("m")["inputs"][:1]}, "missing inputs: 'sex'"),
    ],
)
def test_a_wrong_request_is_refused_with_what_is_wrong(
    server: Server, body: Any, message: str
) -> None:
    answer = server.ask(INFER, body, method="POST")
    assert answer.status == 400
    assert message in answer.json["error"]


@pytest.mark.parametrize(
    ("word", "status", "error"),
    [
        ("raise", 422, "the model failed on these rows: ValueError: secret nobody"),
        ("no memory", 500, "the model failed on these rows: MemoryError: of the machine"),
        ("exit", 500, "the model failed on these rows: SystemExit: leaving"),
        ("short", 500, "the model failed on these rows: predict returned 0 values as 'double'"),
        ("other", 500, "predict returned 1 values as 'double' for 2 rows"),
    ],
)
def test_a_model_that_fails_is_told_in_one_line_and_goes_on(
    server: Server, word: str, status: int, error: str
) -> None:
    answer = server.ask(INFER, rows(word, "nobody"))
    assert answer.status == status
    assert error in answer.json["error"]
    assert "\n" not in answer.json["error"]
    assert "Traceback" not in answer.json["error"]
    assert server.ask(INFER, rows("m")).status == 200
    assert "secret" not in "".join(server.lines)


def test_an_answer_of_another_datatype_is_the_models_fault(server: Server) -> None:
    answer = server.ask(INFER, rows("other"))
    assert (answer.status, answer.json) == (
        500,
        {"error": "the model gave str as 'double', which is FP64"},
    )


def test_a_page_that_fails_leaves_the_rest(sealed: Sealed) -> None:
    assert sealed.examples
    sealed.image["name"] = "penguins"
    sealed.image["description"] = 5  # no text, as a page needs it
    sealed.write(kind="Doubler")
    with serving(sealed) as server:
        page = server.ask("/")
        assert (page.status, page.json["error"][:18]) == (500, "the server failed:")
        assert server.ask(INFER, rows("m")).status == 200
        assert events(server, "server failed")[0]["line"] > 0


# --- limits


def test_a_body_has_a_largest_size(server: Server) -> None:
    fitting = GOOD + b" " * (100_000 - len(GOOD))
    assert server.ask(INFER, fitting).status == 200
    for body in (fitting + b" ", b" " * 5_000_000):
        answer = server.ask(INFER, body)
        assert answer.status == 413
        assert answer.json == {
            "error": "the body is larger than 100000 bytes; ask in several requests"
        }
    assert server.ask(INFER, iter([fitting]), method="POST").status == 200
    assert server.ask(INFER, iter([fitting, b" "]), method="POST").status == 413
    assert server.ask(INFER, iter([b" " * 1000] * 5000), method="POST").status == 413


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(server: Server) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n"
    with server.send(head.encode() + b"Expect: 100-continue\r\n\r\n") as raw:
        assert raw.recv(12) == b"HTTP/1.1 413"


def test_a_slow_body_and_a_slow_model_are_given_up(sealed: Sealed) -> None:
    sealed.write(kind="Waiter")
    with serving(sealed, "--seconds", "1") as server:
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode()
        with server.send(head + b"{") as raw:
            assert raw.recv(12) == b"HTTP/1.1 408"
        late = server.ask(INFER, rows("wait"))
        assert (late.status, late.json) == (504, {"error": "no answer of the model within 1 s"})
        assert server.ask("/v2/health/live").status == 200
        assert server.ask("/v2/health/ready").status == 503
        assert server.ask(INFER, rows("m")).status == 504
        server.let_go()
        assert server.wait_for("model free again")["seconds"] > 1
        assert server.ask("/v2/health/ready").status == 200
        assert server.ask(INFER, rows("m")).status == 200
        assert sample(server, "packager_late_answers_total") == 2
        assert server.stop() == 0


def test_the_queue_has_an_end(sealed: Sealed) -> None:
    sealed.write(kind="Waiter")
    with serving(sealed) as server, ThreadPoolExecutor(129) as pool:
        first = pool.submit(server.ask, INFER, rows("wait"))
        gate = server.gate.open("w")  # returns when the model waits
        asked = [pool.submit(server.ask, INFER, rows("m")) for _ in range(128)]
        # One waits in the model, 127 behind it, and one has to come again.
        refused = next(done for done in _as_done(asked))
        assert refused.status == 503
        assert refused.json == {"error": "too many requests are waiting for the model"}
        assert refused.headers["retry-after"] == "1"
        gate.close()
        assert sorted(future.result().status for future in asked) == [200] * 127 + [503]
        assert first.result().status == 200


def _as_done(futures: list[Any]) -> Iterator[Answer]:
    from concurrent.futures import as_completed

    for future in as_completed(futures, timeout=60):
        yield future.result()


def test_all_bodies_together_have_a_largest_size(sealed: Sealed) -> None:
    """The application alone, as only there a test can say which body is here when."""

    class Model:
        loaded = ready = True

        async def answer(self, body: bytes, _: int | None) -> Reply:
            return Reply(b"%d" % len(body), None, 1)

    limits = Limits(40_000_000, 20)
    part = b" " * (limits.all_bodies // 2)
    app = App(read_image(sealed.folder), None, cast(Worker, Model()), limits, Log(io.BytesIO()))

    async def infer(parts: list[bytes], rest: asyncio.Event) -> list[Any]:
        sent: list[Any] = []
        waiting = iter(parts)

        async def receive() -> dict[str, Any]:
            if (body := next(waiting, None)) is not None:
                return {"type": "http.request", "body": body, "more_body": True}
            await rest.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)
            rest.set()

        headers = [(b"content-length", b"%d" % len(part))]
        await app({"method": "POST", "path": INFER, "headers": headers}, receive, send)
        return [sent[0]["status"], sent[1]["body"]]

    async def together() -> None:
        go_on = asyncio.Event()
        first = [asyncio.create_task(infer([part], go_on)) for _ in range(2)]
        await asyncio.sleep(0)
        status, body = await infer([b" "], asyncio.Event())
        assert (status, body) == (503, b'{"error":"too many large requests at one time"}')
        go_on.set()
        size = b"%d" % len(part)
        assert [await task for task in first] == [[200, size], [200, size]]
        assert await infer([b" "], go_on) == [200, b"1"]

    asyncio.run(together())


def test_connections_have_a_largest_number(sealed: Sealed) -> None:
    with serving(sealed) as server:
        held = [server.send(b"") for _ in range(512)]
        with server.send(b"") as raw:
            assert raw.recv(12) == b"HTTP/1.1 503"
        for raw in held:
            raw.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert raw.recv(12) == b"HTTP/1.1 200"
            raw.close()
        assert server.ask(INFER, rows("m")).status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 30_000 + b"\r\n\r\n", b"200"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 33_000 + b"\r\n\r\n", b"431"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 20_000 + b"\r\n", b"431"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1_000_000, b"431"),
        (b"GET /" + b"x" * 1_000_000, b"431"),
        (b"hello\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"CONNECT /v2 HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /%FF%00%0a HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET /v2 HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_what_is_hardly_http_is_refused(server: Server, data: bytes, status: bytes) -> None:
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    with raw:
        try:
            raw.sendall(data)
        except OSError:
            return  # refused, and closed while we were still sending
        try:
            assert raw.recv(12) == b"HTTP/1.1 " + status
        except ConnectionResetError:
            assert len(data) > 100_000


def test_a_client_that_goes_away_is_no_harm(server: Server) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode()
    for data in (b"", head[:20], head, head + GOOD[:20], head + GOOD):
        server.send(data).close()
        assert server.ask(INFER, rows("m")).status == 200


def test_requests_sent_at_once_are_answered_in_order(server: Server) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX-Request-Id: %d\r\n\r\n"
    last = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    data = b"".join((head % (len(GOOD), at)).encode() + GOOD for at in range(5))
    with server.send(data + last) as raw:
        found = b"".join(iter(lambda: raw.recv(65536), b""))
    assert found.count(b"HTTP/1.1 200") == 6
    places = [found.index(b"x-request-id: %d\r\n" % at) for at in range(5)]
    assert places == sorted(places)


@pytest.mark.whole
def test_a_head_that_does_not_end_is_given_up(server: Server) -> None:
    with server.send(b"GET /v2 HTTP/1.1\r\n") as slow, server.send(b"") as silent:
        assert slow.recv(12) == b"HTTP/1.1 408"
        assert silent.recv(12) == b"HTTP/1.1 408"


# --- the end


def test_a_stop_lets_the_model_answer_those_who_asked(sealed: Sealed) -> None:
    sealed.write(kind="Waiter")
    with serving(sealed) as server, ThreadPoolExecutor(3) as pool:
        kept = server.connection()
        assert ask(kept, "/v2/health/ready").status == 200
        asked = pool.submit(server.ask, INFER, rows("wait"))
        gate = server.gate.open("w")
        behind = pool.submit(server.ask, INFER, rows("m"))
        while sample_of(ask(kept, "/metrics"), "packager_http_requests_in_flight") < 3:
            pass
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping")
        last = ask(kept, "/v2/health/ready")
        assert (last.status, last.json) == (503, {"ready": False})
        assert last.headers["connection"] == "close"
        with pytest.raises(ConnectionRefusedError):
            server.ask("/v2/health/live")
        gate.close()
        assert asked.result().status == 200
        assert behind.result().status == 200
        assert server.end() == 0
        assert events(server, "stopped")[0]["exit"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_ever(sealed: Sealed, number: int) -> None:
    sealed.write(kind="Waiter")
    with serving(sealed, "--grace", "1") as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.ask, INFER, rows("wait"))
        with server.gate.open("w"):
            assert server.stop(number) == 128 + number
        answer = asked.result()
        assert (answer.status, answer.json) == (
            503,
            {"error": "the server was stopped before there was an answer"},
        )
        assert events(server, "grace is over")[0]["requests"] == 1


def test_a_stop_while_the_model_loads_is_at_once(sealed: Sealed) -> None:
    sealed.image["predictor"] = "doubler:load_slowly"
    sealed.write(kind="Doubler")
    with serving(sealed, ready=False) as server, server.gate.open("w"):
        assert server.ask("/v2/health/live").status == 200
        assert server.stop() == 0


def test_a_stop_under_load_loses_no_request(sealed: Sealed) -> None:
    with serving(sealed) as server:
        found: list[int] = []
        begun = threading.Event()

        def work() -> None:
            connection = server.connection()
            while True:
                answer = ask(connection, INFER, rows("m"))  # any error fails the test
                found.append(answer.status)
                begun.set()
                if answer.headers.get("connection") == "close":
                    return

        with ThreadPoolExecutor(8) as pool:
            workers = [pool.submit(work) for _ in range(8)]
            assert begun.wait(60)
            assert server.stop() == 0
            for worker in workers:
                worker.result()
        assert set(found) == {200}


@pytest.mark.parametrize("stops", [2, pytest.param(30, marks=pytest.mark.whole)])
def test_a_stop_under_load_loses_no_connection(sealed: Sealed, stops: int) -> None:
    """Whoever asks over a new connection each time gets an answer to all that was read.

    A connection that is made in the very moment in which listening ends is reset by the system;
    without care for those that wait to be taken, it is half of these clients.
    """
    lost = 0
    for _ in range(stops):
        with serving(sealed) as server:
            asked = threading.Semaphore(0)

            def work(
                client: int, server: Server = server, asked: threading.Semaphore = asked
            ) -> str | None:
                for number in itertools.count():
                    name = f"{client}-{number}"
                    connection = server.connection()
                    try:
                        connection.connect()
                        headers = {"X_Request_Id": name, "Connection": "close"}
                        answer = ask(connection, INFER, rows("m"), **headers)
                    except ConnectionRefusedError:
                        return None
                    except (ConnectionError, http.client.HTTPException):
                        return name
                    finally:
                        connection.close()
                    assert answer.status == 200
                    asked.release()
                return None

            with ThreadPoolExecutor(16) as pool:
                workers = [pool.submit(work, client) for client in range(16)]
                for _ in range(50):
                    assert asked.acquire(timeout=60)
                assert server.stop() == 0
                reset = {name for worker in workers if (name := worker.result())}
            assert reset.isdisjoint(line["id"] for line in events(server, "request"))
            lost += len(reset)
    assert lost <= 2 * stops


# --- what it writes down


def sample_of(answer: Answer, name: str, **labels: str) -> float:
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    values = [
        sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(values)


def sample(server: Server, name: str, **labels: str) -> float:
    return sample_of(server.ask("/metrics"), name, **labels)


def test_metrics_count_what_happens(server: Server) -> None:
    name, infer = "packager_http_requests_total", {"route": "/v2/models/{model}/infer"}
    before = {status: sample(server, name, status=status, **infer) for status in ("200", "400")}
    rows_before = sample(server, "packager_predicted_rows_total")
    server.ask(INFER, rows("m", "f"))
    server.ask(INFER, {"inputs": []})
    for path in ("/a", "/b/" + "c" * 100):
        server.ask(path)
    for status, count in before.items():
        assert sample(server, name, status=status, method="POST", **infer) == count + 1
    assert sample(server, "packager_predicted_rows_total") == rows_before + 2
    assert sample(server, name, route="other", status="404") >= 2
    count = sample(server, "packager_http_request_duration_seconds_count", **infer)
    total = sample(server, name, **infer)
    last = {"le": "+Inf"} | infer
    assert sample(server, "packager_http_request_duration_seconds_bucket", **last) == count == total
    assert sample(server, "packager_http_requests_in_flight") == 1
    assert sample(server, "packager_ready") == 1
    assert sample(server, "packager_model_load_seconds") > 0
    assert sample(server, "packager_model_info", model="penguins", version="0.1.0") == 1
    assert sample(server, "process_cpu_seconds_total") > 0
    if sys.platform == "linux":
        assert sample(server, "process_resident_memory_bytes") > 1e6


def test_each_request_is_a_line_of_the_log_without_its_rows(sealed: Sealed) -> None:
    with serving(sealed) as server:
        server.ask(INFER, rows("Adelaide"), X_Request_Id="abc-1")
        server.ask("/nowhere?secret", X_Request_Id="<script>\t")
        server.ask("/v2/health/ready")
        server.ask("/metrics")
        assert server.stop() == 0
        first, second = events(server, "request")
        assert (
            first.items()
            >= {
                "level": "info",
                "method": "POST",
                "path": INFER,
                "status": 200,
                "id": "abc-1",
            }.items()
        )
        assert first["ms"] > 0
        assert first["bytes"] > 0
        assert first["time"].endswith("Z")
        assert (second["path"], second["status"]) == ("/nowhere", 404)
        assert len(second["id"]) == 16
        assert "Adelaide" not in "".join(server.lines)


def test_a_log_that_nobody_reads_is_no_reason_not_to_answer(sealed: Sealed) -> None:
    sealed.write(kind="Picky")
    write_models(sealed)
    process = sealed.start("serve", "--host", "127.0.0.1", "--port", "0")
    assert process.stderr
    port = json.loads(process.stderr.readline())["port"]
    process.stderr.close()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        while ask(connection, "/v2/health/ready").status == 503:
            pass
        assert ask(connection, "/nowhere").status == 404
        assert ask(connection, INFER, rows("raise", "it")).status == 422
    finally:
        connection.close()
        process.kill()
        with process:  # closes its streams, and waits
            pass


def test_a_request_id_comes_back(server: Server) -> None:
    assert server.ask("/v2", X_Request_Id="a.b:c-1").headers["x-request-id"] == "a.b:c-1"
    for given_id in ("", "a b", "x" * 129, "ä"):
        answer = server.ask("/v2", X_Request_Id=given_id)
        assert len(answer.headers["x-request-id"]) == 16


def test_what_the_model_prints_is_not_in_the_log(sealed: Sealed) -> None:
    sealed.write(kind="Liar")
    with serving(sealed) as server:
        assert server.ask(INFER, rows("m")).status == 200
        assert server.stop() == 0
        assert events(server, "forged") == []
        assert server.chatter.count(b"forged") == 4


# --- clients that nobody here wrote


def test_tritons_client_reads_and_asks(server: Server) -> None:
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("penguins")
    assert client.is_model_ready("penguins", "0.1.0")
    assert not client.is_model_ready("puffins")
    assert client.get_server_metadata()["name"] == "penguins"
    assert client.get_model_metadata("penguins", "0.1.0")["inputs"][1]["datatype"] == "BYTES"


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_tritons_client_gets_its_arrays(server: Server, binary_in: bool, binary_out: bool) -> None:
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}")
    arrays = {"size": numpy.array([1.5, 2.0]), "sex": numpy.array([["é"], ["f"]], dtype=object)}
    inputs = []
    for name, array in arrays.items():
        datatype = "BYTES" if name == "sex" else "FP64"
        inputs.append(tritonclient.http.InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=binary_in)
    outputs = [
        tritonclient.http.InferRequestedOutput(name, binary_data=binary_out)
        for name in ("label", "double")
    ]
    found = client.infer("penguins", inputs, outputs=outputs, request_id="7")
    assert found.get_response()["id"] == "7"
    assert found.as_numpy("double").tolist() == [3.0, 4.0]
    labels = [label.decode() if binary_out else label for label in found.as_numpy("label")]
    assert labels == ["É", "F"]
    everything = client.infer("penguins", inputs)
    assert everything.as_numpy("double").tolist() == [3.0, 4.0]


def test_tritons_client_is_told_what_is_wrong(server: Server) -> None:
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}")
    wrong = tritonclient.http.InferInput("size", [1], "INT32")
    wrong.set_data_from_numpy(numpy.array([1], dtype=numpy.int32))
    with pytest.raises(tritonclient.http.InferenceServerException, match="missing inputs: 'sex'"):
        client.infer("penguins", [wrong])


# --- the OpenAPI document


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    return server.ask("/openapi.json").json


def _schema(document: Any, name: str) -> Draft202012Validator:
    schemas = document["components"]["schemas"]
    text = json.dumps(schemas[name] | {"$defs": schemas})
    return Draft202012Validator(json.loads(text.replace("#/components/schemas/", "#/$defs/")))


def test_the_documents_example_is_a_request(server: Server, document: Any) -> None:
    content = document["paths"][INFER]["post"]["requestBody"]["content"]["application/json"]
    _check_good(server, document, content["example"])


def test_the_document_describes_what_is_answered(server: Server, document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    for path, verbs in document["paths"].items():
        for verb, told in verbs.items():
            body = rows("m") if verb == "post" else None
            answer = server.ask(path, body)
            assert answer.status == 200
            kind = answer.headers["content-type"].partition(";")[0]
            schema = told["responses"]["200"]["content"][kind]["schema"]
            if "$ref" in schema:
                _schema(document, schema["$ref"].rpartition("/")[2]).validate(answer.json)
    _schema(document, "Error").validate(server.ask(INFER, {}).json)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SEXES = st.text().filter(lambda word: word not in {"raise", "exit", "no memory", "short", "other"})


@st.composite
def good_requests(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 4))

    def values(value: st.SearchStrategy[Any]) -> Any:
        found = draw(st.lists(value, min_size=count, max_size=count))
        return [[one] for one in found] if draw(st.booleans()) else found

    size, kind = draw(
        st.sampled_from(
            [
                (st.none() | st.floats(-1e300, 1e300), "FP64"),
                (st.integers(-(2**53), 2**53), "INT64"),
                (st.integers(0, 255), "UINT8"),
            ]
        )
    )
    inputs = []
    for name, datatype, data in (("size", kind, values(size)), ("sex", "BYTES", values(SEXES))):
        nested = isinstance(data[0], list)
        shape = [count, 1] if nested or draw(st.booleans()) else [count]
        inputs.append({"name": name, "shape": shape, "datatype": datatype, "data": data})
    request: dict[str, Any] = {"inputs": draw(st.permutations(inputs))}
    if draw(st.booleans()):
        request["id"] = draw(st.none() | st.text())
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(["double", "label"]), unique=True))
        request["outputs"] = [{"name": name} for name in names]
    if draw(st.booleans()):
        request["parameters"] = draw(st.dictionaries(st.text(), JSON, max_size=2))
        request["parameters"].pop("binary_data_output", None)
    return request


@st.composite
def bad_requests(draw: st.DrawFn) -> dict[str, Any]:
    """A good request in which something, somewhere, became something else."""
    request = draw(good_requests())
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(request)
    where, key = draw(st.sampled_from(places))
    action = draw(st.sampled_from(["replace", "drop", "double"]))
    if action == "replace":
        where[key] = draw(JSON)
    elif action == "drop":
        del where[key]
    elif isinstance(where, list):
        where.append(where[key])
    else:
        where[key] = [where[key]] * 2
    return request


def _settings(cases: int) -> settings:
    kept = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
    return settings(deadline=None, max_examples=cases, suppress_health_check=kept)


def _check_good(server: Server, document: Any, request: dict[str, Any]) -> None:
    _schema(document, "Request").validate(request)
    answer = server.ask(INFER, request)
    assert answer.status == 200, answer.body
    _schema(document, "Answer").validate(answer.json)


def _check_bad(server: Server, document: Any, request: dict[str, Any]) -> None:
    answer = server.ask(INFER, request)
    fits = _schema(document, "Request").is_valid(request)
    assert answer.status == 400 or (answer.status == 200 and fits), (answer.status, answer.body)
    schema = "Answer" if answer.status == 200 else "Error"
    _schema(document, schema).validate(answer.json)


@_settings(50)
@given(good_requests())
def test_good_requests_fit_the_document_and_are_answered(
    server: Server, document: Any, request_: dict[str, Any]
) -> None:
    _check_good(server, document, request_)


@_settings(150)
@given(bad_requests())
def test_bad_requests_are_refused_and_never_a_500(
    server: Server, document: Any, request_: dict[str, Any]
) -> None:
    _check_bad(server, document, request_)


@pytest.mark.whole
@_settings(10_000)
@given(bad_requests())
def test_ten_thousand_bad_requests_of_ours(
    server: Server, document: Any, request_: dict[str, Any]
) -> None:
    _check_bad(server, document, request_)


@pytest.mark.parametrize("cases", [30, pytest.param(10_000, marks=pytest.mark.whole)])
@pytest.mark.parametrize("mode", GenerationMode)
def test_schemathesis_gets_no_server_error(
    server: Server, mode: GenerationMode, cases: int
) -> None:
    base = f"http://127.0.0.1:{server.port}"
    schema = schemathesis.openapi.from_url(base + "/openapi.json")
    statuses = {200, 400} if mode == GenerationMode.POSITIVE else {400}

    @_settings(cases)
    @given(schema[INFER]["POST"].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        assert case.call(base_url=base).status_code in statuses

    check()
