"""The weights of MobileCLIP-B's image tower, by the names of timm (``vit_base_mci_224``) and of Apple's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from clipedge.export.checkpoints.configs import VitConfig
from clipedge.export.checkpoints.layouts import ImageLayout
from clipedge.export.checkpoints.mobileclip.fused_blocks import (
    APPLE_BLOCK,
    TIMM_BLOCK,
    BlockNames,
    affine,
    canonical_block,
    fused_block_shapes,
    renamed,
)
from clipedge.export.checkpoints.mobileclip.reparam import Layer, canonical, convolution, normalised
from clipedge.export.checkpoints.openclip.resnet import is_batch_count
from clipedge.export.checkpoints.tensors import Shape

__all__ = ["APPLE_VIT", "TIMM_VIT", "ConvStemVitNames", "conv_stem_vit_layout"]


@dataclass(frozen=True)
class ConvStemVitNames:
    """What a library calls the parts. ``projection`` is a linear layer with a bias, or, ``transposed``, a matrix that
    stands to the right of a product."""

    prefix: str
    stem: str
    norm: str
    position: str
    blocks: str
    block: BlockNames
    norm_post: str
    projection: str
    transposed: bool


TIMM_VIT = ConvStemVitNames(
    prefix="visual.trunk.",
    stem="patch_embed.backbone.{}.conv",
    norm="patch_embed.backbone.{}.bn",
    position="pos_embed",
    blocks="blocks",
    block=TIMM_BLOCK,
    norm_post="norm",
    projection="head",
    transposed=False,
)
APPLE_VIT = ConvStemVitNames(
    prefix="image_encoder.model.",
    stem="patch_emb.{}.block.conv",
    norm="patch_emb.{}.block.norm",
    position="pos_embed.pos_embed.pos_embed",
    blocks="transformer",
    block=APPLE_BLOCK,
    norm_post="post_transformer_norm",
    projection="classifier.proj",
    transposed=True,
)


def conv_stem_vit_layout(config: VitConfig, embed_dim: int, names: ConvStemVitNames) -> ImageLayout:
    """How a file has the tower. The class token has no position in it, and the stem's last bias becomes one's part."""
    width, prefix = config.width, names.prefix
    patches = config.tokens - 1
    stem = _stem(names, width)
    position = f"{prefix}{names.position}"
    positions: Shape = (1, 1, patches, width) if names.transposed else (1, patches, width)
    blocks = [f"{prefix}{names.blocks}.{index}" for index in range(config.layers)]
    shapes: dict[str, Shape] = {
        **{name: shape for layer in stem.values() for name, shape in layer.shapes.items()},
        f"{prefix}cls_token": (1, 1, width),
        position: positions,
        **{name: shape for block in blocks for name, shape in fused_block_shapes(block, names.block, config).items()},
        **affine(f"{prefix}{names.norm_post}", (width,)),
        **_projection_shapes(names, width, embed_dim),
    }

    def canonical_weights(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights = canonical(stem, tensors)
        bias = weights.pop("embedding.patch.third.bias")
        table = tensors[position].reshape(patches, width).double() + bias.double()
        weights["embedding.position"] = torch.cat([table.new_zeros(1, width), table]).to(torch.float32)
        weights["embedding.class_token"] = tensors[f"{prefix}cls_token"].flatten()
        for index, block in enumerate(blocks):
            weights |= canonical_block(f"blocks.{index}", tensors, block, names.block)
        weights |= renamed(tensors, "norm_post", f"{prefix}{names.norm_post}")
        if names.transposed:
            weights["projection.weight"] = tensors[f"{prefix}{names.projection}"].T.contiguous()
            return weights
        return weights | renamed(tensors, "projection", f"{prefix}{names.projection}")

    return ImageLayout(config, shapes, canonical_weights, is_batch_count)


def _stem(names: ConvStemVitNames, width: int) -> dict[str, Layer]:
    inner = width // 4
    layers: dict[str, Layer] = {}
    for index, (part, shape) in enumerate((("first", (inner, 3, 4, 4)), ("second", (inner, inner, 2, 2)))):
        conv = convolution(f"{names.prefix}{names.stem.format(index)}", shape, bias=False)
        layers[f"embedding.patch.{part}"] = normalised(conv, f"{names.prefix}{names.norm.format(index)}", inner)
    layers["embedding.patch.third"] = convolution(f"{names.prefix}{names.stem.format(2)}", (width, inner, 2, 2))
    return layers


def _projection_shapes(names: ConvStemVitNames, width: int, embed_dim: int) -> dict[str, Shape]:
    place = f"{names.prefix}{names.projection}"
    return {place: (width, embed_dim)} if names.transposed else affine(place, (embed_dim, width))
