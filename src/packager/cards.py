"""`packager cards`: fill the numbers of model card and datasheet in, and see that all is said."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from packager import markers, metrics
from packager.claims import MOST_CARD, card_text
from packager.errors import HostError, PackagerError, UsageError
from packager.files import replace_file
from packager.layers import tree
from packager.markers import EMPTY, Marked, Slot, plain
from packager.project import Project
from packager.questions import DATASHEET, MODEL_CARD, Outline

__all__ = ["Finding", "Report", "check", "fill", "render"]

_MODEL_CARD, _DATASHEET = "MODEL_CARD.md", "DATASHEET.md"
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_PLACEHOLDER = re.compile(r"\bTODO\b")
_NOT_ANSWERED = re.compile(r"\bnot answered\b", re.IGNORECASE)
_TYPED = re.compile(r"\s*(?:- +)*value:\s*[-+.0-9]")
_WORD = re.compile(r"\w")
_MOST_SHOWN = 60


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something in a file that is not as it should be, and what to do about it."""

    file: str
    line: int
    what: str
    hint: str = ""

    @property
    def where(self) -> str:
        """The file, with the line where there is one."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Report:
    """What came of filling or checking cards.

    Attributes
    ----------
    findings : list of Finding
        What is wrong; if there is any, nothing was written.
    not_answered : list of Finding
        What nobody answered and nobody must, as `check` finds it.
    filled : mapping of str to int
        How many values each card holds.
    changed : list of str
        The cards that were written.
    """

    findings: list[Finding]
    not_answered: list[Finding]
    filled: Mapping[str, int]
    changed: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Say it for a program."""
        return {
            "format": 1,
            "findings": [
                {"file": one.file, "line": one.line or None, "what": one.what, "hint": one.hint}
                for one in self.findings
            ],
            "not_answered": [
                {"file": one.file, "line": one.line, "question": one.what}
                for one in self.not_answered
            ],
            "filled": dict(self.filled),
            "changed": self.changed,
        }


