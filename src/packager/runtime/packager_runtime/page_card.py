"""A model card for the page: its sections, and the Markdown that cards use as safe HTML.

Every character of a card ends up as text: no HTML of its own passes, comments are dropped, and
links lead to http, https and mailto only.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Card", "Section", "inline", "labelled", "plain", "read", "split", "to_html"]

_MOST_NESTED = 8
_LIMITS = re.compile(r"\b(caveats|limitations?|limits|known issues|risks)\b", re.IGNORECASE)

# One pass, so that whichever begins first wins: a comment in code stays, code in a comment goes.
_COMMENT = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*(?:\n.*?^ {0,3}(?P=fence)[`~]*[ \t]*$|.*\Z)"
    r"|`[^`\n]*`"
    r"|(?P<comment><!--.*?(?:-->|\Z))",
    re.DOTALL | re.MULTILINE,
)
_FRONT = re.compile(r"---[ \t]*\n.*?^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|$)")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_ITEM = re.compile(r"( {0,3}(?:([-*+])|(\d{1,9})[.)]))(?:( {1,4})(?=\S)|\s*$)")
_QUOTE = re.compile(r" {0,3}> ?")
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_TABLE_RULE = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?")

_INLINE = re.compile(
    r"\\(?P<escaped>[!-/:-@\[-`{-~])"
    r"|(?P<ticks>`+)"
    r"|<(?P<auto>(?:https?://|mailto:)[^\s<>]{1,2000})>"
    r"|<(?P<mail>[\w.+-]{1,64}@[\w.-]{1,255})>"
    r"|!?\[(?P<label>(?:[^\[\]\\]|\\.){0,1000})\]"
    r"\([ \t]*<?(?P<target>(?:[^\s()<>]|\([^\s()<>]{0,200}\)){0,2000})>?"
    r"(?:[ \t]+(?:\"[^\"]{0,200}\"|'[^']{0,200}'))?[ \t]*\)"
    r"|(?P<mark>\*{1,2}|_{1,2})"
    r"|(?P<entity>&(?:\#\d{1,7}|\#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)",
    re.DOTALL,
)
_SAFE_TARGET = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x1f]+", re.IGNORECASE)
_LABELLED = re.compile(r"[-*+] +\*\*(?P<label>[^*\n]{1,80}?):?\*\*:?[ \t]*(?P<text>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of the second level, and the Markdown below it.

    Parameters
    ----------
    title, body : str
        As they were written.
    """

    title: str
    body: str


@dataclass(frozen=True, slots=True)
class Card:
    """A model card, taken apart.

    Parameters
    ----------
    lead : str
        What stands between the title and the first section.
    sections : tuple of Section
        In their order.
    """

    lead: str
    sections: tuple[Section, ...]

    def section(self, title: str) -> Section | None:
        """Find a section by its title, whatever its capitals."""
        wanted = title.casefold()
        return next((one for one in self.sections if plain(one.title).casefold() == wanted), None)

    def limits(self) -> Section | None:
        """Find the section that says where the model fails."""
        usual = self.section("Caveats and Recommendations")
        others = (one for one in self.sections if _LIMITS.search(plain(one.title)))
        return usual or next(others, None)


