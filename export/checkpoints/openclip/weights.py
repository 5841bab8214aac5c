"""The tensors of OpenCLIP's transformers, whose names are those of OpenAI's files.

Stored otherwise than the canonical towers have them: queries, keys and values in one matrix, projections transposed
(they stand to the right of a product), and behind attention and perceptron a layer scale (Touvron et al. 2021, "Going
deeper with Image Transformers", arXiv 2103.17239), which is folded into the linear layer in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from clipedge.export.checkpoints.configs import TextConfig, VitConfig
from clipedge.export.checkpoints.layouts import ImageLayout, TextLayout
from clipedge.export.checkpoints.openclip.coca import canonical_pooler, is_decoder_tensor, pooler_shapes
from clipedge.export.checkpoints.openclip.config import OpenClipModel, resnet_config, text_config, vit_config
from clipedge.export.checkpoints.openclip.resnet import canonical_resnet, is_batch_count, resnet_shapes
from clipedge.export.checkpoints.tensors import Shape

__all__ = ["resnet_layout", "stored_text", "text_layout", "vit_layout"]

# Canonical name, name in the file.
LINEARS = (("attn.out", "attn.out_proj"), ("fc1", "mlp.c_fc"), ("fc2", "mlp.c_proj"))
NORMS = (("norm1", "ln_1"), ("norm2", "ln_2"))
# The linear layer that takes up each layer scale.
LAYER_SCALES = (("attn.out", "ls_1.gamma"), ("fc2", "ls_2.gamma"))

Tensors = Mapping[str, torch.Tensor]


def vit_layout(model: OpenClipModel) -> ImageLayout:
    """OpenCLIP's vision transformer."""
    config, scaled = vit_config(model), _has_layer_scale(model.vision.values)
    width, patch = config.width, config.patch_size
    prefix = "visual.transformer."
    pooled_width = model.embed_dim if config.pool == "attentional" else width
    queries = model.vision.integer("attn_pooler_queries", 256)

    def canonical(tensors: Tensors) -> dict[str, torch.Tensor]:
        return {
            "embedding.patch.weight": tensors["visual.conv1.weight"],
            "embedding.class_token": tensors["visual.class_embedding"],
            "embedding.position": tensors["visual.positional_embedding"],
            **(_renamed(tensors, "embedding.norm", "visual.ln_pre") if config.norm_pre else {}),
            **_blocks(tensors, prefix, config.layers, scaled),
            **(canonical_pooler(tensors, config) if config.pool == "attentional" else {}),
            **_renamed(tensors, "norm_post", "visual.ln_post"),
            "projection.weight": tensors["visual.proj"].T.contiguous(),
        }

    shapes: dict[str, Shape] = {
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (config.tokens, width),
        **(_affine("visual.ln_pre", (width,)) if config.norm_pre else {}),
        **_block_shapes(prefix, config, scaled),
        **(pooler_shapes(config, model.embed_dim, queries) if config.pool == "attentional" else {}),
        **_affine("visual.ln_post", (pooled_width,)),
        "visual.proj": (pooled_width, model.embed_dim),
    }
    return ImageLayout(config, shapes, canonical)


def resnet_layout(model: OpenClipModel) -> ImageLayout:
    """OpenAI's modified ResNet."""
    config = resnet_config(model)
    shapes = resnet_shapes(config, model.embed_dim)
    return ImageLayout(config, shapes, lambda tensors: canonical_resnet(tensors, config), is_batch_count)


def text_layout(model: OpenClipModel, prefix: str) -> TextLayout:
    """OpenCLIP's text transformer; ``prefix`` is "text." in models with a tower of their own for it, else empty."""
    config, scaled = text_config(model), _has_layer_scale(model.text.values)
    width, projection, blocks = config.width, f"{prefix}text_projection", f"{prefix}transformer."

    def canonical(tensors: Tensors) -> dict[str, torch.Tensor]:
        return {
            "embedding.token": tensors[f"{prefix}token_embedding.weight"],
            "embedding.position": _text_positions(tensors, prefix, config),
            **_blocks(tensors, blocks, config.layers, scaled),
            **_renamed(tensors, "norm_post", f"{prefix}ln_final"),
            **(
                _renamed(tensors, "projection", projection)
                if config.projection_bias
                else {"projection.weight": tensors[projection].T.contiguous()}
            ),
        }

    shapes: dict[str, Shape] = {
        f"{prefix}token_embedding.weight": (config.vocab_size, width),
        f"{prefix}positional_embedding": (config.tokens, width),
        **({f"{prefix}cls_emb": (width,)} if config.class_token else {}),
        **_block_shapes(blocks, config, scaled),
        **_affine(f"{prefix}ln_final", (width,)),
        **(
            _affine(projection, (model.embed_dim, width))
            if config.projection_bias
            else {projection: (width, model.embed_dim)}
        ),
    }
    # Releases of OpenCLIP before 2.0 stored the mask, which is not learned.
    return TextLayout(config, shapes, canonical, lambda name: name == f"{prefix}attn_mask" or is_decoder_tensor(name))


