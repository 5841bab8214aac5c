"""A stem of small convolutions in the place of a vision transformer's patch embedding (Xiao et al. 2021, "Early
Convolutions Help Transformers See Better", arXiv 2106.14881), as MobileCLIP-B has it: none of its kernels overlap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["STEM_SIZES", "ConvStem", "FoldedConvStem"]

# Of the three kernels, each cutting what the one before it has left; a patch has the pixels of all three.
STEM_SIZES = (4, 2, 2)


class ConvStem(nn.Module):
    """Three convolutions with GELU between them, to a quarter of the width, the same, and the width.

    The last has no bias: that of a checkpoint is part of the positions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 4
        self.first = nn.Conv2d(3, inner, STEM_SIZES[0], STEM_SIZES[0])
        self.second = nn.Conv2d(inner, inner, STEM_SIZES[1], STEM_SIZES[1])
        self.third = nn.Conv2d(inner, width, STEM_SIZES[2], STEM_SIZES[2], bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, width, H / 16, W / 16)."""
        result: torch.Tensor = self.third(F.gelu(self.second(F.gelu(self.first(maps)))))
        return result


class FoldedConvStem(nn.Module):
    """The same from patches of raw pixels, as matrix products: since no kernels overlap, pixels that are sorted once,
    by patch, by what the second kernel sees and by what the first sees, need only be reshaped between the layers.

    The columns of the weights are ordered row, column, channel.
    """

    def __init__(self, first: nn.Linear, second: nn.Linear, third: nn.Linear) -> None:
        super().__init__()
        self.first, self.second, self.third = first, second, third

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, patches, pixels * 3), the pixels row by row, to (B, patches, width)."""
        count = patches.shape[1]
        small, middle, large = STEM_SIZES
        cut = patches.reshape(-1, large, middle, small, large, middle, small * 3).permute(0, 1, 4, 2, 5, 3, 6)
        hidden = F.gelu(self.first(cut.reshape(-1, self.first.in_features)))
        hidden = F.gelu(self.second(hidden.reshape(-1, self.second.in_features)))
        result: torch.Tensor = self.third(hidden.reshape(-1, self.third.in_features))
        return result.reshape(-1, count, self.third.out_features)
