"""LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685): W + B A for W.

Our towers are plain modules of torch, which computes a weight from others by itself (``torch.nn.utils.parametrize``):
what is written down at the end is the very weight that was trained with, so merging is reading it. The library peft
would bring transformers and accelerate along for that. Adapters that peft has trained are merged at load
(``clipedge.export.checkpoints.adapters``).
"""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn.utils import parametrize

__all__ = ["LowRank", "add_lora"]

# Attention's and the perceptrons' linear layers, in both towers.
LAYERS = re.compile(r"(?:.+\.)?blocks\.\d+\.(?:attn\.(?:query|key|value|out)|fc1|fc2)")


class LowRank(nn.Module):
    """A weight (out, in) to the weight + ``up`` (out, r) ``down`` (r, in). ``up`` begins at zero, ``down`` normal."""

    def __init__(self, weight: torch.Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.randn((rank, columns), generator=generator) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.up @ self.down


def add_lora(module: nn.Module, rank: int, seed: int) -> None:
    """Fix all weights under a module, and give its transformer blocks' linear layers updates of this rank to train."""
    generator = torch.Generator().manual_seed(seed)
    module.requires_grad_(False)
    layers = {name: layer for name, layer in module.named_modules() if LAYERS.fullmatch(name)}
    for layer in layers.values():
        assert isinstance(layer, nn.Linear)
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, generator))
