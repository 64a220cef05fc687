"""Claims about `packager predict`: what goes in, what comes out, which row is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Tiny, tiny_examples
from conftest import git as run_git

from packager import predicting, rows
from packager.errors import UsageError
from packager.outputs.engine import Engine
from packager.runtime.packager_runtime import facts, ranges

# Its image has one ID, whichever worker builds it, and containers are counted by that.
pytestmark = pytest.mark.xdist_group("predict")

PREDICT = [sys.executable, "-m", "packager", "predict"]
PREDICTOR = '''\
"""Two outputs, one of them probabilities; it fails, dies or is silent when asked to."""

import os
import sys
import time


class Model:
    def predict(self, inputs):
        words = inputs["word"]
        if "boom" in words:
            raise ValueError("no such word")
        if "die" in words:
            os.write(2, b"last words\\x1b[31m\\n")
            os._exit(7)
        if "sleep" in words:
            time.sleep(60)
        if "fill" in words:
            bytearray(1 << 30)
        print("chatter of the model")
        large = [value is not None and value > 2 for value in inputs["x"]]
        return {
            "y": [None if value is None else value * 2 for value in inputs["x"]],
            "chance": [[0.25, 0.75] if one else [0.5, 0.5] for one in large],
        }


def load(path):
    return Model()
'''


def recorded(model: bytes) -> dict[str, Any]:
    """What the model above predicts, and the range of what it was trained on."""
    told: dict[str, Any] = tiny_examples(model)
    told["signature"] = {
        "inputs": [
            {"name": "x", "datatype": "FP64", "shape": [-1], "nullable": True},
            {"name": "word", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "y", "datatype": "FP64", "shape": [-1]},
            {"name": "chance", "datatype": "FP64", "shape": [-1, 2]},
        ],
    }
    told["data"]["rows"] = 2
    told["inputs"] = {"x": [1.0, 3.0], "word": ["a", "b"]}
    told["outputs"] = {"y": [2.0, 6.0], "chance": [[0.5, 0.5], [0.25, 0.75]]}
    told["ranges"] = {"x": {"min": 0, "max": 10}, "word": {"values": ["a", "b"]}}
    return told


@pytest.fixture(scope="module")
def image(
    locked_tiny: Path, shared_store: Path, tmp_path_factory: pytest.TempPathFactory, engine: Engine
) -> Any:
    """A project whose image is in the engine."""
    folder = tmp_path_factory.mktemp("predict")
    root = folder / "tiny"
    subprocess.run(["cp", "-r", str(locked_tiny), str(root)], check=True)
    (root / "src/tiny/predict.py").write_text(PREDICTOR)
    model = (root / "models/model.txt").read_bytes()
    (root / "models/examples.json").write_text(json.dumps(recorded(model)))
    run_git(root, "init", "-q")
    run_git(root, "add", "-A")
    run_git(root, "commit", "-qm", "Tiny")
    tiny = Tiny(root, shared_store)
    built = tiny.built("-t", f"tiny:predict-{os.getpid()}")
    yield tiny, str(built["reference"])
    engine.client.images.remove(str(built["reference"]), force=True)


@pytest.fixture
def predicted(image: tuple[Tiny, str], tmp_path: Path) -> Callable[..., Any]:
    """Predict a file; give how it went."""

    def predicted(name: str, content: str | bytes, *words: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return image[0].run("predict", str(path), image[1], *words)

    return predicted


@pytest.fixture
def digest(image: tuple[Tiny, str]) -> str:
    model = facts.model_digest(image[0].root / "models/model.txt")
    return model.removeprefix("sha256:")[:12]


def table(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


TABLE = 'id,x,note,word\n007,1,"a, ""b""",a\n008,,1.10,b\n009,30,,c\n'


@pytest.mark.parametrize("size", ["1", "2", "10000"])
def test_a_csv_keeps_what_the_model_does_not_take(
    predicted: Callable[..., Any], digest: str, size: str
) -> None:
    run = predicted("rows.csv", TABLE, "--batch", size)
    assert run.returncode == 0, run.stderr
    assert table(run.stdout) == [
        ["id", "note", "y", "chance_0", "chance_1", "confidence", "outside", "model"],
        ["007", 'a, "b"', "2.0", "0.5", "0.5", "0.5", "", digest],
        ["008", "1.10", "", "0.5", "0.5", "0.5", "", digest],
        ["009", "", "60.0", "0.25", "0.75", "0.75", "x;word", digest],
    ]
    assert not run.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", '[{"id": 7, "x": 1, "word": "a"}, {"id": 8, "x": null, "word": "b"}]'),
        ("rows.json", '{"id": [7, 8], "x": [1, null], "word": ["a", "b"]}'),
        ("rows.json", '{"id": 7, "x": 1, "word": "a"}\n{"id": 8, "x": null, "word": "b"}\n'),
        ("rows.ndjson", '{"id": 7, "x": 1, "word": "a"}\n\n{"id": 8, "x": null, "word": "b"}'),
    ],
)
def test_json_of_every_kind_becomes_lines(
    predicted: Callable[..., Any], digest: str, tmp_path: Path, name: str, content: str
) -> None:
    run = predicted(name, content, "-o", str(tmp_path / "out.jsonl"))
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    same = {"chance": [0.5, 0.5], "confidence": 0.5, "outside": "", "model": digest}
    assert lines == [{"id": 7, "y": 2.0, **same}, {"id": 8, "y": None, **same}]


