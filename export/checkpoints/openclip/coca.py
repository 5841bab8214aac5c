"""CoCa's attentional pooler as OpenCLIP stores it (Yu et al. 2022, arXiv 2205.01917).

OpenCLIP's first models have one pooler for both of CoCa's tasks, whose first query gives the image embedding. The other
queries feed the captioning decoder, which is no part of an embedding and left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from clipedge.export.checkpoints.configs import VitConfig
from clipedge.export.checkpoints.huggingface.siglip import project_query
from clipedge.export.checkpoints.tensors import Shape

__all__ = ["canonical_pooler", "is_decoder_tensor", "pooler_shapes"]

POOLER = "visual.attn_pool"


def is_decoder_tensor(name: str) -> bool:
    """Whether a tensor belongs to the captioning decoder."""
    return name.startswith("text_decoder.")


def pooler_shapes(config: VitConfig, embed_dim: int, queries: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        f"{POOLER}.query": (queries, embed_dim),
        f"{POOLER}.attn.in_proj_bias": (3 * embed_dim,),
        f"{POOLER}.attn.out_proj.weight": (embed_dim, embed_dim),
        f"{POOLER}.attn.out_proj.bias": (embed_dim,),
    }
    for norm, width in (("ln_q", embed_dim), ("ln_k", config.width)):
        shapes |= {f"{POOLER}.{norm}.weight": (width,), f"{POOLER}.{norm}.bias": (width,)}
    if config.width == embed_dim:  # torch's MultiheadAttention then has one matrix for all three
        return shapes | {f"{POOLER}.attn.in_proj_weight": (3 * embed_dim, embed_dim)}
    widths = zip(("q", "k", "v"), (embed_dim, config.width, config.width), strict=True)
    return shapes | {f"{POOLER}.attn.{part}_proj_weight": (embed_dim, width) for part, width in widths}


def canonical_pooler(tensors: Mapping[str, torch.Tensor], config: VitConfig) -> dict[str, torch.Tensor]:
    """The pooler's weights by the canonical tower's names."""
    fused = tensors.get(f"{POOLER}.attn.in_proj_weight")
    if fused is not None:
        query, key, value = fused.chunk(3)
    else:
        query, key, value = (tensors[f"{POOLER}.attn.{part}_proj_weight"] for part in ("q", "k", "v"))
    query_bias, key_bias, value_bias = tensors[f"{POOLER}.attn.in_proj_bias"].chunk(3)
    gain, shift = (tensors[f"{POOLER}.ln_q.{kind}"].double() for kind in ("weight", "bias"))
    first = F.layer_norm(tensors[f"{POOLER}.query"][0].double(), gain.shape, gain, shift, config.eps)
    return {
        "pooling.norm.weight": tensors[f"{POOLER}.ln_k.weight"],
        "pooling.norm.bias": tensors[f"{POOLER}.ln_k.bias"],
        "pooling.attn.query": project_query(first, query, query_bias),
        "pooling.attn.key.weight": key,
        "pooling.attn.key.bias": key_bias,
        "pooling.attn.value.weight": value,
        "pooling.attn.value.bias": value_bias,
        "pooling.attn.out.weight": tensors[f"{POOLER}.attn.out_proj.weight"],
        "pooling.attn.out.bias": tensors[f"{POOLER}.attn.out_proj.bias"],
    }
