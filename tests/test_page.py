"""The page at `/`: text for every fact, a document without holes, and a visit in Chromium."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pytest
from conftest import REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import serving
from test_runtime import Sealed

from packager.citation import bibtex
from packager.runtime.packager_runtime import page, page_card
from packager.runtime.packager_runtime.facts import Image, Recording, Tensor
from packager.runtime.packager_runtime.page import Page
from packager.runtime.packager_runtime.page_script import SCRIPT
from packager.runtime.packager_runtime.page_style import STYLE

CARD = """\
---
license: apache-2.0
---

# Model card: Penguins

<!-- about: sha256:391f -->

It tells *species* apart.

## Model Details

- **Made by:** Ada Example
- **Questions to:** ada@example.org
- **Cite as:** see `CITATION.cff`

## Intended Use

To learn, see <https://doi.org/10.1371/journal.pone.0090081> or [this](javascript:alert(1)).

## Metrics

<!-- metrics: table -->

| metric | held out |
| --- | --- |
| accuracy | 1.0 |

<!-- /metrics -->

## Caveats and Recommendations

- Three species and no other.
- Look at the probabilities.
"""

SPECIES = ["Adelie", "Gentoo", "Adelie", "Gentoo", "Adelie", "Gentoo"]
CHANCES = [[0.9, 0.1], [0.25, 0.75], [0.8, 0.2], [0.4, 0.6], [0.99951, 0.00049], [0.3, 0.7]]
INPUTS = (
    Tensor("bill_mm", "FP64", nullable=True),
    Tensor("year", "INT64"),
    Tensor("sex", "BYTES", nullable=True),
)
OUTPUTS = (Tensor("species", "BYTES"), Tensor("probability", "FP64", (-1, 2)))
GIVEN: dict[str, list[Any]] = {
    "bill_mm": [39.5, 37.8, None, 48.25, 45.1, 50],
    "year": [2007, 2008, 2009, 2007, 2008, 2**62 + 1],
    "sex": ["MALE", "FEMALE", None, "MALE", "FEMALE", "MALE"],
}


def image(folder: Path, card: str | None = CARD, **other: Any) -> Image:
    if card is not None:
        (folder / "card.md").write_text(card, "utf-8", "replace")
    facts = Image(
        name="penguins",
        version="0.1.0",
        description="Predict the species of a penguin",
        license="Apache-2.0",
        model=folder / "model.skops",
        model_digest="sha256:" + "a" * 64,
        examples=None,
        card=None if card is None else folder / "card.md",
        citation=None,
        predictor=None,
        trust_pickle=False,
        base="debian:bookworm",
        platform="linux/amd64",
        python="3.11",
        inputs_digest="sha256:" + "b" * 64,
    )
    return replace(facts, **other)


def recording(
    given: dict[str, list[Any]] = GIVEN,
    expected: dict[str, list[Any]] | None = None,
    inputs: tuple[Tensor, ...] = INPUTS,
    outputs: tuple[Tensor, ...] = OUTPUTS,
) -> Recording:
    return Recording(
        model="sha256:" + "a" * 64,
        inputs=inputs,
        outputs=outputs,
        rtol=1e-9,
        atol=1e-12,
        rows=len(next(iter(given.values()))),
        source="held-out rows",
        license="CC0-1.0",
        given=given,
        expected=expected or {"species": SPECIES, "probability": CHANCES},
    )


def rendered(facts: Image, examples: Recording | None, citation: str = "") -> Page:
    signature = (examples.inputs, examples.outputs) if examples else ((), ())
    return page.render(facts, examples, *signature, citation)


class Document(HTMLParser):
    """What a browser would make of the bytes: elements, their attributes, and text."""

    VOID = frozenset({"meta", "input", "br", "hr", "link", "img"})

    def __init__(self, made: Page) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(made.html.decode())
        self.close()
        assert not self._open, "an element that is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), "an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]

    @property
    def text(self) -> str:
        return " ".join(self.texts["body"][0].split())

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.texts["script"][0])
        return found


TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "a",
    "header",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "p",
    "nav",
    "ul",
    "ol",
    "li",
    "main",
    "section",
    "div",
    "noscript",
    "code",
    "form",
    "span",
    "label",
    "input",
    "select",
    "option",
    "datalist",
    "textarea",
    "button",
    "details",
    "summary",
    "pre",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "dl",
    "dt",
    "dd",
    "footer",
    "script",
    "b",
    "strong",
    "em",
    "blockquote",
    "hr",
    "br",
}
ATTRIBUTES = {
    "lang",
    "charset",
    "name",
    "content",
    "class",
    "href",
    "id",
    "role",
    "tabindex",
    "hidden",
    "novalidate",
    "autocomplete",
    "for",
    "type",
    "step",
    "inputmode",
    "list",
    "spellcheck",
    "rows",
    "value",
    "disabled",
    "data-row",
    "data-copy",
    "data-live",
    "scope",
    "open",
    "rel",
    "start",
    "required",
    "aria-label",
    "aria-labelledby",
    "aria-describedby",
}


def check_structure(made: Page) -> Document:
    """Whatever the facts are: no foreign element, attribute or address, and no broken reference."""
    found = Document(made)
    assert {tag for tag, _ in found.elements} <= TAGS
    for _, attributes in found.elements:
        assert set(attributes) <= ATTRIBUTES
    for link in found.all("a"):
        assert re.match(r"(#|https?://|mailto:)", link["href"] or ""), link
    assert len(found.ids) == len(set(found.ids)), "an id twice"
    for _, attributes in found.elements:
        for key in ("for", "aria-labelledby", "aria-describedby", "list", "data-copy"):
            for word in (attributes.get(key) or "").split():
                assert word in found.ids, f"{key} leads nowhere"
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in found.ids
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    controls = [one for tag in ("input", "select", "textarea") for one in found.all(tag)]
    assert {one["for"] for one in found.all("label")} == {one["id"] for one in controls}
    assert all(text.strip() for text in found.texts.get("label", []))
    assert found.texts["style"] == [STYLE]
    assert found.texts["script"][1:] == [SCRIPT]
    assert found.facts["infer"].startswith("v2/models/")
    return found


def test_the_penguins_page_says_what_people_look_for(tmp_path: Path) -> None:
    made = rendered(image(tmp_path), recording(), "@software{key,\n  title = {A & B},\n}")
    found = check_structure(made)
    assert found.texts["h1"] == ["penguins"]
    for said in (
        "Predict the species of a penguin",
        "It tells species apart.",
        "Three species and no other.",
        "Ada Example",
        "ada@example.org",
        "sha256:" + "a" * 64,
        "sha256:" + "b" * 64,
        "title = {A & B}",
        "FEMALE or MALE in the recorded examples; may stay blank",
        "37.8 to 50 in the recorded examples",
        "Apache-2.0",
    ):
        assert said in found.text
    assert "about: sha256" not in found.text
    assert {"href": "mailto:ada@example.org"} in found.all("a")
    assert "javascript" not in "".join(one["href"] or "" for one in found.all("a"))


def test_a_page_of_the_templates_own_card_is_small(tmp_path: Path) -> None:
    sys.path.insert(0, str(REPOSITORY))
    try:
        import local_extensions
    finally:
        sys.path.remove(str(REPOSITORY))
    environment = jinja2.Environment(autoescape=False)
    environment.filters["markdown"] = local_extensions.markdown
    environment.filters["quoted"] = json.dumps
    source = (REPOSITORY / "{{cookiecutter.project_slug}}" / "MODEL_CARD.md").read_text()
    answers = {
        "example": "penguins",
        "framework": "scikit-learn",
        "export_format": "skops",
        "license": "Apache-2.0",
        "project_name": "Penguins",
        "project_slug": "penguins",
        "description": "Predict the species",
        "author_name": "Ada [link](https://example.org) *Example*",
        "author_email": "",
    }
    card = environment.from_string(source).render(cookiecutter=answers)
    made = rendered(image(tmp_path, card), recording())
    found = check_structure(made)
    assert len(made.html) < 60_000
    assert "Ada [link](https://example.org) *Example*" in found.text
    assert "The model card names nobody." in found.text
    assert "a King penguin gets the name of one of them" in found.text
    assert "Not answered" not in " ".join(found.texts["dd"])


def test_the_policy_names_the_script_and_the_style_and_nothing_else(tmp_path: Path) -> None:
    made = rendered(image(tmp_path), recording())

    def named(text: str) -> str:
        digest = hashlib.sha256(text.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    policy = dict(part.split(" ", 1) for part in made.policy.split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": named(SCRIPT),
        "style-src": named(STYLE),
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert not re.search("</|<!--", SCRIPT + STYLE)
    assert "://" not in SCRIPT + STYLE


def test_without_a_card_the_page_says_so(tmp_path: Path) -> None:
    found = check_structure(rendered(image(tmp_path, card=None), recording()))
    assert "The author states no limits. That does not mean that there are none." in found.text
    assert "The model card names nobody." in found.text
    assert "Name the model so: penguins, version 0.1.0, sha256:aaa" in found.text
    assert "card" not in found.ids
    lost = replace(image(tmp_path), card=tmp_path / "lost.md")
    assert "The author states no limits." in check_structure(rendered(lost, recording())).text


def test_limits_that_were_not_answered_are_no_limits(tmp_path: Path) -> None:
    card = "# Card\n\n## Caveats and Recommendations\n\nNot answered.\n"
    found = check_structure(rendered(image(tmp_path, card), recording()))
    assert "The author states no limits." in found.text


def test_long_limits_are_cut_between_items(tmp_path: Path) -> None:
    listed = "\n".join(f"- Limit {at}: {'word ' * 20}" for at in range(40))
    card = f"# Card\n\n## Limitations\n\n{listed}\n"
    found = check_structure(rendered(image(tmp_path, card), recording()))
    cut = next(text for text in found.texts["details"] if text.startswith("More limits"))
    assert "Limit 39" in cut
    assert "Limit 0:" not in cut
    assert found.text.count("Limit 20:") == 1


def test_without_examples_the_form_stays_blank(tmp_path: Path) -> None:
    inputs = (Tensor("a", "", nullable=True), Tensor("b", "BOOL"))
    found = check_structure(page.render(image(tmp_path), None, inputs, ()))
    assert [one["label"] for one in found.facts["inputs"]] == ["a", "b"]
    assert found.facts["rows"] == []
    assert "examples" not in found.ids
    assert "A number, or text; may stay blank" in found.text


def test_without_a_signature_there_is_no_form(tmp_path: Path) -> None:
    found = check_structure(page.render(image(tmp_path), None, (), ()))
    assert "form" not in found.ids
    assert "Three species and no other." in found.text


def test_ten_examples_are_spread_over_the_recording(tmp_path: Path) -> None:
    examples = recording(
        {"x": [float(at) for at in range(100)]},
        {"y": [at // 34 for at in range(100)]},
        (Tensor("x", "FP64"),),
        (Tensor("y", "INT8"),),
    )
    found = check_structure(rendered(image(tmp_path), examples)).facts
    assert found["numbers"] == [1, 12, 23, 34, 45, 56, 67, 78, 89, 100]
    assert [row[0] + 1 for row in found["rows"]] == found["numbers"]
    assert {row[0] for row in found["expected"]} == {0, 1, 2}


def test_two_hundred_inputs(tmp_path: Path) -> None:
    inputs = tuple(Tensor(f"column_{at}", "FP32") for at in range(200))
    given = {one.name: [at / 8, -1.5, 2.0] for at, one in enumerate(inputs)}
    expected = {"y": [1.0, 2.0, 3.0]}
    examples = recording(given, expected, inputs, (Tensor("y", "FP64"),))
    found = check_structure(rendered(image(tmp_path), examples))
    assert len(found.all("input")) == 200
    assert len(found.facts["rows"][0]) == 200
    assert len(found.texts["th"]) < 60


def test_arrays_are_typed_as_json_and_large_ones_are_not_carried_along(tmp_path: Path) -> None:
    inputs = (Tensor("picture", "FP32", (-1, 2, -1)),)
    examples = recording(
        {"picture": [[[1, 2], [3, 4]]]}, {"y": [1]}, inputs, (Tensor("y", "INT8"),)
    )
    found = check_structure(rendered(image(tmp_path), examples))
    assert len(found.all("textarea")) == 1
    assert "A list in JSON, 2 by any number" in found.text
    assert found.facts["rows"] == [[[[1, 2], [3, 4]]]]

    large = [[0.123456789] * 50_000] * 2
    examples = recording({"picture": [large]}, {"y": [1]}, inputs, (Tensor("y", "INT8"),))
    made = rendered(image(tmp_path), examples)
    assert check_structure(made).facts["rows"] == []
    assert len(made.html) < 60_000


CHANCES_3 = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1]]


@pytest.mark.parametrize(
    ("labels", "rows", "names"),
    [
        (["a", "b", "a", "b"], CHANCES_3, ["a", "b", None]),
        ([1, 0, 1, 0], CHANCES_3, ["1", "0", None]),
        (["a", "b", "b", "b"], CHANCES_3, None),  # a row contradicts
        (["a", "a", "a", "a"], CHANCES_3, None),  # two places of one name
        (["a", "b"], CHANCES_3[:2], None),  # nothing could have contradicted
        (["a", None, "a", "b"], CHANCES_3, None),
        (["a", "b", "a"], [[0.5, 0.5], [0.1, 0.9], [0.2, 0.8]], None),
        (["a", "b", "b"], [[0.5, 0.5], [0.1, 0.9], [0.2, 0.8]], [None, "b"]),  # a tie says nothing
        (["a", "a"], [[0.9, 0.1], [0.9]], None),
        (["a", "a"], [[0.9, None], [0.9, 0.1]], None),
        (["a", "a"], [0.9, 0.8], None),
    ],
)
def test_classes_have_names_where_no_recorded_row_contradicts(
    tmp_path: Path, labels: list[Any], rows: list[Any], names: list[str | None] | None
) -> None:
    examples = recording(
        {"x": [1.0] * len(rows)},
        {"label": labels, "chances": rows},
        (Tensor("x", "FP64"),),
        (Tensor("label", "BYTES"), Tensor("chances", "FP64", (-1, -1))),
    )
    found = Document(rendered(image(tmp_path), examples))
    assert found.facts["outputs"][1].get("names") == names


# Markdown


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        (
            "a *b* **c** _d_ snake_case_x",
            "<p>a <em>b</em> <strong>c</strong> <em>d</em> snake_case_x</p>",
        ),
        ("5 * 3 * 2 and **open", "<p>5 * 3 * 2 and **open</p>"),
        ("**a *b** c*", "<p><strong>a *b</strong> c*</p>"),
        (r"\*a\* \<b\>", "<p>*a* &lt;b&gt;</p>"),
        ("`a *b*` ``c`d`` `e", "<p><code>a *b*</code> <code>c`d</code> `e</p>"),
        ("<b onclick=x>&lt;i&gt; &amp;", "<p>&lt;b onclick=x&gt;&lt;i&gt; &amp;</p>"),
        ("![a](https://e.org/x.png)", "<p>a</p>"),
        ("[a](JaVaScRiPt:x) [b](data:x) [c](/x) [d](//e.org)", "<p>a b c d</p>"),
        ("[a](&#106;avascript:x)", "<p>a</p>"),
        (
            '[*a*](https://e.org/(b)?c&d "t")',
            '<p><a href="https://e.org/(b)?c&amp;d" rel="noreferrer"><em>a</em></a></p>',
        ),
        ('[a](https://e.org/"onclick=x)', None),
        ("- a\n- b\n  c", "<ul>\n<li>a</li>\n<li>b\nc</li>\n</ul>"),
        ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>'),
        ("- a\n  - b", "<ul>\n<li>a\n<ul>\n<li>b</li>\n</ul></li>\n</ul>"),
        (
            "```html\n<b>\n```\nafter",
            '<pre tabindex="0"><code>&lt;b&gt;</code></pre>\n<p>after</p>',
        ),
        ("~~~\nopen", '<pre tabindex="0"><code>open</code></pre>'),
        ("#### deep\n##### deeper", "<h3>deep</h3>\n<h4>deeper</h4>"),
        ("> *a*\n> b", "<blockquote><p><em>a</em>\nb</p></blockquote>"),
        ("a\n\n---\n\nb", "<p>a</p>\n<hr>\n<p>b</p>"),
    ],
)
def test_markdown(markdown: str, html: str | None) -> None:
    found = page_card.to_html(markdown, 2)
    if html is None:
        assert '"onclick' not in found
    else:
        assert found == html


def test_a_table_with_pipes_and_holes() -> None:
    found = page_card.to_html("| a |  |\n| --- | --- |\n| x \\| y |\n| 1 | 2 | 3 |\n", 2)
    assert '<th scope="col">a</th><td></td>' in found
    assert "<tr><td>x | y</td><td></td></tr>" in found
    assert "<tr><td>1</td><td>2</td></tr>" in found


def test_comments_go_but_for_those_in_code() -> None:
    text = "a<!-- b\n## No\n-->c\n\n```\n<!-- d -->\n```\n`<!-- e -->`\n\n## Yes\nf <!-- open"
    card = page_card.read(text)
    assert [one.title for one in card.sections] == ["Yes"]
    assert card.lead.startswith("ac\n")
    assert "<!-- d -->" in card.lead
    assert "<!-- e -->" in card.lead
    assert card.sections[0].body == "f "


def test_markdown_as_a_known_parser_reads_it() -> None:
    from markdown_it import MarkdownIt

    body = page_card.read(CARD.replace("[this](javascript:alert(1))", "this")).sections
    for section in body:
        theirs = MarkdownIt("commonmark").enable("table").render(section.body)
        ours = page_card.to_html(section.body, 2)

        def bare(html: str) -> str:
            return "".join(re.sub(r"<(/?\w+)[^>]*>", r"<\1>", html).replace("div>", "").split())

        ours = re.sub(r"</?div[^>]*>", "", ours)
        assert bare(ours) == bare(theirs)


@pytest.mark.parametrize(
    "piece",
    [
        "*a ",
        "**",
        "`a",
        "``` `",
        "[a](",
        "[",
        "![a](x",
        "> ",
        "- ",
        "<!--",
        "| a ",
        "_a",
        "&#",
        "# ",
    ],
)
def test_no_card_takes_long_to_read(piece: str) -> None:
    # A quadratic reader would take minutes for these: pytest's patience is the bound.
    for text in (piece * (200_000 // len(piece)), (piece + "\n") * 40_000):
        page_card.to_html(page_card.read("## a\n" + text).sections[0].body, 2)


# Hostile facts

HOSTILE = [
    "</script><img src=x onerror=hacked()>",
    '"><script>hacked()</script>',
    "' autofocus onfocus=hacked() x='",
    "<!--<script>",
    "]]>&lt;&#60;script&#62;",
    "a\r\nb\u2028c\x00\x1b[2J",
    "\ud800 lone",
    "`; hacked(); `${hacked()}",
    "../../etc/passwd?#%2e",
    "x" * 5000,
    "\u202egnp.exe",
    "   ",
    "__proto__",
]
anything = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30))


def shown_as(text: str) -> str:
    """What is left of a text in UTF-8 and HTML: no lone surrogate, no carriage return."""
    text = text.encode("utf-8", "replace").decode()
    return " ".join(text.replace("\r", "\n").replace("\0", "\ufffd").split())


def hostile_page(folder: Path, texts: list[str], card: str) -> Page:
    name, description, text, value, label = texts
    tensors = (Tensor(text, "BYTES", nullable=True), Tensor(text + "2", "FP64", (-1, 2)))
    outputs = (Tensor(label, "BYTES"), Tensor(label + "2", "FP64", (-1, 2)))
    examples = recording(
        {text: [value, None, value, value], text + "2": [[1, 2]] * 4},
        {label: [value, "b", value, "b"], label + "2": [[1, 0], [0, 1]] * 2},
        tensors,
        outputs,
    )
    facts = image(folder, card, name=name, description=description, license=text, base=value)
    return rendered(facts, replace(examples, source=value, license=name), description)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(anything, min_size=5, max_size=5), st.lists(anything, max_size=6))
def test_whatever_the_facts_are_they_come_out_as_text(
    tmp_path: Path, texts: list[str], lines: list[str]
) -> None:
    headed = [f"## {line}\n- **Made by:** {line}\n\n{line}" for line in lines]
    made = hostile_page(tmp_path, texts, "\n".join([*lines, *headed]))
    found = check_structure(made)
    name, description, text, value, label = texts
    assert " ".join(found.texts["h1"][0].split()) == shown_as(name)
    if description:
        assert shown_as(description) in found.text
    assert found.facts["infer"] == f"v2/models/{quote(name, safe='', errors='replace')}/infer"
    assert found.facts["inputs"][0]["name"] == text
    assert found.facts["rows"][0][0] == value
    assert found.facts["outputs"][0]["name"] == label


def test_the_hostile_check_would_see_a_hole(tmp_path: Path) -> None:
    made = rendered(image(tmp_path), recording())
    for hole in (b"<img src=x>", b'<p onclick="x">a</p>', b'<a href="javascript:x">a</a>', b"<p>"):
        with pytest.raises(AssertionError):
            check_structure(replace(made, html=made.html.replace(b"<main>", b"<main>" + hole)))


# Citation


def test_a_citation_as_bibtex() -> None:
    citation = {
        "title": "P & Q: 100 % {x}",
        "type": "software",
        "authors": [
            {"family-names": "Mäß", "name-particle": "van der", "given-names": "Jan"},
            {"family-names": "King", "given-names": "M. L.", "name-suffix": "Jr."},
            {"name": "Birds and Sons, Ltd"},
        ],
        "version": "0.1.0",
        "date-released": "2026-01-02",
        "doi": "10.5281/zenodo.1_2",
        "repository-code": "https://example.org/a_b}",
    }
    assert bibtex(citation) == "\n".join(
        [
            "@software{ma2026p,",
            "  author = {van der Mäß, Jan and King, Jr., M. L. and {Birds and Sons, Ltd}},",
            r"  title = {{P \& Q: 100 \% \textbraceleft{}x\textbraceright{}}},",
            "  version = {0.1.0},",
            "  year = {2026},",
            "  doi = {10.5281/zenodo.1_2},",
            "  url = {https://example.org/a_b%7D},",
            "}",
        ]
    )


def test_the_preferred_citation_wins() -> None:
    article = {"type": "article", "title": "T", "journal": "J", "year": 2020, "issue": 3}
    entry = bibtex({"title": "No", "type": "software", "preferred-citation": article})
    assert entry.startswith("@article{2020t,")
    assert "journal = {J}" in entry
    assert "number = {3}" in entry
    assert "No" not in entry


@given(
    st.dictionaries(
        st.sampled_from(["title", "version", "url", "doi", "authors", "type"]),
        st.one_of(
            st.text(),
            st.integers(),
            st.lists(
                st.dictionaries(st.sampled_from(["name", "family-names", "given-names"]), st.text())
            ),
        ),
    )
)
def test_every_entry_has_balanced_braces(citation: dict[str, Any]) -> None:
    depth = 0
    for character in bibtex(citation):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0


# A visit


Reply = Callable[[bytes], tuple[int, bytes]]


class Site:
    """A stand-in for the server: the page under a prefix, and answers as a test wants them."""

    def __init__(self) -> None:
        self.made = Page(b"", "")
        self.reply: Reply = lambda _: (200, b"{}")
        self.asked: list[Any] = []
        self.visited: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.visited.append(self.path)
                if self.path == "/some/prefix/":
                    self._send(200, outer.made.html, "text/html; charset=utf-8")
                else:
                    self._send(404, b"{}", "application/json")

            def do_POST(self) -> None:
                outer.visited.append(self.path)
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.asked.append(json.loads(body))
                self._send(*outer.reply(body), "application/json")

            def _send(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.send_header("content-security-policy", outer.made.policy)
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/some/prefix/"

    def values(self) -> list[Any]:
        """Give the values that were asked for last."""
        return [one["data"][0] for one in self.asked[-1]["inputs"]]


def answering(examples: Recording) -> Reply:
    """Answer what was recorded for these values, and the first recorded answer to all others."""

    def reply(body: bytes) -> tuple[int, bytes]:
        values = {one["name"]: one["data"][0] for one in json.loads(body)["inputs"]}
        rows = [
            {name: column[at] for name, column in examples.given.items()}
            for at in range(examples.rows)
        ]
        at = rows.index(values) if values in rows else 0
        outputs = []
        for tensor in examples.outputs:
            value = examples.expected[tensor.name][at]
            data = value if isinstance(value, list) else [value]
            shape = [1, len(value)] if isinstance(value, list) else [1]
            outputs.append(
                {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": data}
            )
        return 200, json.dumps({"model_name": "penguins", "outputs": outputs}).encode()

    return reply


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site()
    examples = recording()
    site.made = rendered(image(tmp_path), examples, "@software{a,\n  title = {B},\n}")
    site.reply = answering(examples)
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def visit(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """Open the page; at the end there were no errors, and no requests to other places."""
    contexts, wrong = [], []

    def note(message: Any) -> None:
        # A browser looks for an icon, which the policy keeps it from; a refusal is logged too.
        known = ("favicon.ico", "Failed to load resource")
        if message.type == "error" and not any(one in message.text for one in known):
            wrong.append(message.text)

    def visit(address: str = site.address, **options: Any) -> Any:
        context = browser.new_context(reduced_motion="reduce", **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("console", note)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        root = "/".join(address.split("/")[:3]) + "/"
        tab.on("request", lambda one: one.url.startswith(root) or wrong.append(one.url))
        tab.goto(address)
        return tab

    yield visit
    for context in contexts:
        assert context.cookies() == []
        context.close()
    assert wrong == []


def predict(tab: Any) -> str:
    tab.get_by_role("button", name="Predict").click()
    tab.locator("#outputs > *").first.wait_for()
    return str(tab.locator("#outputs").inner_text())


def refused(tab: Any) -> str:
    tab.locator("#problem").wait_for()
    assert tab.evaluate("document.activeElement.id") == "problem"
    assert not tab.locator("#result").is_visible()
    return str(tab.locator("#problem").inner_text())


def test_a_visitor_asks_with_the_keyboard_alone(visit: Any, site: Site) -> None:
    tab = visit()
    keys = tab.keyboard
    tab.evaluate("document.body.focus()")
    keys.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the form"
    keys.press("Enter")
    for _ in range(10):
        keys.press("Tab")
        if tab.evaluate("document.activeElement.id") == "f0":
            break
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    keys.press("Control+A")
    keys.type("44.5")
    keys.press("Tab")
    keys.press("Control+A")
    keys.type("2011")
    keys.press("Enter")
    tab.locator("#outputs .answer").wait_for()
    assert site.values() == [44.5, 2011, "MALE"]
    assert site.visited[-1] == "/some/prefix/v2/models/penguins/infer"
    assert site.asked[-1]["inputs"][0] == {
        "name": "bill_mm",
        "shape": [1],
        "datatype": "FP64",
        "data": [44.5],
    }
    assert "Adelie" in tab.locator("#status").text_content()
    assert "90.0 %" in tab.locator("#status").text_content()


def test_the_prediction_beside_the_recorded_one(visit: Any, site: Site) -> None:
    tab = visit()
    tab.get_by_role("button", name="Use row 6").press("Enter")
    assert tab.evaluate("document.activeElement.id") == "predict"
    assert "recorded row 6" in tab.locator("#from").text_content()
    tab.keyboard.press("Enter")
    tab.locator("#outputs .answer").wait_for()
    said = tab.locator("#outputs").inner_text()
    assert site.values() == [50, 2**62 + 1, "MALE"]
    assert "How sure the model is: 70.0 %" in said
    assert "What the model answered when the author recorded this row: Gentoo, the same." in said
    assert re.search(r"Gentoo\s+70.0 %\s+Adelie\s+30.0 %", said)

    tab.get_by_label("bill mm").fill("49")
    assert tab.locator("#stale").is_visible()
    assert "recorded" not in predict(tab)
    assert not tab.locator("#stale").is_visible()


def test_another_answer_than_the_recorded_one_is_said(visit: Any, site: Site) -> None:
    other = recording(expected={"species": SPECIES[::-1], "probability": CHANCES[::-1]})
    site.reply = answering(other)
    said = predict(visit())
    assert "when the author recorded this row: Adelie, so this answer differs." in said
    assert "Not as recorded." in said
    assert re.search(r"\(recorded: \d+\.0 %\)", said)


def test_missing_values_go_out_as_null_and_strange_ones_are_named(visit: Any, site: Site) -> None:
    tab = visit()
    tab.get_by_label("bill mm").fill("400")
    tab.get_by_label("sex").fill("PENGUIN")
    said = predict(tab)
    assert "bill mm (400) lies outside 37.8 to 50" in said
    assert "sex (PENGUIN) is none of FEMALE, MALE" in said
    tab.get_by_label("bill mm").fill("")
    tab.get_by_label("sex").fill("")
    assert "Take this with care" not in predict(tab)
    assert site.values() == [None, 2007, None]


def test_what_the_model_was_trained_on_counts_more_than_what_was_recorded(
    visit: Any, site: Site, tmp_path: Path
) -> None:
    trained = {"bill_mm": {"min": 30.5, "max": 60}, "sex": {"values": ["MALE", "FEMALE", "SHE"]}}
    site.made = rendered(image(tmp_path), replace(recording(), ranges=trained))
    tab = visit()
    text = tab.locator("#form").inner_text()
    assert "30.5 to 60 in what the model learned from; may stay blank" in text
    assert "FEMALE, MALE or SHE in what the model learned from" in text
    tab.get_by_label("bill mm").fill("58")
    tab.get_by_label("sex").fill("SHE")
    assert "Take this with care" not in predict(tab)
    tab.get_by_label("bill mm").fill("61")
    tab.get_by_label("sex").fill("HE")
    said = predict(tab)
    assert "bill mm (61) lies outside 30.5 to 60 in what the model learned from" in said
    assert "sex (HE) is none of FEMALE, MALE, SHE in what the model learned from" in said


def test_a_value_that_no_recorded_row_lacks_is_missed(
    visit: Any, site: Site, tmp_path: Path
) -> None:
    full = GIVEN | {"bill_mm": [39.5, 37.8, 41, 48.25, 45.1, 50]}
    site.made = rendered(image(tmp_path), recording(full))
    tab = visit()
    tab.get_by_label("bill mm").fill("")
    tab.get_by_label("sex").fill("")
    said = predict(tab)
    assert "bill mm is missing" in said
    assert "sex is missing" not in said


@pytest.mark.parametrize(
    ("typed", "what"),
    [("", "needs a value"), ("1.5", "is not a whole number"), ("1e", "is not a number")],
)
def test_what_the_model_cannot_take_is_said_at_the_field(
    visit: Any, site: Site, typed: str, what: str
) -> None:
    tab = visit()
    tab.get_by_label("year").fill("")
    tab.get_by_label("year").press_sequentially(typed)
    tab.get_by_role("button", name="Predict").click()
    assert f"year {what}." in refused(tab)
    assert site.asked == []
    assert tab.get_by_label("year").get_attribute("aria-invalid") == "true"
    tab.get_by_role("link", name="year").press("Enter")
    assert tab.evaluate("document.activeElement.id") == "f1"
    tab.get_by_label("year").fill("2008")
    predict(tab)
    assert not tab.locator("#problem").is_visible()
    assert tab.locator("[aria-invalid]").count() == 0


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            400,
            b'{"error": "year: <b>too</b> early"}',
            "refused these values: year: <b>too</b> early",
        ),
        (502, b"<h1>Bad gateway</h1>", "refused these values: status 502"),
        (200, b"not JSON", "answer cannot be read"),
        (200, b'{"outputs": [{"name": "y", "shape": [1]}]}', "answer cannot be read"),
    ],
)
def test_refusals_in_plain_words(
    visit: Any, site: Site, status: int, body: bytes, said: str
) -> None:
    tab = visit()
    site.reply = lambda _: (status, body)
    tab.get_by_role("button", name="Predict").click()
    assert said in refused(tab)
    assert tab.locator("#problem b").count() == 0


def test_a_server_that_is_gone(visit: Any, site: Site) -> None:
    tab = visit()
    site.server.shutdown()
    site.server.server_close()
    tab.get_by_role("button", name="Predict").click()
    assert "The server did not answer" in refused(tab)


def test_names_that_the_answer_contradicts_are_not_shown(visit: Any, site: Site) -> None:
    contradicting = recording(expected={"species": ["Gentoo"] * 6, "probability": CHANCES})
    site.reply = answering(contradicting)
    said = predict(visit())
    assert "class 0" in said
    assert "How sure" not in said
    assert "does not say what each class is called" in said


def test_nested_and_flat_data_and_other_outputs(visit: Any, site: Site) -> None:
    outputs = [
        {"name": "score", "datatype": "FP64", "shape": [1], "data": [0.25]},
        {"name": "nested", "datatype": "FP64", "shape": [1, 2], "data": [[0.25, 0.75]]},
        {"name": "flat", "datatype": "INT64", "shape": [1, 2, 2], "data": [1, 2, 3, 2**62 + 1]},
        {"name": "none", "datatype": "BYTES", "shape": [1], "data": [None]},
    ]
    site.reply = lambda _: (200, json.dumps({"outputs": outputs}).encode())
    said = predict(visit())
    assert "75.0 %" in said
    assert f"[[1, 2], [3, {2**62 + 1}]]" in said
    assert "no value" in said


def test_arrays_and_truth_and_long_text(visit: Any, site: Site, tmp_path: Path) -> None:
    inputs = (
        Tensor("grid", "INT64", (-1, 2, -1)),
        Tensor("flag", "BOOL", nullable=True),
        Tensor("prose", "BYTES"),
        Tensor("free", "", nullable=True),
    )
    given = {
        "grid": [[[1, 2**62 + 1], [3, 4]], [[5], [6]]],
        "flag": [True, None],
        "prose": ["two\r\nlines of 'text'", '\u2028 "quoted" \\'],
        "free": [1.5, "x"],
    }
    examples = recording(given, {"y": [1.0, 2.0]}, inputs, (Tensor("y", "FP64"),))
    site.made = rendered(image(tmp_path), examples)
    site.reply = answering(examples)
    tab = visit()
    predict(tab)
    assert site.values() == [column[0] for column in given.values()]
    tab.get_by_role("button", name="Use row 2").click()
    predict(tab)
    assert site.values() == [column[1] for column in given.values()]
    assert site.asked[-1]["inputs"][0]["shape"] == [1, 2, 1]
    tab.get_by_label("grid").fill("[1, 2")
    tab.get_by_role("button", name="Predict").click()
    assert "grid is not a list in JSON" in refused(tab)
    tab.get_by_label("grid").fill("[[1], [2]]")
    tab.get_by_label("flag").select_option("false")
    tab.get_by_label("free").fill("2.5")
    predict(tab)
    assert site.values()[0:2] == [[[1], [2]], False]
    assert site.asked[-1]["inputs"][3] == {
        "name": "free",
        "shape": [1],
        "datatype": "FP64",
        "data": [2.5],
    }


def test_the_snippets_do_what_the_form_does(visit: Any, site: Site) -> None:
    tab = visit()
    hostile = """it's "x" \\ $(touch /tmp/no) `x` \u00fc"""
    tab.get_by_label("sex").fill(hostile)
    tab.get_by_label("bill mm").fill("")
    wanted = [None, 2007, hostile]
    for command in (
        ["sh", "-c", tab.locator("#curl").text_content()],
        [sys.executable, "-c", tab.locator("#python").text_content()],
    ):
        site.asked.clear()
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert site.values() == wanted
        assert "Adelie" in run.stdout


