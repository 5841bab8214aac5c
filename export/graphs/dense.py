"""A vision transformer's patches in torch -> ONNX; see ``clipedge.export.towers.dense``.

Layers have the names that they have in the image tower's graph, so that one calibration serves both.

Shapes in comments: B batch, T tokens, W width, H heads, D embedding dimension.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from onnx import TensorProto, helper

from clipedge.export.graphs.nodes import GraphBuilder
from clipedge.export.graphs.transformers import embeds, image_embedding, transformer_blocks
from clipedge.export.towers.dense import Contributions
from clipedge.export.towers.simplify import simplify_dense_tower
from clipedge.export.towers.vit import FoldedImageEmbedding, ImageTower

__all__ = ["write_dense_graph"]


def write_dense_graph(tower: ImageTower, path: str | os.PathLike[str]) -> None:
    """Write ``pixels`` uint8 (batch, H, W, 3) RGB -> ``patch_embeds`` float32 (batch, rows, columns, D), L2-normalised.

    ``tower`` is the reference image tower; it is simplified on the way and left as it is.
    """
    dense, graph = simplify_dense_tower(tower), GraphBuilder()
    tokens, size = dense.config.tokens, dense.config.image_size
    hidden = image_embedding(graph, cast(FoldedImageEmbedding, dense.embedding), "pixels", size)
    hidden = transformer_blocks(graph, dense, hidden, tokens)
    last = f"blocks.{len(dense.blocks)}"
    normed = graph.layer_norm(f"{last}.norm1", dense.norm, hidden)
    patches = _contributions(graph, f"{last}.attn", dense.contributions, normed, tokens)
    rows = embeds(graph, dense, patches, "patches.embeds")
    shape = (-1, dense.grid, dense.grid, dense.embed_dim)
    graph.reshape("patch_embeds", rows, *shape)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", size, size, 3])
    output = helper.make_tensor_value_info("patch_embeds", TensorProto.FLOAT, ["batch", *shape[1:]])
    graph.write(Path(path), [pixels], [output])


def _contributions(graph: GraphBuilder, name: str, attn: Contributions, hidden: str, tokens: int) -> str:
    """(B * T, W) to (B * (T - 1), W)."""
    width, heads = attn.out.in_features, attn.heads
    by_sample = graph.reshape(f"{name}.tokens", hidden, -1, tokens, width)
    pooled = graph.node("Gather", f"{name}.pooled", by_sample, graph.index(0), axis=1)
    query = graph.linear(f"{name}.query", attn.query, pooled)
    query = graph.reshape(f"{name}.query_heads", query, -1, heads, 1, width // heads)
    key_value = graph.linear(f"{name}.key_value", attn.key_value, hidden)
    key, value = graph.split(f"{name}.split", key_value, ("key", "value"))
    key = graph.reshape(f"{name}.key_heads", key, -1, tokens, heads, width // heads)
    keys = graph.node("Transpose", f"{name}.key_per_head", key, perm=[0, 2, 3, 1])
    scores = graph.node("MatMul", f"{name}.scores", query, keys)  # (B, H, 1, T)
    weights = graph.node("Softmax", f"{name}.softmax", scores, axis=-1)
    weights = graph.node("Mul", f"{name}.weights", weights, graph.scalar(float(tokens)))
    by_token = graph.node("Transpose", f"{name}.by_token", weights, perm=[0, 3, 1, 2])  # (B, T, H, 1)
    values = graph.reshape(f"{name}.value_heads", value, -1, tokens, heads, width // heads)
    handed = graph.node("Mul", f"{name}.handed", values, by_token)
    ends = graph.integers(1), graph.integers(tokens), graph.integers(1)  # from the second token on, along axis 1
    patches = graph.node("Slice", f"{name}.patches", handed, *ends)
    return graph.linear(f"{name}.out", attn.out, graph.reshape(f"{name}.joined", patches, -1, width))
