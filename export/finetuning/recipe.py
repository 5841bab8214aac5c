"""How a model is fine-tuned: the settings, checked."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from clipedge.errors import UsageError
from clipedge.export.distillation import Augmentation
from clipedge.export.distillation import recipe as distillation

__all__ = ["Recipe", "check_recipe"]

# Small steps from what was learned before; low-rank updates begin at zero and take larger ones.
FULL_RATE, LORA_RATE = 1e-5, 1e-4


@dataclass(frozen=True)
class Recipe:
    """As the distillation's, and: ``lora`` is the rank of the updates, None trains all weights; ``learning_rate``:
    None takes ``FULL_RATE`` or ``LORA_RATE``; ``image_image`` and ``text_text`` are the weights of the terms between
    two views of a picture and between two of its texts."""

    steps: int = 1000
    batch_size: int = 128
    accumulate: int = 1
    lora: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.1
    warmup: float = 0.1
    ema: float = 0.999
    validate_every: int = 250
    save_every: int = 100
    patience: int | None = None
    seed: int = 0
    image_image: float = 0.0
    text_text: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def schedule(self) -> distillation.Recipe:
        """What the distillation's functions of a recipe take: order, rates and averages."""
        mine, theirs = ({field.name for field in dataclasses.fields(kind)} for kind in (Recipe, distillation.Recipe))
        shared = (mine & theirs) - {"learning_rate"}
        rate = self.learning_rate
        if rate is None:
            rate = FULL_RATE if self.lora is None else LORA_RATE
        return distillation.Recipe(learning_rate=rate, views=1, **{name: getattr(self, name) for name in shared})

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "learning_rate": self.schedule.learning_rate}


def check_recipe(recipe: Recipe) -> None:
    """Raises UsageError for a setting that no training can have, naming it."""
    distillation.check_recipe(recipe.schedule)
    limits = {
        "lora": (recipe.lora is None or recipe.lora >= 1, "a rank of 1 or more"),
        "image_image": (0 <= recipe.image_image < math.inf, "0 or more"),
        "text_text": (0 <= recipe.text_text < math.inf, "0 or more"),
    }
    for name, (fits, expected) in limits.items():
        if not fits:
            raise UsageError(f"expected {name} to be {expected}, found {getattr(recipe, name)}")
