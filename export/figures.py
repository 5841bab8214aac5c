"""The report's pictures, as SVG to be set into an HTML page: no fonts, no references to elsewhere, no timestamps.

The same report gives the same bytes with the same matplotlib. Lines and text take the page's text colour.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipedge.calibration.sensitivity import LayerProfile
from clipedge.export.report import Report, TowerReport
from clipedge.export.verify import CosineHistogram

__all__ = ["cosine_figure", "layer_figure", "size_and_latency_figure"]

INK = "#010101"  # stands for the page's text colour until the page has it
SOURCE, EXPORTED, IN_FLOAT = "#8b929c", "#2e7dd1", "#e08a1e"  # readable on white and on near-black
WIDTH = 5.2  # inches at 96 CSS pixels: narrow enough for a phone
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "clipedge",
    "font.size": 8,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "legend.frameon": False,
}
DECADES = ("0", "0.9", "0.99", "0.999", "0.9999", "0.99999", "0.999999")


def layer_figure(layers: Sequence[LayerProfile], name: str) -> str:
    """One bar a layer of one tower, in graph order from the top: signal-to-noise, and the error of the embedding."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 0.9 + 0.155 * len(layers)), layout="constrained")
        noise, effect = figure.subplots(1, 2, sharey=True)
        places = range(len(layers))
        colours = [IN_FLOAT if layer.in_float else EXPORTED for layer in layers]
        # A layer that gives nothing but zeros has no ratio, and no bar.
        ratios = [layer.snr_db if math.isfinite(layer.snr_db) else 0.0 for layer in layers]
        noise.barh(places, ratios, color=colours)
        noise.set_xlabel("signal-to-noise of the output (dB)\nlonger is better")
        noise.set_yticks(places, [layer.layer for layer in layers], fontsize=7)
        noise.set_ylim(len(layers) - 0.4, -0.6)
        _draw_costs(effect, layers, colours)
        return _svg(figure, name)


def _draw_costs(axes: Axes, layers: Sequence[LayerProfile], colours: Sequence[str]) -> None:
    measured = [(i, layer.cost) for i, layer in enumerate(layers) if layer.cost is not None and layer.cost > 0]
    axes.set_xlabel("1 - centred cosine of the embedding,\nlayer alone in INT8; shorter is better")
    if not measured:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        return
    least = min(cost for _, cost in measured)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:.0e}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlim(least / 3, 2 * max(cost for _, cost in measured))
    axes.barh([i for i, _ in measured], [cost for _, cost in measured], color=[colours[i] for i, _ in measured])


def cosine_figure(cosines: CosineHistogram, name: str) -> str:
    """Raw and centred cosines of one tower. Bins of equal width: the axis is logarithmic in 1 - cosine."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 1.9), layout="constrained")
        axes = figure.subplots()
        places = [place + 0.5 for place in range(len(cosines.raw))]
        axes.bar(places, cosines.raw, width=1, color=SOURCE, alpha=0.55, label="raw")
        axes.bar(places, cosines.centred, width=1, color=EXPORTED, alpha=0.6, label="centred")
        axes.set_xticks([1 + 4 * decade for decade in range(len(DECADES))], DECADES)
        axes.set_xlim(0, len(places))
        axes.set_xlabel("cosine of source and exported embedding")
        axes.set_ylabel("inputs")
        axes.legend(loc="upper left")
        return _svg(figure, name)


def size_and_latency_figure(report: Report, name: str) -> str:
    """Bars of source and exported model, for each tower."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 0.6 + 0.55 * len(report.towers)), layout="constrained")
        size, latency = figure.subplots(1, 2, sharey=True)
        towers = list(report.towers.values())
        _draw_pairs(size, [(tower.source_bytes / 1e6, tower.exported_bytes / 1e6) for tower in towers], "size (MB)")
        _draw_pairs(latency, list(map(_latencies, towers)), "latency (ms), one input")
        size.set_yticks(range(len(towers)), list(report.towers))
        size.set_ylim(len(towers) - 0.5, -0.5)
        return _svg(figure, name)


def _latencies(tower: TowerReport) -> tuple[float, float]:
    return tower.source_latency_ms, tower.exported_latency_ms


def _draw_pairs(axes: Axes, pairs: Sequence[tuple[float, float]], title: str) -> None:
    for offset, colour, values in ((-0.2, SOURCE, [p[0] for p in pairs]), (0.2, EXPORTED, [p[1] for p in pairs])):
        bars = axes.barh([place + offset for place in range(len(pairs))], values, height=0.36, color=colour)
        axes.bar_label(bars, fmt="{:.3g}", padding=2)
    axes.set_xlim(0, 1.25 * max(map(max, pairs)))
    axes.set_xlabel(title)


def _svg(figure: Figure, name: str) -> str:
    """The <svg> element. ``name`` sets its ids apart from those of the page's other figures."""
    stream = io.StringIO()
    figure.savefig(
        stream, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    text = stream.getvalue()
    text = text[text.index("<svg ") :]  # without the XML declaration and the document type
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text)  # HTML knows them
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = text.replace("xlink:href", "href").replace(INK, "currentColor")
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)  # it would rule the page
    return re.sub(r'<svg width="[^"]*" height="[^"]*"', "<svg", text)
