"""Students of OpenAI's modified ResNet: their shape, and weights to begin with.

A student trains the tower as export has it, whose BatchNorms are folded into the convolutions. So it has none in
training either, and begins as Fixup does (Zhang et al. 2019, "Residual learning without normalization", arXiv
1901.09321): the last convolution of a block is zero, and the others are the smaller the more blocks there are.
"""

from __future__ import annotations

import math

import torch

from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.configs import ResNetConfig
from clipedge.export.checkpoints.openclip.resnet import canonical_shapes
from clipedge.export.checkpoints.tensors import Shape
from clipedge.export.distillation.spec import StudentSpec

__all__ = ["HEAD_WIDTH", "new_resnet_weights", "resnet_config"]

HEAD_WIDTH = 64  # CLIP's, and a power of four: its attention scale divides without rounding
REDUCTION = 32  # pixels high and wide that a position of the last maps is


def resnet_config(teacher: Checkpoint, spec: StudentSpec) -> ResNetConfig:
    """The shape that a specification of the kind "resnet" describes.

    Raises UsageError for a width that gives no whole number of channels, or pictures of another size than it takes.
    """
    assert spec.width is not None and spec.blocks is not None
    pixels = teacher.preprocessing
    if spec.width % 2:
        raise UsageError(f"--student {spec.text}: expected an even width, which the stem halves, found {spec.width}")
    if pixels.height % REDUCTION:
        raise UsageError(
            f"--student {spec.text}: the teacher's pictures have {pixels.height} pixels, and a ResNet needs a multiple "
            f"of {REDUCTION}; name a transformer"
        )
    return ResNetConfig(pixels.height, spec.width, spec.blocks, 32 * spec.width // HEAD_WIDTH)


def new_resnet_weights(config: ResNetConfig, embed_dim: int, seed: int) -> dict[str, torch.Tensor]:
    """Convolutions as He et al. 2015 (arXiv 1502.01852) have them but for Fixup's, the pool as OpenAI's."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in canonical_shapes(config, embed_dim).items():
        spread = _spread(name, shape, config)
        weights[name] = spread * torch.randn(shape, generator=generator) if spread else torch.zeros(shape)
    return weights


def _spread(name: str, shape: Shape, config: ResNetConfig) -> float:
    """The standard deviation of a weight's numbers; 0 for those that begin as zeros."""
    in_block, (layer, _, kind) = name.startswith("layer"), name.rpartition(".")
    if kind == "bias" or (in_block and layer.endswith("conv3")):
        return 0.0
    if len(shape) == 2:
        # The scale of the attention is part of the queries.
        return math.sqrt((1 / HEAD_WIDTH if name == "pool.attn.query.weight" else 1) / config.features)
    spread = math.sqrt(2 / (shape[1] * shape[2] * shape[3]))
    if in_block and not layer.endswith("downsample"):
        spread /= math.sqrt(math.sqrt(sum(config.layers)))  # L^(-1 / (2m - 2)) for L blocks of m = 3 convolutions
    return spread
