"""Where in the picture: how much each place looks like a label.

A map is the cosine of every patch's embedding (``Clip.encode_patches``) with the label's, minus the mean of the cosines
with the bank's other labels and negatives. What all labels have in common, every patch shows a little of; without
that part the label's own remains (Li et al. 2023, "CLIP Surgery for Better Explainability with Enhancement in
Open-Vocabulary Tasks", arXiv 2304.05653, section 3.2). So a map answers "where is this rather than the others?", and
points the better the more others there are. The mean of few others is more theirs than common to all: of n others
n / (n + 3) of it is taken away. ``benchmarks/pointing_game.py`` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError
from clipedge.images.resize import plan
from clipedge.manifest import Preprocessing
from clipedge.prompts.bank import PromptBank

__all__ = ["Heatmap", "Region", "label_map", "seen_region"]

FEW = 3  # others, of whose mean a half is taken away; chosen on scenes of the split "validation"

Floats = npt.NDArray[np.float32]
Region = tuple[float, float, float, float]  # left, top, right, bottom in a picture's pixels


@dataclass(frozen=True, eq=False)
class Heatmap:
    """How much each patch of a picture looks like ``label``.

    ``grid`` (rows, columns) float32 are cosines against other labels: above zero is more like this label than like the
    others. ``size`` is the picture's (width, height), upright; ``region`` the part of it that the patches divide
    evenly, which ends inside the picture where the model's preprocessing crops it.
    """

    label: str
    grid: Floats
    size: tuple[int, int]
    region: Region

    def pixels(self) -> Floats:
        """The map (height, width) at the picture's pixels, bilinear between the patches' centres; NaN outside."""
        (width, height), (left, top, right, bottom) = self.size, self.region
        rows, columns = self.grid.shape
        down, across = _weights(height, rows, top, bottom), _weights(width, columns, left, right)
        return np.asarray(down @ self.grid @ across.T, np.float32)

    @property
    def peak(self) -> tuple[int, int]:
        """The pixel (x, y) where the map is highest: the centre of a patch."""
        (width, height), (left, top, right, bottom) = self.size, self.region
        rows, columns = self.grid.shape
        row, column = divmod(int(self.grid.argmax()), columns)
        x = left + (column + 0.5) * (right - left) / columns
        y = top + (row + 0.5) * (bottom - top) / rows
        return min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)


def label_map(patch_embeds: Floats, bank: PromptBank, label: str) -> Floats:
    """The map (rows, columns) of one of the bank's labels from a picture's patch embeddings (rows, columns, D).

    Raises UsageError for a label that the bank has not.
    """
    if label not in bank.labels:
        raise UsageError(
            f"the prompt bank has no label {label!r}; it has: {', '.join(bank.labels[:5])}"
            + (" ..." if len(bank.labels) > 5 else "")
        )
    place = bank.labels.index(label)
    others = np.delete(bank.label_embeds, place, axis=0)
    if bank.negative_embeds is not None:
        others = np.concatenate([others, bank.negative_embeds])
    common = others.sum(axis=0) / (len(others) + FEW)
    return np.asarray(patch_embeds @ (bank.label_embeds[place] - common), np.float32)


def seen_region(size: tuple[int, int], preprocessing: Preprocessing) -> Region:
    """What of a picture of ``size`` (width, height) the model sees, in its pixels.

    It reaches beyond the picture where that is filled up with black.
    """
    fit = plan(size, preprocessing)
    across, down = size[0] / fit.width, size[1] / fit.height
    return fit.left * across, fit.top * down, fit.right * across, fit.bottom * down


def _weights(pixels: int, cells: int, start: float, stop: float) -> Floats:
    """How much each of the cells, which divide ``start`` to ``stop``, counts at each pixel's centre: (pixels, cells),
    rows of NaN outside."""
    place = (np.arange(pixels) + 0.5 - start) / (stop - start) * cells
    centre = np.clip(place - 0.5, 0, cells - 1)
    weights = np.maximum(1 - np.abs(centre[:, None] - np.arange(cells)), 0)
    weights[(place < 0) | (place > cells)] = np.nan
    return np.asarray(weights, np.float32)
