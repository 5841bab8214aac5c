"""Muon in float32. torch.optim.Muon orthogonalises in bfloat16, which took longer than the training step on a CPU."""

from __future__ import annotations

from collections.abc import Iterable

import torch

__all__ = ["Muon", "orthogonalise"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: steepest at zero, so that five iterations suffice
_ITERATIONS = 5


class Muon:
    """Momentum whose every update is made near-orthogonal, for 2-D weights (Jordan et al. 2024).

    An update has the size of AdamW's, so that one learning rate serves both (Liu et al. 2025, "Muon is scalable for
    LLM training"). Weight decay is decoupled.
    """

    def __init__(self, weights: Iterable[torch.Tensor], weight_decay: float, momentum: float = 0.95) -> None:
        self._weights = list(weights)
        self._weight_decay = weight_decay
        self._momentum = momentum
        self._averages = [torch.zeros_like(weight) for weight in self._weights]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Applies the gradients of the weights at a learning rate."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            assert weight.grad is not None
            average.lerp_(weight.grad, 1 - self._momentum)
            update = orthogonalise(weight.grad.lerp(average, self._momentum))  # Nesterov's momentum
            weight.mul_(1 - rate * self._weight_decay)
            weight.add_(update, alpha=-rate * 0.2 * max(weight.shape) ** 0.5)


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with equal singular values, roughly (between 0.7 and 1.2), by Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
