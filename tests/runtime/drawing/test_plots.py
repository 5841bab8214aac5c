"""Charts put values where their axes say, and names in them are text whatever they hold."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from clipedge.drawing.plots import Axis, Bar, Series, bar_chart, line_chart

SHARES = Axis("share", 0, 1, ((0.0, "none"), (0.5, "half"), (1.0, "all")))
HOSTILE = "<script>alert('1')</script> & \"x\""


def elements(svg: str, tag: str) -> list[dict[str, str]]:
    return [item.attrib for item in ElementTree.fromstring(svg).iter(tag)]


def tick_places(svg: str, attribute: str) -> dict[str, float]:
    found = ElementTree.fromstring(svg).iter("text")
    return {item.text or "": float(item.attrib[attribute]) for item in found}


def test_points_lie_where_the_ticks_say() -> None:
    svg = line_chart([Series("a", [(0, 0), (0.5, 1), (1, 0.5)], "#123456")], SHARES, SHARES)
    (line,) = elements(svg, "polyline")
    places = [tuple(map(float, pair.split(","))) for pair in line["points"].split()]
    xs, ys = zip(*places, strict=True)
    ticks = [(float(item["x1"]), float(item["y1"])) for item in elements(svg, "line")]
    assert {xs[0], xs[1], xs[2]} <= {x for x, _ in ticks}
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2, abs=0.1)
    assert ys[0] > ys[2] > ys[1]  # up is more
    assert ys[2] == pytest.approx((ys[0] + ys[1]) / 2, abs=0.1)
    assert set(ys) <= {y for _, y in ticks}
    assert line["stroke"] == "#123456"


def test_every_line_has_its_legend_and_its_intervals() -> None:
    series = [
        Series("first", [(0, 0.2), (1, 0.4)], "#111111", intervals=[(0.1, 0.3), (0.3, 0.5)]),
        Series("second", [(0, 0.6), (1, 0.8)], "#222222", dashed=True),
    ]
    svg = line_chart(series, SHARES, SHARES)
    assert {"first", "second", "share", "none", "half", "all"} <= set(tick_places(svg, "x"))
    assert len(elements(svg, "polyline")) == 4  # two curves, two samples
    whiskers = [item for item in elements(svg, "line") if item["stroke"] == "#111111"]
    assert len(whiskers) == 2
    curve = elements(svg, "polyline")[2]["points"].split()
    for whisker, point in zip(whiskers, curve, strict=True):
        x, y = map(float, point.split(","))
        assert float(whisker["x1"]) == float(whisker["x2"]) == x
        assert float(whisker["y2"]) < y < float(whisker["y1"])
    assert svg.count("stroke-dasharray") == 2


def test_bars_are_as_long_as_their_values() -> None:
    bars = [Bar("none of it", 0.0, (0.0, 0.2)), Bar("a half", 0.5, (0.3, 0.7)), Bar("x" * 200, 1.0, (0.9, 1.0))]
    svg = bar_chart(bars, SHARES)
    widths = [float(item["width"]) for item in elements(svg, "rect")]
    assert widths[0] == 0
    assert widths[2] == pytest.approx(2 * widths[1], abs=0.2)
    lefts = {float(item["x"]) for item in elements(svg, "rect")}
    assert len(lefts) == 1
    names = tick_places(svg, "y")
    assert names["none of it"] < names["a half"]
    assert any(name.endswith("x…") for name in names)  # a name that is too long for its place
    width = float(ElementTree.fromstring(svg).attrib["viewBox"].split()[2])
    assert max(lefts) + widths[2] < width


def test_a_value_beyond_the_axis_stays_in_the_frame() -> None:
    svg = line_chart([Series("a", [(-5, -5), (5, 5)], "#123456")], SHARES, SHARES)
    (width, height) = map(float, ElementTree.fromstring(svg).attrib["viewBox"].split()[2:])
    for pair in elements(svg, "polyline")[0]["points"].split():
        x, y = map(float, pair.split(","))
        assert 0 < x < width and 0 < y < height


@pytest.mark.parametrize("chart", ["lines", "bars"])
def test_names_are_text(chart: str) -> None:
    hostile = Axis(HOSTILE, 0, 1, ((0.0, HOSTILE),))
    lines = [Series(HOSTILE, [(0, 0)], "#123456"), Series("other", [(0, 0)], "#123456")]
    svg = line_chart(lines, hostile, hostile) if chart == "lines" else bar_chart([Bar(HOSTILE, 1, (0, 1))], hostile)
    assert "<script" not in svg
    assert HOSTILE in tick_places(svg, "x")
    assert not re.search(r"(href|url|xmlns)", svg)
