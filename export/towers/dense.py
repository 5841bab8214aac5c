"""A vision transformer's patches, each in the space of the whole picture's embedding.

Training holds the pooled class token alone against texts. What the last block's attention hands it is a sum over all
tokens, and a patch's part of that sum lies where the sum lies. Method: a patch's values, those of each head times the
class token's attention to the patch in that head, go through the output projection (Gandelsman et al. 2024,
"Interpreting CLIP's Image Representation via Text-Based Decomposition", arXiv 2310.05916, sections 3 and 5), and norm
and projection follow as they do for the class token. The block's input and perceptron are left out (Lan et al. 2024,
"ClearCLIP", arXiv 2407.12442, section 3.2). ``benchmarks/dense_forms.py`` compares it with other forms; values without
the attention (Zhou et al. 2022, "Extract Free Dense Labels from CLIP", arXiv 2112.01071) pointed worse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from clipedge.export.checkpoints.configs import VitConfig
from clipedge.export.towers.blocks import Attention, Block, linear_of
from clipedge.export.towers.tower import Tower
from clipedge.export.towers.vit import FoldedImageEmbedding, ImageEmbedding, ImageTower

__all__ = ["Contributions", "DenseTower", "dense_tower"]


class Contributions(nn.Module):
    """What each patch hands to the class token, the first, by attention; ``key_value`` are keys, then values.

    The weights are multiplied by the number of tokens: even attention makes them one.
    """

    def __init__(self, query: nn.Linear, key_value: nn.Linear, out: nn.Linear, heads: int, scale: float) -> None:
        super().__init__()
        self.query, self.key_value, self.out = query, key_value, out
        self.heads, self.scale = heads, scale

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, W) to (B, T - 1, W)."""
        query, (key, value) = self.query(hidden[:, :1]), self.key_value(hidden).chunk(2, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in (query, key, value))
        weights = torch.einsum("bqhc,bthc->bth", query, key).mul(self.scale).softmax(dim=1)
        handed: torch.Tensor = self.out((value * weights[..., None] * hidden.shape[1])[:, 1:].flatten(2))
        return handed


class DenseTower(Tower):
    """All blocks but the last, and of that ``norm`` and ``contributions``."""

    config: VitConfig
    embedding: ImageEmbedding | FoldedImageEmbedding

    def __init__(
        self,
        config: VitConfig,
        embedding: ImageEmbedding | FoldedImageEmbedding,
        blocks: Iterable[Block],
        norm: nn.LayerNorm,
        contributions: Contributions,
        norm_post: nn.LayerNorm | nn.Identity,
        projection: nn.Linear | nn.Identity,
    ) -> None:
        super().__init__(embedding, blocks, norm_post, projection)
        self.config = config
        self.norm, self.contributions = norm, contributions

    @property
    def grid(self) -> int:
        """Rows, and columns, of patches."""
        return self.config.image_size // self.config.patch_size

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 RGB to (B, rows, columns, D), L2-normalised."""
        hidden, position = self.embedding(pixels), torch.zeros(len(pixels), dtype=torch.int64)
        for block in self.blocks:
            hidden = block(hidden, position, None)
        embeds: torch.Tensor = self.projection(self.norm_post(self.contributions(self.norm(hidden))))
        return F.normalize(embeds, dim=-1).reshape(-1, self.grid, self.grid, self.embed_dim)


def dense_tower(tower: ImageTower) -> DenseTower:
    """The patches of a reference tower with a class token, from the tower's own parts."""
    *blocks, last = (cast(Block, block) for block in tower.blocks)
    attn = cast(Attention, last.attn)
    weight, bias = (torch.cat([getattr(part, name) for part in (attn.key, attn.value)]) for name in ("weight", "bias"))
    contributions = Contributions(attn.query, linear_of(weight, bias), attn.out, attn.heads, attn.scale)
    return DenseTower(
        tower.config, tower.embedding, blocks, last.norm1, contributions, tower.norm_post, tower.projection
    ).eval()
