"""Attention pooling: one learned query asks all tokens (Lee et al. 2019, "Set Transformer", arXiv 1810.00825).

Two families have it. SigLIP's head (Zhai et al. 2023, arXiv 2303.15343; named "map", multihead attention pooling,
after Zhai et al. 2022, "Scaling Vision Transformers", arXiv 2106.04560) normalises the tokens, lets the query attend,
and adds a perceptron's output to what was found. CoCa's attentional pooler (Yu et al. 2022, arXiv 2205.01917) has no
perceptron; a norm and a projection follow, which are the tower's.

In the checkpoints the query is itself multiplied by a matrix. Of a constant that is a constant, so here the query is
what comes out. Shapes: B batch, T tokens, W width of the tower, P width of the pooled token, H heads.
"""

from __future__ import annotations

import torch
from torch import nn

from clipedge.export.checkpoints.configs import Activation, VitConfig
from clipedge.export.towers.blocks import activate, attend

__all__ = [
    "AttentionPooling",
    "FoldedQueryAttention",
    "Perceptron",
    "QueryAttention",
    "attentional_pooler",
    "map_head",
]


def map_head(config: VitConfig) -> AttentionPooling:
    """SigLIP's head without its weights."""
    width, eps = config.width, config.eps
    fc1, fc2 = nn.Linear(width, config.mlp_width), nn.Linear(config.mlp_width, width)
    perceptron = Perceptron(nn.LayerNorm(width, eps), fc1, fc2, config.activation)
    return AttentionPooling(nn.LayerNorm(width, eps), _query_attention(width, width, config.pool_heads), perceptron)


def attentional_pooler(config: VitConfig, width: int) -> AttentionPooling:
    """CoCa's pooler without its weights; its pooled token has ``width`` channels."""
    attn = _query_attention(config.width, width, config.pool_heads)
    return AttentionPooling(nn.LayerNorm(config.width, config.eps), attn, nn.Identity())


def _query_attention(token_width: int, width: int, heads: int) -> QueryAttention:
    key, value = (nn.Linear(token_width, width) for _ in range(2))
    query = nn.Parameter(torch.empty(width))
    return QueryAttention(query, key, value, nn.Linear(width, width), heads, scale=(width // heads) ** -0.5)


class AttentionPooling(nn.Module):
    """All tokens, normalised, to one."""

    def __init__(
        self, norm: nn.LayerNorm, attn: QueryAttention | FoldedQueryAttention, perceptron: Perceptron | nn.Identity
    ) -> None:
        super().__init__()
        self.norm, self.attn, self.perceptron = norm, attn, perceptron

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, W) to (B, 1, P)."""
        pooled: torch.Tensor = self.perceptron(self.attn(self.norm(hidden)))
        return pooled


class QueryAttention(nn.Module):
    """Multi-head attention of a constant ``query`` (P,) to all tokens, with the scores multiplied by ``scale``."""

    def __init__(
        self, query: nn.Parameter, key: nn.Linear, value: nn.Linear, out: nn.Linear, heads: int, scale: float
    ) -> None:
        super().__init__()
        self.query = query
        self.key, self.value, self.out = key, value, out
        self.heads, self.scale = heads, scale

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, W) to (B, 1, P)."""
        query = self.query.expand(len(hidden), 1, -1)
        mixed = attend(query, self.key(hidden), self.value(hidden), self.heads, self.scale, None)
        pooled: torch.Tensor = self.out(mixed)
        return pooled


class FoldedQueryAttention(nn.Module):
    """The same with the query in the weights: ``key_value`` gives a token's scores (H), then its values (P)."""

    def __init__(self, key_value: nn.Linear, out: nn.Linear, heads: int) -> None:
        super().__init__()
        self.key_value, self.out, self.heads = key_value, out, heads

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, W) to (B, 1, P)."""
        scores, values = self.key_value(hidden).split([self.heads, self.out.in_features], dim=-1)
        values = values.unflatten(-1, (self.heads, -1))
        mixed = torch.einsum("bth,bthc->bhc", scores.softmax(dim=1), values)
        pooled: torch.Tensor = self.out(mixed.flatten(1)[:, None])
        return pooled


class Perceptron(nn.Module):
    """A norm and a two-layer perceptron, added to their input."""

    def __init__(self, norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear, activation: Activation) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2, self.activation = norm, fc1, fc2, activation

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        mlp: torch.Tensor = self.fc2(activate(self.fc1(self.norm(hidden)), self.activation))
        return hidden + mlp