def test_copying_selects_where_the_clipboard_is_out_of_reach(visit: Any) -> None:
    tab = visit()
    tab.evaluate("void (navigator.clipboard.writeText = () => Promise.reject())")
    tab.get_by_role("button", name="Copy the curl command").click()
    assert tab.get_by_role("button", name="Selected: press Ctrl+C").is_visible()
    assert tab.evaluate("getSelection().toString()") == tab.locator("#curl").text_content()


def test_reading_needs_no_script(visit: Any) -> None:
    tab = visit(java_script_enabled=False)
    said = tab.locator("body").inner_text()
    assert "The form needs JavaScript" in said
    assert "docker run -i --rm IMAGE predict" in said
    assert "Three species and no other." in said
    assert "v2/models/penguins/infer" in said
    assert tab.get_by_role("button", name="Predict").is_disabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["fresh", "answered", "refused"])
def test_accessible(visit: Any, scheme: str, state: str) -> None:
    import axe_playwright_python

    tab = visit(color_scheme=scheme, viewport={"width": 1180, "height": 900})
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 251, 249)"
    assert light == (scheme == "light")
    if state == "answered":
        tab.get_by_label("bill mm").fill("400")
        predict(tab)
    if state == "refused":
        tab.get_by_label("year").fill("")
        tab.get_by_role("button", name="Predict").click()
    found = violations(tab, Path(axe_playwright_python.__file__).parent / "axe.min.js")
    assert found == []


