"""Transformer blocks, as CLIP has them (pre-norm) and in the rearranged forms that compute the same for less.

Every block and attention takes (hidden, position, mask): the tokens (B, T, W), the position (B,) of the token that
the tower pools, and the mask to add to attention scores: (T, T), or (B, 1, T or 1, T) for each sample its own, None
for none. B batch, T tokens, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from clipedge.export.checkpoints.configs import Activation

__all__ = [
    "AbsorbedAttention",
    "Attention",
    "Block",
    "FusedAttention",
    "PooledAttention",
    "activate",
    "attend",
    "linear_of",
    "take_token",
]


class Block(nn.Module):
    """A pre-norm transformer block: attention and a two-layer perceptron, each added to its input."""

    def __init__(
        self,
        norm1: nn.LayerNorm,
        attn: Attention | FusedAttention | PooledAttention | AbsorbedAttention,
        norm2: nn.LayerNorm,
        fc1: nn.Linear,
        fc2: nn.Linear,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.norm1, self.attn = norm1, attn
        self.norm2, self.fc1, self.fc2, self.activation = norm2, fc1, fc2, activation

    def forward(self, hidden: torch.Tensor, position: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, T, W) to (B, T, W), or with attention of the pooled token to (B, 1, W): the one at ``position`` (B,)."""
        pools = isinstance(self.attn, PooledAttention | AbsorbedAttention)
        residual = take_token(hidden, position) if pools else hidden
        hidden = residual + self.attn(self.norm1(hidden), position, mask)
        mlp: torch.Tensor = self.fc2(activate(self.fc1(self.norm2(hidden)), self.activation))
        return hidden + mlp


class Attention(nn.Module):
    """Multi-head self-attention with the scores multiplied by ``scale``."""

    def __init__(
        self, query: nn.Linear, key: nn.Linear, value: nn.Linear, out: nn.Linear, heads: int, scale: float
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = query, key, value, out
        self.heads, self.scale = heads, scale

    def forward(self, hidden: torch.Tensor, position: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        query, key, value = self.query(hidden), self.key(hidden), self.value(hidden)
        attended: torch.Tensor = self.out(attend(query, key, value, self.heads, self.scale, mask))
        return attended


class FusedAttention(nn.Module):
    """Attention with queries, keys and values from one linear layer, in this order."""

    def __init__(self, qkv: nn.Linear, out: nn.Linear, heads: int, scale: float) -> None:
        super().__init__()
        self.qkv, self.out = qkv, out
        self.heads, self.scale = heads, scale

    def forward(self, hidden: torch.Tensor, position: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        query, key, value = self.qkv(hidden).chunk(3, dim=-1)
        attended: torch.Tensor = self.out(attend(query, key, value, self.heads, self.scale, mask))
        return attended


class PooledAttention(nn.Module):
    """Attention of one token per sample to all tokens; keys and values from one linear layer, in this order."""

    def __init__(self, query: nn.Linear, key_value: nn.Linear, out: nn.Linear, heads: int, scale: float) -> None:
        super().__init__()
        self.query, self.key_value, self.out = query, key_value, out
        self.heads, self.scale = heads, scale

    def forward(self, hidden: torch.Tensor, position: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        query = self.query(take_token(hidden, position))
        key, value = self.key_value(hidden).chunk(2, dim=-1)
        row = None if mask is None else _mask_rows(mask, position)
        attended: torch.Tensor = self.out(attend(query, key, value, self.heads, self.scale, row))
        return attended


class AbsorbedAttention(nn.Module):
    """Attention of one token per sample to all tokens, without their keys and values.

    ``key`` takes a head's query, alone among zeros (W), to what its scores are products of the tokens with (W).
    ``value`` (W to W) takes a head's mixture of the tokens; the head keeps its own channels of what comes out.
    See ``simplify.absorb_keys_and_values``.
    """

    def __init__(
        self, query: nn.Linear, key: nn.Linear, value: nn.Linear, out: nn.Linear, heads: int, scale: float
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = query, key, value, out
        self.heads, self.scale = heads, scale

    @property
    def own(self) -> torch.Tensor:
        """(H, W): one where a channel of queries and values is the head's, else zero."""
        width, weight = self.out.in_features, self.out.weight
        return torch.eye(self.heads).repeat_interleave(width // self.heads, dim=1).to(weight)

    def forward(self, hidden: torch.Tensor, position: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        apart = self.query(take_token(hidden, position)) * self.own  # (B, H, W)
        scores = self.key(apart) @ hidden.mT * self.scale  # (B, H, T)
        if mask is not None:
            scores = scores + _mask_rows(mask, position)[:, 0]
        mixtures = scores.softmax(dim=-1) @ hidden  # (B, H, W)
        attended: torch.Tensor = self.out((self.value(mixtures) * self.own).sum(dim=1, keepdim=True))
        return attended


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: int,
    scale: float,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """softmax(scale * Q K^T + mask) V per head; (B, queries, W) and twice (B, T, W) to (B, queries, W)."""
    query, key, value = (x.reshape(len(x), x.shape[1], heads, -1).transpose(1, 2) for x in (query, key, value))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return mixed.transpose(1, 2).flatten(2)


def _mask_rows(mask: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """The mask's rows (B, 1, 1, T) of the tokens at ``position`` (B,)."""
    if mask.ndim == 2:
        return mask[position][:, None, None, :]
    rows = mask.expand(-1, -1, mask.shape[-1], -1)
    return rows[torch.arange(len(position), device=mask.device), :, position][:, :, None]


def take_token(hidden: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """(B, T, W) and (B,) to (B, 1, W): each sample's token at its position."""
    return hidden[torch.arange(len(hidden), device=hidden.device), position][:, None]


def activate(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    if activation == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


def linear_of(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A linear layer of a weight (out, in) and, unless None, a bias (out,)."""
    out_features, in_features = weight.shape
    with torch.device("meta"):
        linear = nn.Linear(in_features, out_features, bias=bias is not None)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear
