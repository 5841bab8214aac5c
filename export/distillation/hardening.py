"""Views made harder for the student alone; what it shall answer is still what the teacher says of the clean view.

- corruption: noise, blur, low contrast or JPEG artefacts, as ``clipedge eval --corruptions`` has them.
- adversarial: every pixel moved by a few levels in the direction in which the student departs fastest from the teacher,
  one step of the fast gradient sign method (Goodfellow et al. 2014, arXiv 1412.6572) against the feature loss. To keep
  the clean model's embeddings under attack is the objective of FARE (Schlarmann et al. 2024, arXiv 2402.12336), with
  more steps; TeCoA (Mao et al. 2022, arXiv 2212.07016) attacks the classification by texts instead.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch

from clipedge.evaluation.corruptions import SEVERITIES, Condition, corrupt
from clipedge.export.distillation.objectives import feature_cosine

__all__ = ["KINDS", "USUAL", "adversarial", "corrupted"]

USUAL = {"corruption": 0.5, "adversarial": 2.0}  # where no number is named: a share of the views, levels of 255
KINDS = ("noise", "blur", "contrast", "jpeg")  # the others show another part, of which the teacher might say otherwise


def corrupted(view: npt.NDArray[np.uint8], share: float, key: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The view (H, W, 3), in a ``share`` of all cases made worse: a kind and a severity, each as likely as any other.

    What happens is a function of the ``key`` alone.
    """
    rng = np.random.default_rng(key)
    if rng.random() >= share:
        return view
    condition = Condition(KINDS[rng.integers(len(KINDS))], SEVERITIES[rng.integers(len(SEVERITIES))])
    return np.asarray(corrupt(PIL.Image.fromarray(view), condition, int(rng.integers(2**31))))


def adversarial(
    tower: torch.nn.Module, pixels: torch.Tensor, teacher: torch.Tensor, levels: float, parts: int
) -> torch.Tensor:
    """Pixels (N, H, W, 3), each moved by ``levels`` of 255 against the student, as float32 within 0 and 255.

    ``teacher`` (N, D) are the teacher's embeddings of the clean pixels. Computed in float32, in which small gradients
    keep their sign, and in so many ``parts``, to save memory; the tower's own gradients are left as they are.
    """
    moved = []
    for piece, target in zip(pixels.tensor_split(parts), teacher.tensor_split(parts), strict=True):
        clean = piece.to(torch.float32).requires_grad_()
        (gradient,) = torch.autograd.grad(feature_cosine(tower(clean), target), clean)
        moved.append((clean.detach() + levels * gradient.sign()).clamp(0, 255))
    return torch.cat(moved)
