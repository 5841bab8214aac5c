"""How a student is trained: the settings, checked, and what follows from them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError
from clipedge.export.distillation.augment import Augmentation, check_augmentation
from clipedge.export.distillation.objectives import Weights
from clipedge.export.distillation.precision import PRECISIONS, Precision

__all__ = ["Recipe", "batch_rows", "check_recipe", "ema_decay", "learning_rate"]


@dataclass(frozen=True)
class Recipe:
    """``weights``: None takes those of ``objectives`` for what the data has. ``accumulate``: into so many parts a batch
    is cut to save memory; the losses are still those of the whole batch. ``patience``: training ends after so many
    validations in a row that brought nothing, None lets it run. ``views``: how many views of a picture the teacher
    sees; the student gets another one each pass. ``warmup``: the share of the steps in which the rate rises. ``seed``
    is that of weights, order, captions and corruptions. ``batch_size`` counts the pictures of all processes together.
    ``mixed_precision``: see ``precision.py``. ``corruption`` is the share of the student's views that are made worse,
    ``adversarial`` by how many levels of 255 they are moved against it: see ``hardening.py``."""

    steps: int = 2000
    batch_size: int = 128
    accumulate: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    ema: float = 0.99
    validate_every: int = 250
    save_every: int = 100
    patience: int | None = None
    views: int = 2
    seed: int = 0
    mixed_precision: Precision = "no"
    corruption: float = 0.0
    adversarial: float = 0.0
    weights: Weights | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def check_recipe(recipe: Recipe, processes: int = 1) -> None:
    """Raises UsageError for a setting that no training by so many processes can have, naming it."""
    for name in ("steps", "accumulate", "validate_every", "save_every", "views"):
        if getattr(recipe, name) < 1:
            raise UsageError(f"expected {name} to be 1 or more, found {getattr(recipe, name)}")
    share = recipe.batch_size // processes
    limits = {
        "batch_size": (recipe.batch_size >= 2, "2 or more: a picture is told from the others of its batch"),
        "learning_rate": (0 < recipe.learning_rate < math.inf, "above 0"),
        "weight_decay": (0 <= recipe.weight_decay < math.inf, "0 or more"),
        "warmup": (0 <= recipe.warmup <= 1, "a share of the steps, from 0 to 1"),
        "ema": (0 <= recipe.ema < 1, "from 0 to below 1"),
        "seed": (recipe.seed >= 0, "0 or more"),
        "patience": (recipe.patience is None or recipe.patience >= 1, "1 or more"),
        "accumulate": (recipe.accumulate <= share, f"a process' share of the batch, {share}, at most"),
        "mixed_precision": (recipe.mixed_precision in PRECISIONS, " or ".join(PRECISIONS)),
        "corruption": (0 <= recipe.corruption <= 1, "a share of the views, from 0 to 1"),
        "adversarial": (0 <= recipe.adversarial <= 255, "from 0 to 255 levels"),
    }
    for name, (fits, expected) in limits.items():
        if not fits:
            raise UsageError(f"expected {name} to be {expected}, found {getattr(recipe, name)}")
    if recipe.batch_size % processes:
        raise UsageError(
            f"expected batch_size to be a multiple of the {processes} processes, found {recipe.batch_size}"
        )
    if recipe.weights is not None:
        values = dataclasses.asdict(recipe.weights)
        if not all(0 <= value < math.inf for value in values.values()) or not any(values.values()):
            raise UsageError(f"expected weights of losses of 0 or more, one of them above 0, found {values}")
    check_augmentation(recipe.augmentation)


def learning_rate(step: int, recipe: Recipe) -> float:
    """The rate of a step, counted from 1: a linear rise over the warm-up (Goyal et al. 2017, arXiv 1706.02677), then
    half a cosine down to nearly zero (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    rising = round(recipe.warmup * recipe.steps)
    if step <= rising:
        return recipe.learning_rate * step / rising
    progress = (step - rising - 1) / (recipe.steps - rising)
    return recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def ema_decay(step: int, recipe: Recipe) -> float:
    """The share of the moving average that stays: less in the first steps, which it should forget soon."""
    return min(recipe.ema, step / (step + 10))


def batch_rows(step: int, count: int, recipe: Recipe) -> tuple[npt.NDArray[np.intp], int]:
    """The rows below ``count`` of a step, counted from 1, and the number of its pass over the data.

    Every pass has its own order and takes each row once, but for what is left over. A function of seed and step alone:
    a resumed training needs no generator's state.
    """
    per_pass = count // recipe.batch_size
    number, place = divmod(step - 1, per_pass)
    order = np.random.default_rng((recipe.seed, 1, number)).permutation(count)
    return order[place * recipe.batch_size : (place + 1) * recipe.batch_size], number
