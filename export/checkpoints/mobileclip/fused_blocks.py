"""Transformer blocks whose queries, keys and values are one linear layer, by the names of timm and of Apple."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from clipedge.export.checkpoints.configs import TextConfig, VitConfig
from clipedge.export.checkpoints.tensors import Shape

__all__ = ["APPLE_BLOCK", "TIMM_BLOCK", "BlockNames", "affine", "canonical_block", "fused_block_shapes", "renamed"]

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class BlockNames:
    """What a library calls the parts of a block."""

    norm1: str
    qkv: str
    out: str
    norm2: str
    fc1: str
    fc2: str


TIMM_BLOCK = BlockNames("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
APPLE_BLOCK = BlockNames(
    "pre_norm_mha.0",
    "pre_norm_mha.1.qkv_proj",
    "pre_norm_mha.1.out_proj",
    "pre_norm_ffn.0",
    "pre_norm_ffn.1",
    "pre_norm_ffn.4",
)


def fused_block_shapes(place: str, names: BlockNames, config: VitConfig | TextConfig) -> dict[str, Shape]:
    """The tensors of the block at ``place``, by their names in the file."""
    width, hidden = config.width, config.mlp_width
    return {
        **affine(f"{place}.{names.norm1}", (width,)),
        **affine(f"{place}.{names.qkv}", (3 * width, width)),
        **affine(f"{place}.{names.out}", (width, width)),
        **affine(f"{place}.{names.norm2}", (width,)),
        **affine(f"{place}.{names.fc1}", (hidden, width)),
        **affine(f"{place}.{names.fc2}", (width, hidden)),
    }


def canonical_block(name: str, tensors: Tensors, place: str, names: BlockNames) -> dict[str, torch.Tensor]:
    """The weights of the block ``name`` of a tower, of the tensors at ``place``."""
    weights: dict[str, torch.Tensor] = {}
    for kind in ("weight", "bias"):
        parts = tensors[f"{place}.{names.qkv}.{kind}"].chunk(3)
        for part, tensor in zip(("query", "key", "value"), parts, strict=True):
            weights[f"{name}.attn.{part}.{kind}"] = tensor
    return {
        **weights,
        **renamed(tensors, f"{name}.attn.out", f"{place}.{names.out}"),
        **renamed(tensors, f"{name}.norm1", f"{place}.{names.norm1}"),
        **renamed(tensors, f"{name}.norm2", f"{place}.{names.norm2}"),
        **renamed(tensors, f"{name}.fc1", f"{place}.{names.fc1}"),
        **renamed(tensors, f"{name}.fc2", f"{place}.{names.fc2}"),
    }


def renamed(tensors: Tensors, name: str, source: str) -> dict[str, torch.Tensor]:
    """Weight and bias of ``source`` as those of ``name``."""
    return {f"{name}.{kind}": tensors[f"{source}.{kind}"] for kind in ("weight", "bias")}


def affine(name: str, shape: Shape) -> dict[str, Shape]:
    """A weight and the bias that goes with its first dimension."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
