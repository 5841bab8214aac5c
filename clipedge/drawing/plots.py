"""Charts as SVG to be set into a page: a few strings, no library. Lines and text take the page's text colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clipedge.drawing.page import escaped

__all__ = ["COLOURS", "Axis", "Bar", "Series", "bar_chart", "line_chart"]

COLOURS = ("#2e7dd1", "#e08a1e", "#8b929c", "#2f9e62", "#b14fc5")  # readable on white and on near-black
WIDTH = 400
LINE = 14  # height of a line of text
LETTER = 5.6  # width of one, about
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 8, 36  # around what is drawn, for the axes
HEIGHT = 210  # of what is drawn in a line chart
GRID = 0.18  # opacity


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``, with ``ticks`` (place, what is written there)."""

    name: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value lies between two coordinates; beyond the axis it is drawn at its end."""
        share = (value - self.low) / (self.high - self.low)
        return start + (end - start) * min(max(share, 0.0), 1.0)


@dataclass(frozen=True)
class Series:
    """A line through ``points`` (x, y) in its colour; ``intervals`` (low, high), if any, is one for each point."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False
    intervals: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart: one bar, with the whisker of its interval."""

    name: str
    value: float
    interval: tuple[float, float]


def line_chart(series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Lines in one frame, with a legend above it where there are several."""
    top = TOP + (LINE * len(series) if len(series) > 1 else 0)
    bottom, right = top + HEIGHT, WIDTH - RIGHT
    parts = [_legend(line, TOP + LINE * row) for row, line in enumerate(series) if len(series) > 1]
    for value, text in y.ticks:
        place = y.place(value, bottom, top)
        parts += [_line(LEFT, place, right, place, opacity=GRID), _text(LEFT - 5, place + 4, text)]
    middle = (top + bottom) / 2
    parts += _x_axis(x, LEFT, top, bottom)
    parts.append(_text(10, middle, y.name, "middle", f' transform="rotate(-90 10 {middle:.0f})"'))
    for line in series:
        parts.append(_curve(line, [(x.place(a, LEFT, right), y.place(b, bottom, top)) for a, b in line.points]))
        for (value, _), (low, high) in zip(line.points, line.intervals, strict=False):  # there may be none
            place = x.place(value, LEFT, right)
            parts.append(_line(place, y.place(low, bottom, top), place, y.place(high, bottom, top), line.colour))
    return _svg(bottom + BOTTOM, parts)


def bar_chart(bars: Sequence[Bar], x: Axis, colour: str = COLOURS[0]) -> str:
    """Rows of bars from the top, their names to the left."""
    left = min(14 + LETTER * max(len(bar.name) for bar in bars), WIDTH / 2)
    right, bottom = WIDTH - RIGHT, TOP + LINE * len(bars)
    parts = _x_axis(x, left, TOP, bottom)
    letters = int((left - 10) / LETTER)
    for row, bar in enumerate(bars):
        top = TOP + LINE * row
        end = x.place(bar.value, left, right)
        low, high = (x.place(value, left, right) for value in bar.interval)
        middle = top + LINE / 2
        parts += [
            _text(left - 5, top + LINE - 3, bar.name if len(bar.name) <= letters else bar.name[: letters - 1] + "…"),
            f'<rect x="{left:.1f}" y="{top + 2}" width="{end - left:.1f}" height="{LINE - 4}" fill="{colour}"/>',
            _line(low, middle, high, middle),
        ]
    return _svg(bottom + BOTTOM, parts)


def _x_axis(x: Axis, left: float, top: float, bottom: float) -> list[str]:
    right = WIDTH - RIGHT
    parts = [_text((left + right) / 2, bottom + 2 * LINE, x.name, "middle")]
    for value, text in x.ticks:
        place = x.place(value, left, right)
        parts += [_line(place, top, place, bottom, opacity=GRID), _text(place, bottom + LINE, text, "middle")]
    return parts


def _svg(height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" font-size="10" fill="currentColor" role="img">\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _curve(line: Series, places: Sequence[tuple[float, float]]) -> str:
    dash = ' stroke-dasharray="4 3"' if line.dashed else ""
    coordinates = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    return f'<polyline points="{coordinates}" fill="none" stroke="{line.colour}" stroke-width="1.6"{dash}/>'


def _legend(line: Series, top: float) -> str:
    places = [(LEFT, top + LINE / 2), (LEFT + 18.0, top + LINE / 2)]
    return _curve(line, places) + _text(LEFT + 24, top + LINE - 4, line.name, "start")


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "currentColor", opacity: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width=".8" '
        f'stroke-opacity="{opacity}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "end", turned: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{escaped(text)}</text>'
