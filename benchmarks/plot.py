"""A run's results as bar charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from layout import CONTENDERS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SCENARIOS = {
    "tensor_1_ms": "tensor, batch 1 (ms)",
    "tensor_8_ms": "tensor, batch 8 (ms)",
    "jpeg_1_ms": "1280x720 JPEG to label (ms)",
    "cold_start_ms": "cold start (ms)",
    "peak_1_mb": "peak memory (MB)",
}
OURS, THEIRS = "#1f6fb4", "#b5b5b5"


def draw(results: dict[str, Any], path: Path) -> None:
    """One row of bar charts for each shape, one chart for each scenario."""
    shapes = results["shapes"]
    size = (3.1 * len(SCENARIOS), 3.4 * len(shapes) + 0.6)
    figure, grid = plt.subplots(len(shapes), len(SCENARIOS), figsize=size, squeeze=False, sharey="row")
    for row, (shape, figures) in zip(grid, shapes.items(), strict=True):
        shown = [item for item in reversed(CONTENDERS) if item.name in figures]
        for axes, (name, title) in zip(row, SCENARIOS.items(), strict=True):
            values = [figures[item.name].get(name, 0) for item in shown]
            colors = [OURS if item.kind == "clipedge" else THEIRS for item in shown]
            bars = axes.barh([f"{item.title} ({item.runtime})" for item in shown], values, color=colors)
            axes.bar_label(bars, [f"{value:.0f}" if value else "" for value in values], padding=2, fontsize=7)
            axes.set_title(f"{shape}: {title}", fontsize=8)
            axes.margins(x=0.18)
            axes.tick_params(labelsize=7)
            axes.spines[["top", "right"]].set_visible(False)
    machine = results["machine"]
    figure.suptitle(
        f"{machine['cpu']}, {machine['cores']} cores, VNNI: {'yes' if machine['vnni'] else 'no'}; smaller is better",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
