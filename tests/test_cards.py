"""Claims about cards: numbers come from metrics.json, and what is missing is said with its line."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, Tiny, git, run_packager, write_tiny
from cookiecutter.main import cookiecutter
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from packager import cards, claims, markers, metrics, project
from packager.cards import Report
from packager.claims import MOST_CARD
from packager.errors import HostError, UsageError
from packager.layers import tree
from packager.markers import EMPTY, plain
from packager.outputs.engine import Engine
from packager.questions import DATASHEET, MODEL_CARD, Outline

MODEL = f"sha256:{hashlib.sha256(b'2.5' + bytes([10])).hexdigest()}"
DATA = f"sha256:{hashlib.sha256(b'data').hexdigest()}"
OTHER = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
METRICS: dict[str, Any] = {
    "model": MODEL,
    "data": DATA,
    "optimise": "accuracy",
    "rows": {"training": 274, "held_out": 68},
    "held_out": {"accuracy": 0.987654321, "log_loss": 0.00001},
    "cross_validation": {
        "metrics": {"accuracy": {"mean": 0.97, "std": 0.01, "min": 0.95, "max": 1.0}}
    },
    "baselines": {
        "most_frequent": {"accuracy": 0.44},
        "published": {"accuracy": 0.9, "source": "an article"},
    },
    "groups": {"island": {"Biscoe": {"rows": 33, "accuracy": 1.0}, "a|b": {"rows": 1}}},
    "thresholds": [{"metric": "accuracy", "min": 0.9, "passed": True}],
    "nothing": None,
}
FRONT = f"""\
---
# a comment stays
license: mit
model-index:
  - results:
      - metrics:
          - value: {EMPTY}  # metrics: held_out.accuracy
