"""The text tower: a transformer over tokens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from clipedge.export.checkpoints.configs import PAD_ID, TextConfig
from clipedge.export.towers.blocks import Block
from clipedge.export.towers.mixer import TokenMixer, empty_token_mixer
from clipedge.export.towers.tower import Tower, transformer_block

__all__ = ["HIDDEN", "TextEmbedding", "TextTower", "attention_mask", "empty_text_tower", "hidden_keys"]

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
        [empty_token_mixer(config.width, config.mlp_width) for _ in range(2 * config.mixers)],
    )


class TextTower(Tower):
    """A transformer, pooled at one token that sees the whole text: its end, or the last of the context.

    ``mixers`` are none, or one in front of the blocks and one behind them.
    """

    config: TextConfig
    embedding: TextEmbedding

    def __init__(
        self,
        config: TextConfig,
        embedding: TextEmbedding,
        blocks: Iterable[Block],
        norm_post: nn.LayerNorm | nn.Identity,
        projection: nn.Linear | nn.Identity,
        mixers: Iterable[TokenMixer] = (),
    ) -> None:
        super().__init__(embedding, blocks, norm_post, projection)
        self.config = config
        self.mixers = nn.ModuleList(mixers)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, context length) int64 to (B, D), L2-normalised."""
        hidden, mask = self.embedding(input_ids), attention_mask(self.config)
        if self.config.mixers:
            hidden = self.mixers[0](hidden)
        if self.config.class_token:
            keys = hidden_keys(input_ids)
            mask = keys if mask is None else mask.to(keys) + keys
        return self.encode(hidden, self.pooled_position(input_ids), None if mask is None else mask.to(hidden))

    def pool(self, hidden: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """(B, T, W) to (B, 1, W)."""
        return super().pool(self.mixers[1](hidden) if self.config.mixers else hidden, position)

    def pooled_position(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, context length) to (B,); of a text without an end the first token, as in transformers."""
        if self.config.pool == "last":
            return torch.full((len(input_ids),), self.config.tokens - 1, device=input_ids.device)
        if self.config.pools_highest_id:
            return input_ids.argmax(dim=-1)
        return (input_ids == self.config.eos_token_id).int().argmax(dim=-1)


def attention_mask(config: TextConfig) -> torch.Tensor | None:
    """(T, T) float32 to add to attention scores: token i (row) sees tokens 0 to i (columns). None: it sees all."""
    if not config.causal:
        return None
    length = config.tokens
    return torch.full((length, length), HIDDEN).triu(diagonal=1)


def hidden_keys(input_ids: torch.Tensor) -> torch.Tensor:
    """(B, T - 1) token ids to (B, 1, 1, T) to add to attention scores: hides what stands behind padding.

    Not the padding itself, as one would expect: CoCa was trained with the mask moved by one place, in which the first
    place takes the class token's.
    """
    scores = (input_ids == PAD_ID).to(torch.float32) * HIDDEN
    return F.pad(scores, (1, 0))[:, None, None]


class TextEmbedding(nn.Module):
    """Token ids to tokens with positions. A class token's embedding is part of its position, the last."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.class_token = config.class_token
        self.token = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.position = nn.Parameter(torch.empty(config.tokens, config.width))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, context length) int64 to (B, T, W)."""
        return F.pad(self.token[input_ids], (0, 0, 0, int(self.class_token))) + self.position
