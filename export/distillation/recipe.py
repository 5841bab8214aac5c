"""How a student is trained: the settings, checked."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from clipedge.errors import UsageError
from clipedge.export.distillation.objectives import Weights
from clipedge.export.training.precision import PRECISIONS, Precision
from clipedge.export.training.recipe import TrainingRecipe, check_limits, check_training

__all__ = ["Recipe", "check_recipe"]


@dataclass(frozen=True)
class Recipe(TrainingRecipe):
    """As every training's, and: ``weights``: None takes those of ``objectives`` for what the data has. ``views``: how
    many views of a picture the teacher sees; the student gets another one each pass. ``seed`` is that of weights,
    order, captions and corruptions. ``mixed_precision``: see ``training/precision.py``. ``corruption`` is the share of
    the student's views that are made worse, ``adversarial`` by how many levels of 255 they are moved against it: see
    ``hardening.py``."""

    steps: int = 2000
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    ema: float = 0.99
    views: int = 2
    mixed_precision: Precision = "no"
    corruption: float = 0.0
    adversarial: float = 0.0
    weights: Weights | None = None


def check_recipe(recipe: Recipe, processes: int = 1) -> None:
    """Raises UsageError for a setting that no training by so many processes can have, naming it."""
    check_training(recipe, processes)
    check_limits(
        recipe,
        {
            "views": (recipe.views >= 1, "1 or more"),
            "mixed_precision": (recipe.mixed_precision in PRECISIONS, " or ".join(PRECISIONS)),
            "corruption": (0 <= recipe.corruption <= 1, "a share of the views, from 0 to 1"),
            "adversarial": (0 <= recipe.adversarial <= 255, "from 0 to 255 levels"),
        },
    )
    if recipe.weights is not None:
        values = dataclasses.asdict(recipe.weights)
        if not all(0 <= value < math.inf for value in values.values()) or not any(values.values()):
            raise UsageError(f"expected weights of losses of 0 or more, one of them above 0, found {values}")
