"""The image tower as a FastViT (Vasu et al. 2023, arXiv 2303.14189), as MobileCLIP has it (arXiv 2311.17049).

The form for inference: what training has as parallel branches, BatchNorms and layer scales is one convolution with a
bias here (``clipedge.export.checkpoints.mobileclip.reparam``). Shapes in the docstrings: B batch, C channels, H and W
height and width of the maps, D dimension of the embedding space.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from clipedge.export.checkpoints.configs import FastVitConfig
from clipedge.export.towers.blocks import FusedAttention
from clipedge.manifest import Preprocessing

__all__ = [
    "HEAD_WIDTH",
    "AttentionBlock",
    "ConvFfn",
    "Downsample",
    "Expansion",
    "FastVitStage",
    "FastVitTower",
    "MixerBlock",
    "SqueezeExcite",
    "TwinKernels",
    "empty_fastvit",
]

HEAD_WIDTH = 32

# How much narrower squeeze-and-excitation is than the maps it scales, in front of a stage and behind the last.
STAGE_SQUEEZE, FINAL_SQUEEZE = 4, 16


class FastVitTower(nn.Module):
    """Stem, stages, an expansion to twice the channels, their mean over all positions, a projection."""

    def __init__(
        self,
        config: FastVitConfig,
        preprocessing: Preprocessing,
        stem: Iterable[nn.Conv2d],
        stages: Iterable[FastVitStage],
        final: Expansion,
        projection: nn.Linear,
    ) -> None:
        super().__init__()
        self.config = config
        self.mean, self.std = preprocessing.mean, preprocessing.std
        self.stem = nn.ModuleList(stem)
        self.stages = nn.ModuleList(stages)
        self.final = final
        self.projection = projection

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 RGB to (B, D), L2-normalised."""
        weight = self.projection.weight
        maps = (pixels.to(weight) / 255 - weight.new_tensor(self.mean)) / weight.new_tensor(self.std)
        maps = maps.permute(0, 3, 1, 2)
        for conv in self.stem:
            maps = F.gelu(conv(maps))
        for stage in self.stages:
            maps = stage(maps)
        embeds: torch.Tensor = self.projection(self.final(maps).mean((2, 3)))
        return F.normalize(embeds, dim=-1)


class FastVitStage(nn.Module):
    """Downsampling (not in front of the first), encoded positions (with attention), blocks."""

    def __init__(
        self,
        downsample: Downsample | None,
        position: nn.Conv2d | None,
        blocks: Iterable[MixerBlock | AttentionBlock],
    ) -> None:
        super().__init__()
        self.downsample, self.position = downsample, position
        self.blocks = nn.ModuleList(blocks)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to maps of the stage's channels, with a downsampling half as high and wide."""
        if self.downsample is not None:
            maps = self.downsample(maps)
        if self.position is not None:
            maps = self.position(maps)
        for block in self.blocks:
            maps = block(maps)
        return maps


class Downsample(nn.Module):
    """Two large kernels for each channel, squeeze-and-excitation where the stage has it, and a 1 x 1 convolution."""

    def __init__(self, large: TwinKernels, squeeze: SqueezeExcite | None, point: nn.Conv2d) -> None:
        super().__init__()
        self.large, self.squeeze, self.point = large, squeeze, point

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.large(maps)
        if self.squeeze is not None:
            maps = self.squeeze(maps)
        return F.gelu(self.point(F.gelu(maps)))


class MixerBlock(nn.Module):
    """RepMixer: a small kernel for each channel mixes the positions; then a ConvFFN, added to its input."""

    def __init__(self, mixer: nn.Conv2d, ffn: ConvFfn) -> None:
        super().__init__()
        self.mixer, self.ffn = mixer, ffn

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.mixer(maps)
        mixed: torch.Tensor = maps + self.ffn(maps)
        return mixed


class AttentionBlock(nn.Module):
    """Self-attention between all positions and a ConvFFN, each added to its input."""

    def __init__(self, norm: nn.LayerNorm | None, attn: FusedAttention, ffn: ConvFfn) -> None:
        super().__init__()
        self.norm, self.attn, self.ffn = norm, attn, ffn

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        tokens = maps.flatten(2).transpose(1, 2)
        if self.norm is not None:
            tokens = self.norm(tokens)
        position = torch.zeros(len(maps), dtype=torch.int64, device=maps.device)  # no token is pooled
        attended: torch.Tensor = self.attn(tokens, position, None)
        maps = maps + attended.transpose(1, 2).reshape(maps.shape)
        mixed: torch.Tensor = maps + self.ffn(maps)
        return mixed


