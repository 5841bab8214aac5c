"""SigLIP's image towers as OpenCLIP has them: timm's vision transformers, under timm's names.

timm ships a configuration for each name (``timm.models.vision_transformer``); none of it stands in the folder. For
most sizes it computes GELU exactly, although SigLIP was trained with its approximation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from clipedge.export.checkpoints.checkpoint import UnsupportedArchitectureError
from clipedge.export.checkpoints.configs import VitConfig
from clipedge.export.checkpoints.huggingface.siglip import add_bias, project_query
from clipedge.export.checkpoints.layouts import ImageLayout
from clipedge.export.checkpoints.openclip.config import OpenClipModel
from clipedge.export.checkpoints.tensors import Shape, Stored

__all__ = ["SIGLIP_NAMES", "siglip_timm_layout"]

# Width, layers, heads, width of the perceptrons.
SIZES: Mapping[str, tuple[int, int, int, int]] = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
SIGLIP_NAMES = rf"vit_({'|'.join(SIZES)})_patch(14|16|32)_siglip_(\d+)"
APPROXIMATE_GELU = r"vit_(base_patch32|so400m_patch16|giantopt_patch16)_siglip_\d+|vit_large_patch16_siglip_512"

TRUNK = "visual.trunk"
# Canonical name, timm's.
BLOCK_PARTS = (
    ("norm1", "norm1"),
    ("attn.out", "attn.proj"),
    ("norm2", "norm2"),
    ("fc1", "mlp.fc1"),
    ("fc2", "mlp.fc2"),
)
HEAD_PARTS = (
    ("pooling.norm", "norm"),
    ("pooling.attn.out", "attn_pool.proj"),
    ("pooling.perceptron.norm", "attn_pool.norm"),
    ("pooling.perceptron.fc1", "attn_pool.mlp.fc1"),
    ("pooling.perceptron.fc2", "attn_pool.mlp.fc2"),
)

Tensors = Mapping[str, torch.Tensor]


def siglip_timm_layout(model: OpenClipModel, stored: Stored) -> ImageLayout:
    """The image tower of a model whose ``timm_model_name`` is one of ``SIGLIP_NAMES``.

    Raises UnsupportedArchitectureError for another pooling or projection than SigLIP's, CheckpointError for another
    image size than the name's.
    """
    section = model.vision
    for key, expected in (("timm_pool", "map"), ("timm_proj", "none")):
        if section.values.get(key) != expected:
            raise UnsupportedArchitectureError(str(section.refuse(key, repr(expected))))
    config = _config(str(section.values["timm_model_name"]))
    if section.integer("image_size", config.image_size) != config.image_size:
        raise section.refuse("image_size", f"{config.image_size}, that of the timm_model_name")
    if model.embed_dim != config.width:
        raise model.whole.refuse("embed_dim", f"{config.width}, the width of the image tower")
    return ImageLayout(config, _shapes(config), lambda tensors: _canonical(tensors, config))


def _config(name: str) -> VitConfig:
    parts = re.fullmatch(SIGLIP_NAMES, name)
    assert parts is not None
    width, layers, heads, mlp_width = SIZES[parts[1]]
    return VitConfig(
        image_size=int(parts[3]),
        patch_size=int(parts[2]),
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=mlp_width,
        activation="gelu_tanh" if re.fullmatch(APPROXIMATE_GELU, name) else "gelu",
        eps=1e-6,
        norm_pre=False,
        class_token=False,
        pool="map",
        pool_heads=heads,
    )


def _shapes(config: VitConfig) -> dict[str, Shape]:
    width, mlp_width, patch = config.width, config.mlp_width, config.patch_size
    shapes: dict[str, Shape] = {f"{TRUNK}.pos_embed": (1, config.tokens, width)}
    shapes |= _affine(f"{TRUNK}.patch_embed.proj", (width, 3, patch, patch))
    for index in range(config.layers):
        block = f"{TRUNK}.blocks.{index}"
        shapes |= _affine(f"{block}.attn.qkv", (3 * width, width)) | _affine(f"{block}.attn.proj", (width, width))
        shapes |= _perceptron_shapes(block, width, mlp_width)
        shapes |= _affine(f"{block}.norm1", (width,)) | _affine(f"{block}.norm2", (width,))
    pool = f"{TRUNK}.attn_pool"
    shapes |= _affine(f"{TRUNK}.norm", (width,)) | _affine(f"{pool}.norm", (width,))
    shapes |= {f"{pool}.latent": (1, 1, width)} | _affine(f"{pool}.q", (width, width))
    shapes |= _affine(f"{pool}.kv", (2 * width, width)) | _affine(f"{pool}.proj", (width, width))
    return shapes | _perceptron_shapes(pool, width, mlp_width)


def _perceptron_shapes(name: str, width: int, mlp_width: int) -> dict[str, Shape]:
    return _affine(f"{name}.mlp.fc1", (mlp_width, width)) | _affine(f"{name}.mlp.fc2", (width, mlp_width))


def _affine(name: str, shape: Shape) -> dict[str, Shape]:
    """A weight and the bias that goes with its first dimension."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _canonical(tensors: Tensors, config: VitConfig) -> dict[str, torch.Tensor]:
    pool = f"{TRUNK}.attn_pool"
    weights = {
        "embedding.patch.weight": tensors[f"{TRUNK}.patch_embed.proj.weight"],
        "embedding.position": add_bias(tensors[f"{TRUNK}.pos_embed"][0], tensors[f"{TRUNK}.patch_embed.proj.bias"]),
        "pooling.attn.query": project_query(
            tensors[f"{pool}.latent"].flatten(), tensors[f"{pool}.q.weight"], tensors[f"{pool}.q.bias"]
        ),
    }
    for kind in ("weight", "bias"):
        weights |= {f"{name}.{kind}": tensors[f"{TRUNK}.{source}.{kind}"] for name, source in HEAD_PARTS}
        weights |= _cut(tensors[f"{pool}.kv.{kind}"], "pooling.attn", ("key", "value"), kind)
        for index in range(config.layers):
            block, source = f"blocks.{index}", f"{TRUNK}.blocks.{index}"
            weights |= {f"{block}.{name}.{kind}": tensors[f"{source}.{part}.{kind}"] for name, part in BLOCK_PARTS}
            weights |= _cut(tensors[f"{source}.attn.qkv.{kind}"], f"{block}.attn", ("query", "key", "value"), kind)
    return weights


def _cut(fused: torch.Tensor, name: str, parts: tuple[str, ...], kind: str) -> dict[str, torch.Tensor]:
    return {f"{name}.{part}.{kind}": tensor for part, tensor in zip(parts, fused.chunk(len(parts)), strict=True)}