def read(text: str) -> Card:
    """Take a card apart.

    Parameters
    ----------
    text : str
        Markdown, as its author wrote it.

    Returns
    -------
    Card
        Without front matter and comments.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    if front := _FRONT.match(text):
        text = text[front.end() :]
    text = _COMMENT.sub(lambda found: "" if found["comment"] else found[0], text)
    lead: list[str] = []
    sections: list[tuple[str, list[str]]] = []
    fence = ""
    for line in text.split("\n"):
        fence = _fence_after(line, fence)
        heading = None if fence else _HEADING.match(line)
        level = len(heading[1]) if heading else 0
        if level == 2:  # noqa: PLR2004 - sections are the second level
            sections.append((_title(line), []))
        elif level != 1:
            (sections[-1][1] if sections else lead).append(line)
    parts = tuple(Section(title, "\n".join(body).strip("\n")) for title, body in sections)
    return Card("\n".join(lead).strip("\n"), parts)


def to_html(markdown: str, below: int) -> str:
    """Set Markdown as HTML.

    Parameters
    ----------
    markdown : str
        A section's body.
    below : int
        The level of the heading that it stands under; its own go on from there, none left out.

    Returns
    -------
    str
        HTML that holds nothing but what this module wrote, and text.
    """
    return _Body(below).blocks(markdown.split("\n"))


def split(body: str, enough: int) -> tuple[str, str]:
    """Cut a body in two between paragraphs or the items of a list.

    Parameters
    ----------
    body : str
        Markdown.
    enough : int
        Characters after which the first part ends as soon as it can.

    Returns
    -------
    tuple of str
        The beginning, and the rest, which is empty where nothing is worth cutting off.
    """
    parts = _parts(body)
    shown = 1
    while shown < len(parts) and sum(map(len, parts[:shown])) < enough:
        shown += 1
    rest = "\n".join(parts[shown:])
    return (body, "") if len(rest) < enough // 4 else ("\n".join(parts[:shown]), rest)


def labelled(body: str) -> dict[str, str]:
    """Read the items of the form ``- **Label:** text``, labels in small letters."""
    found = (_LABELLED.fullmatch(item.strip()) for item in _parts(body))
    return {one["label"].casefold(): " ".join(one["text"].split()) for one in found if one}


def plain(markdown: str) -> str:
    """Set one line of Markdown as text, without its markup."""
    return html.unescape(re.sub("<[^>]*>", "", inline(markdown))).strip()


def inline(text: str, *, links: bool = True) -> str:
    """Set what stands within a paragraph as HTML.

    Parameters
    ----------
    text : str
        Markdown.
    links : bool
        Whether links are made; within one there is no other.
    """
    pieces: list[str] = []
    opened: dict[str, int] = {}
    last_ticks = {len(found[0]): found.start() for found in re.finditer("`+", text)}
    at = 0
    while found := _INLINE.search(text, at):
        pieces.append(html.escape(text[at : found.start()]))
        at = found.end()
        if mark := found["mark"]:
            _emphasise(pieces, opened, mark, text[: found.start()][-1:], text[at : at + 1])
        elif ticks := found["ticks"]:
            closing = None
            if last_ticks[len(ticks)] > found.start():
                closing = re.compile(f"(?<!`){ticks}(?!`)").search(text, at)
            code = text[at : closing.start()] if closing else ""
            pieces.append(f"<code>{_code(code)}</code>" if closing else ticks)
            at = closing.end() if closing else at
        else:
            pieces.append(_other(found, links))
    pieces.append(html.escape(text[at:]))
    return "".join(pieces)


def _other(found: re.Match[str], links: bool) -> str:
    if found["escaped"]:
        return html.escape(found["escaped"])
    if found["entity"]:
        return html.escape(html.unescape(found["entity"]))
    if address := found["auto"]:
        return _link(address, html.escape(address)) if links else html.escape(found[0])
    if address := found["mail"]:
        return _link(f"mailto:{address}", html.escape(address)) if links else html.escape(found[0])
    label = inline(found["label"], links=False)
    if found[0].startswith("!"):  # the page asks nobody for a picture
        return label
    target = html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", found["target"]))
    return _link(target, label) if links else label


def _link(target: str, label: str) -> str:
    if not _SAFE_TARGET.fullmatch(target):
        return label
    return f'<a href="{html.escape(target)}" rel="noreferrer">{label}</a>'


def _emphasise(
    pieces: list[str], opened: dict[str, int], mark: str, before: str, after: str
) -> None:
    """Open or close an emphasis; one that is never closed stays the mark that it was."""
    closes = bool(before.strip()) and not (mark[0] == "_" and after.isalnum())
    opens = bool(after.strip()) and not (mark[0] == "_" and before.isalnum())
    tag = "strong" if len(mark) > 1 else "em"
    if closes and mark in opened:
        start = opened.pop(mark)
        pieces[start] = f"<{tag}>"
        pieces.append(f"</{tag}>")
        for other in [one for one, place in opened.items() if place > start]:
            del opened[other]
        return
    if opens and mark not in opened:
        opened[mark] = len(pieces)
    pieces.append(mark)


def _code(text: str) -> str:
    text = text.replace("\n", " ")
    if text.strip() and text[0] == text[-1] == " ":
        text = text[1:-1]
    return html.escape(text)


def _title(line: str) -> str:
    text = _HEADING.sub("", line, count=1).rstrip()
    return re.sub(r"(?:^|[ \t])#+$", "", text).strip()


def _fence_after(line: str, fence: str) -> str:
    """Tell which fence is open after a line, given the one that was before it."""
    found = _FENCE.match(line)
    if not fence:
        return found[1] if found else ""
    return "" if found and found[1].startswith(fence) and not line[found.end() :].strip() else fence


def _parts(body: str) -> list[str]:
    """Take a body apart where a paragraph or an item begins at its outermost level."""
    parts: list[list[str]] = [[]]
    fence, blank = "", False
    for line in body.split("\n"):
        begins = not fence and bool(
            re.match(r"[-*+] |\d+[.)] ", line) or (blank and line[:1].strip())
        )
        fence = _fence_after(line, fence)
        blank = not line.strip()
        if begins and parts[-1]:
            parts.append([])
        parts[-1].append(line)
    return ["\n".join(part) for part in parts]


class _Body:
    """Turns lines into blocks of HTML.

    Parameters
    ----------
    below : int
        The level of the heading above.
    """

    def __init__(self, below: int) -> None:
        self._top = below
        self._last = below

    def blocks(self, lines: Sequence[str], nested: int = 0) -> str:
        """Set lines as HTML."""
        return "\n".join(self._blocks(lines, nested))

    def _blocks(self, lines: Sequence[str], nested: int) -> Iterator[str]:
        at = 0
        while at < len(lines):
            line = lines[at]
            start = at
            if not line.strip():
                at += 1
            elif _FENCE.match(line):
                at = _end_of_fence(lines, at)
                yield self._fenced(lines[start:at])
            elif _HEADING.match(line):
                at += 1
                yield self._heading(line)
            elif _RULE.fullmatch(line):
                at += 1
                yield "<hr>"
            elif _QUOTE.match(line) and nested < _MOST_NESTED:
                at = _while(lines, at, lambda one: bool(_QUOTE.match(one)))
                inner = [_QUOTE.sub("", one, count=1) for one in lines[start:at]]
                yield f"<blockquote>{self.blocks(inner, nested + 1)}</blockquote>"
            elif _ITEM.match(line) and nested < _MOST_NESTED:
                at, text = self._list(lines, at, nested)
                yield text
            elif _is_table(lines, at):
                at = _while(lines, at, lambda one: "|" in one)
                yield _table(lines[start:at])
            else:
                at = _end_of_paragraph(lines, at)
                yield f"<p>{_lines(lines[start:at])}</p>"

    def _heading(self, line: str) -> str:
        raw = len(_HEADING.match(line)[1])  # type: ignore[index]  # the caller matched it
        level = min(max(self._top + raw - 2, self._top + 1), self._last + 1, 6)
        self._last = level
        return f"<h{level}>{inline(_title(line))}</h{level}>"

    @staticmethod
    def _fenced(lines: Sequence[str]) -> str:
        closed = len(lines) > 1 and _FENCE.fullmatch(lines[-1].rstrip())
        inner = lines[1:-1] if closed else lines[1:]
        return f'<pre tabindex="0"><code>{html.escape(chr(10).join(inner))}</code></pre>'

    def _list(self, lines: Sequence[str], at: int, nested: int) -> tuple[int, str]:
        """Set a list; an item goes on with what is indented, or with plain text right after it."""
        first = _ITEM.match(lines[at])
        ordered = bool(first and first[3])
        found: list[list[str]] = []
        indent, loose, blank = 0, False, False
        while at < len(lines):
            line = lines[at]
            mark = _ITEM.match(line)
            inside = len(line) - len(line.lstrip(" ")) >= indent > 0
            if not line.strip():
                blank = True
                found[-1].append("")
            elif inside:
                loose |= blank
                blank = False
                found[-1].append(line[indent:])
            elif mark and bool(mark[3]) == ordered and not _RULE.fullmatch(line):
                loose |= blank
                blank = False
                indent = len(mark[1]) + len(mark[4] or " ")
                found.append([line[indent:]])
            elif blank or _begins_block(line):
                break
            else:
                found[-1].append(line.lstrip())
            at += 1
        texts = (self.blocks(one, nested + 1) for one in found)
        shown = "\n".join(f"<li>{text if loose else _tight(text)}</li>" for text in texts)
        start = f' start="{int(first[3])}"' if first and ordered and int(first[3]) != 1 else ""
        tag = "ol" if ordered else "ul"
        return at, f"<{tag}{start}>\n{shown}\n</{tag}>"


def _tight(text: str) -> str:
    found = re.match(r"<p>(.*?)</p>", text, re.DOTALL)
    return found[1] + text[found.end() :] if found else text


def _lines(lines: Sequence[str]) -> str:
    text = "\n".join(line.lstrip() for line in lines).rstrip()
    return re.sub(r"(?: {2,}|\\)\n", "<br>\n", inline(text))


def _while(lines: Sequence[str], at: int, goes_on: Callable[[str], bool]) -> int:
    while at < len(lines) and goes_on(lines[at]):
        at += 1
    return at


def _table(lines: Sequence[str]) -> str:
    head, _, *rows = [_cells(line) for line in lines]
    titles = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in head)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in _fitted(row, len(head))) + "</tr>"
        for row in rows
    )
    return (
        '<div class="scroll" role="group" aria-label="Table" tabindex="0"><table>\n'
        f"<thead><tr>{titles}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cells(line: str) -> list[str]:
    text = line.strip().removeprefix("|")
    if text.endswith("|") and not text.endswith("\\|"):
        text = text[:-1]
    return [inline(cell.strip().replace("\\|", "|")) for cell in _CELL_BORDER.split(text)]


def _fitted(row: list[str], width: int) -> list[str]:
    return (row + [""] * width)[:width]


def _is_table(lines: Sequence[str], at: int) -> bool:
    return (
        "|" in lines[at]
        and at + 1 < len(lines)
        and bool(_TABLE_RULE.fullmatch(lines[at + 1].strip()))
        and len(_CELL_BORDER.findall(lines[at + 1])) > 0
    )


def _begins_block(line: str) -> bool:
    kinds = (_FENCE, _HEADING, _QUOTE, _ITEM)
    return any(kind.match(line) for kind in kinds) or bool(_RULE.fullmatch(line))


def _end_of_fence(lines: Sequence[str], at: int) -> int:
    fence = _fence_after(lines[at], "")
    for number in range(at + 1, len(lines)):
        if not _fence_after(lines[number], fence):
            return number + 1
    return len(lines)


def _end_of_paragraph(lines: Sequence[str], at: int) -> int:
    end = at + 1
    while end < len(lines) and lines[end].strip():
        if _begins_block(lines[end]) or _is_table(lines, end):
            break
        end += 1
    return end
