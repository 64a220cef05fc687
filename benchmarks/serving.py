"""Ask the image's server, and others that serve the same model, in one run, and compare.

All run in containers of the penguins image, read-only: with its base, and its code for the model;
what MLServer and BentoML need comes in a folder beside.  They take turns within each round, each
alone with wrk, which asks for one row at a time.  Merges nothing: serving.json and
docs/serving-figures.md are of one run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import penguins
import serving_page
from docker.models.containers import Container
from measure import FailedError
from run import commit

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "serving.json"
INPUTS = HERE / "inputs" / "serving"
WORK = HERE.parent / "build" / "benchmark" / "serving"
IMAGE = "serving-benchmark"
CLIENTS = (1, 16)
STARTS = 3
START_SECONDS = 120
PAUSE = 0.02
SCRATCH = "/tmp"  # noqa: S108 - the container's own, as in the smoke test

PORT, GRPC, METRICS = "18080", "18081", "18082"
ROW = {"culmen_length_mm": 39.5, "culmen_depth_mm": 17.4, "flipper_length_mm": 186.0, "sex": "MALE"}
BODY = {
    "inputs": [
        {
            "name": name,
            "shape": [1],
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "data": [value],
        }
        for name, value in ROW.items()
    ]
}


@dataclass(frozen=True)
class Server:
    """One that takes part.

    Parameters
    ----------
    command : sequence of str
        What its container runs.
    infer, ready : str
        Paths to ask at.
    peer : str
        The folder that holds what it needs beside the image, or "".
    settings : mapping of str to str
        Environment variables.
    """

    command: Sequence[str]
    infer: str = "/v2/models/penguins/infer"
    ready: str = "/v2/models/penguins/ready"
    peer: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


_MLSERVER = "from mlserver.cli import main; main()"


def _mlserver(processes: int) -> Server:
    settings = {
        "MLSERVER_DEBUG": "false",
        "MLSERVER_HTTP_PORT": PORT,
        "MLSERVER_GRPC_PORT": GRPC,
        "MLSERVER_METRICS_PORT": METRICS,
        "MLSERVER_PARALLEL_WORKERS": str(processes),
        "MLSERVER_MODEL_NAME": "penguins",
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_model.Penguins",
    }
    return Server(["-c", _MLSERVER, "start", "."], peer="mlserver", settings=settings)


_SERVE = ["serve", "--host", "127.0.0.1", "--port", PORT]
_ONE_BY_ONE = """\
from packager_runtime import __main__, worker
worker.MOST_TOGETHER = 1
__main__.main()
"""
SERVERS = {
    "packager": Server(["-P", "-m", "packager_runtime", *_SERVE]),
    "one by one": Server(["-P", "-c", _ONE_BY_ONE, *_SERVE]),
    "by hand": Server(["/serving/by_hand.py", PORT], infer="/", ready="/"),
    "MLServer": _mlserver(1),
    "MLServer, one process": _mlserver(0),
    "BentoML": Server(
        ["-m", "bentoml", "serve", "bentoml_service:Penguins", "--port", PORT],
        infer="/predict",
        ready="/readyz",
        peer="bentoml",
        settings={"BENTOML_HOME": f"{SCRATCH}/bentoml", "BENTOML_DO_NOT_TRACK": "true"},
    ),
}


def main() -> None:
    """Measure, and write the page."""
    wanted = _arguments()
    if not wanted.render:
        if not shutil.which("wrk"):
            sys.exit("error: wrk is not here; on Debian: apt-get install wrk")
        results = _measured(docker.from_env(), wanted.rounds, wanted.seconds)
        if wanted.keep:
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print("\n".join(serving_page.tables(results)))  # noqa: T201
    if wanted.render or wanted.keep:
        serving_page.write(json.loads(RESULTS.read_text()))


def _measured(client: docker.DockerClient, rounds: int, seconds: int) -> dict[str, Any]:
    sizes = _prepare(client)
    samples = {name: Samples(sizes[server.peer]) for name, server in SERVERS.items()}
    names = list(SERVERS)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)  # noqa: T201
            _round(client, SERVERS[name], seconds, samples[name])
    servers = {name: asdict(one) for name, one in samples.items()}
    return {"machine": _machine(client), "clients": CLIENTS, "servers": servers}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="of each load (default: 5)")
    parser.add_argument("--no-keep", dest="keep", action="store_false", help="write nothing")
    parser.add_argument("--render", action="store_true", help="only write the page anew")
    return parser.parse_args()


@dataclass
class Samples:
    """What was measured of a server, round by round; loads by the number of clients.

    Parameters
    ----------
    megabytes : float
        Of its image.
    """

    megabytes: float
    ready: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    per_second: dict[str, list[float]] = field(default_factory=dict)
    median_ms: dict[str, list[float]] = field(default_factory=dict)
    p99_ms: dict[str, list[float]] = field(default_factory=dict)


def _prepare(client: docker.DockerClient) -> dict[str, float]:
    """Build the image and install what others need; give the megabytes of each one's image."""
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = penguins.project(Path(scratch))
        build = [sys.executable, "-m", "packager", "build", "--json", "-t", IMAGE]
        said = subprocess.run(build, cwd=root, check=True, stdout=subprocess.PIPE)
    (WORK / "body.json").write_text(json.dumps(BODY))
    base, *_ = json.loads(said.stdout)["layers"]
    sizes = {"": client.images.get(IMAGE).attrs["Size"] / 1e6}
    for peer in {one.peer for one in SERVERS.values()} - {""}:
        sizes[peer] = (base["size"] + _installed(peer)) / 1e6
    return sizes


