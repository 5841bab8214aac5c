"""What a student learns from: losses over a batch of pairs, each with its source.

Names and shapes are those of ``clipedge.export.training.contrast``, which has CLIP's own loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from clipedge.export.training.contrast import Embeddings, Scale, infonce, similarities

__all__ = [
    "IMAGES",
    "PAIRS",
    "Weights",
    "affinity_mimicking",
    "contrastive_relational",
    "distillation_losses",
    "feature_cosine",
    "feature_mse",
    "interactive_contrastive",
]


@dataclass(frozen=True)
class Weights:
    """How much each loss counts; 0 leaves it out. ``relational`` is within the pictures, so it needs no captions;
    ``affinity``, ``interactive`` and ``infonce`` do.

    Relational distillation between pictures and texts is not in the list: its gradient is that of ``affinity``.
    """

    cosine: float = 0.0
    mse: float = 0.0
    relational: float = 0.0
    affinity: float = 0.0
    interactive: float = 0.0
    infonce: float = 0.0

    @property
    def needs_captions(self) -> bool:
        return self.affinity > 0 or self.interactive > 0 or self.infonce > 0


# Features weigh most: CLIP-KD (Yang et al. 2023) found them to do most, and its 2000 for the mean square over 512
# dimensions is 7.8 for the cosine. The others' defaults are what was measured (docs/distillation.md): at a teacher's
# scale ``relational`` outweighs the features and slows a short training down.
IMAGES = Weights(cosine=8.0)
PAIRS = Weights(cosine=8.0, affinity=1.0)


def feature_cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - cosine of each student's embedding and its teacher's."""
    return (1 - (student * teacher).sum(dim=-1)).mean()


def feature_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean square over pairs and dimensions: CLIP-KD's feature distillation (Yang et al. 2023, arXiv 2307.12732).

    Of normalised embeddings it is ``feature_cosine`` times 2 / D.
    """
    return F.mse_loss(student, teacher)


def contrastive_relational(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    student_scale: Scale,
    teacher_scale: Scale,
    same: torch.Tensor | None = None,
) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's from the teacher's similarities, as softmax over a batch.

    Each side is a pair of sets, such as (images, texts), or (images, images) with the diagonal in ``same``. Mean over
    both directions, rows and columns. CLIP-KD's contrastive relational distillation (Yang et al. 2023, arXiv
    2307.12732); within one set it is relational distillation (Park et al. 2019, arXiv 1904.05068) by distributions.
    """
    divergences = []
    for ours, theirs in zip(
        _log_affinities(*student, student_scale, same), _log_affinities(*teacher, teacher_scale, same), strict=True
    ):
        divergences.append((_shares(theirs, same) * (_finite(theirs, same) - _finite(ours, same))).sum(dim=1).mean())
    return torch.stack(divergences).mean()


def affinity_mimicking(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    student_scale: Scale,
    teacher_scale: Scale,
    same: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross entropy of the student's image-text affinities under the teacher's, mean of both directions.

    TinyCLIP (Wu et al. 2023, arXiv 2309.12314), which adds the two directions up. It is ``contrastive_relational``
    plus the teacher's entropy, so the gradients are equal; the value is another.
    """
    entropies = []
    for ours, theirs in zip(
        _log_affinities(*student, student_scale, same), _log_affinities(*teacher, teacher_scale, same), strict=True
    ):
        entropies.append(-(_shares(theirs, same) * _finite(ours, same)).sum(dim=1).mean())
    return torch.stack(entropies).mean()


def interactive_contrastive(
    student: Embeddings, teacher: Embeddings, scale: Scale, same: torch.Tensor | None = None
) -> torch.Tensor:
    """InfoNCE across the models: the student's pictures among the teacher's texts, and its texts among the teacher's
    pictures, mean of the two. CLIP-KD's interactive contrastive learning (Yang et al. 2023, arXiv 2307.12732).

    Both sides need texts.
    """
    assert student.texts is not None and teacher.texts is not None
    pairs = torch.arange(len(student.images), device=student.images.device)
    images = F.cross_entropy(similarities(student.images, teacher.texts, scale, same), pairs)
    texts = F.cross_entropy(similarities(student.texts, teacher.images, scale, same), pairs)
    return (images + texts) / 2


def distillation_losses(
    student: Embeddings,
    teacher: Embeddings,
    scale: torch.Tensor,
    teacher_scale: float,
    weights: Weights,
    same: torch.Tensor | None = None,
) -> Mapping[str, torch.Tensor]:
    """The losses that count, by the names of ``Weights`` and multiplied by their weights; their sum is to be minimised.

    Those that need texts expect them on both sides.
    """
    images = (student.images, student.images), (teacher.images, teacher.images)
    losses = {}
    for field in fields(weights):
        name, weight = field.name, float(getattr(weights, field.name))
        if weight <= 0:
            continue
        if name == "cosine":
            loss = feature_cosine(student.images, teacher.images)
        elif name == "mse":
            loss = feature_mse(student.images, teacher.images)
        elif name == "relational":
            itself = torch.eye(len(student.images), dtype=torch.bool, device=student.images.device)
            loss = contrastive_relational(*images, scale, teacher_scale, itself)
        elif name == "interactive":
            loss = interactive_contrastive(student, teacher, scale, same)
        else:
            assert student.texts is not None and teacher.texts is not None
            ours, theirs = (student.images, student.texts), (teacher.images, teacher.texts)
            if name == "affinity":
                loss = affinity_mimicking(ours, theirs, scale, teacher_scale, same)
            else:
                loss = infonce(*ours, scale, same)
        losses[name] = weight * loss
    return losses


def _log_affinities(
    first: torch.Tensor, second: torch.Tensor, scale: Scale, same: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logarithms of the softmax over rows, and over columns (transposed); -inf where ``same``, which is symmetric."""
    logits = similarities(first, second, scale, same)
    return logits.log_softmax(dim=1), logits.T.log_softmax(dim=1)


def _shares(logs: torch.Tensor, same: torch.Tensor | None) -> torch.Tensor:
    shares = logs.exp()
    return shares if same is None else shares.masked_fill(same, 0.0)


def _finite(logs: torch.Tensor, same: torch.Tensor | None) -> torch.Tensor:
    """What is left out counts nothing: zero times minus infinity would be no number."""
    return logs if same is None else logs.masked_fill(same, 0.0)
