"""finetune(): a CLIP folder trained on, with captions or classes, without forgetting what it could do before.

    model + pictures -> both towers trained (all weights, or LoRA) -> interpolated with the one before -> a CLIP folder

``material.py`` reads pictures and what they say, ``batches.py`` draws from it. ``towers.py`` are the towers that train,
``lora.py`` their low-rank updates. ``objectives.py`` has the losses, ``trainer.py`` is the loop, ``recipe.py`` its
settings, ``exams.py`` the scores. ``interpolation.py`` goes from the model before to the tuned one and chooses between
them; ``curves.py`` draws all of it, ``result.py`` says it; ``pipeline.py`` is the whole job. The rest is every
training's: ``clipedge.export.training``.

It needs torch, which the extra ``export`` brings, and runs in one process on the CPU.
"""

from clipedge.export.finetuning.pipeline import finetune
from clipedge.export.finetuning.recipe import Recipe

__all__ = ["Recipe", "finetune"]
