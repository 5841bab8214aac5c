"""AdamW as CLIP was trained with, for students and for fine-tuned models."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

__all__ = ["MAX_GRADIENT", "adamw", "no_moments"]

MAX_GRADIENT = 1.0
BETAS, EPS = (0.9, 0.98), 1e-6  # Radford et al. 2021, arXiv 2103.00020, table 19, for vision transformers


def adamw(
    parameters: Mapping[str, torch.Tensor],
    learning_rate: float,
    weight_decay: float,
    undecayed: Collection[str] = (),
) -> torch.optim.AdamW:
    """Weight decay on matrices and kernels, not on gains, biases, positions, the scale and what ``undecayed`` has."""
    decays = {
        name: weight.ndim >= 2 and not name.endswith(".position") and name not in undecayed
        for name, weight in parameters.items()
    }
    groups = [
        {
            "params": [weight for name, weight in parameters.items() if decays[name] == decay],
            "weight_decay": weight_decay * decay,
        }
        for decay in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=EPS)


def no_moments(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """AdamW's state of a weight before the first step, under its own names."""
    return {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
