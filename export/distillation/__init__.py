"""distill(): a teacher's answers, learned by a smaller image tower. The student is an ordinary checkpoint to export.

    teacher + pictures -> lessons (its embeddings, once) -> student (new or inherited) -> training -> a CLIP folder

``data.py`` reads pictures and captions, ``augment.py`` makes views of them, ``teacher.py`` asks the teacher about these
and keeps what it says (``shards.py``). ``spec.py`` reads what a student shall be, ``students.py`` makes it,
``inherit.py`` cuts it out of the teacher by ``importance.py``, ``timm_towers.py`` has timm's networks,
``exportable.py`` asks export whether it takes them. ``trainer.py`` is the loop, ``optimizer.py`` its AdamW,
``recipe.py`` its settings, ``batches.py`` what a step looks at, ``hardening.py`` how it is made harder,
``objectives.py`` the losses, ``gradients.py`` theirs, ``batch_norms.py`` what is learned without any, ``validation.py``
the scores, ``state.py`` what a killed training is resumed from. ``processes.py`` joins several processes,
``precision.py`` is mixed precision. ``folder.py`` writes the student, ``curves.py`` the pictures of its training,
``events.py`` the same for TensorBoard, ``run_file.py`` settings and result; ``pipeline.py`` is the whole job.

It needs torch and Accelerate, which the extra ``export`` brings. Nothing of it has been run on a GPU, or by several
machines: the tests have processes on the CPU.
"""

from clipedge.export.distillation.augment import Augmentation
from clipedge.export.distillation.objectives import IMAGES, PAIRS, Weights
from clipedge.export.distillation.pipeline import distill
from clipedge.export.distillation.recipe import Recipe

__all__ = ["IMAGES", "PAIRS", "Augmentation", "Recipe", "Weights", "distill"]
