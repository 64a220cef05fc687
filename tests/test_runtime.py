"""The program inside the image, run as the image runs it; needs the standard library only."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packager import runtime
from packager.runtime.packager_runtime import compare, facts, tables
from packager.runtime.packager_runtime.facts import InputError, Tensor

RUNTIME = Path(runtime.__file__).parent

PREDICTOR = """\
import json, os, sys, time

class Doubler:
    def __init__(self, factor):
        self.factor = factor

    def predict(self, inputs):
        print("chatter of the model")
        os.write(1, b"chatter from below Python")
        size = [None if x is None else x * self.factor for x in inputs["size"]]
        return {"double": size, "label": [str(x).upper() for x in inputs["sex"]]}

class Broken(Doubler):
    def predict(self, inputs):
        raise RuntimeError("no such penguin\\nsecond line")

class Leaver(Doubler):
    def predict(self, inputs):
        sys.exit("leaving")

class Short(Doubler):
    def predict(self, inputs):
        return {"double": [1.0]}

class Other(Doubler):
    def predict(self, inputs):
        return {"other": [1.0 for _ in inputs["size"]]}

class NotFinite(Doubler):
    def predict(self, inputs):
        numbers = [float("nan"), float("inf"), -float("inf")]
        return {"double": numbers[: len(inputs["size"])], "all": [numbers for _ in inputs["size"]]}

class Sleeper(Doubler):
    def predict(self, inputs):
        sys.stderr.write("asleep\\n")
        sys.stderr.flush()
        time.sleep(600)

def load(path):
    model = json.loads(path.read_text())
    return globals()[model.get("kind", "Doubler")](model["factor"])

def load_nothing(path):
    return object()
"""

SIGNATURE = {
    "inputs": [
        {"name": "size", "datatype": "FP64", "shape": [-1], "nullable": True},
        {"name": "sex", "datatype": "BYTES", "shape": [-1], "nullable": False},
    ],
    "outputs": [
        {"name": "double", "datatype": "FP64", "shape": [-1]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ],
}


class Sealed:
    """A folder laid out as an image holds it, and a way to run the program on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model" / "model.json"
        self.model.parent.mkdir()
        (folder / "doubler.py").write_text(PREDICTOR)
        self.image: dict[str, Any] = {
            "format": 1,
            "name": "penguins",
            "version": "0.1.0",
            "description": "Doubles a size",
            "license": "Apache-2.0",
            "model": {"path": "model/model.json", "digest": ""},
            "examples": "examples.json",
            "predictor": "doubler:load",
            "trust_pickle": False,
            "base": "debian:bookworm",
            "platform": "linux/amd64",
            "python": "3.11",
            "inputs_digest": "sha256:" + "1" * 64,
        }
        self.examples: dict[str, Any] | None = {
            "format": 1,
            "signature": SIGNATURE,
            "tolerance": {"rtol": 1e-9, "atol": 1e-12},
            "data": {"rows": 3, "source": "held-out rows", "license": "CC0-1.0"},
            "inputs": {"size": [1.5, None, 3], "sex": ["m", "f", "m"]},
            "outputs": {"double": [3.0, None, 6.0], "label": ["M", "F", "M"]},
        }
        self.write(kind="Doubler")

    def write(self, kind: str) -> None:
        self.model.write_text(json.dumps({"factor": 2, "kind": kind}))
        digest = "sha256:" + hashlib.sha256(self.model.read_bytes()).hexdigest()
        self.image["model"]["digest"] = digest
        if self.examples:
            self.examples["model"] = digest
            (self.folder / "examples.json").write_text(json.dumps(self.examples))
        else:
            self.image["examples"] = None
        (self.folder / "image.json").write_text(json.dumps(self.image))

    def start(self, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(RUNTIME), str(self.folder)]),
            "PACKAGER_ROOT": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-P", "-m", "packager_runtime", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, **streams
        )

    def run(self, *words: str, given: str | bytes = b"") -> tuple[int, str, str]:
        process = self.start(*words)
        data = given.encode() if isinstance(given, str) else given
        out, err = process.communicate(data, timeout=60)
        return process.returncode, out.decode(), err.decode()

    def predict(self, given: str | bytes, *words: str) -> list[dict[str, Any]]:
        code, out, err = self.run("predict", *words, given=given)
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def selftest(self) -> tuple[int, dict[str, Any]]:
        code, out, _ = self.run("selftest", "--json")
        return code, json.loads(out.splitlines()[-1])


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path)


