"""What transformer towers share: embed, run the blocks, pool one token, project into the common space.

Shapes in the docstrings of all towers: B batch, T tokens, W width of the tower, D dimension of the embedding space.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from clipedge.export.checkpoints.configs import TextConfig, VitConfig
from clipedge.export.towers.blocks import Attention, Block, take_token

__all__ = ["Tower", "transformer_block"]


def transformer_block(config: VitConfig | TextConfig) -> Block:
    """An empty block of a tower."""
    width = config.width
    query, key, value, out = (nn.Linear(width, width) for _ in range(4))
    return Block(
        nn.LayerNorm(width, config.eps),
        Attention(query, key, value, out, config.heads, scale=(width // config.heads) ** -0.5),
        nn.LayerNorm(width, config.eps),
        nn.Linear(width, config.mlp_width),
        nn.Linear(config.mlp_width, width),
        config.activation,
    )


class Tower(nn.Module):
    """What both towers share: embed, run the blocks, pool one token, project into the common space.

    Norm and projection are identities in a tower that pools in the common space already.
    """

    config: VitConfig | TextConfig

    def __init__(
        self,
        embedding: nn.Module,
        blocks: Iterable[Block],
        norm_post: nn.LayerNorm | nn.Identity,
        projection: nn.Linear | nn.Identity,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks = nn.ModuleList(blocks)
        self.norm_post = norm_post
        self.projection = projection

    def encode(self, hidden: torch.Tensor, position: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, T, W) embedded tokens to (B, D), L2-normalised; ``position`` (B,) is the token to pool."""
        for block in self.blocks:
            hidden = block(hidden, position, mask)
        embeds: torch.Tensor = self.projection(self.norm_post(self.pool(hidden, position)))
        return F.normalize(embeds.squeeze(1), dim=-1)

    def pool(self, hidden: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """(B, T, W) to (B, 1, W); what the last block has pooled already is left as it is."""
        return hidden if hidden.shape[1] == 1 else take_token(hidden, position)

    @property
    def embed_dim(self) -> int:
        return self.projection.out_features if isinstance(self.projection, nn.Linear) else self.config.width
