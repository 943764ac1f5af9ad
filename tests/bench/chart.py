# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, in a few lines and without a library: bars and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_COLOURS = ("#1f5f99", "#c85200", "#5a7d2a", "#8c4a8c", "#777777", "#b8860b")
_STYLE = 'font-family="sans-serif" font-size="12" fill="#222"'


def bars(title: str, unit: str, values: Mapping[str, tuple[float, float, float]]) -> str:
    """Horizontal bars of medians, each with a line from the smallest to the largest value.

    `values`: name -> (smallest, median, largest). The first one is ours.
    """
    top = max(high for _, _, high in values.values()) or 1.0
    height = 46 + 26 * len(values)
    lines = [_head(720, height, title)]
    for number, (name, (low, middle, high)) in enumerate(values.items()):
        y = 38 + 26 * number
        length = 400 * middle / top
        lines += [
            f'<text x="160" y="{y + 13}" text-anchor="end" {_STYLE}>{escape(name)}</text>',
            f'<rect x="170" y="{y}" width="{max(length, 1):.1f}" height="17" '
            f'fill="{_COLOURS[0] if number == 0 else "#b9c4cf"}"/>',
            f'<path d="M {170 + 400 * low / top:.1f} {y + 8.5} H {170 + 400 * high / top:.1f}" '
            'stroke="#222"/>',
            f'<text x="{178 + 400 * high / top:.1f}" y="{y + 13}" {_STYLE}>'
            f"{number_text(middle)} {unit}</text>",
        ]
    return "\n".join([*lines, "</svg>", ""])


def curves(title: str, across: str, unit: str,
           series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Curves over a logarithmic x axis, from (x, y) points."""
    xs = sorted({x for points in series.values() for x, _ in points})
    top = _round_up(max(y for points in series.values() for _, y in points))
    first, last = math.log(xs[0]), math.log(xs[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        return 70 + 500 * (math.log(x) - first) / (last - first or 1), 290 - 240 * y / top

    lines = [_head(720, 350, title)]
    for part in range(5):
        y = 290 - 60 * part
        lines += [f'<path d="M 70 {y} H 570" stroke="#ddd"/>',
                  f'<text x="62" y="{y + 4}" text-anchor="end" {_STYLE}>'
                  f"{number_text(top * part / 4)}</text>"]
    for x in xs:
        lines.append(f'<text x="{place(x, 0)[0]:.1f}" y="308" text-anchor="middle" {_STYLE}>'
                     f"{x:g}</text>")
    lines.append(f'<text x="320" y="334" text-anchor="middle" {_STYLE}>{escape(across)} '
                 f"({escape(unit)} upwards)</text>")
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " L ".join(f"{x:.1f} {y:.1f}" for x, y in (place(*point) for point in points))
        lines.append(f'<path d="M {path}" stroke="{colour}" stroke-width="2" fill="none"/>')
        lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
                  for x, y in (place(*point) for point in points)]
        lines.append(f'<text x="582" y="{60 + 18 * number}" {_STYLE[:-12]} fill="{colour}">'
                     f"{escape(name)}</text>")
    return "\n".join([*lines, "</svg>", ""])


def number_text(value: float) -> str:
    """A figure with about three digits that count."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _round_up(value: float) -> float:
    step = 10 ** math.floor(math.log10(value or 1))
    return step * next(factor for factor in (1, 2, 4, 5, 8, 10) if factor * step >= value)


def _head(width: int, height: int, title: str) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">\n'
            f"<!-- SPDX-License-Identifier: Apache-2.0 -->\n"
            f'<rect width="{width}" height="{height}" fill="#fff"/>\n'
            f'<text x="20" y="22" {_STYLE[:-12]} font-weight="bold" fill="#222">'
            f"{escape(title)}</text>")