# --- info


def test_info_tells_a_person_what_the_image_is(sealed: Sealed) -> None:
    code, out, err = sealed.run("info")
    assert (code, err) == (0, "")
    for fact in (
        "penguins 0.1.0",
        "model.json",
        sealed.image["model"]["digest"],
        "Apache-2.0",
        "3.11 on debian:bookworm, linux/amd64",
        "3 rows in this image, licence CC0-1.0",
        "rtol 1e-09, atol 1e-12",
    ):
        assert fact in out
    assert [line.split() for line in out.splitlines() if "FP64" in line] == [
        ["size", "FP64", "[n]", "may", "be", "missing"],
        ["double", "FP64", "[n]"],
    ]


def test_info_tells_a_program_the_same(sealed: Sealed) -> None:
    code, out, _ = sealed.run("info", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["model"] == {"name": "model.json", "digest": sealed.image["model"]["digest"]}
    assert told["examples"]["rows"] == 3
    assert told["examples"]["tolerance"] == {"rtol": 1e-9, "atol": 1e-12}
    assert [item["name"] for item in told["signature"]["inputs"]] == ["size", "sex"]
    for key in ("name", "version", "license", "base", "platform", "python", "inputs_digest"):
        assert told[key] == sealed.image[key]


def test_info_without_examples_says_so(sealed: Sealed) -> None:
    sealed.examples = None
    sealed.write(kind="Doubler")
    code, out, _ = sealed.run("info")
    assert code == 0
    assert "none recorded" in out
    assert out.count("not recorded") == 2


def test_info_prints_the_model_card_and_names_it(sealed: Sealed) -> None:
    code, out, err = sealed.run("info", "--card")
    assert (code, out) == (2, "")
    assert err == "error: there is no model card in this image\n"
    assert json.loads(sealed.run("info", "--json")[1])["card"] is None
    assert "info --card" not in sealed.run("info")[1]
    sealed.image["card"] = "card.md"
    sealed.write(kind="Doubler")
    code, out, err = sealed.run("info", "--card")
    assert (code, out) == (2, "")
    assert "card.md: cannot be read" in err
    (sealed.folder / "card.md").write_bytes("# Penguins\n\nSmall \u2013 é.\n".encode())
    assert sealed.run("info", "--card") == (0, "# Penguins\n\nSmall \u2013 é.\n", "")
    assert json.loads(sealed.run("info", "--json")[1])["card"] == "card.md"
    assert "info --card" in sealed.run("info")[1]
    assert sealed.run("info", "--card", "--json")[0] == 2


def test_a_folder_that_is_no_image_is_refused(sealed: Sealed) -> None:
    (sealed.folder / "image.json").unlink()
    code, _, err = sealed.run("info")
    assert code == 2
    assert err == f"error: {sealed.folder / 'image.json'}: no such file\n"


def test_help_shows_how_to_pipe_rows_in(sealed: Sealed) -> None:
    code, out, _ = sealed.run("--help")
    assert code == 0
    assert "cat rows.csv | docker run -i --rm IMAGE predict" in out


# --- predict

ROWS = [{"double": 3.0, "label": "M"}, {"double": None, "label": "F"}]


@pytest.mark.parametrize(
    "given",
    [
        "size,sex\n1.5,m\n,f\n",
        "size,sex\r\n1.5,m\r\n,f\r\n",
        "\ufeffsex,size\nm,1.5\nf,\n\n",
        '"size","sex"\n"1.5","m"\n"","f"',
        '[{"size": 1.5, "sex": "m"}, {"sex": "f", "size": null}]',
        '{"size": 1.5, "sex": "m"}\n{"size": null, "sex": "f"}\n',
        ' {"size": [1.5, null], "sex": ["m", "f"]}',
    ],
)
def test_each_form_of_the_same_rows_gives_the_same_answer(sealed: Sealed, given: str) -> None:
    assert sealed.predict(given) == ROWS


def test_one_row_object_is_one_row(sealed: Sealed) -> None:
    assert sealed.predict('{"size": 1, "sex": "m"}') == [{"double": 2.0, "label": "M"}]


def test_csv_out(sealed: Sealed) -> None:
    code, out, _ = sealed.run(
        "predict", "--to", "csv", given='{"size": [1.5, null], "sex": ["é,", "f"]}'
    )
    assert (code, out) == (0, 'double,label\n3.0,"É,"\n,F\n')


def test_unknown_columns_are_left_aside_with_a_note(sealed: Sealed) -> None:
    code, out, err = sealed.run("predict", given="island,size,sex\nBiscoe,1,m\n")
    assert (code, json.loads(out)) == (0, {"double": 2.0, "label": "M"})
    assert err.startswith("note: columns left aside: island\n")


def test_what_is_not_finite_is_null(sealed: Sealed) -> None:
    sealed.write(kind="NotFinite")
    rows = sealed.predict("size,sex\n1,m\n2,f\n3,m\n")
    assert rows == [{"double": None, "all": [None, None, None]}] * 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "nothing on standard input"),
        (b" \r\n\t\n", "nothing on standard input"),
        (b"size,sex\n", "the input has no rows"),
        (b"[]", "the input has no rows"),
        (b"size;sex\n1;m\n", "missing columns: size, sex (found: 'size;sex')"),
        (b"size\n1\n", "missing columns: sex (found: 'size')"),
        (b"size,size,sex\n1,1,m\n", "the header names 'size' twice"),
        (b"size,sex\n1,m\n2\n", "row 2 has 1 cells, the header has 2"),
        (b"size,sex\n1,m\n2,f,3\n", "row 2 has 3 cells, the header has 2"),
        (b"size,sex\n1,m\nNA,f\n", "row 2, column 'size': 'NA' is not a number; a blank cell"),
        (b"size,sex\nnan,m\n", "row 1, column 'size': 'nan' is not a number"),
        (b"size,sex\ninf,m\n", "row 1, column 'size': 'inf' is not a number"),
        (b"size,sex\n1_0,m\n", "row 1, column 'size': '1_0' is not a number"),
        (b'size,sex\n"1,5",m\n', "row 1, column 'size': '1,5' is not a number"),
        (b"size,sex\n1e999,m\n", "row 1, column 'size': inf is not a finite number"),
        (b"size,sex\n" + b"9" * 5000 + b",m\n", "row 1, column 'size': inf is not a finite"),
        (b"size,sex\n" + b"9" * 400 + b",m\n", "is too large for FP64"),
        (b"size,sex\n1,m\n2,\n", "row 2, column 'sex': is missing, and the model takes no"),
        (b'size,sex\n1,"m\n', "not CSV: unexpected end of data"),
        (b"size,sex\n1,m\n2,\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
        ("size,sex\n1,m\n".encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
        (b'[{"size": 1, "sex": "m"},', "line 1, character 26: not JSON"),
        (b'[{"size": 1, "sex": "m"}, 5]', "row 2 is 5, not an object of columns"),
        (b'[{"size": 1, "sex": "m"}, {"size": 1}]', "row 2, column 'sex': the row does not have"),
        (b'{"size": 1, "sex": "m"}\n[1]', "row 2 is [1], not an object"),
        (b'[{"size": "1", "sex": "m"}]', "row 1, column 'size': '1' is not a number"),
        (b'[{"size": true, "sex": "m"}]', "row 1, column 'size': True is not a number"),
        (b'[{"size": NaN, "sex": "m"}]', "row 1, column 'size': nan is not a finite number"),
        (b'[{"size": -Infinity, "sex": "m"}]', "column 'size': -inf is not a finite number"),
        (b'[{"size": [1], "sex": "m"}]', "row 1, column 'size': [1] is not a number"),
        (b'[{"size": 1, "sex": 2}]', "row 1, column 'sex': 2 is not text"),
        (b'[{"size": 1, "sex": "\\ud800"}]', "row 1, column 'sex': 'utf-8' codec can't encode"),
        (b'{"size": [1, 2], "sex": ["m"]}', "'size' has 2 rows, 'sex' has 1 rows"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_hostile_input_is_refused_in_one_line(sealed: Sealed, given: bytes, message: str) -> None:
    code, out, err = sealed.run("predict", given=given)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_json_can_be_forced(sealed: Sealed) -> None:
    code, _, err = sealed.run("predict", "--from", "json", given="size,sex\n1,m\n")
    assert code == 2
    assert "not JSON" in err


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("Broken", 1, "the model failed on these rows: RuntimeError: no such penguin ("),
        ("Leaver", 1, "the model failed on these rows: SystemExit: leaving ("),
        ("Unknown", 1, "the model does not load: KeyError: 'Unknown' ("),
        ("Short", 2, "predict returned 1 values as 'double' for 2 rows"),
    ],
)
def test_a_model_that_fails_is_told_in_one_line(
    sealed: Sealed, kind: str, code: int, message: str
) -> None:
    sealed.write(kind=kind)
    found, out, err = sealed.run("predict", given="size,sex\n1,m\n2,f\n")
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_a_reader_that_leaves_early_is_no_error(sealed: Sealed) -> None:
    process = sealed.start("predict")
    assert process.stdout
    assert process.stdin
    assert process.stderr
    process.stdout.close()
    process.stdin.write(b"size,sex\n" + b"1,m\n" * 20_000)
    process.stdin.close()
    assert process.wait(timeout=60) == 141
    assert b"error" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="images are Linux: so are their signals")
