"""A step's batch: its pictures as the student sees them, and what the teacher says of them, by seed and step alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from clipedge.calibration.data import Pictures, open_item
from clipedge.export.distillation.hardening import corrupted
from clipedge.export.distillation.recipe import Recipe
from clipedge.export.distillation.teacher import Lessons
from clipedge.export.training.augment import augmented
from clipedge.manifest import Preprocessing
from clipedge.parallel import cores, parallel_map

__all__ = ["student_views", "teacher_side"]

Rows = npt.NDArray[np.intp]


def student_views(
    pictures: Pictures, lessons: Lessons, preprocessing: Preprocessing, rows: Rows, view: int, step: int, recipe: Recipe
) -> torch.Tensor:
    """(N, H, W, 3) uint8: this view of the pictures of N rows of the lessons, corrupted where the recipe says so."""

    def look(row: int) -> npt.NDArray[np.uint8]:
        clean = augmented(open_item(pictures.items[lessons.rows[row]]), lessons.views[row, view], preprocessing)
        return corrupted(clean, recipe.corruption, (recipe.seed, 3, step, row)) if recipe.corruption else clean

    return torch.from_numpy(np.stack(parallel_map(look, rows.tolist(), cores())))


def teacher_side(
    lessons: Lessons, rows: Rows, view: int, step: int, recipe: Recipe
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """The teacher's embeddings (N, D) of N rows and of one of each picture's captions; which captions are equal (N, N).

    The latter two are None where there are no captions.
    """
    images = torch.from_numpy(lessons.images[rows, view].astype(np.float32))
    if lessons.captions is None or lessons.texts is None:
        return images, None, None
    rng = np.random.default_rng((recipe.seed, 2, step))
    chosen = np.array([rng.choice(lessons.captions[row]) for row in rows])
    same = torch.from_numpy(chosen[:, None] == chosen[None]) & ~torch.eye(len(chosen), dtype=torch.bool)
    return images, torch.from_numpy(lessons.texts[chosen].astype(np.float32)), same
