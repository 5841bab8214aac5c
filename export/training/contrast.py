"""CLIP's own loss over a batch of pairs, and its temperature.

N pairs, D dimensions. Embeddings are L2-normalised float32 (N, D), and row i of each belongs to pair i. A ``scale`` is
an inverse temperature, a positive number or scalar tensor. ``same`` is bool (N, N): places of a similarity matrix that
are left out, such as captions that equal a row's own word for word and so are no negatives. Losses are scalars, means
over the pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["Embeddings", "Scale", "clamp_log_scale", "infonce", "similarities"]

MAX_LOG_SCALE = math.log(100)  # Radford et al. 2021, arXiv 2103.00020, section 2.5: keeps training stable

Scale = torch.Tensor | float


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One model's embeddings of a batch; ``texts`` is None where the pictures have no captions."""

    images: torch.Tensor
    texts: torch.Tensor | None = None


def clamp_log_scale(log_scale: torch.Tensor) -> None:
    """Keep a learned logarithm of a scale, in place, between 0 and log(100), as CLIP does after each step."""
    with torch.no_grad():
        log_scale.clamp_(0.0, MAX_LOG_SCALE)


def similarities(first: torch.Tensor, second: torch.Tensor, scale: Scale, same: torch.Tensor | None) -> torch.Tensor:
    """The logits (N, N) of one side's rows against the other's; minus infinity where ``same``."""
    logits = scale * first @ second.T
    return logits if same is None else logits.masked_fill(same, -torch.inf)


def infonce(first: torch.Tensor, second: torch.Tensor, scale: Scale, same: torch.Tensor | None = None) -> torch.Tensor:
    """CLIP's symmetric contrastive loss (van den Oord et al. 2018, arXiv 1807.03748; Radford et al. 2021, arXiv
    2103.00020, figure 3)."""
    pairs = torch.arange(len(first), device=first.device)
    logits = similarities(first, second, scale, same)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