def test_a_stop_signal_ends_it_at_once(sealed: Sealed) -> None:
    sealed.write(kind="Sleeper")
    with sealed.start("predict") as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(b"size,sex\n1,m\n")
        process.stdin.close()
        assert process.stderr.readline() == b"asleep\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM


# --- selftest


def test_selftest_passes_on_what_was_recorded(sealed: Sealed) -> None:
    code, report = sealed.selftest()
    assert code == 0
    assert set(report["seconds"]) == {"load", "predict", "serve"}
    assert report == {
        "format": 1,
        "status": "passed",
        "examples": 3,
        "outputs": [
            {
                "name": name,
                "compared": 3,
                "mismatched": 0,
                "largest_difference": 0.0,
                "first_mismatch": None,
            }
            for name in ("double", "label")
        ],
        "seconds": report["seconds"],
        "refused": 13,
        "error": None,
    }


def test_selftest_without_examples_loads_the_model(sealed: Sealed) -> None:
    sealed.examples = None
    sealed.write(kind="Doubler")
    code, report = sealed.selftest()
    assert (code, report["status"], report["error"]) == (0, "no-examples", None)
    sealed.write(kind="Unknown")
    code, report = sealed.selftest()
    assert (code, report["status"], report["error"]["stage"]) == (2, "error", "load")


