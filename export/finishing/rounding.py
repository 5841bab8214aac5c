"""Rounding to integers with gradients, and with a step that is learned.

Rounding passes gradients straight through (Bengio et al. 2013, arXiv 1308.3432), and a step has the gradient of Esser
et al. 2020, "Learned step size quantization", arXiv 1902.08153: of the rounding error inside the range, of the range's
end outside. It is the logarithm of the step that is learned (Jain et al. 2020, "Trained quantization thresholds",
arXiv 1903.08066): an update is then a share of the step, whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from clipedge.calibration.observers import Range
from clipedge.calibration.rounding import Scheme, activation_parameters

__all__ = ["Rounding", "rounding_of_range", "rounding_of_weight"]


@dataclass(frozen=True, eq=False)
class Rounding:
    """x -> clip(round(x / step), low, high) * step.

    ``log_step`` is the logarithm of one step, or of one for each item of the last axis. ``low`` and ``high`` are the
    integers that there are, counted from the one that stands for zero.
    """

    log_step: torch.Tensor
    low: int
    high: int

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        step = self.log_step.exp()
        scaled = (values / step).clamp(self.low, self.high)
        return (scaled + (scaled.round() - scaled).detach()) * step

    def integers(self, values: torch.Tensor) -> npt.NDArray[np.int8]:
        """The integers, of a rounding whose zero is 0."""
        with torch.no_grad():
            return (values / self.log_step.exp()).round().clamp(self.low, self.high).to(torch.int8).numpy()

    def steps(self) -> npt.NDArray[np.float32]:
        """The steps, float32, in the shape of ``log_step``."""
        return self.log_step.detach().exp().numpy()

    def limits(self) -> Range:
        """The range of which ``activation_parameters`` makes the same step and zero point."""
        step = float(self.steps())
        # A symmetric range of int8 leaves out -128.
        low = -self.high if (self.low, self.high) == (-128, 127) else self.low
        return Range(low * step, self.high * step)


def rounding_of_range(limits: Range, scheme: Scheme) -> Rounding:
    """As an activation of that range is rounded for a target. Its zero point stays, its step may be learned."""
    step, zero_point = activation_parameters(limits, scheme)
    bounds = np.iinfo(scheme.dtype)
    zero = int(zero_point)
    return Rounding(_learned(np.asarray(step)), int(bounds.min) - zero, int(bounds.max) - zero)


def rounding_of_weight(scale: npt.NDArray[np.float32], scheme: Scheme) -> Rounding:
    """As a weight (in, out) with these scales (out,) is rounded for a target."""
    steps = scale if scheme.per_channel else scale[:1]
    return Rounding(_learned(steps), -scheme.weight_limit, scheme.weight_limit)


def _learned(steps: npt.NDArray[np.float32]) -> torch.Tensor:
    return torch.nn.Parameter(torch.tensor(np.log(np.asarray(steps, np.float64)), dtype=torch.float32))
