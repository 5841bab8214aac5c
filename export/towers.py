"""The canonical towers in torch: CLIP's image and text encoders, straight from a checkpoint's own tensors.

What ``build_image_tower`` and ``build_text_tower`` return is the reference: the arithmetic of the original
(Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020;
its image encoder is the vision transformer of Dosovitskiy et al. 2020, arXiv 2010.11929), nothing rearranged.
``clipedge.export.simplify`` swaps parts of a tower for cheaper ones that compute the same, and
``clipedge.export.graph`` writes the result down as ONNX. Modules are put together from their parts, so that a
part can be swapped without touching the tower it came from.

Shapes in the docstrings: B batch, T tokens, W width of the tower, D dimension of the embedding space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from clipedge.export.blocks import Attention, Block, take_token
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.configs import ImageConfig, TextConfig
from clipedge.manifest import Preprocessing

__all__ = [
    "FoldedImageEmbedding",
    "ImageEmbedding",
    "ImageTower",
    "TextEmbedding",
    "TextTower",
    "Tower",
    "build_image_tower",
    "build_text_tower",
    "causal_mask",
]

# What is added to the score of a hidden token. Its exponential is exactly zero in any float type, and unlike minus
# infinity or float32's lowest number it survives the conversion to half precision in every engine.
HIDDEN = -1e4


def build_image_tower(checkpoint: Checkpoint) -> ImageTower:
    """The reference image tower: (B, H, W, 3) uint8 RGB to (B, D). Shares the checkpoint's float32 weights."""
    config = checkpoint.image
    with torch.device("meta"):  # no memory and no time for random weights that are about to be replaced
        tower = ImageTower(
            config,
            ImageEmbedding(config, checkpoint.preprocessing),
            [_block(config) for _ in range(config.layers)],
            nn.LayerNorm(config.width, config.eps),
            nn.Linear(config.width, checkpoint.embed_dim, bias=False),
        )
    _assign(tower, checkpoint.image_weights)
    return tower


def build_text_tower(checkpoint: Checkpoint) -> TextTower:
    """The reference text tower: (B, T) int64 token ids to (B, D). Shares the checkpoint's float32 weights."""
    config = checkpoint.text
    with torch.device("meta"):
        tower = TextTower(
            config,
            TextEmbedding(config),
            [_block(config) for _ in range(config.layers)],
            nn.LayerNorm(config.width, config.eps),
            nn.Linear(config.width, checkpoint.embed_dim, bias=False),
        )
    _assign(tower, checkpoint.text_weights)
    return tower


def _assign(tower: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    tower.load_state_dict(weights, assign=True)
    tower.requires_grad_(False).eval()


def _block(config: ImageConfig | TextConfig) -> Block:
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
    """What both towers share: embed, run the blocks, pool one token, project into the common space."""

    def __init__(
        self,
        embedding: nn.Module,
        blocks: Iterable[Block],
        norm_post: nn.LayerNorm,
        projection: nn.Linear,
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
        if hidden.shape[1] > 1:  # the last block did not pool
            hidden = take_token(hidden, position)
        embeds: torch.Tensor = self.projection(self.norm_post(hidden))
        return F.normalize(embeds.squeeze(1), dim=-1)


class ImageTower(Tower):
    """A vision transformer, pooled at its class token, the first."""

    embedding: ImageEmbedding | FoldedImageEmbedding

    def __init__(
        self,
        config: ImageConfig,
        embedding: ImageEmbedding | FoldedImageEmbedding,
        blocks: Iterable[Block],
        norm_post: nn.LayerNorm,
        projection: nn.Linear,
    ) -> None:
        super().__init__(embedding, blocks, norm_post, projection)
        self.config = config

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 RGB to (B, D), L2-normalised."""
        position = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
        return self.encode(self.embedding(pixels), position, None)


class TextTower(Tower):
    """A causal transformer, pooled at the end-of-text token, which sees the whole text."""

    embedding: TextEmbedding

    def __init__(
        self,
        config: TextConfig,
        embedding: TextEmbedding,
        blocks: Iterable[Block],
        norm_post: nn.LayerNorm,
        projection: nn.Linear,
    ) -> None:
        super().__init__(embedding, blocks, norm_post, projection)
        self.config = config

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) int64 to (B, D), L2-normalised; T is the context length."""
        hidden = self.embedding(input_ids)
        return self.encode(hidden, self.end_of_text(input_ids), causal_mask(self.config).to(hidden))

    def end_of_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) to (B,), the position to pool; the first, as in transformers, for a text without an end."""
        if self.config.pools_highest_id:
            return input_ids.argmax(dim=-1)
        return (input_ids == self.config.eos_token_id).int().argmax(dim=-1)


def causal_mask(config: TextConfig) -> torch.Tensor:
    """(T, T) float32 to add to attention scores: token i (row) sees tokens 0 to i (columns)."""
    length = config.context_length
    return torch.full((length, length), HIDDEN).triu(diagonal=1)


class ImageEmbedding(nn.Module):
    """Pixels to tokens: normalise, cut into patches (a convolution), add class token and positions, LayerNorm."""

    def __init__(self, config: ImageConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.mean, self.std = preprocessing.mean, preprocessing.std
        self.patch = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_token = nn.Parameter(torch.empty(config.width))
        self.position = nn.Parameter(torch.empty(config.tokens, config.width))
        self.norm = nn.LayerNorm(config.width, config.eps)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 to (B, T, W)."""
        mean, std = self.position.new_tensor(self.mean), self.position.new_tensor(self.std)
        normalised = (pixels.to(self.position) / 255 - mean) / std
        patches = self.patch(normalised.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        class_token = self.class_token.expand(len(pixels), 1, -1)
        hidden: torch.Tensor = self.norm(torch.cat([class_token, patches], dim=1) + self.position)
        return hidden


class FoldedImageEmbedding(nn.Module):
    """The same from raw pixel values: one matrix product over patches, one constant for everything added.

    ``patch.weight`` is (W, patch * patch * 3), its columns ordered row, column, channel; ``tokens`` is (T, W).
    """

    def __init__(self, patch_size: int, patch: nn.Linear, tokens: torch.Tensor, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patch = patch
        self.tokens = nn.Parameter(tokens, requires_grad=False)
        self.norm = norm

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 to (B, T, W)."""
        size = self.patch_size
        grid = pixels.shape[1] // size
        cut = pixels.to(self.tokens).reshape(-1, grid, size, grid, size, 3).transpose(2, 3)
        patches = self.patch(cut.reshape(-1, grid * grid, size * size * 3))
        # A row of zeros makes room for the class token, whose embedding is the first row of `tokens`.
        hidden: torch.Tensor = self.norm(F.pad(patches, (0, 0, 1, 0)) + self.tokens)
        return hidden


class TextEmbedding(nn.Module):
    """Token ids to tokens with positions."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.position = nn.Parameter(torch.empty(config.context_length, config.width))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) int64 to (B, T, W)."""
        return self.token[input_ids] + self.position
