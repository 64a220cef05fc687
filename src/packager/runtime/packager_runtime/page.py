"""The page at `/`: what the model does, a form to try it, its limits, and who stands behind it.

One HTML document without anything from elsewhere.  All that the image says is data: it goes
through `html.escape` into HTML, and into the script as JSON without any ``<``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

from . import info, page_card
from .facts import Image, InputError, Recording, Tensor
from .page_script import SCRIPT
from .page_style import STYLE

__all__ = ["Page", "render"]

_MOST_ROWS = 10
_MOST_COLUMNS = 8
_MOST_ROW_BYTES = 128 << 10
_MOST_SUGGESTED = 50
_MOST_CATEGORIES = 12
_MANY_FIELDS = 12
_CELL = 40
_LIMITS_SHOWN = 700
_NOT_ANSWERED = re.compile(r"\W*(?:not answered|todo)?\W*", re.IGNORECASE)
_MAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,8}")


@dataclass(frozen=True, slots=True)
class Page:
    """A document, and what a browser may do with it.

    Parameters
    ----------
    html : bytes
        UTF-8.
    policy : str
        The value of the header ``Content-Security-Policy``.
    """

    html: bytes
    policy: str


def render(
    image: Image,
    examples: Recording | None,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    citation: str = "",
) -> Page:
    """Make the page.

    Parameters
    ----------
    image : Image
        The facts of the image; its card is read here.
    examples : Recording or None
        The recorded examples.
    inputs, outputs : sequence of Tensor
        The signature; empty where nobody knows it.
    citation : str
        How to cite the model, as BibTeX, or "".

    Returns
    -------
    Page
        To be sent with its policy.
    """
    try:
        card = page_card.read(info.card(image))
    except InputError:  # none, or none that can be read: the rest is still worth showing
        card = page_card.Card("", ())
    rows = _rows(examples, inputs)
    data = _data(image, examples, inputs, outputs, rows)
    parts = [
        _intended(image, card, inputs, outputs),
        _try(card, examples, inputs, rows),
        _programs(image, inputs, outputs) if inputs else "",
        _about(image, examples, card, citation),
        _card(card),
    ]
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{escape(image.name)} {escape(image.version)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<style>{STYLE}</style>
</head>
<body>
{_header(image, card, inputs)}
<main>
{"".join(parts)}</main>
<footer><p class="small">{escape(image.name)} {escape(image.version)}. What is typed here goes to
the server that this page came from, and nowhere else; the page loads nothing from other places and
sets no cookies.</p><p class="unseen" id="status" role="status"></p></footer>
<script type="application/json" id="facts">{_in_script(data)}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""
    # What no HTML can hold: a NUL, and half of a character, which JSON can.
    return Page(text.replace("\0", "\ufffd").encode("utf-8", "replace"), _policy())


def _policy() -> str:
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(SCRIPT)}'",
            f"style-src '{_hash(STYLE)}'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _in_script(data: object) -> str:
    # "<" in JSON stands in texts only, where its escape means the same.
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


# What the script needs to know


def _rows(examples: Recording | None, inputs: Sequence[Tensor]) -> dict[int, list[Any]]:
    """Choose recorded rows to try, by their place, as many as a page can carry.

    They are spread over the recording: its first rows are often all of one kind.
    """
    if examples is None or {one.name for one in inputs} - set(examples.given):
        return {}
    last = min(_MOST_ROWS, examples.rows) - 1
    rows: dict[int, list[Any]] = {}
    size = 0
    for at in range(last + 1):
        place = at * (examples.rows - 1) // max(last, 1)
        row = [examples.given[one.name][place] for one in inputs]
        size += len(json.dumps(row))
        if size > _MOST_ROW_BYTES:
            break
        rows[place] = row
    return rows


def _data(
    image: Image,
    examples: Recording | None,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    rows: dict[int, list[Any]],
) -> dict[str, Any]:
    expected = examples.expected if examples else {}
    return {
        "infer": _infer(image),
        "inputs": [
            _of_tensor(one) | {"label": _label(one, at)} | _seen(one, examples)
            for at, one in enumerate(inputs)
        ],
        "outputs": [_of_tensor(one) | _names(one, examples) for one in outputs],
        "rows": list(rows.values()),
        "numbers": [place + 1 for place in rows],
        "expected": [[expected[one.name][place] for one in outputs] for place in rows],
        "rtol": examples.rtol if examples else 0,
        "atol": examples.atol if examples else 0,
    }


def _infer(image: Image) -> str:
    """Give the address to ask at, relative, so that it holds behind a path's prefix too."""
    return f"v2/models/{quote(image.name, safe='', errors='replace')}/infer"


