"""distill(): a teacher's answers, learned by smaller towers. The student is an ordinary checkpoint to export.

    teacher + pictures -> lessons (its embeddings, once) -> student (new or inherited) -> training -> a CLIP folder

``teacher.py`` asks the teacher about views of the pictures and keeps what it says (``shards.py``). ``spec.py`` reads
what a student shall be, ``students.py`` makes it, ``inherit.py`` cuts it out of the teacher by ``importance.py``,
``new_weights.py`` and ``resnets.py`` begin a new one, ``timm_towers.py`` has timm's networks, ``exportable.py`` asks
export whether it takes them. ``text_spec.py`` and ``text_students.py`` do the same for a text tower of its own, which
reads ``texts.py``. ``trainer.py`` is the loop, ``recipe.py`` its settings, ``student_tower.py`` the form that is
trained, ``batches.py`` what a step looks at, ``hardening.py`` how it is made harder, ``objectives.py`` the losses,
``validation.py`` the scores, ``result.py`` what it came to; ``pipeline.py`` is the whole job. The rest is every
training's: ``clipedge.export.training``.

It needs torch and Accelerate, which the extra ``export`` brings. Nothing of it has been run on a GPU, or by several
machines: the tests have processes on the CPU.
"""

from clipedge.export.distillation.objectives import IMAGES, PAIRS, Weights
from clipedge.export.distillation.pipeline import distill
from clipedge.export.distillation.recipe import Recipe
from clipedge.export.training.augment import Augmentation

__all__ = ["IMAGES", "PAIRS", "Augmentation", "Recipe", "Weights", "distill"]
