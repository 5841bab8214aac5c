"""The outlines that rendered scenes are drawn with.

An outline is a tuple of closed polygons in a unit frame: x to the right, y down, everything inside [-1, 1].
The first polygon is filled, those after it are holes.

``UNSEEN`` outlines occur in no split of the scenes: what a model trained on them was never shown, nor told of.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHAPES", "UNSEEN", "Polygon", "outline"]

Polygon = NDArray[np.float64]

SHAPES = (
    "circle",
    "square",
    "triangle",
    "diamond",
    "star",
    "heart",
    "cross",
    "ring",
    "crescent",
    "arrow",
    "hourglass",
    "house",
)

UNSEEN = ("hexagon", "trapezoid", "lightning", "tee", "comb", "bowtie", "boomerang")

_ARC_POINTS = 48  # a chord this short stays under a tenth of a pixel at 256 pixels

_STRAIGHT: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -0.95), (0.98, 0.8), (-0.98, 0.8)],
    "diamond": [(0, -1), (0.62, 0), (0, 1), (-0.62, 0)],  # narrow: a turned square is not a diamond
    "cross": [
        (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
        (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3),
    ],
    "arrow": [(-1, -0.26), (0.1, -0.26), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.26), (-1, 0.26)],
    "hourglass": [(-0.82, -0.95), (0.82, -0.95), (0.13, 0), (0.82, 0.95), (-0.82, 0.95), (-0.13, 0)],
    "house": [(0, -1), (1, -0.1), (0.68, -0.1), (0.68, 0.9), (-0.68, 0.9), (-0.68, -0.1), (-1, -0.1)],
    "hexagon": [(-0.5, -0.87), (0.5, -0.87), (1, 0), (0.5, 0.87), (-0.5, 0.87), (-1, 0)],
    "trapezoid": [(-0.4, -0.65), (0.4, -0.65), (1, 0.65), (-1, 0.65)],
    "lightning": [(0.15, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.25, 1), (0.6, -0.25), (0.05, -0.25), (0.5, -1)],
    "tee": [(-0.9, -0.9), (0.9, -0.9), (0.9, -0.3), (0.3, -0.3), (0.3, 0.95), (-0.3, 0.95), (-0.3, -0.3), (-0.9, -0.3)],
    "comb": [
        (-0.9, -0.8), (0.9, -0.8), (0.9, 0.8), (0.5, 0.8), (0.5, -0.2), (0.2, -0.2), (0.2, 0.8),
        (-0.2, 0.8), (-0.2, -0.2), (-0.5, -0.2), (-0.5, 0.8), (-0.9, 0.8),
    ],
    "bowtie": [(-0.98, -0.7), (0, -0.15), (0.98, -0.7), (0.98, 0.7), (0, 0.15), (-0.98, 0.7)],
    "boomerang": [(-0.95, 0.75), (0, -0.85), (0.95, 0.75), (0.45, 0.75), (0, -0.05), (-0.45, 0.75)],
}  # fmt: skip


def _arc(radius: float, start: float = 0.0, stop: float = 2 * np.pi, x: float = 0.0) -> Polygon:
    angles = np.linspace(start, stop, _ARC_POINTS)
    return np.stack([x + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _star() -> Polygon:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _heart() -> Polygon:
    t = np.linspace(0, 2 * np.pi, _ARC_POINTS)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 17, (y - 2.5) / 17], axis=1)


def _crescent() -> Polygon:
    # A disc without a smaller disc shifted to the right; the two arcs meet at the horns.
    radius, shift = 0.76, 0.48
    horn_x = (1 - radius**2 + shift**2) / (2 * shift)
    outer = np.arccos(horn_x)
    inner = np.arctan2(np.sin(outer), horn_x - shift)
    rim = _arc(1.0, outer, 2 * np.pi - outer)
    bite = _arc(radius, 2 * np.pi - inner, inner, x=shift)
    crescent: Polygon = np.concatenate([rim, bite]) + np.array([0.15, 0.0])  # its mass is on the left: to the middle
    return crescent


@cache
def outline(shape: str) -> tuple[Polygon, ...]:
    """The polygons of one of ``SHAPES`` or ``UNSEEN``: float64 arrays (points, 2), the filled one first, then holes.

    Raises ``KeyError`` for a name that is in neither.
    """
    if shape == "circle":
        return (_arc(0.95),)
    if shape == "ring":
        return (_arc(0.97), _arc(0.52))
    if shape == "star":
        return (_star(),)
    if shape == "heart":
        return (_heart(),)
    if shape == "crescent":
        return (_crescent(),)
    return (np.array(_STRAIGHT[shape], dtype=np.float64),)