def _of_tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
        "nullable": tensor.nullable,
    }


def _label(tensor: Tensor, at: int) -> str:
    """Give an input a name to read."""
    return " ".join(tensor.name.replace("_", " ").split()) or f"input {at + 1}"


def _values(tensor: Tensor, examples: Recording | None) -> list[Any]:
    found = examples.given.get(tensor.name, []) if examples else []
    return found if len(tensor.shape) == 1 else []


def _texts(tensor: Tensor, examples: Recording | None) -> list[str]:
    """List the different texts that were recorded, those seen first first."""
    return list(dict.fromkeys(one for one in _values(tensor, examples) if isinstance(one, str)))


def _seen(tensor: Tensor, examples: Recording | None) -> dict[str, Any]:
    """Say what the model has met: from where to where, or which; and whether any was missing.

    What it was trained on, if that is recorded, else what the recorded rows hold.
    """
    if examples is None or len(tensor.shape) > 1:
        return {}
    values = _values(tensor, examples)
    gaps = {"gaps": None in values} if values else {}
    if known := examples.ranges.get(tensor.name):
        texts = [one for one in known.get("values", []) if isinstance(one, str)]
        seen = {"seen": sorted(texts)} if 0 < len(texts) <= _MOST_CATEGORIES else {}
        span = {"low": known["min"], "high": known["max"]} if "min" in known else {}
        return span | seen | gaps | {"where": "in what the model learned from"}
    where = {"where": "in the recorded examples"}
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    if numbers:
        return {"low": min(numbers), "high": max(numbers)} | gaps | where
    texts = _texts(tensor, examples)
    # A few that come back again and again are all there are; what is rarely the same is prose.
    if texts and len(texts) <= min(_MOST_CATEGORIES, len(values) // 3):
        return {"seen": sorted(texts)} | gaps | where
    return gaps


def _names(chances: Tensor, examples: Recording | None) -> dict[str, Any]:
    """Find what the places of a list of numbers are called: the largest has the label's name."""
    if examples is None or chances.name not in examples.expected:
        return {}
    for label in examples.outputs:
        if len(label.shape) == 1 and not label.datatype.startswith("FP"):
            found = _inferred(examples.expected[chances.name], examples.expected[label.name])
            if found:
                return {"names": found, "named_by": label.name}
    return {}


def _inferred(rows: list[Any], labels: list[Any]) -> list[str | None]:
    """Name each place after the label that is always given when its number is the largest.

    Nothing is inferred where one row contradicts another, where two places would get one name,
    or where no place was seen twice, so that nothing could have contradicted.
    """
    names: dict[int, str] = {}
    told = 0
    widths = {len(row) if isinstance(row, list) else 0 for row in rows}
    if len(widths) > 1 or widths <= {0, 1}:
        return []
    for row, label in zip(rows, labels, strict=True):
        if not all(isinstance(one, int | float) for one in row) or label is None:
            return []
        place = row.index(max(row))
        if row.count(row[place]) > 1:
            continue
        told += 1
        name = label if isinstance(label, str) else json.dumps(label)
        if names.setdefault(place, name) != name:
            return []
    if told <= len(names) or len(set(names.values())) < len(names):
        return []
    return [names.get(place) for place in range(widths.pop())]


# The document, from above to below


def _header(image: Image, card: page_card.Card, inputs: Sequence[Tensor]) -> str:
    links = [
        ("what", "What it is for"),
        ("try", "Try it"),
        *([("programs", "Ask from a program")] if inputs else []),
        ("about", "Who made it, how to cite"),
        *([("card", "Model card")] if _rest(card) else []),
    ]
    listed = "\n".join(f'<li><a href="#{to}">{escape(text)}</a></li>' for to, text in links)
    said = f'<p class="lead">{escape(image.description)}</p>\n' if image.description else ""
    return f"""<a class="skip" href="#try">Skip to the form</a>
<header>
<h1>{escape(image.name)}</h1>
{said}<nav aria-label="On this page"><ul>
{listed}
</ul></nav>
</header>"""


def _intended(
    image: Image, card: page_card.Card, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> str:
    use = _use(card)
    parts = []
    if card.lead and page_card.plain(card.lead) != image.description.strip():
        parts.append(page_card.to_html(card.lead, 2))
    if use:
        parts.append(page_card.to_html(use.body, 2))
    else:
        parts.append("<p>Its author does not say what it should be used for, and what not.</p>")
    parts.append(f"<p>{_in_and_out(inputs, outputs)}</p>")
    return _section("what", "What it is for", "prose", "\n".join(parts))


def _in_and_out(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> str:
    count = f"{len(inputs)} value{'s' if len(inputs) != 1 else ''}"
    takes = [_label(one, at) for at, one in enumerate(inputs)]
    gives = [_label(one, at) for at, one in enumerate(outputs)]
    text = "It is a trained model: a program that learned from examples."
    if takes:
        text += f" You give it {count} ({_listed(takes)})"
        text += f"; it answers with {_listed(gives)}." if gives else "."
    return escape(text)


def _listed(names: Sequence[str]) -> str:
    shown = [_short(one) for one in names[:_MOST_COLUMNS]]
    if len(names) > _MOST_COLUMNS:
        return ", ".join([*shown, "…"])
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if shown[1:] else shown)


def _try(
    card: page_card.Card,
    examples: Recording | None,
    inputs: Sequence[Tensor],
    rows: dict[int, list[Any]],
) -> str:
    limits = _limits(card)
    if not inputs:
        none = "<p>The image does not say which values the model takes, so there is no form.</p>"
        return _section("try", "Try it", "", f'{none}\n<div class="box">{limits}</div>')
    content = f"""<noscript><p class="note">The form needs JavaScript. Without it, send rows to the
model from a terminal: <code>docker run -i --rm IMAGE predict &lt; rows.csv</code></p></noscript>
<div class="two">
<div>
{_form(examples, inputs, rows)}
</div>
<div id="outcome">
<div class="box problem" id="problem" role="alert" tabindex="-1" hidden>
<h3>No prediction</h3>
<div id="why"></div>
</div>
<div class="box" id="prediction">
<h3>Prediction</h3>
<p id="start">Nothing was asked yet. Choose <b>Predict</b>.</p>
<p id="waiting" hidden>Asking the model …</p>
<div id="result" hidden>
<p class="note" id="stale" hidden>The values have changed since. Choose Predict again.</p>
<div id="outputs"></div>
<details><summary>The whole answer, for programs</summary>
<pre id="raw" tabindex="0"></pre></details>
</div>
</div>
<div class="box">{limits}</div>
</div>
</div>
{_examples(examples, inputs, rows)}"""
    return _section("try", "Try it", "", content)


def _form(examples: Recording | None, inputs: Sequence[Tensor], rows: dict[int, list[Any]]) -> str:
    fields = "\n".join(_field(at, one, examples) for at, one in enumerate(inputs))
    many = " many" if len(inputs) > _MANY_FIELDS else ""
    blank = "A blank field says that the value is missing." if _any_nullable(inputs) else ""
    to_examples = ' <a href="#examples">More examples below.</a>' if rows else ""
    return f"""<form class="box" id="form" novalidate autocomplete="off">
<h3>Values</h3>
<p class="hint"><span id="from"></span>{to_examples} {blank}</p>
<div class="fields{many}">
{fields}
</div>
<div class="row"><button class="main" id="predict" disabled>Predict</button>
<button type="button" id="clear" disabled>Clear</button></div>
</form>"""


def _any_nullable(inputs: Sequence[Tensor]) -> bool:
    return any(one.nullable for one in inputs)


def _field(at: int, tensor: Tensor, examples: Recording | None) -> str:
    hint = f'<p class="hint" id="h{at}">{escape(_hint(tensor, examples))}</p>'
    return f"""<div class="field">
<label for="f{at}">{escape(_label(tensor, at))}</label>
{_control(at, tensor, examples)}
{hint}<p class="wrong" id="w{at}" hidden></p>
</div>"""


def _control(at: int, tensor: Tensor, examples: Recording | None) -> str:
    free_text = tensor.datatype in {"BYTES", ""}
    needed = "" if tensor.nullable or free_text else " required"
    said = f'id="f{at}" aria-describedby="h{at} w{at}"{needed}'
    texts = _texts(tensor, examples)
    if len(tensor.shape) > 1 or any("\n" in one or len(one) > 2 * _CELL for one in texts):
        return f'<textarea {said} rows="3" spellcheck="false"></textarea>'
    if tensor.datatype == "BOOL":
        none = "missing" if tensor.nullable else "choose"
        choices = f'<option value="">{none}</option><option>true</option><option>false</option>'
        return f"<select {said}>{choices}</select>"
    if free_text:
        known = [one for one in texts if one][:_MOST_SUGGESTED]
        options = "".join(f'<option value="{escape(one)}"></option>' for one in known)
        suggested = f' list="d{at}"' if known else ""
        below = f'<datalist id="d{at}">{options}</datalist>' if known else ""
        return f'<input type="text" {said}{suggested} spellcheck="false">{below}'
    step = "any" if tensor.datatype.startswith("FP") else "1"
    keys = "decimal" if step == "any" else "numeric"
    # A telephone's keys for numbers may lack the minus.
    below_zero = _seen(tensor, examples).get("low", 0) < 0
    mode = "" if below_zero else f' inputmode="{keys}"'
    return f'<input type="number" {said} step="{step}"{mode}>'


def _hint(tensor: Tensor, examples: Recording | None) -> str:
    """Say what goes into a field, for somebody who cannot guess."""
    seen = _seen(tensor, examples)
    if len(tensor.shape) > 1:
        sizes = " by ".join("any number" if size == -1 else str(size) for size in tensor.shape[1:])
        what = f"A list in JSON, {sizes}"
    elif tensor.datatype == "BOOL":
        what = "True or false"
    elif "low" in seen:
        whole = "" if tensor.datatype.startswith("FP") else "A whole number, "
        what = f"{whole}{seen['low']:.6g} to {seen['high']:.6g} {seen['where']}"
    elif "seen" in seen:
        what = f"{_or([_short(one) for one in seen['seen']])} {seen['where']}"
    elif tensor.datatype == "BYTES":
        what = "Text"
    elif not tensor.datatype:
        what = "A number, or text"
    else:
        what = "A number" if tensor.datatype.startswith("FP") else "A whole number"
    return what + ("; may stay blank" if tensor.nullable else "")


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if words[1:] else words[0]


def _limits(card: page_card.Card) -> str:
    limits = card.limits()
    if limits is None or _NOT_ANSWERED.fullmatch(limits.body):
        said = "<p>The author states no limits. That does not mean that there are none.</p>"
        return f'<h3 id="limits">Limits</h3>\n{said}'
    shown, rest = page_card.split(limits.body, _LIMITS_SHOWN)
    more = ""
    if rest:
        more = f"<details><summary>More limits</summary>{page_card.to_html(rest, 3)}</details>"
    about = '<p class="hint">The author says where the model fails, and what to look out for:</p>'
    return f'<h3 id="limits">Limits</h3>\n{about}\n{page_card.to_html(shown, 3)}\n{more}'


def _examples(
    examples: Recording | None, inputs: Sequence[Tensor], rows: dict[int, list[Any]]
) -> str:
    if examples is None or not rows:
        return ""
    columns = [_label(one, at) for at, one in enumerate(inputs)][:_MOST_COLUMNS]
    more = ["…"] if len(inputs) > _MOST_COLUMNS else []
    answer = next((one for one in examples.outputs if len(one.shape) == 1), None)
    heads = ["Try", *columns, *more, *([f"answer: {answer.name}"] if answer else [])]
    titles = "".join(f'<th scope="col">{escape(_short(one))}</th>' for one in heads)
    lines = []
    for at, (place, row) in enumerate(rows.items()):
        cells = [*map(_cell, row[:_MOST_COLUMNS]), *more]
        cells += [_cell(examples.expected[answer.name][place])] if answer else []
        button = f'<button type="button" data-row="{at}" disabled>Use row {place + 1}</button>'
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr data-row="{at}"><td>{button}</td>{shown}</tr>')
    some = f"{len(rows)} of the {examples.rows}" if len(rows) < examples.rows else "The"
    origin = f"{some} rows that the author recorded with the answers that the model gave, from "
    origin += f"{examples.source}; licence {examples.license}."
    return f"""<h3 id="examples">Recorded examples</h3>
<p class="hint">{escape(origin)}</p>
<div class="scroll" role="group" aria-label="Recorded examples" tabindex="0"><table>
<thead><tr>{titles}</tr></thead>
<tbody>
{chr(10).join(lines)}
</tbody></table></div>"""


def _cell(value: object) -> str:
    if value is None:
        return "missing"
    return _short(value if isinstance(value, str) else json.dumps(value))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CELL else f"{line[: _CELL - 1]}…"


def _programs(image: Image, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> str:
    kinds = [("takes", one) for one in inputs] + [("gives", one) for one in outputs]
    lines = "\n".join(
        f"<tr><td>{kind}</td><td><code>{escape(one.name)}</code></td>"
        f"<td>{escape(one.datatype) or 'as trained'}</td><td>{_shape(one)}</td>"
        f"<td>{'may be missing' if one.nullable else ''}</td></tr>"
        for kind, one in kinds
    )
    table = f"""<div class="scroll" role="group" aria-label="Names and types" tabindex="0"><table>
<thead><tr><th scope="col">The model</th><th scope="col">name</th><th scope="col">datatype</th>
<th scope="col">shape</th><td></td></tr></thead>
<tbody>
{lines}
</tbody></table></div>"""
    content = f"""<p>The server speaks the Open Inference Protocol, version 2. These commands ask
for what the form holds now.</p>
<div data-live hidden>
<h3>curl</h3>
{_copyable("curl", "", "the curl command")}
<h3>Python</h3>
{_copyable("python", "", "the Python code")}
</div>
<noscript><p>Post JSON to <code>{escape(_infer(image))}</code>.</p>
</noscript>
<details{" open" if len(kinds) <= _MANY_FIELDS else ""}><summary>Names and types</summary>
{table}</details>"""
    return _section("programs", "Ask from a program", "", content)


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join('n' if size == -1 else str(size) for size in tensor.shape)}]"


def _copyable(name: str, text: str, what: str) -> str:
    return (
        f'<pre id="{name}" tabindex="0">{escape(text)}</pre>\n<div class="row"><button '
        f'type="button" data-copy="{name}" disabled>Copy {escape(what)}</button></div>'
    )


def _about(image: Image, examples: Recording | None, card: page_card.Card, citation: str) -> str:
    said: dict[str, str] = {}
    for section in reversed(card.sections):
        said |= page_card.labelled(section.body)
    made = _first(said, "made by", "developed by", "authors", "author")
    licence = _first(said, "licence", "license")
    recorded = "none, so that nobody can check that it predicts what it did"
    if examples:
        recorded = f"{examples.rows} rows from {examples.source}; licence {examples.license}"
    facts = [
        ("Made by", made or "The model card does not say."),
        ("Questions to", _contact(_first(said, "questions to", "contact"))),
        ("Licence", licence or escape(image.license)),
        ("Version", escape(image.version)),
        ("Recorded examples", escape(recorded)),
        ("Digest of the model", _digest(image.model_digest)),
        ("Digest of all that the image was built from", _digest(image.inputs_digest)),
        ("Runs on", escape(f"Python {image.python}, {image.base}, {image.platform}")),
    ]
    listed = "\n".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in facts)
    content = f"""<dl>
{listed}
</dl>
<p class="hint">A digest is a fingerprint: where it is the same, the content is the same. Write it
down with your results, so that others can tell which model gave them.</p>
<h3>How to cite</h3>
{_cite(image, citation, _first(said, "cite as", "citation"))}"""
    return _section("about", "Who made it, and how to cite it", "prose", content)