def test_parquet_goes_in_and_comes_out_with_its_types(
    predicted: Callable[..., Any], tmp_path: Path
) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    given = arrow.table(
        {
            "id": arrow.array([7, 8], arrow.int16()),
            "x": [1.0, None],
            "word": ["a", "b"],
            "day": arrow.array([0, 1], arrow.date32()),
        }
    )
    whole = io.BytesIO()
    parquet.write_table(given, whole)
    run = predicted("rows.parquet", whole.getvalue(), "-o", str(tmp_path / "out.parquet"))
    assert run.returncode == 0, run.stderr
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.schema.field("id").type == arrow.int16()
    assert found.schema.field("day").type == arrow.date32()
    assert found.to_pydict()["y"] == [2.0, None]
    assert found.to_pydict()["chance"] == [[0.5, 0.5]] * 2
    assert (
        predicted("rows.parquet", whole.getvalue())
        .stdout.splitlines()[1]
        .startswith("7,1970-01-01,2.0,0.5,0.5,")
    )


def test_parquet_without_pyarrow_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"model-packager\[parquet\]"):
        next(rows.batches(tmp_path / "rows.parquet", "parquet", 1))


def test_a_name_that_is_taken_gets_a_number(predicted: Callable[..., Any]) -> None:
    run = predicted("rows.csv", "y,model,model_2,x,word\n1,2,3,1,a\n")
    header = table(run.stdout)[0]
    assert header[:4] == ["y", "model", "model_2", "y_2"]
    assert header[-1] == "model_3"


def test_a_script_gets_one_document(
    predicted: Callable[..., Any], image: tuple[Tiny, str], tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    run = predicted("rows.csv", TABLE, "-o", str(out), "--json")
    told = json.loads(run.stdout)
    assert (told["rows"], told["outside"], told["output"]) == (3, 1, str(out))
    assert told["model"] == facts.model_digest(image[0].root / "models/model.txt")
    assert predicted("rows.csv", TABLE, "--json").returncode == 2


BAD = "id,x,word\n" + "1,1,a\n" * 4


@pytest.mark.parametrize("size", ["2", "3", "100"])
@pytest.mark.parametrize(
    ("bad", "code", "message"),
    [
        ("1,one,a", 2, "row 5, column 'x': 'one' is not a number"),
        ("1,1,", 2, "row 5, column 'word': is missing"),
        ("1,1", 2, "row 5 has 2 cells, the header has 3"),
        ('1,1,"a', 2, "row 5: not CSV"),
        ("1,1,boom", 1, "row 5: the model failed: ValueError: no such word"),
    ],
)
def test_a_wrong_row_is_named_and_leaves_nothing(
    predicted: Callable[..., Any], tmp_path: Path, *, size: str, bad: str, code: int, message: str
) -> None:
    run = predicted("rows.csv", f"{BAD}{bad}\n", "--batch", size, "-o", str(tmp_path / "out.csv"))
    assert run.returncode == code, run.stderr
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", "", "has no rows"),
        ("r.csv", "x,word\n", "has no rows"),
        ("r.csv", "x,x\n1,2\n", "the header names 'x' twice"),
        ("r.csv", "x,words\n1,2\n", "has no column 'word', which the model takes"),
        ("r.csv", b"x,word\n1,\xff\n", "not UTF-8"),
        ("r.jsonl", '{"x": 1, "word": "a"}\n{"x": 1}\n', "row 2, column 'word': the row does not"),
        ("r.jsonl", '{"x": 1, "word": "a"}\n[1]\n', "row 2 is [1], not an object"),
        ("r.jsonl", '{"x": NaN, "word": "a"}\n', "row 1: not JSON: NaN is no JSON"),
        ("r.jsonl", '{"x": 1e999, "word": "a"}\n', "row 1, column 'x': inf is not a finite"),
        ("r.json", '{"x": [1], "word": []}', "the columns differ in length"),
        ("r.json", "[1", "not JSON"),
        ("r.txt", "x,word\n1,a\n", "Say --from"),
        ("r.parquet", "x,word\n1,a\n", "not Parquet"),
    ],
)
def test_what_is_no_table_is_refused(
    predicted: Callable[..., Any], name: str, content: str | bytes, message: str
) -> None:
    run = predicted(name, content)
    assert run.returncode == 2, run.stderr
    assert message in run.stderr
    assert run.stdout == ""


def test_a_column_that_comes_late_is_not_lost_in_silence(predicted: Callable[..., Any]) -> None:
    lines = '{"x": 1, "word": "a"}\n{"x": 1, "word": "a", "id": 1}\n'
    assert (
        "the column 'id' comes only in row 2" in predicted("r.jsonl", lines, "--batch", "1").stderr
    )
    assert predicted("r.jsonl", lines).returncode == 0


