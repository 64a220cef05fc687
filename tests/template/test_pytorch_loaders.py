"""The runtime's own loaders of PyTorch's formats, with the wheel that baked projects get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simple_index import SimpleIndex

from packager import runtime

pytestmark = pytest.mark.whole

PROJECT = """
import torch


class Net(torch.nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.layer = torch.nn.Linear(4, width)

    def forward(self, row, shift):
        return self.layer(row).softmax(-1), row.sum(-1) + shift


class Other(Net):
    def __init__(self):
        super().__init__(2)
"""
EXPORT = """
import sys
import safetensors.torch, torch
from net import Net

torch.manual_seed(0)
net = Net()
rows, shift = torch.arange(8.0).reshape(2, 4), torch.tensor([1, 2])
any_number = {"row": {0: torch.export.Dim.AUTO}, "shift": {0: torch.export.Dim.AUTO}}
torch.export.save(torch.export.export(net, (rows, shift), dynamic_shapes=any_number), "net.pt2")
torch.export.save(torch.export.export(net, (rows, shift)), "two.pt2")
safetensors.torch.save_file(net.state_dict(), "net.safetensors")
print([one.tolist() for one in net(rows, shift)])
"""
ASK = """
import json, sys
from pathlib import Path
from packager_runtime.facts import Image, InputError, Tensor
from packager_runtime.loaders import ask, load

asked = json.loads(sys.argv[1])
facts = dict.fromkeys(Image.__slots__, "") | {
    "model": Path(asked["model"]),
    "predictor": asked.get("predictor"),
    "trust_pickle": asked.get("trust", False),
}
inputs, outputs = ([Tensor(*one[:2], tuple(one[2])) for one in asked.get(what, [])]
                   for what in ("inputs", "outputs"))
try:
    model = load(Image(**facts), inputs, outputs)
    columns = {"row": [[0, 1, 2, 3], [4, 5, 6, 7]], "shift": [1, 2]}
    print(json.dumps(ask(model, columns)))
except InputError as wrong:
    print(json.dumps(str(wrong)))
"""
SIGNATURE = {
    "inputs": [["row", "FP64", [-1, 4]], ["shift", "INT64", [-1]]],
    "outputs": [["probability", "FP32", [-1, 3]], ["sum", "FP32", [-1]]],
}


@pytest.fixture(scope="module")
def run(pytorch_index: SimpleIndex, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    folder = tmp_path_factory.mktemp("networks")
    quietly = ("--quiet", f"--extra-index-url={pytorch_index.address}")
    install = [sys.executable, "-m", "pip", "install", *quietly, "--target", folder / "site"]
    subprocess.run([*install, "torch", "safetensors", "numpy"], check=True)
    (folder / "net.py").write_text(PROJECT)
    places = [folder, folder / "site", Path(runtime.__file__).parent]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}

    def run(script: str, *words: str) -> Any:
        command = [sys.executable, "-P", "-W", "ignore", "-c", script, *words]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def expected(run: Callable[..., Any]) -> Any:
    """Export the network, and give what it answers in the process that made it."""
    return run(EXPORT)


def asked(run: Callable[..., Any], model: str, **more: Any) -> Any:
    return run(ASK, json.dumps({"model": model} | more))


def test_an_exported_program_says_what_it_takes(run: Callable[..., Any], expected: Any) -> None:
    got = asked(run, "net.pt2", trust=True)
    assert got == {"output_0": expected[0], "output_1": expected[1]}
    got = asked(run, "net.pt2", trust=True, **SIGNATURE)
    assert got == {"probability": expected[0], "sum": expected[1]}


def test_weights_fill_a_module_of_the_project(run: Callable[..., Any], expected: Any) -> None:
    got = asked(run, "net.safetensors", predictor="net:Net", **SIGNATURE)
    assert got == {"probability": expected[0], "sum": expected[1]}


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("net.pt2", SIGNATURE, "net.pt2 may hold pickles"),
        ("two.pt2", {"trust": True}, "two.pt2 takes 'row' of [2, 4]: export it with a dynamic"),
        (
            "net.pt2",
            {"trust": True, "inputs": [["row", "FP64", [-1, 4]]]},
            "the signature records no 'shift'",
        ),
        ("net.safetensors", {"predictor": "net:Net"}, "record examples with a signature"),
        (
            "net.safetensors",
            {"predictor": "net:Other", **SIGNATURE},
            "net.safetensors: its weights are those of another module",
        ),
        ("net.safetensors", {}, "net.safetensors: no built-in loader takes it"),
    ],
)
@pytest.mark.usefixtures("expected")
def test_what_is_another_network_is_refused(
    run: Callable[..., Any], model: str, more: dict[str, Any], message: str
) -> None:
    assert message in asked(run, model, **more)
