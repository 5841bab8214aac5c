"""Whether a frame shows anything new: a glance at a few thousand of its bytes.

A glance is the mean of 4 x 4 samples in each of 16 x 16 cells, for every channel as the camera delivers it: grey, the
three colours, or Y, Cb and Cr. Nothing is converted. A cell is a sixteenth of the frame's side, about two patches of a
ViT-B/32; the mean over its samples takes out most of a sensor's noise, which single samples would not. The difference
of two glances is that of the cell which changed most: a small object changes few cells, and a mean over all of them
would hide it.

``CHANGED`` was chosen by ``benchmarks/stream_changes.py`` (results/stream_changes.md), which measures what sensors'
noise and compression do to a glance, and how far an answer can move between frames that count as the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipedge.images.frames import Frame, channel_views

__all__ = ["CHANGED", "Glance", "difference", "glance"]

CHANGED = 8.0  # in byte values, of 255: what differs by more is another picture
CELLS, SAMPLES = 16, 4  # on a side


@dataclass(frozen=True, eq=False)
class Glance:
    """``cells`` (channels, 16, 16) in byte values; ``kind`` is the format and size of the frame that it is of."""

    kind: tuple[str, int, int]
    cells: npt.NDArray[np.float32]


def glance(frame: Frame) -> Glance:
    """Look at 64 x 64 samples of each channel of a frame, or at fewer pixels several times."""
    side = CELLS * SAMPLES
    cells = np.empty((len(channels := channel_views(frame)), CELLS, CELLS), np.float32)
    for cell_means, channel in zip(cells, channels, strict=True):
        rows, columns = ((2 * np.arange(side) + 1) * length // (2 * side) for length in channel.shape)
        samples = channel[rows[:, None], columns].reshape(CELLS, SAMPLES, CELLS, SAMPLES)
        samples.mean(axis=(1, 3), dtype=np.float32, out=cell_means)
    return Glance((frame.format, frame.width, frame.height), cells)


def difference(first: Glance, second: Glance) -> float:
    """The largest difference of a cell in any channel, in byte values; infinite for another format or size."""
    if first.kind != second.kind:
        return math.inf
    return float(np.abs(first.cells - second.cells).max())