@pytest.mark.parametrize(
    ("word", "words", "message"),
    [
        ("die", (), "the container ended by itself, with exit code 7\n  last words\\x1b[31m"),
        ("sleep", ("--timeout", "5"), "no answer after 5 s"),
        ("fill", ("--memory", "64m"), "it needs more than 64m of memory"),
    ],
)
def test_a_model_that_breaks_off_is_the_images_fault(
    predicted: Callable[..., Any],
    engine: Engine,
    image: tuple[Tiny, str],
    *,
    word: str,
    words: tuple[str, ...],
    message: str,
) -> None:
    run = predicted("rows.csv", f"x,word\n1,{word}\n", *words)
    assert (run.returncode, message in run.stderr) == (1, True), run.stderr
    assert not engine.client.containers.list(all=True, filters={"ancestor": image[1]})


def test_an_interrupt_leaves_neither_container_nor_file(
    image: tuple[Tiny, str], engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("x,word\n1,sleep\n")
    tiny, name = image
    process = subprocess.Popen(
        [*PREDICT, str(tmp_path / "rows.csv"), name, "-o", str(tmp_path / "out.csv")],
        env={**os.environ, "PACKAGER_CACHE": str(tiny.store)},
        stderr=subprocess.PIPE,
    )
    running = {"ancestor": name, "status": "running"}
    while not (found := engine.client.containers.list(filters=running)):
        assert process.poll() is None
    host = found[0].attrs["HostConfig"]
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, b"interrupted")
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert not engine.client.containers.list(all=True, filters={"ancestor": name})
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_an_image_of_somebody_else_is_refused() -> None:
    with pytest.raises(UsageError, match="no image that packager made"):
        predicting._introduced(Said(b"hello"), predicting.Limits(), "other:1")  # type: ignore[arg-type]


class Said:
    """What a container says."""

    def __init__(self, line: bytes) -> None:
        self.line = line

    def ask(self, _: bytes, **__: float) -> bytes:
        return self.line


def test_the_bar_is_on_the_terminal_and_the_table_in_the_file(
    image: tuple[Tiny, str], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("x,word\n" + "1,a\n" * 50)
    ours, theirs = pty.openpty()
    with (tmp_path / "out.csv").open("wb") as out:
        subprocess.run(
            [*PREDICT, str(tmp_path / "rows.csv"), image[1]],
            stdout=out,
            stderr=theirs,
            env={**os.environ, "PACKAGER_CACHE": str(image[0].store), "TERM": "xterm"},
            check=True,
        )
    os.close(theirs)
    assert b"predict" in os.read(ours, 1 << 16)
    os.close(ours)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 51


# --- Training ranges -----------------------------------------------------------------------


def test_outside_names_the_inputs_of_each_row() -> None:
    known = {"x": {"min": 0, "max": 1}, "word": {"values": ["a"]}, "absent": {"values": ["a"]}}
    columns = {
        "x": [0, 1, -0.1, None, [0.5, [2]], [0.5]],
        "word": ["a", "b", "b", None, "a", "a"],
        "free": [9] * 6,
    }
    expected = [[], ["word"], ["x", "word"], [], ["x"], []]
    assert ranges.outside(columns, known) == expected
    assert ranges.outside(columns, {}) == [[]] * 6


def test_ranges_are_read(tmp_path: Path) -> None:
    told = recorded(b"model")
    path = tmp_path / "examples.json"
    path.write_text(json.dumps(told))
    assert facts.read_examples(path).ranges == told["ranges"]
    del told["ranges"]
    path.write_text(json.dumps(told))
    assert facts.read_examples(path).ranges == {}


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"z": {"min": 0, "max": 1}},
        {"x": [0, 1]},
        {"x": {"min": 0}},
        {"x": {"min": 2, "max": 1}},
        {"x": {"min": "0", "max": "1"}},
        {"x": {"min": False, "max": True}},
        {"x": {"min": 0, "max": 1, "mean": 0.5}},
        {"word": {"min": 0, "max": 1}},
        {"word": {"values": []}},
        {"word": {"values": [None]}},
        {"word": {"values": "ab"}},
    ],
)
def test_what_is_no_range_is_refused(tmp_path: Path, wrong: object) -> None:
    path = tmp_path / "examples.json"
    path.write_text(json.dumps(recorded(b"model") | {"ranges": wrong}))
    with pytest.raises(facts.InputError, match="ranges"):
        facts.read_examples(path)


def test_an_image_without_ranges_says_nothing_of_them(tiny: Tiny) -> None:
    """An empty cell would say that the row is inside."""
    name = f"tiny:bare-{os.getpid()}"
    tiny.built("-t", name)
    (tiny.root / "rows.csv").write_text("id,x\n1,2\n")
    run = tiny.run("predict", "rows.csv", name)
    subprocess.run(["docker", "rmi", "-f", name], check=True, capture_output=True)
    assert table(run.stdout)[0] == ["id", "y", "model"]
