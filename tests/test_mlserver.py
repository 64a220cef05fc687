"""MLServer's clients against our server, and what our images print against MLServer."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from served import INFER, rows, serving
from test_runtime import Sealed

pytestmark = pytest.mark.whole

PINS = Path(__file__).parents[1] / "benchmarks" / "requirements-mlserver.txt"
START_SECONDS = 120
CODECS = """
import json, sys, urllib.request
import numpy
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse

model = sys.argv[1]
with urllib.request.urlopen(model) as answer:
    known = MetadataModelResponse.model_validate_json(answer.read())
inputs = [
    NumpyCodec.encode_input("size", numpy.array([1.5, 2.0])),
    StringCodec.encode_input("sex", ["é", "f"]),
]
body = InferenceRequest(id="7", inputs=inputs).model_dump_json().encode()
asked = urllib.request.Request(model + "/infer", body, {"Content-Type": "application/json"})
with urllib.request.urlopen(asked) as answer:
    got = InferenceResponse.model_validate_json(answer.read())
double, label = got.outputs
print(json.dumps({
    "known": [one.name for one in known.inputs],
    "id": got.id,
    "double": NumpyCodec.decode_output(double).ravel().tolist(),
    "label": StringCodec.decode_output(label),
}))
"""
MODEL = """
from pathlib import Path

from doubler import load
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse
import numpy


class Penguins(MLModel):
    async def load(self):
        self._model = load(Path("model/model.json"))
        return True

    async def predict(self, payload):
        size, sex = payload.inputs
        sizes = NumpyCodec.decode_input(size).ravel().tolist()
        found = self._model.predict({
            "size": [None if one != one else one for one in sizes],
            "sex": StringCodec.decode_input(sex),
        })
        double = [float("nan") if one is None else one for one in found["double"]]
        outputs = [
            NumpyCodec.encode_output("double", numpy.array(double)),
            StringCodec.encode_output("label", found["label"]),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
"""


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLServer in an environment of its own."""
    folder = tmp_path_factory.mktemp("mlserver")
    venv.create(folder, with_pip=True)
    quietly = ("-q", "--disable-pip-version-check", "--require-hashes")
    install = [folder / "bin" / "python", "-m", "pip", "install", *quietly, "-r", PINS]
    subprocess.run(install, check=True)
    return folder / "bin"


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path)


def test_mlservers_codecs_write_and_read_what_we_do(sealed: Sealed, binaries: Path) -> None:
    with serving(sealed) as server:
        model = f"http://127.0.0.1:{server.port}/v2/models/penguins"
        command = [binaries / "python", "-c", CODECS, model]
        done = subprocess.run(command, check=True, capture_output=True)
    assert json.loads(done.stdout) == {
        "known": ["size", "sex"],
        "id": "7",
        "double": [3.0, 4.0],
        "label": ["É", "F"],
    }


def test_mlserver_infer_asks_us_line_by_line(sealed: Sealed, binaries: Path) -> None:
    asked, told = sealed.folder / "asked.jsonl", sealed.folder / "told.jsonl"
    questions = [rows("m"), {"inputs": []}, rows("f", "m")]
    asked.write_text("".join(json.dumps(one) + "\n" for one in questions))
    with serving(sealed) as server:
        command = [binaries / "mlserver", "infer", "-u", f"127.0.0.1:{server.port}"]
        command += ["-m", "penguins", "-i", asked, "-o", told, "-w", "1"]
        subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    lines.sort(key=lambda line: line["parameters"]["batch_index"])
    assert [_labels(line) for line in lines] == [["M"], None, ["F", "M"]]
    assert "missing inputs: 'size', 'sex'" in json.dumps(lines[1])


def _labels(line: dict[str, Any]) -> Any:
    return next((one["data"] for one in line.get("outputs", []) if one["name"] == "label"), None)


@contextmanager
def mlserver(folder: Path, binaries: Path) -> Iterator[int]:
    """Let MLServer serve the same model."""
    (folder / "mlserver_model.py").write_text(MODEL)
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.create_server(("127.0.0.1", 0)) as three,
    ):
        port, grpc, metrics = (taken.getsockname()[1] for taken in (one, two, three))
    settings = {
        "HTTP_PORT": port,
        "GRPC_PORT": grpc,
        "METRICS_PORT": metrics,
        "HOST": "127.0.0.1",
        "PARALLEL_WORKERS": 0,
        "MODEL_NAME": "penguins",
        "MODEL_IMPLEMENTATION": "mlserver_model.Penguins",
    }
    environment = os.environ | {f"MLSERVER_{key}": str(one) for key, one in settings.items()}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binaries / "mlserver", "start", "."],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(folder)},
            stdout=log,
            stderr=log,
        )
        try:
            until = time.monotonic() + START_SECONDS
            while _ask(port, "GET", "/v2/models/penguins/ready")[0] != http.client.OK:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            process.wait(30)


def _ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except ConnectionRefusedError:
        return 0, b""
    finally:
        connection.close()


def test_what_an_image_prints_is_a_request_for_mlserver(sealed: Sealed, binaries: Path) -> None:
    code, body, _ = sealed.run("examples", "--to", "v2")
    assert code == 0
    with mlserver(sealed.folder, binaries) as port:
        status, told = _ask(port, "POST", INFER, body.encode())
        wrong = json.loads(body)["inputs"][:1]
        assert _ask(port, "POST", INFER, json.dumps({"inputs": wrong}).encode())[0] >= 400
    assert status == http.client.OK, told
    assert sealed.examples
    outputs = json.loads(told)["outputs"]
    assert {one["name"]: one["data"] for one in outputs} == sealed.examples["outputs"]