def _installed(peer: str) -> int:
    """Install a peer into a folder of its own, if it is not there, and give its bytes."""
    folder, wishes = WORK / peer, HERE / f"requirements-{peer}.txt"
    made_from = WORK / f"{peer}.txt"
    if not made_from.exists() or made_from.read_text() != wishes.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", folder, "-r", wishes], check=True)
        made_from.write_text(wishes.read_text())
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def _round(client: docker.DockerClient, server: Server, seconds: int, samples: Samples) -> None:
    """Start a server, let it be asked, look at its memory, and stop it."""
    starts = []
    for _ in range(STARTS - 1):
        with _running(client, server) as (_, seconds_to_ready):
            starts.append(seconds_to_ready)
    with _running(client, server) as (container, seconds_to_ready):
        samples.ready.append(statistics.median([*starts, seconds_to_ready]))
        _load(server, CLIENTS[-1], 1)  # to warm up
        for clients in CLIENTS:
            per_second, median, p99 = _load(server, clients, seconds)
            samples.per_second.setdefault(str(clients), []).append(per_second)
            samples.median_ms.setdefault(str(clients), []).append(median)
            samples.p99_ms.setdefault(str(clients), []).append(p99)
        samples.memory.append(_memory(container))


@contextmanager
def _running(client: docker.DockerClient, server: Server) -> Iterator[tuple[Container, float]]:
    """Run a server until the block ends; give the seconds that it took to be ready."""
    places = {str(INPUTS): "/serving"} | ({str(WORK / server.peer): "/peer"} if server.peer else {})
    begin = time.monotonic()
    container = client.containers.run(
        IMAGE,
        entrypoint=["/usr/bin/python3"],
        command=list(server.command),
        network_mode="host",
        read_only=True,
        tmpfs={SCRATCH: ""},
        working_dir=SCRATCH,
        environment={"PYTHONPATH": "/peer:/serving", "HOME": SCRATCH, **server.settings},
        volumes={ours: {"bind": theirs, "mode": "ro"} for ours, theirs in places.items()},
        detach=True,
    )
    try:
        _wait(container, server.ready, begin)
        yield container, time.monotonic() - begin
    finally:
        container.remove(force=True)


def _wait(container: Container, path: str, begin: float) -> None:
    while time.monotonic() - begin < START_SECONDS:
        with suppress(OSError, http.client.HTTPException):
            if _status(path) == http.client.OK:
                return
        container.reload()
        if container.status == "exited":
            break
        time.sleep(PAUSE)
    raise FailedError(f"not ready: {container.logs().decode(errors='replace')[-2000:]}")


def _status(path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", int(PORT), timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def _load(server: Server, clients: int, seconds: int) -> tuple[float, float, float]:
    """Ask without a pause; give answers per second, and milliseconds: the median, and p99."""
    address = f"http://127.0.0.1:{PORT}{server.infer}"
    wrk = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s"]
    said = subprocess.run(
        [*wrk, "-s", INPUTS / "ask.lua", address],
        env={**os.environ, "BODY": str(WORK / "body.json")},
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(
        r"^result ([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+)$", said.stdout, re.MULTILINE
    )
    if not found or int(found[5]) or not int(found[1]):
        raise FailedError(f"{address}: {said.stdout}")
    answers, took, median, p99 = map(int, found.groups()[:4])  # microseconds
    return answers / took * 1e6, median / 1e3, p99 / 1e3


def _memory(container: Container) -> float:
    """Give the megabytes that are the server's alone, without its files in the page cache."""
    stats = container.stats(stream=False)["memory_stats"]["stats"]
    return float(stats["anon"] if "anon" in stats else stats["total_rss"]) / 1e6


def _versions() -> dict[str, str]:
    """Give the releases that are compared."""
    found = {}
    for peer in ("mlserver", "bentoml"):
        text = (HERE / f"requirements-{peer}.txt").read_text()
        pin = re.search(rf"^{peer}==([^ \n]+)", text, re.MULTILINE)
        assert pin is not None
        found[peer] = pin[1]
    return found


def _machine(client: docker.DockerClient) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "processors": os.cpu_count(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "engine": client.version()["Version"],
        "versions": _versions(),
    }


if __name__ == "__main__":
    main()
