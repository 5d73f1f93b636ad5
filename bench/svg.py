"""Plots as SVG text: cost curves on two logarithmic axes, and bars. Pure, and without a plotting library.

Readable on white and on black: colours follow the reader's preference. Never draws what it was not given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 44, 48
COLOURS = ("a", "b", "c", "d", "e", "f")
STYLE = """<style>
text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:14px;font-weight:600}.value{font-size:11px}
.grid{stroke:#d0d7de;stroke-width:1}.line{fill:none;stroke-width:2}.end{text-anchor:end}.middle{text-anchor:middle}
.sa{stroke:#0969da}.sb{stroke:#cf222e}.sc{stroke:#1a7f37}.sd{stroke:#9a6700}.se{stroke:#8250df}.sf{stroke:#57606a}
.fa{fill:#0969da}.fb{fill:#cf222e}.fc{fill:#1a7f37}.fd{fill:#9a6700}.fe{fill:#8250df}.ff{fill:#57606a}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#30363d}
.sa{stroke:#58a6ff}.sb{stroke:#ff7b72}.sc{stroke:#56d364}.sd{stroke:#e3b341}.se{stroke:#bc8cff}.sf{stroke:#8b949e}
.fa{fill:#58a6ff}.fb{fill:#ff7b72}.fc{fill:#56d364}.fd{fill:#e3b341}.fe{fill:#bc8cff}.ff{fill:#8b949e}}
</style>"""


def curves(title: str, x_label: str, y_label: str, lines: Mapping[str, Points]) -> str:
    """One line a name, both axes logarithmic; only points above zero can be shown."""
    shown = {name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in lines.items()}
    xs = [x for points in shown.values() for x, _ in points] or [1.0]
    ys = [y for points in shown.values() for _, y in points] or [1.0]
    across, up = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT), _Axis(min(ys), max(ys), HEIGHT - BOTTOM, TOP)
    parts = [
        _text(LEFT, 18, title, "title"),
        _text(LEFT, 34, y_label),
        _text(WIDTH - RIGHT, HEIGHT - 8, x_label, "end"),
    ]
    for tick in across.ticks():
        at = across.at(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 16, short(tick), "middle"))
    for tick in up.ticks():
        at = up.at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(LEFT - 6, at + 4, short(tick), "end"))
    for colour, (_name, points) in zip(COLOURS, shown.items(), strict=False):
        path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line s{colour}" points="{path}"/>')
        parts += [f'<circle class="f{colour}" cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="3"/>' for x, y in points]
    parts += _legend(list(shown), HEIGHT)
    return _document(title, HEIGHT + 18 * len(shown), parts)


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Horizontal bars: a group a row of names, each with its value behind it."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    longest = max((value for group in groups.values() for value in group.values()), default=1.0) or 1.0
    room, at = WIDTH - 190 - 90, 40
    parts = [_text(10, 20, f"{title} ({unit})", "title")]
    for label, group in groups.items():
        parts.append(_text(180, at + 8 * len(group) + 3, label, "end"))
        for name, value in group.items():
            colour, width = COLOURS[names.index(name) % len(COLOURS)], room * value / longest
            parts.append(f'<rect class="f{colour}" x="190" y="{at}" width="{width:.1f}" height="13"/>')
            parts.append(_text(196 + width, at + 11, short(value), "value"))
            at += 16
        at += 10
    parts += _legend(names, at)
    return _document(title, at + 18 * len(names) + 6, parts)


def short(value: float) -> str:
    """1200 -> 1.2k; three digits at most."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"


class _Axis:
    """A logarithmic one, of whole decades or as much of one as is needed."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._high = math.log10(low), math.log10(high)
        if self._high - self._low < 0.3:
            self._low, self._high = self._low - 0.15, self._high + 0.15
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        decades = range(math.floor(self._low), math.ceil(self._high) + 1)
        steps = (1,) if self._high - self._low > 2 else (1, 2, 5)
        found = [step * 10.0**decade for decade in decades for step in steps]
        return [tick for tick in found if self._low - 1e-9 <= math.log10(tick) <= self._high + 1e-9]


def _legend(names: Sequence[str], at: float) -> list[str]:
    parts = []
    for number, (colour, name) in enumerate(zip(COLOURS, names, strict=False)):
        y = at + 18 * number
        parts.append(f'<rect class="f{colour}" x="{LEFT}" y="{y}" width="12" height="12"/>')
        parts.append(_text(LEFT + 18, y + 11, name))
    return parts


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}>{escape(words)}</text>'


def _document(title: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", STYLE, *parts, "</svg>"]) + "\n"
