"""Where a card holds numbers, and under which headings what is said: Markdown, no further.

A number stands between two comments, ``<!-- metrics: PATH -->1.0<!-- /metrics -->``, or in
the front matter on a line that ends in ``# metrics: PATH``.  A comment ``<!-- about: sha256:…
-->`` says which data the answers are about.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

__all__ = ["EMPTY", "About", "Heading", "Marked", "Slot", "Trouble", "plain", "read"]

EMPTY = "\N{EN DASH}"
"""Stands where there is no value."""

# What is not prose: a block of code to its closing fence, a comment to its end.
_OPAQUE = re.compile(
    r"^[ \t]*(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})[^\n]*$.*?(?:^[ \t]*(?P=fence)[`~ \t\r]*$|\Z)"
    r"|(?<!\\)<!--(?P<said>.*?)(?P<closed>-->|\Z)",
    re.MULTILINE | re.DOTALL,
)
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+([^\n]*)$", re.MULTILINE)
_FRONT = re.compile(r"\ufeff?---[ \t]*\r?\n")
_FRONT_END = re.compile(r"^---[ \t]*\r?$", re.MULTILINE)
_FRONT_KEY = re.compile(r"[ \t]*(?:- +)*[\w-]+:[ \t]")
_FRONT_MARK = "# metrics:"
_IN_CODE = re.compile(r"<!--\s*/?metrics\b|# metrics:")
_ALMOST = re.compile(r"/?\s*metrics?\s*(:|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a value: from `start` to `end` of the text."""

    path: str
    start: int
    end: int
    line: int
    front: bool


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading, and from `start` to `end` what stands under it, deeper headings included.

    `key` is the title reduced by `plain`.
    """

    level: int
    title: str
    key: str
    line: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class About:
    """Which data a card says that its answers are about."""

    digest: str
    line: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """A marker that cannot be read, and what to do about it."""

    line: int
    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class Marked:
    """A card, taken apart.

    Attributes
    ----------
    text : str
        All of it.
    prose : str
        As long, with blanks for front matter and comments: what a reader sees.
    front : list of (int, str)
        The lines of the front matter, numbered.
    """

    text: str
    prose: str
    front: list[tuple[int, str]]
    headings: list[Heading]
    slots: list[Slot]
    abouts: list[About]
    troubles: list[Trouble]

    def lines(self) -> Iterator[tuple[int, str, str, list[Heading]]]:
        """Go through the text: number, line, its prose, the headings above, nearest last."""
        above: list[Heading] = []
        coming = iter([*self.headings, None])
        following = next(coming)
        pairs = zip(self.text.split("\n"), self.prose.split("\n"), strict=True)
        for number, (line, prose) in enumerate(pairs, 1):
            if following and following.line == number:
                above = [*(one for one in above if one.level < following.level), following]
                following = next(coming)
            yield number, line, prose, above


def plain(title: str) -> str:
    """Reduce a heading to what counts in it: no number, no markup, no case, no end mark."""
    bare = re.sub(r"[*_`]", "", title).strip()
    return " ".join(re.sub(r"^[0-9.]+[.)]? ", "", bare).casefold().rstrip("?:.!").split())


def read(text: str) -> Marked:
    """Take a card apart.

    Parameters
    ----------
    text : str
        With whatever line ends.

    Returns
    -------
    Marked
        What cannot be read is in its `troubles`, never an exception.
    """
    marked = Marked(text, "", [], [], [], [], [])
    lines = _Lines(text)
    body = _read_front(text, lines, marked)
    tokens = list(_OPAQUE.finditer(text, body))
    pairing = _Pairing(marked)
    for token in tokens:
        take = pairing.code if token["fence"] else pairing.comment
        take(token, lines.at(token.start()))
    pairing.end()
    comments = [one.span() for one in tokens if not one["fence"]]
    prose = _blanked(text, [(0, body), *comments])
    headings = _headings(_blanked(prose, [one.span() for one in tokens]), lines)
    return Marked(text, prose, marked.front, headings, marked.slots, marked.abouts, marked.troubles)


class _Lines:
    """Counts lines, quickly enough for a text that is all markers."""

    def __init__(self, text: str) -> None:
        self._ends = list(accumulate(len(line) + 1 for line in text.split("\n")))

    def at(self, position: int) -> int:
        """Give the number of the line that holds a position, the first being 1."""
        return bisect_right(self._ends, position) + 1


def _read_front(text: str, lines: _Lines, marked: Marked) -> int:
    """Read the front matter; give the position after it."""
    begin = _FRONT.match(text)
    if not begin:
        return 0
    end = _FRONT_END.search(text, begin.end())
    if not end:
        hint = "End it with a line of three hyphens."
        marked.troubles.append(Trouble(1, "the front matter has no end", hint))
        return 0
    position = begin.end()
    for line in text[begin.end() : end.start()].split("\n")[:-1]:
        number = lines.at(position)
        marked.front.append((number, line))
        _read_front_line(line, position, number, marked)
        position += len(line) + 1
    return end.end()


def _read_front_line(line: str, position: int, number: int, marked: Marked) -> None:
    before, mark, path = line.rpartition(_FRONT_MARK)
    if not mark or not before.strip() or before.lstrip().startswith("#"):
        return
    key = _FRONT_KEY.match(before)
    if not key or before == before.rstrip() or key.end() >= len(before) or not path.strip():
        what = f"{line.strip()!r} is no line of the form KEY: VALUE  # metrics: PATH"
        marked.troubles.append(Trouble(number, what, f"Write {EMPTY} for a value not known yet."))
        return
    start = position + key.end()
    end = max(start, position + len(before.rstrip()))
    marked.slots.append(Slot(path.strip(), start, end, number, front=True))


class _Pairing:
    """Pairs the comments before and after values; what is not as it should be is a trouble."""

    def __init__(self, marked: Marked) -> None:
        self._marked = marked
        self._opened: tuple[str, int, int] | None = None

    def comment(self, token: re.Match[str], line: int) -> None:
        """Take the next comment."""
        said = token["said"].strip()
        if not token["closed"]:
            self._trouble(line, "a comment has no end", "Write --> where it ends.")
        elif said == "/metrics":
            self._close(token.start(), line)
        elif path := re.fullmatch(r"metrics:\s*(\S.*)", said):
            self.end()
            self._opened = (path[1], token.end(), line)
        elif data := re.fullmatch(r"about:\s*(.*)", said):
            self._marked.abouts.append(About(data[1], line))
        elif _ALMOST.match(said):
            hint = "Write <!-- metrics: PATH --> and <!-- /metrics -->."
            self._trouble(line, f"<!-- {said[:60]} --> is almost a marker", hint)

    def code(self, token: re.Match[str], line: int) -> None:
        """Take the next block of code."""
        if found := _IN_CODE.search(token[0]):
            line += token[0].count("\n", 0, found.start())
            hint = "Move it out: in code the marker itself would be read."
            self._trouble(line, "a marker stands in a block of code", hint)

    def end(self) -> None:
        """Find that no comment comes any more that could end a value."""
        if self._opened:
            path, _, line = self._opened
            hint = "Put <!-- /metrics --> after the value."
            self._trouble(line, f"the marker of {path} has no end", hint)
            self._opened = None

    def _close(self, position: int, line: int) -> None:
        if self._opened is None:
            hint = "Put <!-- metrics: PATH --> before the value, or remove it."
            self._trouble(line, "<!-- /metrics --> ends nothing", hint)
            return
        (path, start, begin), self._opened = self._opened, None
        if _is_value(self._marked.text[start:position]):
            self._marked.slots.append(Slot(path, start, position, begin, front=False))
        else:
            what = f"what stands for {path} is neither one line nor a table"
            self._trouble(begin, what, "Put <!-- /metrics --> right after the value.")

    def _trouble(self, line: int, what: str, hint: str) -> None:
        self._marked.troubles.append(Trouble(line, what, hint))


def _is_value(text: str) -> bool:
    """Tell whether a text may be replaced: not what a person wrote between two markers."""
    lines = [line.strip() for line in text.split("\n")]
    return len(lines) == 1 or all(not line or line[0] in f"|{EMPTY}" for line in lines)


def _blanked(text: str, spans: list[tuple[int, int]]) -> str:
    """Replace all but line ends, so that every position and line stays what it is."""
    parts, last = [], 0
    for start, end in spans:
        parts += [text[last:start], re.sub(r"[^\n]", " ", text[start:end])]
        last = end
    return "".join([*parts, text[last:]])


def _headings(text: str, lines: _Lines) -> list[Heading]:
    found = list(_HEADING.finditer(text))
    ends = [len(text)] * len(found)
    opened: list[int] = []
    for number, match in enumerate(found):
        while opened and len(found[opened[-1]][1]) >= len(match[1]):
            ends[opened.pop()] = match.start()
        opened.append(number)
    titles = [match[2].strip().rstrip("#").rstrip() for match in found]
    return [
        Heading(len(match[1]), title, plain(title), lines.at(match.start()), match.end(), end)
        for match, title, end in zip(found, titles, ends, strict=True)
    ]
