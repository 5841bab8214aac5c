"""How good an image tower is by now: how many of its answers are right, and how near it is to another model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clipedge.calibration.data import Pictures, pixel_batches
from clipedge.export.proof import embed, source_encoder
from clipedge.export.training.data import warn_of_unreadable
from clipedge.manifest import Preprocessing

__all__ = ["Score", "embed_all", "read_pixels", "score_embeddings"]

BATCH = 64
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Score:
    """``accuracy`` is the zero-shot top-1 as a share, None without classes; ``cosine`` the mean to the other model."""

    accuracy: float | None
    cosine: float

    @property
    def rank(self) -> tuple[float, float]:
        """What decides which weights are best: accuracy where it is known, of equal ones the cosine."""
        return 0.0 if self.accuracy is None else self.accuracy, self.cosine


def read_pixels(
    pictures: Pictures, preprocessing: Preprocessing
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """The rows (N,) of the pictures that can be read, and their pixels (N, H, W, 3) as a tower takes them.

    Warns of those that cannot; raises ImageError if none can.
    """
    unreadable: list[str] = []
    batches = list(pixel_batches(pictures, preprocessing, unreadable))
    warn_of_unreadable(unreadable, len(pictures))
    rows, pixels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return rows, pixels


def embed_all(tower: torch.nn.Module, inputs: npt.NDArray[Any]) -> Floats:
    """A tower's embeddings (N, D) of N inputs, in batches."""
    return embed(source_encoder(tower), np.array_split(inputs, -(-len(inputs) // BATCH)))


def score_embeddings(
    images: Floats, expected: Floats, labels: Floats | None, truth: npt.NDArray[np.int64] | None
) -> Score:
    """Score embeddings (N, D) of pictures of which another model gives ``expected`` (N, D).

    ``truth`` (N,) are rows of the label embeddings (L, D); both are None where no class is known.
    """
    cosine = float((images * expected).sum(axis=1).mean())
    if labels is None or truth is None:
        return Score(None, cosine)
    return Score(float(((images @ labels.T).argmax(axis=1) == truth).mean()), cosine)
