"""The losses for pairs and for pictures with classes, and the terms between further views and wordings.

In a batch of a labelled folder texts repeat, and CLIP's own loss takes a picture's own text for a negative wherever
another picture has it, too. FLYP (Goyal et al. 2023, "Finetune like you pretrain", arXiv 2212.00638) keeps that loss
all the same, and finds that contrast with the classes' prompts, through both towers, forgets less than a new head. Here
each class's prompt is in a batch once, so nothing is its own negative: a picture has one right text, and a text has as
many right pictures as show its class, with equal shares (Yang et al. 2022, "Unified contrastive learning in
image-text-label space", arXiv 2204.03610). Where no class repeats, it is CLIP's loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clipedge.export.training.contrast import Embeddings, Scale, infonce

__all__ = ["class_contrast", "class_contrast_with_terms", "infonce_with_terms"]


def infonce_with_terms(
    own: Embeddings,
    scale: Scale,
    same: torch.Tensor | None = None,
    other_images: torch.Tensor | None = None,
    other_texts: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """InfoNCE between pictures and texts, and within each where there are more of the same pairs.

    ``other_images`` are further views of the pictures: the image-image term (SLIP, Mu et al. 2021, arXiv 2112.12750);
    ``other_texts`` further captions: the text-text term (Koukounas et al. 2024, arXiv 2405.20204).
    """
    assert own.texts is not None
    terms = {"image_text": infonce(own.images, own.texts, scale, same)}
    if other_images is not None:
        terms["image_image"] = infonce(own.images, other_images, scale, same)
    if other_texts is not None:
        terms["text_text"] = infonce(own.texts, other_texts, scale, same)
    return terms


def class_contrast(images: torch.Tensor, texts: torch.Tensor, classes: torch.Tensor, scale: Scale) -> torch.Tensor:
    """Cross entropy of pictures (N, D) against the texts (C, D) of their classes, and of texts against their pictures.

    Embeddings are L2-normalised; ``classes`` (N,) int64 are rows of ``texts``, each of which has a picture. Mean of
    the two directions, a scalar.
    """
    logits = scale * images @ texts.T
    shares = F.one_hot(classes, len(texts)).to(logits)
    of_texts = -(shares / shares.sum(dim=0) * logits.log_softmax(dim=0)).sum(dim=0).mean()
    return (F.cross_entropy(logits, classes) + of_texts) / 2


def class_contrast_with_terms(
    own: Embeddings,
    classes: torch.Tensor,
    scale: Scale,
    other_images: torch.Tensor | None = None,
    other_texts: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """``class_contrast``, and the terms of ``infonce_with_terms``: between pictures (N, D) and further views of them,
    where pictures of one class are no negatives, and between texts (C, D) and other wordings of them."""
    assert own.texts is not None
    terms = {"image_text": class_contrast(own.images, own.texts, classes, scale)}
    if other_images is not None:
        same = (classes[:, None] == classes[None]) & ~torch.eye(len(classes), dtype=torch.bool)
        terms["image_image"] = infonce(own.images, other_images, scale, same)
    if other_texts is not None:
        terms["text_text"] = infonce(own.texts, other_texts, scale)
    return terms
