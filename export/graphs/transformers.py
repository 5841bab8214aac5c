"""torch -> ONNX: write a tower down as a float32 graph, after the exact simplifications.

The graph is built from the tower's parts, not traced. torch's exporters were tried and left: the one in torch
itself is deprecated and leaves shape arithmetic and anonymous weights behind, the other needs onnxscript, and both
need repair before a quantizer can find its way. Here nodes and weights are named after the modules they come from
(``blocks.0.attn.qkv``; see ``clipedge.export.graphs.nodes``), there are only operators of the ONNX standard
(https://onnx.ai/onnx/operators/), the batch is a dynamic dimension, and no shape is computed in the graph.

All tokens of a batch lie below each other in one matrix, (B * T, W): a linear layer is then a plain matrix product,
which engines run together with its bias. Only attention tells the samples apart.

Shapes in comments: B batch, T tokens, W width, H heads, D embedding dimension.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from onnx import TensorProto, helper
from torch import nn

from clipedge.export.checkpoints.configs import PAD_ID
from clipedge.export.graphs.attention import TakeToken, attention, pooled_attention
from clipedge.export.graphs.mixer import token_mixer
from clipedge.export.graphs.nodes import GraphBuilder
from clipedge.export.graphs.pooling import attention_pooling
from clipedge.export.towers.blocks import AbsorbedAttention, Block, FusedAttention, PooledAttention
from clipedge.export.towers.mixer import TokenMixer
from clipedge.export.towers.simplify import simplify_image_tower, simplify_text_tower
from clipedge.export.towers.stem import STEM_SIZES, FoldedConvStem
from clipedge.export.towers.text import HIDDEN, TextEmbedding, TextTower, attention_mask
from clipedge.export.towers.tower import Tower
from clipedge.export.towers.vit import FoldedImageEmbedding, ImageTower

__all__ = ["embeds", "image_embedding", "transformer_blocks", "write_text_graph", "write_vit_graph"]


def write_vit_graph(tower: ImageTower, path: str | os.PathLike[str]) -> None:
    """Write ``pixels`` uint8 (batch, H, W, 3) RGB -> ``image_embeds`` float32 (batch, D), L2-normalised.

    ``tower`` is the reference tower; it is simplified on the way and left as it is.
    """
    tower = simplify_image_tower(tower)
    graph = GraphBuilder()

    tokens, width, size = tower.config.tokens, tower.config.width, tower.config.image_size

    def take_first(name: str, value: str) -> str:
        by_sample = graph.reshape(f"{name}.tokens", value, -1, tokens, width)
        return graph.node("Gather", name, by_sample, graph.index(0), axis=1)

    hidden = image_embedding(graph, cast(FoldedImageEmbedding, tower.embedding), "pixels", size)
    hidden = transformer_blocks(graph, tower, hidden, tokens, take_first)
    if tower.pooling is not None:
        hidden = attention_pooling(graph, tower.pooling, hidden, tokens)
    embeds(graph, tower, hidden, "image_embeds")
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", size, size, 3])
    graph.write(Path(path), [pixels], [_embeds_info(tower, "image_embeds")])


def write_text_graph(tower: TextTower, path: str | os.PathLike[str]) -> None:
    """Write ``input_ids`` int64 (batch, context length) -> ``text_embeds`` float32 (batch, D), L2-normalised.

    ``tower`` is the reference tower; it is simplified on the way and left as it is.
    """
    tower = simplify_text_tower(tower)
    graph = GraphBuilder()
    hidden = _text_embedding(graph, tower.embedding, "input_ids")
    tokens, width = tower.config.tokens, tower.config.width
    values = attention_mask(tower.config)
    mask = None if values is None else graph.constant("causal_mask", values)
    mask_row = None  # the last token sees all others
    position = ""
    if tower.config.pool == "end":
        position = _end_of_text(graph, tower, "input_ids")
        if mask is not None:
            row = graph.reshape("pooled.row", position, 0, 1, 1)
            mask_row = graph.node("Gather", "pooled.mask_row", mask, row, axis=0)  # (B, 1, 1, T)

    elif tower.config.class_token:
        mask_row = _hidden_keys(graph, "input_ids")
        mask = graph.node("Add", "masked_keys.causal", mask, mask_row) if mask else mask_row

    def take_pooled(name: str, value: str) -> str:
        by_sample = graph.reshape(f"{name}.tokens", value, -1, tokens, width)
        if position:
            return graph.node("GatherND", name, by_sample, position, batch_dims=1)
        return graph.node("Gather", name, by_sample, graph.index(tokens - 1), axis=1)

    if tower.config.mixers:
        hidden = token_mixer(graph, "mixers.0", cast(TokenMixer, tower.mixers[0]), hidden, tokens)
    hidden = transformer_blocks(graph, tower, hidden, tokens, take_pooled, mask, mask_row)
    if tower.config.mixers:
        hidden = token_mixer(graph, "mixers.1", cast(TokenMixer, tower.mixers[1]), hidden, tokens, take_pooled)
    embeds(graph, tower, hidden, "text_embeds")
    shape = ["batch", tower.config.context_length]
    input_ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, shape)
    graph.write(Path(path), [input_ids], [_embeds_info(tower, "text_embeds")])


def image_embedding(graph: GraphBuilder, embedding: FoldedImageEmbedding, pixels: str, image_size: int) -> str:
    """(B, H, W, 3) uint8 to (B * T, W)."""
    size = embedding.patch_size
    grid = image_size // size
    values = graph.node("Cast", "embedding.cast", pixels, to=TensorProto.FLOAT)  # first: TensorRT casts uint8 only
    if image_size % size:  # the patches do not cover the last rows and columns, like a convolution without padding
        edge = graph.integers(grid * size, grid * size)
        values = graph.node("Slice", "embedding.covered", values, graph.integers(0, 0), edge, graph.integers(1, 2))
    if isinstance(embedding.patch, FoldedConvStem):
        patches = _conv_stem(graph, embedding.patch, values, grid)
    else:
        rows = graph.reshape("embedding.rows", values, 0, grid, size, grid, size * 3)
        cut = graph.node("Transpose", "embedding.cut", rows, perm=[0, 1, 3, 2, 4])
        patches = graph.reshape("embedding.patches", cut, 0, grid * grid, size * size * 3)
        patches = graph.linear("embedding.patch", embedding.patch, patches)
    if len(embedding.tokens) > grid * grid:
        # A row of zeros in front makes room for the class token; its embedding is the first row of the constant.
        patches = graph.node("Pad", "embedding.pad", patches, graph.integers(0, 1, 0, 0, 0, 0))
    tokens = graph.constant("embedding.tokens", embedding.tokens[None])
    hidden = graph.node("Add", "embedding.add", patches, tokens)
    hidden = graph.reshape("embedding.flat", hidden, -1, embedding.tokens.shape[-1])
    if isinstance(embedding.norm, nn.LayerNorm):
        hidden = graph.layer_norm("embedding.norm", embedding.norm, hidden)
    return hidden


def _conv_stem(graph: GraphBuilder, stem: FoldedConvStem, values: str, grid: int) -> str:
    """(B, H, W, 3) to (B, patches, W). What each kernel sees lies side by side after one transposition."""
    small, middle, large = STEM_SIZES
    rows = graph.reshape("embedding.rows", values, -1, large, middle, small, grid, large, middle, small * 3)
    cut = graph.node("Transpose", "embedding.cut", rows, perm=[0, 4, 1, 5, 2, 6, 3, 7])
    hidden = graph.reshape("embedding.patches", cut, -1, stem.first.in_features)
    hidden = graph.activation("embedding.gelu1", "gelu", graph.linear("embedding.stem.first", stem.first, hidden))
    hidden = graph.reshape("embedding.second", hidden, -1, stem.second.in_features)
    hidden = graph.activation("embedding.gelu2", "gelu", graph.linear("embedding.stem.second", stem.second, hidden))
    hidden = graph.reshape("embedding.third", hidden, -1, stem.third.in_features)
    hidden = graph.linear("embedding.stem.third", stem.third, hidden)
    return graph.reshape("embedding.stem", hidden, -1, grid * grid, stem.third.out_features)


def _text_embedding(graph: GraphBuilder, embedding: TextEmbedding, input_ids: str) -> str:
    """(B, T) int64 to (B * T, W)."""
    table = graph.constant("embedding.token", embedding.token)
    tokens = graph.node("Gather", "embedding.lookup", table, input_ids, axis=0)
    if embedding.class_token:  # a row of zeros behind makes room for it; its embedding is part of its position
        tokens = graph.node("Pad", "embedding.pad", tokens, graph.integers(0, 0, 0, 0, 1, 0))
    position = graph.constant("embedding.position", embedding.position[None])
    hidden = graph.node("Add", "embedding.add", tokens, position)
    return graph.reshape("embedding.flat", hidden, -1, embedding.token.shape[-1])


def _end_of_text(graph: GraphBuilder, tower: TextTower, input_ids: str) -> str:
    """(B, T) token ids to (B, 1) int64: the position of the end, as ``TextTower.pooled_position`` finds it."""
    scores = input_ids
    if not tower.config.pools_highest_id:
        scores = graph.node("Equal", "pooled.is_end", input_ids, graph.integers(tower.config.eos_token_id))
    # ArgMax returns the first of equals; ONNX Runtime has it for int32 but not for booleans.
    scores = graph.node("Cast", "pooled.cast", scores, to=TensorProto.INT32)
    return graph.node("ArgMax", "pooled.position", scores, axis=-1, keepdims=1)


def _hidden_keys(graph: GraphBuilder, input_ids: str) -> str:
    """(B, T - 1) token ids to (B, 1, 1, T): what to add to scores, as in ``towers.text.hidden_keys``."""
    padding = graph.node("Equal", "masked_keys.padding", input_ids, graph.integers(PAD_ID))
    hidden = graph.node("Cast", "masked_keys.cast", padding, to=TensorProto.FLOAT)
    scores = graph.node("Mul", "masked_keys.scores", hidden, graph.scalar(HIDDEN))
    moved = graph.node("Pad", "masked_keys.moved", scores, graph.integers(0, 1, 0, 0))
    return graph.reshape("masked_keys", moved, 0, 1, 1, -1)


def transformer_blocks(
    graph: GraphBuilder,
    tower: Tower,
    hidden: str,
    tokens: int,
    take: TakeToken | None = None,
    mask: str | None = None,
    mask_row: str | None = None,
) -> str:
    """(B * T, W) to the same, or to (B, W) if the last block computes the pooled token alone, which ``take`` takes.

    ``mask`` (T, T) is added to the scores, ``mask_row`` (B, 1, 1, T) to the last ones.
    """
    for index, module in enumerate(tower.blocks):
        block, name = cast(Block, module), f"blocks.{index}"
        normed = graph.layer_norm(f"{name}.norm1", block.norm1, hidden)
        if isinstance(block.attn, PooledAttention | AbsorbedAttention):
            assert take is not None
            attended = pooled_attention(graph, f"{name}.attn", block.attn, normed, tokens, take, mask_row)
            hidden = take(f"{name}.pooled", hidden)
        else:
            attended = attention(graph, f"{name}.attn", cast(FusedAttention, block.attn), normed, tokens, mask)
        hidden = graph.node("Add", f"{name}.add1", hidden, attended)
        mlp = graph.layer_norm(f"{name}.norm2", block.norm2, hidden)
        mlp = graph.linear(f"{name}.fc1", block.fc1, mlp)
        mlp = graph.linear(f"{name}.fc2", block.fc2, graph.activation(f"{name}.gelu", block.activation, mlp))
        hidden = graph.node("Add", f"{name}.add2", hidden, mlp)
    return hidden


def embeds(graph: GraphBuilder, tower: Tower, hidden: str, output: str) -> str:
    """(B, W) to the value ``output`` (B, D), L2-normalised."""
    if isinstance(tower.norm_post, nn.LayerNorm):
        hidden = graph.layer_norm("norm_post", tower.norm_post, hidden)
    if isinstance(tower.projection, nn.Linear):
        hidden = graph.linear("projection", tower.projection, hidden)
    norm = graph.node("ReduceL2", "projection.norm", hidden, graph.integers(-1), keepdims=1)
    return graph.node("Div", output, hidden, norm)


def _embeds_info(tower: Tower, name: str) -> object:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", tower.embed_dim])