def violations(tab: Any, axe: Path) -> list[str]:
    tab.evaluate(axe.read_text("utf-8"))
    report = tab.evaluate("axe.run()")
    assert len(report["passes"]) > 20
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in report["violations"]
        for node in one["nodes"]
    ]


def test_the_accessibility_check_would_see_faults(visit: Any) -> None:
    import axe_playwright_python

    tab = visit()
    tab.evaluate(
        "document.querySelector('label').remove();"
        "document.querySelector('.lead').style.color = '#bbb'"
    )
    found = violations(tab, Path(axe_playwright_python.__file__).parent / "axe.min.js")
    assert {one.partition(":")[0] for one in found} >= {"label", "color-contrast"}


@pytest.mark.parametrize("facts", ["penguins", "hostile", "many"])
def test_a_telephone_never_scrolls_sideways(
    visit: Any, site: Site, tmp_path: Path, facts: str
) -> None:
    if facts == "hostile":
        card = "## " + "y" * 500 + "\n\n" + "z" * 900 + "\n\n| " + "w" * 500 + " |\n| --- |\n"
        site.made = hostile_page(tmp_path, ["x" * 5000] * 5, card + "\n\n`" + "v" * 900 + "`")
    if facts == "many":
        inputs = tuple(Tensor(f"a_long_column_name_{at}", "FP64") for at in range(200))
        given = {one.name: [0.125] for one in inputs}
        examples = recording(given, {"y": [1.0]}, inputs, (Tensor("y", "FP64"),))
        site.made = rendered(image(tmp_path), examples)
    tab = visit(viewport={"width": 360, "height": 740}, has_touch=True)
    for look in range(3):
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        if look == 0:
            predict(tab)
        elif look == 1:
            site.reply = lambda _: (400, json.dumps({"error": "q" * 2000}).encode())
            tab.get_by_role("button", name="Predict").click()
            refused(tab)
    heights = tab.locator("#form button, #form input").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= 44


