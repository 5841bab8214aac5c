"""A step's batch: its pictures as the student sees them, and what the teacher says of them, by seed and step alone."""

from __future__ import annotations

from dataclasses import dataclass

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

__all__ = ["TeacherSide", "student_views", "teacher_side"]

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class TeacherSide:
    """The teacher's embeddings (N, D) of N pictures and of as many texts, of each picture one of its captions or, where
    there are none, any of the prompts; which texts are equal, bool (N, N) off the diagonal, and their ``places`` (N,)
    among the lessons'. None where there are no texts."""

    images: torch.Tensor
    texts: torch.Tensor | None = None
    same: torch.Tensor | None = None
    places: Rows | None = None


def student_views(
    pictures: Pictures, lessons: Lessons, preprocessing: Preprocessing, rows: Rows, view: int, step: int, recipe: Recipe
) -> torch.Tensor:
    """(N, H, W, 3) uint8: this view of the pictures of N rows of the lessons, corrupted where the recipe says so."""

    def look(row: int) -> npt.NDArray[np.uint8]:
        clean = augmented(open_item(pictures.items[lessons.rows[row]]), lessons.views[row, view], preprocessing)
        return corrupted(clean, recipe.corruption, (recipe.seed, 3, step, row)) if recipe.corruption else clean

    return torch.from_numpy(np.stack(parallel_map(look, rows.tolist(), cores())))


def teacher_side(lessons: Lessons, rows: Rows, view: int, step: int, recipe: Recipe) -> TeacherSide:
    """What the teacher says of this view of the pictures of N rows, and of the step's texts."""
    images = torch.from_numpy(lessons.images[rows, view].astype(np.float32))
    if lessons.texts is None:
        return TeacherSide(images)
    rng = np.random.default_rng((recipe.seed, 2, step))
    if lessons.captions is None:
        places = rng.integers(len(lessons.texts), size=len(rows))
    else:
        places = np.array([rng.choice(lessons.captions[row]) for row in rows])
    same = torch.from_numpy(places[:, None] == places[None]) & ~torch.eye(len(places), dtype=torch.bool)
    return TeacherSide(images, torch.from_numpy(lessons.texts[places].astype(np.float32)), same, places)
