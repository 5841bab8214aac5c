"""Convolutions over a text's tokens in the place of attention: the first and the last block of MobileCLIP-S0's text
tower (Vasu et al. 2023, arXiv 2311.17049, section 4.2), in the form for inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["TokenMixer", "empty_token_mixer"]

KERNEL = 11


class TokenMixer(nn.Module):
    """RepMixer, a kernel for each channel; then a ConvFFN, added to its input. Texts are maps one row high."""

    def __init__(self, mixer: nn.Conv2d, conv: nn.Conv2d, fc1: nn.Linear, fc2: nn.Linear) -> None:
        super().__init__()
        self.mixer, self.conv, self.fc1, self.fc2 = mixer, conv, fc1, fc2

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, W) to (B, T, W)."""
        maps = self.mixer(hidden.transpose(1, 2)[:, :, None])
        mixed, seen = (part[:, :, 0].transpose(1, 2) for part in (maps, self.conv(maps)))
        result: torch.Tensor = mixed + self.fc2(F.gelu(self.fc1(seen)))
        return result


def empty_token_mixer(width: int, mlp_width: int) -> TokenMixer:
    """The block without its weights."""

    def over_tokens() -> nn.Conv2d:
        return nn.Conv2d(width, width, (1, KERNEL), padding=(0, KERNEL // 2), groups=width)

    return TokenMixer(over_tokens(), over_tokens(), nn.Linear(width, mlp_width), nn.Linear(mlp_width, width))