def test_the_telephone_check_would_see_something_wide(visit: Any) -> None:
    tab = visit(viewport={"width": 360, "height": 740})
    tab.evaluate("void (document.querySelector('main').style.minWidth = '400px')")
    assert tab.evaluate("document.documentElement.scrollWidth") > 360


def test_hostile_facts_run_nothing_in_a_browser(visit: Any, site: Site, tmp_path: Path) -> None:
    for at in range(0, len(HOSTILE) - 4, 3):
        texts = HOSTILE[at : at + 5]
        site.made = hostile_page(tmp_path, texts, "\n".join(f"## {one}\n{one}" for one in HOSTILE))
        hostile = [{"name": one, "datatype": one, "shape": [1], "data": [one]} for one in HOSTILE]
        site.reply = lambda _, said=hostile: (200, json.dumps({"outputs": said}).encode())
        tab = visit()
        tab.evaluate("void (window.hacked = () => alert('hacked'))")
        predict(tab)
        assert tab.locator("img").count() == 0
        assert tab.locator("script").count() == 2
        assert shown_as(texts[0]) in " ".join(tab.locator("h1").text_content().split())


def test_on_paper_everything_can_be_read(visit: Any) -> None:
    tab = visit()
    predict(tab)
    tab.emulate_media(media="print")
    assert not tab.get_by_role("button", name="Predict").is_visible()
    assert tab.locator("#outputs .answer").is_visible()
    assert tab.get_by_text("Three species and no other.").is_visible()


def test_the_servers_own_answers_and_refusals(visit: Any, tmp_path: Path) -> None:
    sealed = Sealed(tmp_path)
    sealed.write(kind="Picky")
    with serving(sealed, "--max-mb", "0.01") as server:
        tab = visit(f"http://127.0.0.1:{server.port}/")
        said = predict(tab)
        assert re.search(r"double\s+3\s+What the model answered when [a-z ]+: 3, the same.", said)
        assert re.search(r"label\s+M\s+What the model answered when [a-z ]+: M, the same.", said)
        tab.get_by_label("size").fill("21")
        tab.get_by_label("sex").fill("x")
        assert re.search(r"double\s+42\s+Take this with care", predict(tab))
        tab.get_by_label("sex").fill("no memory")
        tab.get_by_role("button", name="Predict").click()
        assert "The server refused these values: " in refused(tab)
        tab.get_by_label("sex").fill("x" * 20_000)
        tab.get_by_role("button", name="Predict").click()
        tab.get_by_text("10000 bytes").wait_for()
        tab.get_by_label("sex").fill("y")
        assert re.search(r"label\s+Y", predict(tab))
