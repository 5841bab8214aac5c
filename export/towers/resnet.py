"""The image tower as OpenAI's modified ResNet (Radford et al. 2021, arXiv 2103.00020, section 2.4; the code is
openai/CLIP's clip/model.py).

It differs from a plain ResNet (He et al. 2015, arXiv 1512.03385) in a stem of three convolutions, in average pools
where others have strides (Zhang 2019, arXiv 1904.11486), and in attention that pools the last maps with their mean as
the only query. The BatchNorms and some of the attention's constants are folded into the weights when those are read
(``clipedge.export.checkpoints.openclip.resnet``).

Shapes in docstrings: B batch, C channels, T tokens, D dimension of the embedding space.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from clipedge.export.checkpoints.configs import ResNetConfig
from clipedge.export.towers.blocks import PooledAttention
from clipedge.manifest import Preprocessing

__all__ = ["AttentionPool", "Bottleneck", "ResNetTower", "Stem", "empty_resnet", "fold_pixel_range"]


def empty_resnet(config: ResNetConfig, preprocessing: Preprocessing, embed_dim: int) -> ResNetTower:
    """The tower without its weights."""
    inputs, width = config.width, config.width // 2
    centre = [255 * mean for mean in preprocessing.mean]
    spread = [255 * std for std in preprocessing.std]
    stem = Stem(centre, spread, _conv(3, width, 3, stride=2), _conv(width, width, 3), _conv(width, inputs, 3))
    stages: list[list[Bottleneck]] = []
    for index, blocks in enumerate(config.layers):
        width = config.width * 2**index
        first = _bottleneck(inputs, width, stride=2 if index else 1)
        inputs = 4 * width
        stages.append([first, *(_bottleneck(inputs, width) for _ in range(blocks - 1))])
    return ResNetTower(config, stem, stages, _attention_pool(config, embed_dim))


class ResNetTower(nn.Module):
    """A stem, four stages of blocks, and a pool."""

    def __init__(
        self, config: ResNetConfig, stem: Stem, stages: Iterable[Iterable[nn.Module]], pool: AttentionPool
    ) -> None:
        super().__init__()
        self.config = config
        self.stem = stem
        self.layer1, self.layer2, self.layer3, self.layer4 = (nn.Sequential(*blocks) for blocks in stages)
        self.pool = pool

    @property
    def stages(self) -> list[nn.Sequential]:
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 RGB to (B, D), L2-normalised."""
        maps = self.stem(pixels)
        for stage in self.stages:
            maps = stage(maps)
        return F.normalize(self.pool(maps), dim=-1)


class Stem(nn.Module):
    """Pixels to maps a quarter as high and wide. ``centre`` and ``spread`` (3,) normalise values in [0, 255]."""

    def __init__(
        self, centre: Sequence[float], spread: Sequence[float], conv1: nn.Conv2d, conv2: nn.Conv2d, conv3: nn.Conv2d
    ) -> None:
        super().__init__()
        self.centre, self.spread = tuple(centre), tuple(spread)
        self.conv1, self.conv2, self.conv3 = conv1, conv2, conv3

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 to (B, C, H / 4, W / 4)."""
        weight = self.conv1.weight
        normalised = (pixels.to(weight) - weight.new_tensor(self.centre)) / weight.new_tensor(self.spread)
        maps = normalised.permute(0, 3, 1, 2)
        for conv in (self.conv1, self.conv2, self.conv3):
            maps = F.relu(conv(maps))
        return F.avg_pool2d(maps, 2)


class Bottleneck(nn.Module):
    """Three convolutions added to their input, with an average pool of ``stride`` in front of the last.

    Where the number of channels changes, the input is pooled likewise and passes a convolution of its own.
    """

    def __init__(
        self, conv1: nn.Conv2d, conv2: nn.Conv2d, conv3: nn.Conv2d, downsample: nn.Conv2d | None, stride: int
    ) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.downsample = conv1, conv2, conv3, downsample
        self.stride = stride

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C', H / stride, W / stride)."""
        hidden = F.relu(self.conv2(F.relu(self.conv1(maps))))
        hidden = self.conv3(self._pooled(hidden))
        residual = maps if self.downsample is None else self.downsample(self._pooled(maps))
        return F.relu(hidden + residual)

    def _pooled(self, maps: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(maps, self.stride) if self.stride > 1 else maps


class AttentionPool(nn.Module):
    """Attention of the maps' mean to itself and all positions. ``attn`` projects into the embedding space."""

    def __init__(self, position: torch.Tensor, attn: PooledAttention) -> None:
        super().__init__()
        self.position = nn.Parameter(position)
        self.attn = attn

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, D)."""
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.position
        first = torch.zeros(len(maps), dtype=torch.int64, device=maps.device)
        embeds: torch.Tensor = self.attn(tokens, first, None)
        return embeds.squeeze(1)


def fold_pixel_range(tower: ResNetTower) -> ResNetTower:
    """Divide the first convolution's weights by ``spread`` instead of the pixels; the argument stays as it is.

    The subtraction of ``centre`` cannot be folded: the convolution pads with zeros, which stand for ``centre``.
    """
    stem = tower.stem
    weight = stem.conv1.weight
    conv1 = _conv(3, stem.conv1.out_channels, 3, stride=2)
    divided = weight.double() / weight.new_tensor(stem.spread, dtype=torch.float64)[:, None, None]
    conv1.weight, conv1.bias = nn.Parameter(divided.to(weight.dtype), requires_grad=False), stem.conv1.bias
    folded = Stem(stem.centre, (1.0, 1.0, 1.0), conv1, stem.conv2, stem.conv3)
    return ResNetTower(tower.config, folded, tower.stages, tower.pool)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def _bottleneck(inputs: int, width: int, stride: int = 1) -> Bottleneck:
    outputs = 4 * width
    downsample = None if stride == 1 and inputs == outputs else _conv(inputs, outputs, 1)
    return Bottleneck(_conv(inputs, width, 1), _conv(width, width, 3), _conv(width, outputs, 1), downsample, stride)


def _attention_pool(config: ResNetConfig, embed_dim: int) -> AttentionPool:
    features = config.features
    query, key_value = nn.Linear(features, features), nn.Linear(features, 2 * features, bias=False)
    attn = PooledAttention(query, key_value, nn.Linear(features, embed_dim), config.heads, scale=1.0)
    return AttentionPool(torch.empty(config.tokens, features), attn)
