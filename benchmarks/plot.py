"""Draw what results.json holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from measure import spread

NAMES = {
    "packager": "packager",
    "uv": "BuildKit + uv",
    "pip": "docker build + pip",
    "mlflow": "MLflow",
    "bentoml": "BentoML",
    "floor": "the floor",
}
COLOURS = {
    "packager": "#c2410c",
    "uv": "#35618e",
    "pip": "#64748b",
    "mlflow": "#0f766e",
    "bentoml": "#7e22ce",
    "floor": "#000000",
}

ROW, LEFT, WIDTH, TOP = 34, 330, 900, 60
"""Pixels: a case's height, where the scale begins, the whole width, the heading."""


def draw(rows: Sequence[tuple[str, Mapping[str, Sequence[float]]]]) -> str:
    """Draw the seconds of each case: a dot for each peer's median, a line from least to most.

    A row is a case's title, and the seconds of each peer.
    """
    rows = [row for row in rows if row[1]]
    if not rows:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    seen = {(title, name): spread(made) for title, peers in rows for name, made in peers.items()}
    low = math.floor(math.log10(min(one.least for one in seen.values())))
    high = math.ceil(math.log10(max(one.most for one in seen.values())))

    def x(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return round(LEFT + share * (WIDTH - LEFT - 30), 1)

    height = TOP + ROW * len(rows) + 40
    bottom = height - 36
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="Seconds of each case for each peer, on a logarithmic scale; '
        'the tables hold the numbers." font-family="system-ui, sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    names = [name for name in NAMES if any(name == peer for _, peer in seen)]
    for place, name in enumerate(names):
        left = 20 + 170 * place
        drawn.append(f'<circle cx="{left}" cy="24" r="6" fill="{COLOURS[name]}"/>')
        drawn.append(f'<text x="{left + 12}" y="29" fill="#1f2937">{escape(NAMES[name])}</text>')
    for power in range(low, high + 1):
        at = x(10**power)
        drawn.append(f'<line x1="{at}" x2="{at}" y1="{TOP - 10}" y2="{bottom}" stroke="#d1d5db"/>')
        label = f"{10.0**power:g} s"
        drawn.append(
            f'<text x="{at}" y="{height - 14}" fill="#4b5563" text-anchor="middle">{label}</text>'
        )
    for row, (title, _) in enumerate(rows):
        y = TOP + ROW * row + ROW // 2
        drawn.append(
            f'<text x="{LEFT - 12}" y="{y + 5}" fill="#1f2937" text-anchor="end">'
            f"{escape(title)}</text>"
        )
        for place, name in enumerate(names):
            if one := seen.get((title, name)):
                at = y + 5 * (place - (len(names) - 1) / 2)
                colour = COLOURS[name]
                drawn.append(
                    f'<line x1="{x(one.least)}" x2="{x(one.most)}" y1="{at}" y2="{at}" '
                    f'stroke="{colour}" stroke-width="2"/>'
                )
                drawn.append(f'<circle cx="{x(one.median)}" cy="{at}" r="5" fill="{colour}"/>')
    return "\n".join([*drawn, "</svg>", ""])
