"""A step's batch: a function of the recipe and the step alone, so that a resumed training draws what it would have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from clipedge.calibration.data import open_item
from clipedge.export.finetuning.material import Material
from clipedge.export.finetuning.recipe import Recipe
from clipedge.export.training.augment import augmented, draw_view
from clipedge.export.training.recipe import batch_rows
from clipedge.manifest import Preprocessing
from clipedge.parallel import cores, parallel_map

__all__ = ["Batch", "draw_batch"]


@dataclass(frozen=True, eq=False)
class Batch:
    """N pictures with G texts; with a term between pictures or texts, each has a second view or wording.

    ``pixels`` (V, N, H, W, 3) uint8; ``tokens`` (K, G, context length) int64, V and K being 1 or 2; ``places`` (N,)
    int64, which text is a picture's. ``same`` bool (N, N), pictures that share a text and so are no negatives, off the
    diagonal.
    """

    pixels: torch.Tensor
    tokens: torch.Tensor
    places: torch.Tensor
    same: torch.Tensor


def draw_batch(material: Material, preprocessing: Preprocessing, recipe: Recipe, step: int) -> Batch:
    """The batch of a step, counted from 1. Pictures of one class get one text, in one of its wordings."""
    rows, passed = batch_rows(step, len(material.groups), recipe)
    views = 1 + (recipe.image_image > 0)
    wordings = 1 + (recipe.text_text > 0)
    groups, places = np.unique(material.groups[rows], return_inverse=True)
    rng = np.random.default_rng((recipe.seed, 2, step))
    texts = np.stack([rng.choice(material.texts[group], wordings, replace=False) for group in groups])
    mine = texts[places]
    same = (mine[:, None, :, None] == mine[None, :, None, :]).any(axis=(2, 3)) & ~np.eye(len(rows), dtype=np.bool_)

    def look(view: tuple[int, int]) -> npt.NDArray[np.uint8]:
        row, number = view
        parameters = draw_view(recipe.augmentation, row, number)
        return augmented(open_item(material.pictures.items[row]), parameters, preprocessing)

    seen = [(int(row), passed * views + view) for view in range(views) for row in rows]
    pixels = np.stack(parallel_map(look, seen, cores()))
    return Batch(
        torch.from_numpy(pixels.reshape(views, len(rows), *pixels.shape[1:])),
        torch.from_numpy(material.tokens[texts.T]),
        torch.from_numpy(places),
        torch.from_numpy(same),
    )