class ConvFfn(nn.Module):
    """A kernel for each channel and a two-layer perceptron at each position."""

    def __init__(self, conv: nn.Conv2d, fc1: nn.Conv2d, fc2: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.fc1, self.fc2 = conv, fc1, fc2

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc2(F.gelu(self.fc1(self.conv(maps))))
        return result


class Expansion(nn.Module):
    """Two kernels for each channel, whose maps squeeze-and-excitation scales."""

    def __init__(self, conv: TwinKernels, squeeze: SqueezeExcite) -> None:
        super().__init__()
        self.conv, self.squeeze = conv, squeeze

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, 2 C, H, W)."""
        return F.gelu(self.squeeze(self.conv(maps)))


class TwinKernels(nn.Module):
    """Two kernels for each channel: the maps of all first kernels, then those of all second ones.

    As one convolution, whose outputs alternate, engines have slow code for it only.
    """

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to 2 C channels."""
        return torch.cat([self.first(maps), self.second(maps)], dim=1)


class SqueezeExcite(nn.Module):
    """Scale each channel by what two linear layers make of the means of all (Hu et al. 2017, arXiv 1709.01507)."""

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        gates = torch.sigmoid(self.fc2(F.relu(self.fc1(maps.mean((2, 3))))))
        return maps * gates[:, :, None, None]


def empty_fastvit(config: FastVitConfig, preprocessing: Preprocessing, embed_dim: int) -> FastVitTower:
    """The tower without its weights."""
    first, last = config.widths[0], config.widths[-1]
    stem = [_conv(3, first, 3, stride=2), _depthwise(first, 3, stride=2), _conv(first, first, 1)]
    final = Expansion(_twins(last, 3), _squeeze(2 * last, FINAL_SQUEEZE))
    stages = [_stage(config, index) for index in range(len(config.widths))]
    return FastVitTower(config, preprocessing, stem, stages, final, nn.Linear(2 * last, embed_dim))


def _stage(config: FastVitConfig, index: int) -> FastVitStage:
    width, attends = config.widths[index], index >= len(config.widths) - config.attention_stages
    downsample = None
    if index:
        squeeze = _squeeze(width, STAGE_SQUEEZE) if index in config.squeeze_stages else None
        downsample = Downsample(_twins(config.widths[index - 1], 7, stride=2), squeeze, _conv(width, width, 1))
    block = _attention_block if attends else _mixer_block
    blocks = [block(config, width) for _ in range(config.depths[index])]
    return FastVitStage(downsample, _depthwise(width, 7) if attends else None, blocks)


def _mixer_block(config: FastVitConfig, width: int) -> MixerBlock:
    return MixerBlock(_depthwise(width, 3), _ffn(config, width))


def _attention_block(config: FastVitConfig, width: int) -> AttentionBlock:
    norm = None
    if config.norm_eps is not None:
        norm = nn.LayerNorm(width, config.norm_eps, elementwise_affine=False)
    qkv, out = nn.Linear(width, 3 * width), nn.Linear(width, width)
    return AttentionBlock(norm, FusedAttention(qkv, out, width // HEAD_WIDTH, scale=1.0), _ffn(config, width))


def _ffn(config: FastVitConfig, width: int) -> ConvFfn:
    hidden = config.mlp_ratio * width
    return ConvFfn(_depthwise(width, 7), _conv(width, hidden, 1), _conv(hidden, width, 1))


def _squeeze(width: int, divisor: int) -> SqueezeExcite:
    return SqueezeExcite(nn.Linear(width, width // divisor), nn.Linear(width // divisor, width))


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)


def _depthwise(width: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width, width, size, stride, padding=size // 2, groups=width)


def _twins(width: int, size: int, stride: int = 1) -> TwinKernels:
    return TwinKernels(_depthwise(width, size, stride), _depthwise(width, size, stride))