def stored_text(weights: Tensors, layers: int) -> dict[str, torch.Tensor]:
    """The tensors of a file of which ``text_layout``, without a prefix, makes these weights of CLIP's own text tower:
    no class token, no layer scale, no bias behind the projection."""
    tensors = {
        "token_embedding.weight": weights["embedding.token"],
        "positional_embedding": weights["embedding.position"],
        **_renamed(weights, "ln_final", "norm_post"),
        "text_projection": weights["projection.weight"].T.contiguous(),
    }
    for index in range(layers):
        block, name = f"transformer.resblocks.{index}", f"blocks.{index}"
        for part, stored in (*NORMS, *LINEARS):
            tensors |= _renamed(weights, f"{block}.{stored}", f"{name}.{part}")
        for kind in ("weight", "bias"):
            parts = [weights[f"{name}.attn.{part}.{kind}"] for part in ("query", "key", "value")]
            tensors[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
    return tensors


def _text_positions(tensors: Tensors, prefix: str, config: TextConfig) -> torch.Tensor:
    """With CoCa's class token in the last row, to which nothing else is added."""
    position = tensors[f"{prefix}positional_embedding"]
    if not config.class_token:
        return position
    return torch.cat([position[:-1], position[-1:] + tensors[f"{prefix}cls_emb"]])


def _has_layer_scale(section: Mapping[str, object]) -> bool:
    return section.get("ls_init_value") is not None


def _block_shapes(prefix: str, config: VitConfig | TextConfig, scaled: bool) -> dict[str, Shape]:
    width, mlp_width = config.width, config.mlp_width
    shapes: dict[str, Shape] = {}
    for index in range(config.layers):
        block = f"{prefix}resblocks.{index}"
        shapes |= _affine(f"{block}.ln_1", (width,)) | _affine(f"{block}.ln_2", (width,))
        shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
        shapes |= _affine(f"{block}.attn.out_proj", (width, width))
        shapes |= _affine(f"{block}.mlp.c_fc", (mlp_width, width))
        shapes |= _affine(f"{block}.mlp.c_proj", (width, mlp_width))
        if scaled:
            shapes |= {f"{block}.{scale}": (width,) for _, scale in LAYER_SCALES}
    return shapes


def _blocks(tensors: Tensors, prefix: str, layers: int, scaled: bool) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    for index in range(layers):
        source, name = f"{prefix}resblocks.{index}", f"blocks.{index}"
        for part, stored in (*NORMS, *LINEARS):
            weights |= _renamed(tensors, f"{name}.{part}", f"{source}.{stored}")
        for kind in ("weight", "bias"):
            parts = tensors[f"{source}.attn.in_proj_{kind}"].chunk(3)
            for part, tensor in zip(("query", "key", "value"), parts, strict=True):
                weights[f"{name}.attn.{part}.{kind}"] = tensor
        for part, scale in LAYER_SCALES if scaled else ():
            gain = tensors[f"{source}.{scale}"].double()
            weight, bias = f"{name}.{part}.weight", f"{name}.{part}.bias"
            weights[weight] = (weights[weight] * gain[:, None]).to(weights[weight].dtype)
            weights[bias] = (weights[bias] * gain).to(weights[bias].dtype)
    return weights


def _renamed(tensors: Tensors, name: str, source: str) -> dict[str, torch.Tensor]:
    return {f"{name}.{kind}": tensors[f"{source}.{kind}"] for kind in ("weight", "bias")}


def _affine(name: str, shape: Shape) -> dict[str, Shape]:
    """A weight and the bias that goes with its first dimension."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