def _first(said: dict[str, str], *labels: str) -> str:
    """Give the first answer that the card has under one of these labels, as HTML."""
    found = (said[one] for one in labels if one in said)
    return next((page_card.inline(one) for one in found if not _NOT_ANSWERED.fullmatch(one)), "")


def _contact(said: str) -> str:
    if _MAIL.fullmatch(said):
        return f'<a href="mailto:{said}">{said}</a>'
    return said or "The model card names nobody."


def _digest(text: str) -> str:
    return f'<span class="digest">{escape(text)}</span>'


def _cite(image: Image, citation: str, said: str) -> str:
    if citation.strip():
        return _copyable("bibtex", citation.strip(), "the BibTeX entry")
    named = escape(f"{image.name}, version {image.version}, {image.model_digest}")
    first = f"The model card says: {said}" if said else "The image holds no citation."
    return f"<p>{first}</p>\n<p>Name the model so: {named}</p>"


def _card(card: page_card.Card) -> str:
    rest = _rest(card)
    if not rest:
        return ""
    parts = ['<p class="hint">The intended use and the limits stand above.</p>']
    for one in rest:
        parts.append(f"<h3>{page_card.inline(one.title, links=False)}</h3>")
        parts.append(page_card.to_html(one.body, 3))
    return _section("card", "Model card", "prose", "\n".join(parts))


def _rest(card: page_card.Card) -> list[page_card.Section]:
    """List the sections that stand nowhere else on the page."""
    above = (_use(card), card.limits())
    return [one for one in card.sections if one not in above]


def _use(card: page_card.Card) -> page_card.Section | None:
    return card.section("Intended Use") or card.section("Uses")


def _section(name: str, title: str, kind: str, content: str) -> str:
    style = f' class="{kind}"' if kind else ""
    head = f'<h2 id="{name}-title">{escape(title)}</h2>'
    start = f'<section id="{name}" aria-labelledby="{name}-title"{style}>'
    return f"{start}\n{head}\n{content}\n</section>\n"