@dataclass(frozen=True, slots=True)
class _Card:
    """A card as it is, and what must stand in it."""

    name: str
    path: Path
    marked: Marked
    outline: Outline


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the cards are held against."""

    where: str
    metrics: Mapping[str, Any]

    def shown(self, slot: Slot, newline: str) -> str:
        text = metrics.shown(self.metrics, slot.path, front=slot.front)
        return text.replace("\n", newline)


def fill(project: Project) -> Report:
    """Write the values of metrics.json into the cards; all of them, or none.

    Raises
    ------
    UsageError
        When there is no card, or one that is no text, or metrics.json is damaged.
    HostError
        When a card cannot be read or written.
    """
    cards = _cards(project)
    facts, findings = _facts(project, cards)
    findings += [one for card in cards for one in _troubles(card)]
    texts = {}
    for card in cards:
        text, unknown = _filled(card, facts)
        texts[card.name] = text
        findings += unknown
    filled = {card.name: len(card.marked.slots) for card in cards}
    if findings:
        return Report(sorted(findings), [], filled)
    changed = [card for card in cards if texts[card.name] != card.marked.text]
    for card in changed:
        replace_file(card.path, texts[card.name].encode())
    return Report([], [], filled, [card.name for card in changed])


def check(project: Project) -> Report:
    """Find all that is wrong with the cards, and write nothing.

    Raises
    ------
    UsageError
        When there is no card, or one that is no text, or metrics.json is damaged.
    HostError
        When a card cannot be read.
    """
    cards = _cards(project)
    facts, findings = _facts(project, cards)
    for card in cards:
        findings += [*_troubles(card), *_missing(card), *_unanswered(card), *_placeholders(card)]
        if card.outline is MODEL_CARD:
            findings += _front_matter(card)
        if facts:
            findings += [*_disagreeing(card, facts), *_others(card, facts)]
    filled = {card.name: len(card.marked.slots) for card in cards}
    return Report(sorted(findings), _not_answered(cards), filled)


def render(report: Report, *, checked: bool) -> str:
    """Set a report for a person.

    Parameters
    ----------
    report : Report
        From `fill` or `check`.
    checked : bool
        Whether nothing was to be written.
    """
    lines = []
    for one in report.findings:
        lines += [f"{one.where}: {one.what}", *([f"  {one.hint}"] if one.hint else [])]
    if report.findings:
        count = len(report.findings)
        plural = "s" if count > 1 else ""
        lines += ["", f"{count} finding{plural}{'' if checked else '; nothing was written'}."]
    elif checked:
        lines.append(f"{' and '.join(report.filled)}: complete, and true to {metrics.FILE}.")
    else:
        lines += [
            f"{name}: {count} values, {'filled in' if name in report.changed else 'all fresh'}"
            for name, count in report.filled.items()
        ]
    if report.not_answered and report.findings:
        lines.append(f"Not answered, which may stay so: {len(report.not_answered)}.")
    elif report.not_answered:
        lines += ["", "Not answered, which may stay so:"]
        lines += [f"  {one.where}: {one.what}" for one in report.not_answered]
    return "\n".join(lines)


def _cards(project: Project) -> list[_Card]:
    """Read the cards that there are."""
    named = {str(project.card or _MODEL_CARD): MODEL_CARD, _DATASHEET: DATASHEET}
    there = {
        name: outline
        for name, outline in named.items()
        if (project.root / name).exists() or PurePosixPath(name) == project.card
    }
    if not there:
        raise UsageError(
            f"there is no {_MODEL_CARD} and no {_DATASHEET}",
            where=str(project.root),
            hint='Write one, or say card = "PATH" in [tool.packager].',
        )
    return [
        _Card(name, project.root / name, markers.read(_text(project, name)), outline)
        for name, outline in there.items()
    ]


def _text(project: Project, name: str) -> str:
    path = project.root / name
    if not path.is_file():
        raise UsageError("is no file", where=name)
    if not path.resolve().is_relative_to(project.root):
        raise UsageError("is a link out of the repository", where=name)
    try:
        with path.open("rb") as file:
            return card_text(file.read(MOST_CARD + 1), name)
    except OSError as error:
        raise HostError(f"cannot be read: {error.strerror}", where=name) from None


def _facts(project: Project, cards: list[_Card]) -> tuple[_Facts | None, list[Finding]]:
    """Read metrics.json and hold it against the model; a datasheet alone may do without."""
    where = str(project.model.parent / metrics.FILE)
    path = project.root / where
    if not path.exists():
        if not any(card.outline is MODEL_CARD or card.marked.slots for card in cards):
            return None, []
        hint = "Train first: training writes it beside the model. Then packager cards."
        return None, [Finding(where, 0, "does not exist", hint)]
    facts = _Facts(where, metrics.read(path, where))
    findings = [
        Finding(where, 0, f"does not say which {key} it is about", f'Write "{key}": "sha256:…".')
        for key in ("model", "data")
        if not _is_digest(facts.metrics.get(key))
    ]
    try:
        digest = tree.read_model(project).digest
    except PackagerError as error:
        return facts, [*findings, Finding(error.where, 0, error.what, error.hint)]
    if not findings and facts.metrics["model"] != digest:
        what = f"is about another model than {project.model}, which is {digest}"
        findings.append(Finding(where, 0, what, "Train again, or restore the two together."))
    return facts, findings


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def _troubles(card: _Card) -> Iterator[Finding]:
    for one in card.marked.troubles:
        yield Finding(card.name, one.line, one.what, one.hint)


def _filled(card: _Card, facts: _Facts | None) -> tuple[str, list[Finding]]:
    """Put the values into the text, and name those that are none."""
    text, unknown = card.marked.text, []
    if facts is None:
        return text, []
    newline = "\r\n" if "\r\n" in text else "\n"
    parts, last = [], 0
    for slot in card.marked.slots:
        try:
            parts += [text[last : slot.start], facts.shown(slot, newline)]
        except metrics.Unknown as error:
            unknown.append(_unknown(card, slot, facts, error))
        last = slot.end
    return "".join([*parts, text[last:]]), unknown


def _unknown(card: _Card, slot: Slot, facts: _Facts, error: metrics.Unknown) -> Finding:
    what = f"{facts.where} has nothing for {slot.path} that can stand here"
    return Finding(card.name, slot.line, what, str(error)[:1].upper() + str(error)[1:])


def _disagreeing(card: _Card, facts: _Facts) -> Iterator[Finding]:
    """Hold each value against metrics.json."""
    text = card.marked.text
    newline = "\r\n" if "\r\n" in text else "\n"
    for slot in card.marked.slots:
        said = text[slot.start : slot.end]
        try:
            true = facts.shown(slot, newline)
        except metrics.Unknown as error:
            yield _unknown(card, slot, facts, error)
            continue
        if said == true:
            continue
        if said.strip() == EMPTY:
            what = f"the value of {slot.path} is not filled in"
        elif slot.path == "model":
            what = f"is older than the model: it is about {_short(said)}"
        elif "\n" in true:
            what = f"the table of {slot.path} is not that of {facts.where}"
        else:
            what = f"{slot.path} is {_short(said)} here and {_short(true)} in {facts.where}"
        yield Finding(card.name, slot.line, what, "packager cards fills it in.")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_SHOWN else f"{line[: _MOST_SHOWN - 1]}…"


def _others(card: _Card, facts: _Facts) -> Iterator[Finding]:
    """Find that a card is about no model, about no data, or about other data."""
    slots, digest = card.marked.slots, facts.metrics.get("data")
    if card.outline is MODEL_CARD and not any(one.path == "model" for one in slots):
        hint = f"Write under Model Details: <!-- metrics: model -->{EMPTY}<!-- /metrics -->"
        yield Finding(card.name, 0, "does not say which model it is about", hint)
    if not _is_digest(digest):
        return
    hint = f"Once every answer is true of these data, write <!-- about: {digest} -->"
    if not card.marked.abouts:
        yield Finding(card.name, 0, "does not say which data its answers are about", hint)
    for about in card.marked.abouts:
        if not _is_digest(about.digest):
            what = "does not say yet which data its answers are about"
            yield Finding(card.name, about.line, what, hint)
        elif about.digest != digest:
            what = f"its answers are about other data, {about.digest}, than the model"
            yield Finding(card.name, about.line, what, hint)


def _missing(card: _Card) -> Iterator[Finding]:
    """Find headings and questions that were taken out."""
    headings = card.marked.headings
    for title, questions in card.outline.sections.items():
        section = next((one for one in headings if one.key == plain(title)), None)
        if section is None:
            hint = f"Put the heading back: ## {title}"
            yield Finding(card.name, 0, f"the section {title!r} is missing", hint)
            continue
        there = {one.key for one in headings if section.start <= one.start < section.end}
        for question in questions:
            if plain(question) not in there:
                hint = f'Put it back: ### {question}  Its answer may be "Not answered."'
                what = f"the question {question!r} is missing under {title!r}"
                yield Finding(card.name, section.line, what, hint)


def _needed(card: _Card) -> Mapping[str, str]:
    return {plain(title): what for title, what in card.outline.answered.items()}


def _unanswered(card: _Card) -> Iterator[Finding]:
    """Find what must be answered and is not."""
    needed = _needed(card)
    for heading in card.marked.headings:
        if (what := needed.get(heading.key)) is None:
            continue
        if not _answer(card.marked.prose[heading.start : heading.end]):
            hint = f"A card has to name {what}."
            yield Finding(card.name, heading.line, f"{heading.title!r} is not answered", hint)


def _answer(text: str) -> str:
    """Give what is said in a piece of prose besides headings and "Not answered."."""
    lines = [line.strip() for line in text.split("\n")]
    marks = ("#", "```", "~~~")
    said = [one for one in lines if not one.startswith(marks) and not _NOT_ANSWERED.search(one)]
    return "".join(one for one in said if _WORD.search(one)).strip(EMPTY)


def _placeholders(card: _Card) -> Iterator[Finding]:
    needed = _needed(card)
    abouts = {about.line for about in card.marked.abouts}
    front = {number for number, _ in card.marked.front}
    for number, line, _, above in card.marked.lines():
        if number in abouts or not _PLACEHOLDER.search(line):
            continue
        must = any(one.key in needed for one in above) or number in front
        hint = "Replace it by an answer." if must else 'Answer, or write "Not answered."'
        under = f" under {above[-1].title!r}" if above else ""
        yield Finding(card.name, number, f"the placeholder TODO is left{under}", hint)


def _front_matter(card: _Card) -> Iterator[Finding]:
    """Find a licence that is missing, and values that somebody typed."""
    said = [line.partition(":")[2] for _, line in card.marked.front if line.startswith("license:")]
    if not any(one.partition(" #")[0].strip(" \t\r\"'~") for one in said):
        hint = "Write license: with an SPDX identifier between two lines of --- at the top."
        yield Finding(card.name, 0, "does not name the licence of the model", hint)
    filled = {slot.line for slot in card.marked.slots}
    for number, line in card.marked.front:
        if number not in filled and _TYPED.match(line):
            hint = "End the line in  # metrics: PATH  and let packager cards fill it in."
            yield Finding(card.name, number, "a value that somebody typed", hint)


def _not_answered(cards: list[_Card]) -> list[Finding]:
    """List what was left open and may stay so."""
    return sorted(one for card in cards for one in (*_said_so(card), *_empty(card)))


def _said_so(card: _Card) -> Iterator[Finding]:
    """Find the lines that say "Not answered."; those that have to be answered are findings."""
    needed = _needed(card)
    for number, _, prose, above in card.marked.lines():
        if not _NOT_ANSWERED.search(prose):
            continue
        label = _NOT_ANSWERED.sub("", prose).strip(" \t\r-+*|_.:")
        if label or not any(one.key in needed for one in above):
            titles = [one.title for one in above[-1:]]
            yield Finding(card.name, number, ": ".join([*titles, *filter(None, [label])]))


def _empty(card: _Card) -> Iterator[Finding]:
    """Find the questions, and the sections without questions, that nothing stands under."""
    sections = card.outline.sections
    known = {plain(one) for title in sections for one in sections[title] or [title]}
    known -= set(_needed(card))
    for one in card.marked.headings:
        if one.key in known and not card.marked.prose[one.start : one.end].strip():
            yield Finding(card.name, one.line, one.title)
