"""The text tower: a transformer over tokens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from clipedge.export.checkpoints.configs import TextConfig
from clipedge.export.towers.blocks import Block
from clipedge.export.towers.tower import Tower, transformer_block

__all__ = ["TextEmbedding", "TextTower", "attention_mask", "empty_text_tower"]

# What is added to the score of a hidden token. Its exponential is exactly zero in any float type, and unlike minus
# infinity or float32's lowest number it survives the conversion to half precision in every engine.
HIDDEN = -1e4


def empty_text_tower(config: TextConfig, embed_dim: int) -> TextTower:
    """The tower without its weights."""
    return TextTower(
        config,
        TextEmbedding(config),
        [transformer_block(config) for _ in range(config.layers)],
        nn.LayerNorm(config.width, config.eps),
        nn.Linear(config.width, embed_dim, bias=config.projection_bias),
    )


class TextTower(Tower):
    """A transformer, pooled at one token that sees the whole text: its end, or the last of the context."""

    config: TextConfig
    embedding: TextEmbedding

    def __init__(
        self,
        config: TextConfig,
        embedding: TextEmbedding,
        blocks: Iterable[Block],
        norm_post: nn.LayerNorm | nn.Identity,
        projection: nn.Linear | nn.Identity,
    ) -> None:
        super().__init__(embedding, blocks, norm_post, projection)
        self.config = config

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) int64 to (B, D), L2-normalised; T is the context length."""
        hidden, mask = self.embedding(input_ids), attention_mask(self.config)
        return self.encode(hidden, self.pooled_position(input_ids), None if mask is None else mask.to(hidden))

    def pooled_position(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) to (B,); of a text without an end the first token, as in transformers."""
        if self.config.pool == "last":
            return torch.full((len(input_ids),), self.config.context_length - 1, device=input_ids.device)
        if self.config.pools_highest_id:
            return input_ids.argmax(dim=-1)
        return (input_ids == self.config.eos_token_id).int().argmax(dim=-1)


def attention_mask(config: TextConfig) -> torch.Tensor | None:
    """(T, T) float32 to add to attention scores: token i (row) sees tokens 0 to i (columns). None: it sees all."""
    if not config.causal:
        return None
    length = config.context_length
    return torch.full((length, length), HIDDEN).triu(diagonal=1)


class TextEmbedding(nn.Module):
    """Token ids to tokens with positions."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.position = nn.Parameter(torch.empty(config.context_length, config.width))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) int64 to (B, T, W)."""
        return self.token[input_ids] + self.position
