"""What every training is told: the settings, checked, and what follows from them for a step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError
from clipedge.export.training.augment import Augmentation, check_augmentation

__all__ = [
    "TrainingRecipe",
    "batch_rows",
    "check_count",
    "check_limits",
    "check_training",
    "ema_decay",
    "learning_rate",
]


@dataclass(frozen=True)
class TrainingRecipe:
    """``warmup``: the share of the steps in which the rate rises. ``batch_size`` counts the pictures of all processes
    together. ``accumulate``: into so many parts a batch is cut to save memory; the losses are still those of the whole
    batch. ``patience``: training ends after so many validations in a row that brought nothing, None lets it run."""

    steps: int
    learning_rate: float | None
    weight_decay: float
    warmup: float
    ema: float
    batch_size: int = 128
    accumulate: int = 1
    validate_every: int = 250
    save_every: int = 100
    patience: int | None = None
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def rate(self) -> float:
        """The highest learning rate: what a training takes where None is given is its own."""
        assert self.learning_rate is not None
        return self.learning_rate

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "learning_rate": self.rate}


def check_training(recipe: TrainingRecipe, processes: int = 1) -> None:
    """Raises UsageError for a setting that no training by so many processes can have, naming it."""
    counts = ("steps", "accumulate", "validate_every", "save_every")
    check_limits(recipe, {name: (getattr(recipe, name) >= 1, "1 or more") for name in counts})
    share = recipe.batch_size // processes
    limits = {
        "batch_size": (recipe.batch_size >= 2, "2 or more: a picture is told from the others of its batch"),
        "learning_rate": (0 < recipe.rate < math.inf, "above 0"),
        "weight_decay": (0 <= recipe.weight_decay < math.inf, "0 or more"),
        "warmup": (0 <= recipe.warmup <= 1, "a share of the steps, from 0 to 1"),
        "ema": (0 <= recipe.ema < 1, "from 0 to below 1"),
        "seed": (recipe.seed >= 0, "0 or more"),
        "patience": (recipe.patience is None or recipe.patience >= 1, "1 or more"),
        "accumulate": (recipe.accumulate <= share, f"a process' share of the batch, {share}, at most"),
    }
    check_limits(recipe, limits)
    if recipe.batch_size % processes:
        raise UsageError(
            f"expected batch_size to be a multiple of the {processes} processes, found {recipe.batch_size}"
        )
    check_augmentation(recipe.augmentation)


def check_limits(recipe: TrainingRecipe, limits: Mapping[str, tuple[bool, str]]) -> None:
    """``limits``: by the setting's name, whether it fits, and what is expected. Raises UsageError for one that does
    not."""
    for name, (fits, expected) in limits.items():
        if not fits:
            raise UsageError(f"expected {name} to be {expected}, found {getattr(recipe, name)}")


def check_count(count: int, recipe: TrainingRecipe, source: str) -> None:
    """Raises UsageError for fewer pictures of a source than a batch has."""
    if count < recipe.batch_size:
        raise UsageError(
            f"{source}: {count} pictures are left to train on, and a batch has {recipe.batch_size}; add pictures, or "
            "make the batches smaller: --batch-size"
        )


def learning_rate(step: int, recipe: TrainingRecipe) -> float:
    """The rate of a step, counted from 1: a linear rise over the warm-up (Goyal et al. 2017, arXiv 1706.02677), then
    half a cosine down to nearly zero (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    rising = round(recipe.warmup * recipe.steps)
    if step <= rising:
        return recipe.rate * step / rising
    progress = (step - rising - 1) / (recipe.steps - rising)
    return recipe.rate * (1 + math.cos(math.pi * progress)) / 2


def ema_decay(step: int, recipe: TrainingRecipe) -> float:
    """The share of the moving average that stays: less in the first steps, which it should forget soon."""
    return min(recipe.ema, step / (step + 10))


def batch_rows(step: int, count: int, recipe: TrainingRecipe) -> tuple[npt.NDArray[np.intp], int]:
    """The rows below ``count`` of a step, counted from 1, and the number of its pass over the data.

    Every pass has its own order and takes each row once, but for what is left over. A function of seed and step alone:
    a resumed training needs no generator's state.
    """
    per_pass = count // recipe.batch_size
    number, place = divmod(step - 1, per_pass)
    order = np.random.default_rng((recipe.seed, 1, number)).permutation(count)
    return order[place * recipe.batch_size : (place + 1) * recipe.batch_size], number
