"""A modified ResNet in torch -> ONNX. For the form of the graph see ``clipedge.export.graphs.transformers``.

A convolution has the name of its module (``layer1.0.conv2``), the ReLU behind it that name and ``.relu``. The layers of
the attention pool are linear layers over tokens that lie below each other, as in the transformers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from onnx import TensorProto, helper

from clipedge.export.graphs.nodes import GraphBuilder
from clipedge.export.towers.resnet import AttentionPool, Bottleneck, ResNetTower, Stem, fold_pixel_range

__all__ = ["write_resnet_graph"]


def write_resnet_graph(tower: ResNetTower, path: str | os.PathLike[str]) -> None:
    """Write ``pixels`` uint8 (batch, H, W, 3) RGB -> ``image_embeds`` float32 (batch, D), L2-normalised.

    ``tower`` is the reference tower; it is simplified on the way and left as it is.
    """
    graph = GraphBuilder()
    maps = _stem(graph, fold_pixel_range(tower).stem, "pixels")
    for number, stage in enumerate(tower.stages, start=1):
        for index, block in enumerate(stage):
            maps = _bottleneck(graph, f"layer{number}.{index}", cast(Bottleneck, block), maps)
    embeds = _attention_pool(graph, tower.pool, maps)
    norm = graph.node("ReduceL2", "projection.norm", embeds, graph.integers(-1), keepdims=1)
    graph.node("Div", "image_embeds", embeds, norm)
    size = tower.config.image_size
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", size, size, 3])
    shape = ["batch", tower.pool.attn.out.out_features]
    graph.write(Path(path), [pixels], [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, shape)])


def _stem(graph: GraphBuilder, stem: Stem, pixels: str) -> str:
    """(B, H, W, 3) uint8 to (B, C, H / 4, W / 4)."""
    values = graph.node("Cast", "stem.cast", pixels, to=TensorProto.FLOAT)
    maps = graph.node("Transpose", "stem.channels", values, perm=[0, 3, 1, 2])
    centre = stem.conv1.weight.new_tensor(stem.centre)[:, None, None]
    maps = graph.node("Sub", "stem.centred", maps, graph.constant("stem.centre", centre))
    for name, conv in (("stem.conv1", stem.conv1), ("stem.conv2", stem.conv2), ("stem.conv3", stem.conv3)):
        maps = graph.node("Relu", f"{name}.relu", graph.conv(name, conv, maps))
    return _average_pool(graph, "stem.pool", maps, 2)


def _bottleneck(graph: GraphBuilder, name: str, block: Bottleneck, maps: str) -> str:
    """(B, C, H, W) to (B, C', H / stride, W / stride)."""
    hidden = maps
    for part, conv in (("conv1", block.conv1), ("conv2", block.conv2)):
        hidden = graph.node("Relu", f"{name}.{part}.relu", graph.conv(f"{name}.{part}", conv, hidden))
    hidden = graph.conv(f"{name}.conv3", block.conv3, _average_pool(graph, f"{name}.pool", hidden, block.stride))
    residual = maps
    if block.downsample is not None:
        residual = _average_pool(graph, f"{name}.downsample.pool", maps, block.stride)
        residual = graph.conv(f"{name}.downsample", block.downsample, residual)
    return graph.node("Relu", f"{name}.relu", graph.node("Add", f"{name}.add", hidden, residual))


def _average_pool(graph: GraphBuilder, name: str, maps: str, stride: int) -> str:
    if stride == 1:
        return maps
    return graph.node("AveragePool", name, maps, kernel_shape=[stride, stride], strides=[stride, stride])


def _attention_pool(graph: GraphBuilder, pool: AttentionPool, maps: str) -> str:
    """(B, C, H, W) to (B, D). The embedding layer is called ``projection``, as in all towers."""
    attn = pool.attn
    tokens, width = pool.position.shape
    heads = attn.heads
    columns = graph.reshape("pool.columns", maps, 0, width, tokens - 1)
    rows = graph.node("Transpose", "pool.rows", columns, perm=[0, 2, 1])
    mean = graph.node("ReduceMean", "pool.mean", rows, graph.integers(1), keepdims=1)
    hidden = graph.node("Concat", "pool.concat", mean, rows, axis=1)
    hidden = graph.node("Add", "pool.tokens", hidden, graph.constant("pool.position", pool.position[None]))

    first = graph.node("Gather", "pool.first", hidden, graph.index(0), axis=1)
    query = graph.linear("pool.attn.query", attn.query, first)
    query = graph.reshape("pool.attn.query_heads", query, 0, heads, 1, width // heads)
    key_value = graph.linear("pool.attn.key_value", attn.key_value, graph.reshape("pool.flat", hidden, -1, width))
    key, value = graph.split("pool.attn.split", key_value, ("key", "value"))

    def per_head(part: str, projected: str, perm: list[int]) -> str:
        cut = graph.reshape(f"pool.attn.{part}_heads", projected, -1, tokens, heads, width // heads)
        return graph.node("Transpose", f"pool.attn.{part}_per_head", cut, perm=perm)

    scores = graph.node("MatMul", "pool.attn.scores", query, per_head("key", key, [0, 2, 3, 1]))
    weights = graph.node("Softmax", "pool.attn.softmax", scores, axis=-1)
    mixed = graph.node("MatMul", "pool.attn.mixed", weights, per_head("value", value, [0, 2, 1, 3]))
    return graph.linear("projection", attn.out, graph.reshape("pool.attn.joined", mixed, 0, width))
