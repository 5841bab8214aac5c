"""The image tower as a vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from clipedge.export.checkpoints.configs import VitConfig
from clipedge.export.towers.blocks import Block
from clipedge.export.towers.pooling import AttentionPooling, attentional_pooler, map_head
from clipedge.export.towers.stem import ConvStem, FoldedConvStem
from clipedge.export.towers.tower import Tower, transformer_block
from clipedge.manifest import Preprocessing

__all__ = ["FoldedImageEmbedding", "ImageEmbedding", "ImageTower", "empty_vit"]


def empty_vit(config: VitConfig, preprocessing: Preprocessing, embed_dim: int) -> ImageTower:
    """The tower without its weights."""
    embedding = ImageEmbedding(config, preprocessing)
    blocks = [transformer_block(config) for _ in range(config.layers)]
    if config.pool == "map":
        return ImageTower(config, embedding, blocks, nn.Identity(), nn.Identity(), map_head(config))
    pooled_width = embed_dim if config.pool == "attentional" else config.width
    norm_post = nn.LayerNorm(pooled_width, config.eps)
    projection = nn.Linear(pooled_width, embed_dim, bias=config.projection_bias)
    pooling = attentional_pooler(config, embed_dim) if config.pool == "attentional" else None
    return ImageTower(config, embedding, blocks, norm_post, projection, pooling)


class ImageTower(Tower):
    """A vision transformer, pooled at its class token, the first, or by attention to all tokens."""

    config: VitConfig
    embedding: ImageEmbedding | FoldedImageEmbedding

    def __init__(
        self,
        config: VitConfig,
        embedding: ImageEmbedding | FoldedImageEmbedding,
        blocks: Iterable[Block],
        norm_post: nn.LayerNorm | nn.Identity,
        projection: nn.Linear | nn.Identity,
        pooling: AttentionPooling | None = None,
    ) -> None:
        super().__init__(embedding, blocks, norm_post, projection)
        self.config = config
        self.pooling = pooling

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 RGB to (B, D), L2-normalised."""
        position = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
        return self.encode(self.embedding(pixels), position, None)

    def pool(self, hidden: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """(B, T, W) to (B, 1, W), or with CoCa's pooling to (B, 1, D)."""
        if self.pooling is None:
            return super().pool(hidden, position)
        pooled: torch.Tensor = self.pooling(hidden)
        return pooled


class ImageEmbedding(nn.Module):
    """Pixels to tokens: normalise, cut into patches (a convolution), add class token and positions, LayerNorm.

    The patch convolution has no bias: that of a checkpoint is part of the positions.
    """

    def __init__(self, config: VitConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.mean, self.std = preprocessing.mean, preprocessing.std
        self.patch: nn.Module = ConvStem(config.width)
        if not config.conv_stem:
            self.patch = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_token = nn.Parameter(torch.empty(config.width)) if config.class_token else None
        self.position = nn.Parameter(torch.empty(config.tokens, config.width))
        self.norm = nn.LayerNorm(config.width, config.eps) if config.norm_pre else nn.Identity()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 to (B, T, W)."""
        mean, std = self.position.new_tensor(self.mean), self.position.new_tensor(self.std)
        normalised = (pixels.to(self.position) / 255 - mean) / std
        tokens = self.patch(normalised.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(pixels), 1, -1), tokens], dim=1)
        hidden: torch.Tensor = self.norm(tokens + self.position)
        return hidden


class FoldedImageEmbedding(nn.Module):
    """The same from raw pixel values: one matrix product over patches, one constant for everything added.

    ``patch.weight`` is (W, patch * patch * 3), its columns ordered row, column, channel; ``tokens`` is (T, W).
    """

    def __init__(
        self, patch_size: int, patch: nn.Linear | FoldedConvStem, tokens: torch.Tensor, norm: nn.Module
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patch = patch
        self.tokens = nn.Parameter(tokens, requires_grad=False)
        self.norm = norm

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 to (B, T, W)."""
        size = self.patch_size
        grid = pixels.shape[1] // size
        covered = pixels[:, : grid * size, : grid * size].to(self.tokens)
        cut = covered.reshape(-1, grid, size, grid, size, 3).transpose(2, 3)
        patches = self.patch(cut.reshape(-1, grid * grid, size * size * 3))
        # A row of zeros makes room for the class token, if any; its embedding is the first row of `tokens`.
        hidden: torch.Tensor = self.norm(F.pad(patches, (0, 0, len(self.tokens) - grid * grid, 0)) + self.tokens)
        return hidden