def test_selftest_fails_on_one_changed_prediction(sealed: Sealed) -> None:
    assert sealed.examples
    sealed.examples["outputs"]["double"][2] = 6.25
    sealed.write(kind="Doubler")
    code, report = sealed.selftest()
    assert (code, report["status"]) == (1, "failed")
    assert report["outputs"][0] == {
        "name": "double",
        "compared": 3,
        "mismatched": 1,
        "largest_difference": 0.25,
        "first_mismatch": {"row": 3, "expected": 6.25, "got": 6.0},
    }
    assert report["outputs"][1]["mismatched"] == 0


def test_selftest_fails_on_a_missing_output(sealed: Sealed) -> None:
    sealed.write(kind="Other")
    code, report = sealed.selftest()
    assert (code, report["status"]) == (1, "failed")
    assert report["error"]["message"] == "predict gives no double, label; it gives other"
    assert report["outputs"][1]["first_mismatch"] == {"row": 1, "expected": "M", "got": None}


def test_selftest_finds_one_changed_byte_of_the_model(sealed: Sealed) -> None:
    sealed.model.write_bytes(sealed.model.read_bytes() + b" ")
    code, report = sealed.selftest()
    assert (code, report["status"], report["error"]["stage"]) == (2, "error", "load")
    assert sealed.image["model"]["digest"] in report["error"]["message"]


def test_selftest_refuses_the_examples_of_another_model(sealed: Sealed) -> None:
    path = sealed.folder / "examples.json"
    path.write_text(path.read_text().replace('"model": "sha256:', '"model": "sha256:0'))
    code, report = sealed.selftest()
    assert (code, report["status"]) == (2, "error")
    assert report["error"]["message"].startswith("the examples were recorded with the model")


@pytest.mark.parametrize(
    ("kind", "stage", "error"),
    [
        ("Broken", "predict", "RuntimeError"),
        ("Leaver", "predict", "SystemExit"),
        ("Short", "predict", "InputError"),
        ("Unknown", "load", "KeyError"),
    ],
)
def test_selftest_reports_the_stage_that_fails(
    sealed: Sealed, kind: str, stage: str, error: str
) -> None:
    sealed.write(kind=kind)
    code, report = sealed.selftest()
    assert (code, report["status"]) == (2, "error")
    assert (report["error"]["stage"], report["error"]["type"]) == (stage, error)


