"""Towers whose modules are another library's: ClipEdge's inputs in front of them, the unit length behind."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from clipedge.export.checkpoints.configs import TracedImageConfig, TracedTextConfig
from clipedge.manifest import Preprocessing

__all__ = ["TracedImageTower", "TracedTextTower", "TracedTower"]


class TracedImageTower(nn.Module):
    """``source`` takes float32 (B, 3, H, W), normalised as its library does it, and gives (B, D)."""

    input_name, output_name = "pixels", "image_embeds"
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: TracedImageConfig, source: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.config = config
        self.source = source
        self.register_buffer("mean", torch.tensor(preprocessing.mean), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 RGB to (B, D), L2-normalised."""
        normalised = (pixels.to(torch.float32) / 255 - self.mean) / self.std
        return F.normalize(self.source(normalised.permute(0, 3, 1, 2)), dim=-1)

    def example(self) -> torch.Tensor:
        """One input."""
        size = self.config.image_size
        return torch.zeros((1, size, size, 3), dtype=torch.uint8)


class TracedTextTower(nn.Module):
    """``source`` takes int64 (B, T) token ids and gives (B, D); what is padding it finds by itself."""

    input_name, output_name = "input_ids", "text_embeds"

    def __init__(self, config: TracedTextConfig, source: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.source = source

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) int64 to (B, D), L2-normalised; T is the context length."""
        return F.normalize(self.source(input_ids), dim=-1)

    def example(self) -> torch.Tensor:
        """One input."""
        return torch.zeros((1, self.config.context_length), dtype=torch.int64)


TracedTower = TracedImageTower | TracedTextTower
