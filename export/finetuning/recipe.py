"""How a model is fine-tuned: the settings, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clipedge.export.training.recipe import TrainingRecipe, check_limits, check_training

__all__ = ["Recipe", "check_recipe"]

# Small steps from what was learned before; low-rank updates begin at zero and take larger ones.
FULL_RATE, LORA_RATE = 1e-5, 1e-4


@dataclass(frozen=True)
class Recipe(TrainingRecipe):
    """As every training's, and: ``lora`` is the rank of the updates, None trains all weights; ``learning_rate``:
    None takes ``FULL_RATE`` or ``LORA_RATE``; ``image_image`` and ``text_text`` are the weights of the terms between
    two views of a picture and between two of its texts."""

    steps: int = 1000
    learning_rate: float | None = None
    weight_decay: float = 0.1
    warmup: float = 0.1
    ema: float = 0.999
    lora: int | None = None
    image_image: float = 0.0
    text_text: float = 0.0

    @property
    def rate(self) -> float:
        usual = FULL_RATE if self.lora is None else LORA_RATE
        return usual if self.learning_rate is None else self.learning_rate


def check_recipe(recipe: Recipe) -> None:
    """Raises UsageError for a setting that no training can have, naming it."""
    check_training(recipe)
    check_limits(
        recipe,
        {
            "lora": (recipe.lora is None or recipe.lora >= 1, "a rank of 1 or more"),
            "image_image": (0 <= recipe.image_image < math.inf, "0 or more"),
            "text_text": (0 <= recipe.text_text < math.inf, "0 or more"),
        },
    )