@pytest.mark.parametrize(
    ("predictor", "error", "message"),
    [
        ("absent:load", "ModuleNotFoundError", "No module named 'absent'"),
        ("doubler:absent", "AttributeError", "has no attribute 'absent'"),
        ("doubler:load_nothing", "InputError", "returned a value of type object, which has no"),
        (None, "InputError", "model.json is no model of XGBoost"),
    ],
)
def test_selftest_reports_a_predictor_that_does_not_load(
    sealed: Sealed, predictor: str | None, error: str, message: str
) -> None:
    sealed.image["predictor"] = predictor
    sealed.write(kind="Doubler")
    code, report = sealed.selftest()
    assert (code, report["error"]["type"]) == (2, error)
    assert message in report["error"]["message"]


def test_selftest_tells_a_person_the_same(sealed: Sealed) -> None:
    code, out, _ = sealed.run("selftest")
    assert code == 0
    assert "double: 3 of 3 agree, largest difference 0" in out
    assert out.endswith("passed\n")


def _drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda examples: examples.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("tolerance"), "the key 'tolerance' is missing"),
        (lambda e: e.update(format=2), "not of format 1"),
        (lambda e: e["data"].update(rows=4), "size is not a list of 4 rows"),
        (lambda e: e["inputs"].pop("sex"), "not those of the signature"),
        (lambda e: e["inputs"]["size"].append(1.0), "size is not a list of 3 rows"),
        (lambda e: e["inputs"].update(size=["a", 1, 2]), "row 1, column 'size': 'a' is not a"),
        (lambda e: e["tolerance"].update(rtol=-1), "rtol is from 0"),
        (lambda e: e["tolerance"].update(atol="x"), "could not convert string to float"),
        (lambda e: e["signature"].update(inputs=[]), "inputs: nothing is recorded"),
        (lambda e: e["signature"]["outputs"][0].update(datatype="FP65"), "'FP65' is none of"),
        (lambda e: e["signature"]["outputs"][0].update(shape=[3]), "the first dimension"),
    ],
)
def test_examples_that_contradict_themselves_are_refused(
    sealed: Sealed, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    sealed.examples = json.loads(json.dumps(sealed.examples))
    assert sealed.examples
    change(sealed.examples)
    sealed.write(kind="Doubler")
    code, report = sealed.selftest()
    assert (code, report["status"]) == (2, "error")
    assert message in report["error"]["message"]


# --- the formats, for any value

# A busy machine is no counterexample.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text().filter(str.strip)
COLUMNS = {
    "number": (Tensor("number", "FP64", nullable=True), st.none() | NUMBERS),
    "whole": (Tensor("whole", "INT64"), st.integers(-(2**63), 2**63 - 1)),
    "text": (Tensor("text", "BYTES", nullable=True), st.none() | TEXT),
    "truth": (Tensor("truth", "BOOL"), st.booleans()),
    "array": (
        Tensor("array", "FP64", (-1, -1, 2)),
        st.lists(st.tuples(NUMBERS, NUMBERS).map(list), min_size=1, max_size=3),
    ),
}


@st.composite
def tables_of(draw: st.DrawFn) -> tuple[list[Tensor], facts.Columns]:
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True))
    rows = draw(st.integers(1, 5))
    columns = {
        name: draw(st.lists(COLUMNS[name][1], min_size=rows, max_size=rows)) for name in names
    }
    return [COLUMNS[name][0] for name in names], columns


@unhurried
@given(tables_of())
def test_a_written_table_reads_back_the_same(table: tuple[list[Tensor], facts.Columns]) -> None:
    signature, columns = table
    for target in ("jsonl", "csv"):
        data = "".join(tables.write(columns, target)).encode()
        source = "json" if target == "jsonl" else "csv"
        assert tables.read(data, signature, source) == (columns, [])
    assert tables.read(json.dumps(columns).encode(), signature) == (columns, [])


@unhurried
@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for signature in ([], [COLUMNS["number"][0]]):
        try:
            columns, _ = tables.read(data, signature)
        except InputError as wrong:
            message = str(wrong)
        else:
            message = ""
            assert len({len(values) for values in columns.values()}) == 1
        assert "\n" not in message


def test_columns_nobody_described_are_numbers_where_all_cells_are() -> None:
    columns, _ = tables.read(b"a,b,c\n1,x,\n,2,\n2.5,,\n", [])
    assert columns == {"a": [1.0, None, 2.5], "b": ["x", "2", None], "c": [None, None, None]}


