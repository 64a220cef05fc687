"""A server that is asked for long, among clients that dawdle and clients that go away."""

from __future__ import annotations

import itertools
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from served import INFER, Server, ask, rows, serving
from test_runtime import Sealed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

CLIENTS = 8
MOST_GROWTH = 4 << 20
"""Bytes, while the last four fifths of the requests are answered."""

REQUESTS = pytest.mark.parametrize(
    "requests", [1_000, pytest.param(100_000, marks=pytest.mark.whole)]
)


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path)


def memory(server: Server) -> int:
    """Give the bytes that are the process's alone."""
    smaps = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    found = re.search(r"^Private_Dirty: +(\d+) kB$", smaps, re.MULTILINE)
    assert found
    return int(found[1]) << 10


def files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def answered(server: Server, requests: int) -> None:
    """Ask so often, over connections that stay; each gets the answer to its own question."""
    numbers = itertools.count()

    def work() -> None:
        connection = server.connection()
        while (number := next(numbers)) < requests:
            question = rows(f"m{number}")
            question["inputs"][0]["data"] = [number]
            answer = ask(connection, INFER, question)
            assert answer.status == 200, answer.body
            got = {output["name"]: output["data"] for output in answer.json["outputs"]}
            assert got == {"double": [2.0 * number], "label": [f"M{number}"]}
        connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        for worker in [pool.submit(work) for _ in range(CLIENTS)]:
            worker.result()


@contextmanager
def bad_company(server: Server) -> Iterator[list[int]]:
    """Keep clients busy that send byte by byte, and clients that go before their answer comes."""
    body = b'{"inputs": []}'
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    end = threading.Event()
    counts = [0, 0]

    def dawdle() -> None:
        while not end.is_set():
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow:
                for byte in head + body:
                    slow.sendall(bytes([byte]))
                    end.wait(0.001)
                assert slow.recv(12) == b"HTTP/1.1 400"
            counts[0] += 1

    def go_away() -> None:
        good = b"".join([head.replace(b": 14", b": 200"), body])
        for sent in itertools.cycle([head[:10], head, good, head + body]):
            if end.is_set():
                return
            server.send(sent).close()
            counts[1] += 1
            end.wait(0.005)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(one) for one in (dawdle, go_away)]
        try:
            yield counts
        finally:
            end.set()
        for one in running:
            one.result()


def growth(server: Server, requests: int) -> int:
    answered(server, requests // 5)
    before = memory(server)
    answered(server, requests - requests // 5)
    return memory(server) - before


@REQUESTS
def test_memory_is_flat_and_each_gets_its_own_answer(sealed: Sealed, requests: int) -> None:
    with serving(sealed) as server:
        opened = files(server)
        with bad_company(server) as counts:
            grown = growth(server, requests)
        assert min(counts) > 0
        assert grown < MOST_GROWTH
        until = time.monotonic() + 20
        while files(server) > opened and time.monotonic() < until:
            assert server.ask("/v2/health/ready").status == 200
        assert files(server) <= opened
        assert server.stop() == 0
    assert not [line for line in server.lines if '"level": "error"' in line]


def test_a_model_that_leaks_would_be_seen(sealed: Sealed) -> None:
    sealed.write(kind="Leaking")
    with serving(sealed) as server:
        assert growth(server, 1_000) > MOST_GROWTH