---
"""


def written(outline: Outline) -> str:
    """Answer every question of a card."""
    lines = ["# A card", f"<!-- about: {DATA} -->"]
    for title, questions in outline.sections.items():
        lines += [f"## {title}", "It is so.", *(f"### {one}\n\nYes." for one in questions)]
    return "\n\n".join(lines) + "\n"


@dataclass
class Study:
    """A repository with a model, its metrics and both cards."""

    root: Path

    def read(self, name: str = "MODEL_CARD.md") -> str:
        return (self.root / name).read_bytes().decode()

    def write(self, text: str, name: str = "MODEL_CARD.md") -> None:
        (self.root / name).write_bytes(text.encode())

    def measure(self, **changes: Any) -> None:
        path = self.root / "models/metrics.json"
        path.write_text(json.dumps({**METRICS, **changes}))

    def fill(self) -> Report:
        return cards.fill(project.load(self.root))

    def check(self) -> Report:
        return cards.check(project.load(self.root))


def marked(path: str, value: str = EMPTY) -> str:
    return f"<!-- metrics: {path} -->{value}<!-- /metrics -->"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = Study(tmp_path / "study")
    write_tiny(made.root)
    made.measure()
    details = f"- Digest: {marked('model')}\n- Rows: {marked('rows.training')}\n\n{marked('table')}"
    body = written(MODEL_CARD).replace("## Model Details\n\nIt is so.", f"## Details\n\n{details}")
    made.write(FRONT + body.replace("## Details", "## Model Details"))
    made.write(written(DATASHEET), "DATASHEET.md")
    return made


def told(report: Report) -> list[str]:
    return [f"{one.where}: {one.what}" for one in report.findings]


# --- Filling


def test_numbers_come_from_metrics_and_nothing_else_changes(study: Study) -> None:
    before = study.read()
    report = study.fill()
    assert (report.findings, report.changed) == ([], ["MODEL_CARD.md"])
    assert report.filled == {"MODEL_CARD.md": 4, "DATASHEET.md": 0}
    text = study.read()
    assert f"- Digest: {marked('model', MODEL)}\n- Rows: {marked('rows.training', '274')}" in text
    assert "          - value: 0.9877  # metrics: held_out.accuracy\n" in text
    assert yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"][0]["metrics"] == [
        {"value": 0.9877}
    ]
    assert emptied(text) == before


def emptied(text: str) -> str:
    """Take all values out again."""
    for slot in reversed(markers.read(text).slots):
        text = text[: slot.start] + EMPTY + text[slot.end :]
    return text


def test_readers_see_a_table(study: Study) -> None:
    study.fill()
    html = MarkdownIt("commonmark").enable("table").render(study.read())
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", html)
    heads = ["held out", "cross-validation", "baseline: most frequent", "baseline: published"]
    assert cells == [
        *("metric", *heads),
        *("accuracy", "0.9877", "0.97 ± 0.01 (0.95 to 1.0)", "0.44", "0.9"),
        *("log loss", "1.0e-05", "", "", ""),
    ]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("optimise", "accuracy"),
        ("nothing", EMPTY),
        ("thresholds", "| accuracy | 0.9 | yes |"),
        ("groups", "| island | a\\|b | 1 |  |"),
        ("groups.island.Biscoe", "| 33 | 1.0 |"),
    ],
)
def test_a_path_leads_to_a_value_or_a_table(path: str, shown: str) -> None:
    assert shown in metrics.shown(METRICS, path, front=False)


def test_the_check_passes_after_filling_and_not_before(study: Study) -> None:
    assert any("is not filled in" in one for one in told(study.check()))
    study.fill()
    assert told(study.check()) == []


def test_filling_again_writes_nothing(study: Study) -> None:
    study.fill()
    before = (study.root / "MODEL_CARD.md").stat()
    assert study.fill().changed == []
    assert (study.root / "MODEL_CARD.md").stat() == before


def test_windows_line_ends_and_a_byte_order_mark_stay(study: Study) -> None:
    study.write("\ufeff" + study.read().replace("\n", "\r\n"))
    study.fill()
    text = study.read()
    assert text.startswith("\ufeff---\r\n")
    assert text.count("\n") == text.count("\r\n")
    assert told(study.check()) == []


def test_a_file_keeps_its_mode_and_a_full_folder_no_rest(study: Study) -> None:
    (study.root / "MODEL_CARD.md").chmod(0o640)
    before = sorted(study.root.iterdir())
    study.fill()
    assert (study.root / "MODEL_CARD.md").stat().st_mode & 0o777 == 0o640
    assert sorted(study.root.iterdir()) == before


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=12)
)
KEYS = st.text(max_size=6)
NUMBERS = st.dictionaries(
    KEYS, st.one_of(LEAVES, st.dictionaries(KEYS, LEAVES, max_size=3)), max_size=4
)
PROSE = st.lists(
    st.sampled_from(
        [
            *("word", "\n", "\r\n", " ", "é", "# h", "## h\n", "`", "```", "~~~", "|", EMPTY, ">"),
            *("---\n", "<!-- a comment -->", "license: x", "\\", "*", "TODO"),
        ]
    ),
    max_size=12,
).map("".join)
# An opened block of code hides what follows it, and says so.
OPEN = st.sampled_from(["text ", "| ", "- ", "", "\n\n"])


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    found = {"values": draw(NUMBERS), "table": 1}
    paths = [f"values.{key}" for key in found["values"] if is_path(key)]
    parts = [draw(PROSE)]
    for path in draw(st.lists(st.sampled_from(paths), max_size=4)) if paths else []:
        parts += [draw(OPEN), marked(path), draw(PROSE)]
    return "".join(parts), found


def is_path(key: str) -> bool:
    plain_key = bool(key) and key == " ".join(key.split()) and key.isprintable()
    return plain_key and "--" not in key and not key.endswith("-")


def put_in(text: str, found: dict[str, Any]) -> str:
    """Fill in what can be, with the functions that `packager cards` uses, and check it."""
    facts = cards._Facts("metrics.json", found)
    filled, unknown = cards._filled(card_of(text), facts)
    if unknown:
        return text
    assert list(cards._disagreeing(card_of(filled), facts)) == []
    return filled


def card_of(text: str) -> cards._Card:
    return cards._Card("x", Path("x"), markers.read(text), MODEL_CARD)


@given(texts())
def test_filling_any_text_is_idempotent_and_leaves_all_else_alone(
    made: tuple[str, dict[str, Any]],
) -> None:
    text, found = made
    once = put_in(text, found)
    assert put_in(once, found) == once
    slots, filled = markers.read(text).slots, markers.read(once).slots
    assert [slot.path for slot in filled] == [slot.path for slot in slots]
    assert around(once) == around(text)


def around(text: str) -> list[str]:
    """List what stands between the values."""
    slots = markers.read(text).slots
    edges = [0, *(edge for slot in slots for edge in (slot.start, slot.end)), len(text)]
    return [text[start:end] for start, end in list(pairwise(edges))[::2]]


@given(st.text(max_size=300) | PROSE)
def test_any_text_can_be_read(text: str) -> None:
    found = markers.read(text)
    assert len(found.prose) == len(text)
    assert len(list(found.lines())) == text.count("\n") + 1


@given(LEAVES)
def test_a_value_of_the_front_matter_is_read_back_as_yaml(value: object) -> None:
    text = metrics.shown({"a": value}, "a", front=True)
    read = yaml.safe_load(f"value: {text}  # metrics: a\n")["value"]
    match value:
        case bool() | None | int():
            assert read == value
        case float():
            assert read == (pytest.approx(value, rel=1e-3) if abs(value) < 1e300 else read)
            assert isinstance(read, float) or read == EMPTY
        case _:
            assert isinstance(read, str)


# --- Finding


FINDINGS: dict[str, tuple[str, str, str, str]] = {
    "placeholder": ("MODEL_CARD.md", "## Factors\n\nIt is so.", "## Factors\n\nTODO", "TODO"),
    "placeholder in front": ("MODEL_CARD.md", "license: mit", "license: TODO", "TODO is left"),
    "number": ("MODEL_CARD.md", "-->274<", "-->275<", "rows.training is 275 here and 274 in"),
    "front number": ("MODEL_CARD.md", "value: 0.9877", "value: 0.99", "held_out.accuracy is 0.99"),
    "table": ("MODEL_CARD.md", "| 0.44 |", "| 0.45 |", "the table of table is not that of"),
    "older": ("MODEL_CARD.md", f"-->{MODEL}", f"-->{OTHER}", "is older than the model"),
    "no model": ("MODEL_CARD.md", marked("model", MODEL), MODEL, "does not say which model"),
    "other data": ("MODEL_CARD.md", DATA, OTHER, "about other data"),
    "other data in sheet": ("DATASHEET.md", DATA, OTHER, "about other data"),
    "no data yet": ("DATASHEET.md", f"about: {DATA}", "about: TODO", "does not say yet which data"),
    "no data": ("DATASHEET.md", f"<!-- about: {DATA} -->", "", "does not say which data"),
    "licence": ("MODEL_CARD.md", "license: mit\n", "", "does not name the licence"),
    "empty licence": ("MODEL_CARD.md", "license: mit", "license: ''  # x", "not name the licence"),
    "no front": ("MODEL_CARD.md", "---\n# a", "\n---\n# a", "does not name the licence"),
    "typed": ("MODEL_CARD.md", "  # metrics: held_out.accuracy", "", "that somebody typed"),
    "section": ("MODEL_CARD.md", "## Factors\n", "", "the section 'Factors' is missing"),
    "intended use": (
        *("MODEL_CARD.md", "## Intended Use\n\nIt is so.", "## Intended Use\n\nNot answered."),
        "'Intended Use' is not answered",
    ),
    "limits": (
        *("MODEL_CARD.md", "Recommendations\n\nIt is so.", "Recommendations\n\n<!-- So. -->"),
        "'Caveats and Recommendations' is not answered",
    ),
    "source": (
        *("MODEL_CARD.md", "## Training Data\n\nIt is so.", "## Training Data\n- A: Not answered."),
        "'Training Data' is not answered",
    ),
    "only a dash": (
        *("MODEL_CARD.md", "## Training Data\n\nIt is so.", "## Training Data\n\n-"),
        "'Training Data' is not answered",
    ),
    "only a fence": (
        *("MODEL_CARD.md", "## Intended Use\n\nIt is so.", "## Intended Use\n\n```\n```"),
        "'Intended Use' is not answered",
    ),
    "source of data": (
        *("DATASHEET.md", "value come from?\n\nYes.", "value come from?\n\n*Not answered.*"),
        "'Where does each value come from?' is not answered",
    ),
    "licence of data": (
        *("DATASHEET.md", "licence or terms?\n\nYes.", "licence or terms?\n\n"),
        "'Under which licence or terms?' is not answered",
    ),
    "unknown": ("MODEL_CARD.md", "metrics: rows.training", "metrics: rows.trainig", "rows.trainig"),
    "unclosed": ("MODEL_CARD.md", "274<!-- /metrics -->", "274", "rows.training has no end"),
    "unopened": ("MODEL_CARD.md", "<!-- metrics: rows.training -->", "", "ends nothing"),
    "comment": ("DATASHEET.md", "add to them?\n\nYes.", "add to them?\n\n<!-- Yes.", "no end"),
    "almost": ("MODEL_CARD.md", "metrics: rows.training", "Metric: rows", "is almost a marker"),
    "prose": (
        "MODEL_CARD.md",
        "-->274<",
        "-->274\nrows, all\ntold<",
        "neither one line nor a table",
    ),
    "code": (
        *("MODEL_CARD.md", f"- Rows: {marked('rows.training', '274')}"),
        f"```\n{marked('rows.training', '274')}\n```",
        "a marker stands in a block of code",
    ),
    "front end": ("MODEL_CARD.md", "---\n# A card", "# A card", "the front matter has no end"),
    "front line": ("MODEL_CARD.md", "- value: 0.9877", "- 0.9877", "is no line of the form"),
    "front table": ("MODEL_CARD.md", "# metrics: held_out.accuracy", "# metrics: rows", "rows"),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_what_is_wrong_is_found_and_nothing_else(name: str, study: Study) -> None:
    study.fill()
    assert told(study.check()) == []
    file, old, new, expected = FINDINGS[name]
    text = study.read(file)
    assert old in text
    study.write(text.replace(old, new, 1), file)
    found = study.check()
    assert expected in " ".join(told(found)), told(found)
    assert all(one.file == file and one.hint for one in found.findings)
    assert len(found.findings) <= 3, told(found)


@pytest.mark.parametrize("question", [q for qs in DATASHEET.sections.values() for q in qs])
def test_every_question_of_the_datasheet_must_stand_there(question: str, study: Study) -> None:
    study.fill()
    study.write(study.read("DATASHEET.md").replace(f"### {question}", ""), "DATASHEET.md")
    assert [one.what for one in study.check().findings if question in one.what]


def test_the_sections_and_questions_are_as_many_as_their_authors_have() -> None:
    assert len(MODEL_CARD.sections) == 9
    assert [len(one) for one in DATASHEET.sections.values()] == [3, 16, 12, 3, 5, 6, 7]
    for outline in (MODEL_CARD, DATASHEET):
        there = {*outline.sections, *(q for qs in outline.sections.values() for q in qs)}
        assert set(outline.answered) <= there
        assert len({plain(one) for one in there}) == len(there)


def test_each_finding_has_its_line(study: Study) -> None:
    study.fill()
    text = study.read()
    study.write(text.replace("-->274<", "-->1<").replace("## Factors\n\nIt", "## Factors\n\nTODO"))
    lines = study.read().split("\n")
    found = study.check().findings
    assert [("-->1<" in lines[one.line - 1], "TODO" in lines[one.line - 1]) for one in found] == [
        (True, False),
        (False, True),
    ]


def test_what_nobody_must_answer_is_listed_and_does_not_fail(study: Study) -> None:
    study.fill()
    text = study.read().replace("## Factors\n\nIt is so.", "## Factors\n\nNot answered.")
    study.write(text.replace("- Rows", "- **Contact:** not answered\n- Rows"))
    sheet = study.read("DATASHEET.md").replace("What is one row?\n\nYes.", "What is one row?\n\n")
    study.write(sheet, "DATASHEET.md")
    report = study.check()
    assert report.findings == []
    assert [one.what for one in report.not_answered] == [
        "What is one row?",
        "Model Details: Contact",
        "Factors",
    ]
    assert all(
        f"{one.where}: {one.what}" in cards.render(report, checked=True)
        for one in report.not_answered
    )


def test_headings_may_be_numbered_or_emphasised(study: Study) -> None:
    study.fill()
    study.write(study.read().replace("## Factors", "## 3. **factors** ##"))
    assert told(study.check()) == []


# --- metrics.json and the model


def test_without_metrics_somebody_has_to_train_first(study: Study) -> None:
    (study.root / "models/metrics.json").unlink()
    for report in (study.check(), study.fill()):
        [finding] = report.findings
        assert (finding.file, finding.what) == ("models/metrics.json", "does not exist")
        assert "Train first" in finding.hint


def test_a_datasheet_alone_needs_no_metrics(study: Study) -> None:
    (study.root / "models/metrics.json").unlink()
    (study.root / "MODEL_CARD.md").unlink()
    assert told(study.check()) == []
    study.write(
        study.read("DATASHEET.md").replace("Yes.", f"Rows: {marked('rows')}", 1), "DATASHEET.md"
    )
    assert told(study.check()) == ["models/metrics.json: does not exist"]


def test_metrics_of_another_model_fill_nothing(study: Study) -> None:
    study.measure(model=OTHER)
    before = study.read()
    assert "is about another model than models/model.txt" in told(study.fill())[0]
    assert study.read() == before
    assert any("is about another model" in one for one in told(study.check()))


def test_a_model_that_was_trained_again_makes_the_card_old(study: Study) -> None:
    study.fill()
    (study.root / "models/model.txt").write_text("2.6\n")
    study.measure(model=f"sha256:{hashlib.sha256(b'2.6' + bytes([10])).hexdigest()}")
    [finding] = told(study.check())
    assert "is older than the model" in finding
    study.fill()
    assert told(study.check()) == []


def test_a_model_that_is_not_there_is_said_to_be_missing(study: Study) -> None:
    study.fill()
    (study.root / "models/model.txt").unlink()
    assert any("models/model.txt does not exist" in one for one in told(study.check()))


@pytest.mark.parametrize("key", ["model", "data"])
@pytest.mark.parametrize("value", [None, "sha256:x", 3])
def test_metrics_have_to_say_what_they_are_about(key: str, value: object, study: Study) -> None:
    study.measure(**{key: value})
    assert f"does not say which {key} it is about" in " ".join(told(study.check()))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"a": NaN}', b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"],
    ids=["empty", "half", "list", "nan", "binary", "deep", "long number"],
)
def test_metrics_that_are_damaged_are_one_message(data: bytes, study: Study) -> None:
    (study.root / "models/metrics.json").write_bytes(data)
    with pytest.raises(UsageError, match=r"models/metrics\.json: is no file of metrics"):
        study.check()


def test_metrics_that_are_a_pipe_are_one_message(study: Study) -> None:
    (study.root / "models/metrics.json").unlink()
    os.mkfifo(study.root / "models/metrics.json")
    with pytest.raises(UsageError, match="it is no file"):
        study.check()


def test_metrics_that_are_too_big_are_one_message(study: Study) -> None:
    study.measure(text="x" * (5 << 20))
    with pytest.raises(UsageError, match="more than 4194304 bytes"):
        study.check()


# --- Cards that are none


def test_a_repository_without_cards_is_told_what_to_write(study: Study) -> None:
    for name in ("MODEL_CARD.md", "DATASHEET.md"):
        (study.root / name).unlink()
    with pytest.raises(UsageError, match=r"there is no MODEL_CARD\.md and no DATASHEET\.md"):
        study.check()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe", "no text in UTF-8"),
        (b"# A\n\x00", r"MODEL_CARD\.md:2: holds the control character '\\x00'"),
        (b"# A\n\n\x1b[2J", r"MODEL_CARD\.md:3: holds the control character"),
        (b"x" * (MOST_CARD + 1), "has more than"),
    ],
    ids=["binary", "nul", "escape", "huge"],
)
def test_what_is_no_text_is_one_message(data: bytes, message: str, study: Study) -> None:
    (study.root / "MODEL_CARD.md").write_bytes(data)
    for verb in (cards.fill, cards.check):
        with pytest.raises(UsageError, match=message):
            verb(project.load(study.root))


def test_a_card_outside_the_repository_is_not_written(study: Study, tmp_path: Path) -> None:
    outside = tmp_path / "outside.md"
    (study.root / "MODEL_CARD.md").rename(outside)
    (study.root / "MODEL_CARD.md").symlink_to(outside)
    before = outside.read_bytes()
    with pytest.raises(UsageError, match="link out of the repository"):
        study.fill()
    assert outside.read_bytes() == before


def test_what_is_no_file_is_one_message(study: Study) -> None:
    (study.root / "MODEL_CARD.md").unlink()
    os.mkfifo(study.root / "MODEL_CARD.md")
    with pytest.raises(UsageError, match=r"MODEL_CARD\.md: is no file"):
        study.check()


def test_a_card_that_cannot_be_written_keeps_its_text(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = study.read()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match="No space left"):
        study.fill()
    assert study.read() == before


@pytest.mark.parametrize(
    "piece",
    ["<!-- ", "```\n", "~~~ \n", "# TODO\n", marked("x"), "\t" * 80, "<!-- /metrics -->", "---\n"],
)
def test_a_long_card_of_anything_is_read(piece: str, study: Study) -> None:
    study.write(FRONT + piece * ((MOST_CARD // 8) // len(piece.encode())))
    assert study.check().findings


# --- The command line


def test_the_command_fills_checks_and_says_so(study: Study, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = run_packager(study.root, tmp_path / "store", "cards", *words)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    before = study.read()
    code, out = run("--check")
    assert code == 1
    assert "MODEL_CARD.md:7: the value of held_out.accuracy is not filled in\n" in out
    assert "  packager cards fills it in.\n" in out
    assert study.read() == before
    code, out = run("--check", "--json")
    found = json.loads(out)
    assert (code, found["findings"][0]["file"], found["findings"][0]["line"]) == (
        *(1, "MODEL_CARD.md"),
        7,
    )
    assert run() == (0, "MODEL_CARD.md: 4 values, filled in\nDATASHEET.md: 0 values, all fresh\n")
    assert run("--check") == (
        *(0, "MODEL_CARD.md and DATASHEET.md: complete, and true to metrics.json.\n"),
    )
    study.write(marked("nowhere"))
    code, out = run()
    assert (code, out.splitlines()[-1]) == (1, "1 finding; nothing was written.")


def test_the_card_may_lie_elsewhere(study: Study) -> None:
    (study.root / "docs").mkdir()
    (study.root / "MODEL_CARD.md").rename(study.root / "docs/card.md")
    path = study.root / "pyproject.toml"
    path.write_text(path.read_text() + 'card = "docs/card.md"\n')
    assert study.fill().changed == ["docs/card.md"]
    (study.root / "docs/card.md").unlink()
    with pytest.raises(UsageError, match=r"docs/card\.md: is no file"):
        study.fill()


# --- The card in the image


@pytest.fixture
def carded(tiny: Tiny) -> Tiny:
    """The tiny project with a card, committed."""
    (tiny.root / "MODEL_CARD.md").write_text("# Tiny\n\nFor tests: é.\n")
    tiny.edit("pyproject.toml", 'examples = "', 'card = "MODEL_CARD.md"\nexamples = "')
    git(tiny.root, "add", "-A")
    git(tiny.root, "commit", "-qm", "A card")
    return tiny


def test_the_image_prints_its_card_and_names_it(carded: Tiny, engine: Engine) -> None:
    made = str(carded.built("-t", "tiny:carded", "--no-smoke")["id"])
    told_by = partial(engine.run_sealed, made, seconds=60, memory="1g", processes=64)
    card, facts = told_by(["info", "--card"]), told_by(["info", "--json"])
    engine.client.images.remove("tiny:carded")
    assert (card.exit_code, card.stdout.decode()) == (0, "# Tiny\n\nFor tests: é.\n")
    assert json.loads(facts.stdout)["card"] == "card.md"


def test_the_card_is_an_input_like_the_code(carded: Tiny, tmp_path: Path) -> None:
    def build(name: str) -> dict[str, object]:
        return carded.built("--no-load", "-o", str(tmp_path / name))

    first = build("first.tar")
    path = carded.root / "MODEL_CARD.md"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert build("as-git-stores-it.tar")["id"] == first["id"]
    path.write_bytes(path.read_bytes().replace(b"For tests", b"For nothing"))
    other = build("other.tar")
    assert other["id"] != first["id"]
    assert (first["dirty"], other["dirty"]) == (False, True)
    git(carded.root, "commit", "-qam", "Another card")
    words = (str(tmp_path / "first.tar"), "--json", "--report", str(tmp_path / "report.json"))
    run = carded.run("verify", *words)
    report = json.loads(run.stdout)
    assert (run.returncode, report["verdict"]) == (0, "reproduced")
    assert report["sources"]["commit"] == git(carded.root, "rev-parse", "HEAD^").strip()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "MODEL_CARD.md is no file"),
        (lambda path: path.write_bytes(b"\x1b[2J"), "control character"),
        (lambda path: path.write_bytes(b"\xff"), "no text in UTF-8"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "out of the repository"),
    ],
    ids=["missing", "control", "binary", "outside"],
)
def test_a_card_that_nobody_could_read_is_refused(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    root = tmp_path / "tiny"
    write_tiny(root)
    path = root / "MODEL_CARD.md"
    path.write_text("# Tiny\n")
    git(root, "init", "-q")
    loaded = replace(project.load(root), card=PurePosixPath(path.name))

    def read() -> str:
        return claims.card_text(tree.own_files(loaded).card, path.name)

    assert read() == "# Tiny\n"
    spoil(path)
    with pytest.raises(UsageError, match=message):
        read()


def test_a_build_without_the_card_that_is_named_is_one_message(
    carded: Tiny, tmp_path: Path
) -> None:
    git(carded.root, "rm", "-q", "--cached", "MODEL_CARD.md")
    (carded.root / ".gitignore").write_text("MODEL_CARD.md\n")
    run = carded.run("build", "--no-load", "-o", str(tmp_path / "image.tar"))
    assert (run.returncode, "Traceback" in run.stderr) == (2, False)
    assert "Files that .gitignore names are left out." in run.stderr


# --- The template's cards


FRAMEWORKS = [
    *(("scikit-learn", "skops"), ("xgboost", "onnx"), ("lightgbm", "skops")),
    *(("pytorch", "safetensors"), ("pytorch", "torch.export")),
]


def baked(folder: Path, **answers: str) -> Path:
    """Bake the template, without its hooks: only the files matter here."""
    config = folder / "config.yaml"
    config.write_text(f"cookiecutters_dir: {folder / 'c'}\nreplay_dir: {folder / 'r'}\n")
    made = cookiecutter(
        str(REPOSITORY),
        no_input=True,
        output_dir=str(folder / "baked"),
        config_file=str(config),
        accept_hooks=False,
        extra_context=answers,
    )
    return Path(made)


def trained(root: Path) -> Study:
    """Leave what training leaves, as far as cards read it."""
    settings = tomllib.loads((root / "experiment.toml").read_text())
    registry = tomllib.loads((root / "data/registry.toml").read_text())
    model = root / tomllib.loads((root / "pyproject.toml").read_text())["tool"]["packager"]["model"]
    model.parent.mkdir(exist_ok=True)
    model.write_bytes(b"2.5\n")
    names = {
        "classification": ["accuracy", "balanced_accuracy", "macro_f1", "log_loss"],
        "regression": ["mean_absolute_error", "root_mean_squared_error", "r2"],
    }[settings["task"]["kind"]]
    found = {
        **METRICS,
        "data": f"sha256:{registry[settings['data']['name']]['sha256']}",
        "held_out": dict.fromkeys(names, 0.5),
        "optimise": settings["evaluation"]["optimise"],
        "value": 0.5,
        "pipeline_tag": f"tabular-{settings['task']['kind']}",
        "size_bytes": 4,
        "leakage": {"duplicate_rows": 0},
    }
    (model.parent / "metrics.json").write_text(json.dumps(found))
    return Study(root)


def front_matter(text: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return read


@pytest.mark.parametrize(("framework", "export_format"), FRAMEWORKS)
def test_the_penguins_cards_are_complete_once_filled(
    framework: str, export_format: str, tmp_path: Path
) -> None:
    root = baked(tmp_path, framework=framework, export_format=export_format)
    [missing] = Study(root).check().findings
    assert missing.hint.startswith("Train first")
    study = trained(root)
    assert study.fill().findings == []
    assert told(study.check()) == []
    card = study.read()
    assert "It holds no pickle" in card
    front = front_matter(card)
    assert set(front) >= {
        *("license", "library_name", "pipeline_tag", "tags", "language", "datasets", "metrics"),
        "model-index",
    }
    [result] = front["model-index"][0]["results"]
    assert set(result) == {"task", "dataset", "metrics"}
    assert [one["value"] for one in result["metrics"]] == [0.5] * 4


def test_penguin_answers_are_refused_for_other_data(tmp_path: Path) -> None:
    study = trained(baked(tmp_path))
    study.fill()
    found = json.loads((study.root / "models/metrics.json").read_text())
    (study.root / "models/metrics.json").write_text(json.dumps({**found, "data": OTHER}))
    files = {one.file for one in study.check().findings if "about other data" in one.what}
    assert files == {"MODEL_CARD.md", "DATASHEET.md"}


def test_the_blank_cards_ask_for_what_must_be_answered(tmp_path: Path) -> None:
    study = trained(baked(tmp_path, example="blank"))
    assert study.fill().findings == []
    left = study.check()
    assert left.not_answered
    assert all("TODO" in one.what or "does not say yet" in one.what for one in left.findings)
    needed = {**MODEL_CARD.answered, **DATASHEET.answered}
    for title in needed:
        assert any(repr(title) in one.what for one in left.findings), title
    digest = json.loads((study.root / "models/metrics.json").read_text())["data"]
    for name in ("MODEL_CARD.md", "DATASHEET.md"):
        text = study.read(name).replace("about: TODO", f"about: {digest}")
        study.write(text.replace("TODO", "Made-up"), name)
    assert told(study.check()) == []


HOSTILE = {
    "project_name": 'Pin"gu\\ins <!-- metrics: x --> # é',
    "project_slug": "pinguins",
    "description": "---\u2019 `code` <!-- | * _ TO-DO: \\",
    "author_name": "Anna 'Öz' van der \"Berg\"",
    "author_surname": 'van der "Berg"',
    "author_email": "a+b@example.org",
}


@pytest.mark.parametrize("example", ["penguins", "blank"])
def test_hostile_answers_spoil_no_card(example: str, tmp_path: Path) -> None:
    study = trained(baked(tmp_path, example=example, **HOSTILE))
    assert study.fill().findings == []
    words = " ".join(told(study.check()))
    assert "marker" not in words
    assert "comment" not in words
    assert front_matter(study.read())["model-index"][0]["name"] == "pinguins"
    shown = MarkdownIt("commonmark").render(study.read())
    assert "&lt;!-- metrics: x --&gt;" in shown


@pytest.mark.parametrize(
    ("name", "surname", "expected"),
    [
        (
            *("Ludwig van der Berg", "van der Berg"),
            {"family-names": "van der Berg", "given-names": "Ludwig"},
        ),
        ("Nagy Anna", "Nagy", {"family-names": "Nagy", "given-names": "Anna"}),
        ("The Penguins authors", "", {"name": "The Penguins authors"}),
        ('"A" \\ é: #', "", {"name": '"A" \\ é: #'}),
    ],
)
def test_the_citation_keeps_a_surname_whole(
    name: str, surname: str, expected: dict[str, str], tmp_path: Path
) -> None:
    # Every key and value is one that the schema of CFF 1.2.0 allows.
    root = baked(tmp_path, author_name=name, author_surname=surname, license="MIT")
    assert yaml.safe_load((root / "CITATION.cff").read_text("utf-8")) == {
        "cff-version": "1.2.0",
        "message": "If you use this, please cite it as below.",
        "type": "software",
        "title": "Penguins",
        "abstract": "Predict the species of a penguin from its measurements",
        "authors": [expected],
        "license": "MIT",
    }


@pytest.mark.parametrize("example", ["penguins", "blank"])
def test_the_record_asks_everything_and_penguins_answer(example: str, tmp_path: Path) -> None:
    text = (baked(tmp_path, example=example) / "docs/record.md").read_text()
    for asked in (
        *("the problem, and who has it", "When is it solved", "Why machine learning at all"),
        *("training data made", "known when a prediction", "Which models were tried"),
        *("go wrong, and who would be harmed", "training cost", "experiments/log.jsonl"),
    ):
        assert asked in text
    assert ("TODO" in text) == (example == "blank")