@pytest.mark.parametrize(
    ("datatype", "cell", "fits"),
    [
        ("INT8", "127", True),
        ("INT8", "128", False),
        ("UINT8", "-1", False),
        ("INT64", "3.0", True),
        ("INT64", "3.5", False),
        ("UINT64", str(2**64 - 1), True),
        ("FP32", "3.4e38", True),
        ("FP32", "3.5e38", False),
        ("BOOL", "True", True),
        ("BOOL", "1", False),
        ("BYTES", "1", True),
    ],
)
def test_each_datatype_has_its_limits(datatype: str, cell: str, fits: bool) -> None:
    read: Callable[[], object] = lambda: tables.read(  # noqa: E731
        f"x\n{cell}\n".encode(), [Tensor("x", datatype)]
    )
    if fits:
        read()
    else:
        with pytest.raises(InputError, match=r"^row 1, column 'x': "):
            read()


def test_a_row_of_arrays_is_not_taken_for_columns() -> None:
    signature = [Tensor("v", "FP64", (-1, 2))]
    assert tables.read(b'{"v": [1, 2]}', signature)[0] == {"v": [[1.0, 2.0]]}
    assert tables.read(b'{"v": [[1, 2], [3, 4]]}', signature)[0] == {"v": [[1.0, 2.0], [3.0, 4.0]]}
    with pytest.raises(InputError, match=r"\[1, 2, 3\] is not a list of 2 items"):
        tables.read(b'{"v": [1, 2, 3]}', signature)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(),
    lambda items: st.lists(items, max_size=3),
    max_leaves=6,
)


@unhurried
@given(st.lists(VALUES))
def test_everything_agrees_with_itself_exactly(values: list[Any]) -> None:
    result = compare.compare("x", values, values, rtol=0, atol=0)
    assert result == compare.Comparison("x", len(values), 0, 0.0, None)


@unhurried
@given(st.lists(VALUES), st.lists(VALUES))
def test_without_tolerance_only_equal_values_agree(one: list[Any], other: list[Any]) -> None:
    result = compare.compare("x", one, other, rtol=0, atol=0)
    same = len(one) == len(other) and all(map(_equal, one, other))
    assert (result.mismatched == 0) == same
    assert (result.first_mismatch is None) == same
    json.loads(json.dumps(result.largest_difference, allow_nan=False))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    numbers = {type(one), type(other)} <= {int, float}
    return one == other and (numbers or type(one) is type(other))


@unhurried
@given(NUMBERS, st.floats(0, 0.5), st.floats(0, 1e6), NUMBERS)
def test_the_tolerance_is_the_stated_formula(
    expected: float, rtol: float, atol: float, got: float
) -> None:
    result = compare.compare("x", [expected], [got], rtol=rtol, atol=atol)
    difference = abs(got - expected)
    assert (result.mismatched == 0) == (difference <= atol + rtol * abs(expected))
    assert result.largest_difference == min(difference, sys.float_info.max)


@pytest.mark.parametrize(
    ("expected", "got"),
    [(1, True), ("1", 1), (None, 0.0), ([1.0], 1.0), ([1.0], [1.0, 2.0]), ("a", "b"), (1, 2)],
)
def test_a_wide_tolerance_forgives_only_numbers(expected: Any, got: Any) -> None:
    for one, other in ((expected, got), (got, expected)):
        result = compare.compare("x", [0.0, one], [0.0, other], rtol=0.9, atol=1e9)
        assert result.mismatched == 1
        assert result.first_mismatch == {"row": 2, "expected": one, "got": other}


def test_the_largest_difference_is_told_even_where_all_agrees() -> None:
    result = compare.compare(
        "x", [[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.5], [3.0, 4.25]], rtol=0.5, atol=0
    )
    assert (result.mismatched, result.largest_difference) == (0, 0.5)
    assert math.isfinite(result.largest_difference)


# --- what the host side uses


def test_the_files_are_all_of_the_package_and_named_by_one_digest(tmp_path: Path) -> None:
    files = runtime.files()
    assert list(files) == sorted(files)
    assert "__main__.py" in dict(files)
    for path, data in files:
        (tmp_path / path).write_bytes(data)
    assert runtime.digest() == facts.model_digest(tmp_path)
    (tmp_path / files[0][0]).write_bytes(b"changed")
    assert runtime.digest() != facts.model_digest(tmp_path)


def test_starting_imports_nothing_but_the_standard_library(tmp_path: Path) -> None:
    package = tmp_path / "packager_runtime"
    package.mkdir()
    for path, data in runtime.files():
        (package / path).write_bytes(data)
    # -I and -S: no site-packages, so an import of anything else would fail.
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import packager_runtime.__main__"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
