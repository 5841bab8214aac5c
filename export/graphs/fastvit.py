"""A FastViT -> ONNX: convolutions over (B, C, H, W), attention as in ``clipedge.export.graphs.transformers``.

A convolution has the name of its module (``stages.1.blocks.2.ffn.fc1``). Squeeze-and-excitation works on one vector per
picture; its two layers are Gemm, which marks them as nothing worth quantizing.

Shapes in comments: B batch, C channels, H and W height and width of the maps, D embedding dimension.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import torch
from onnx import TensorProto, helper
from torch import nn

from clipedge.export.graphs.attention import attention
from clipedge.export.graphs.nodes import GraphBuilder
from clipedge.export.towers.fastvit import (
    AttentionBlock,
    ConvFfn,
    Downsample,
    FastVitStage,
    FastVitTower,
    MixerBlock,
    SqueezeExcite,
    TwinKernels,
)

__all__ = ["write_fastvit_graph"]


def write_fastvit_graph(tower: FastVitTower, path: str | os.PathLike[str]) -> None:
    """Write ``pixels`` uint8 (batch, H, W, 3) RGB -> ``image_embeds`` float32 (batch, D), L2-normalised."""
    graph = GraphBuilder()
    size = tower.config.image_size
    maps = _pixels(graph, tower, "pixels")
    for index, module in enumerate(tower.stem):
        conv = cast(nn.Conv2d, module)
        if index == 0:
            conv = _for_raw_pixels(conv, tower.std)
        maps = _gelu(graph, f"stem.{index}.gelu", graph.conv(f"stem.{index}", conv, maps))
    size //= 4
    for index, module in enumerate(tower.stages):
        stage = cast(FastVitStage, module)
        size = size // 2 if stage.downsample is not None else size
        maps = _stage(graph, f"stages.{index}", stage, maps, size)
    maps = _twins(graph, "final.conv", tower.final.conv, maps)
    maps = _gelu(graph, "final.gelu", _squeeze(graph, "final.squeeze", tower.final.squeeze, maps))
    _embeds(graph, tower, maps)
    size = tower.config.image_size
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", size, size, 3])
    shape = ["batch", tower.projection.out_features]
    graph.write(Path(path), [pixels], [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, shape)])


def _pixels(graph: GraphBuilder, tower: FastVitTower, pixels: str) -> str:
    """(B, H, W, 3) uint8 to (B, 3, H, W), the mean taken off.

    The mean cannot move into the convolution's bias, whose padding would then be black instead of the mean.
    """
    values = graph.node("Cast", "pixels.cast", pixels, to=TensorProto.FLOAT)
    if any(tower.mean):
        mean = graph.constant("pixels.mean", 255 * torch.tensor(tower.mean, dtype=torch.float64))
        values = graph.node("Sub", "pixels.centred", values, mean)
    return graph.node("Transpose", "pixels.maps", values, perm=[0, 3, 1, 2])


def _for_raw_pixels(conv: nn.Conv2d, std: tuple[float, float, float]) -> nn.Conv2d:
    """The convolution for pixels from 0 to 255: W (p / 255 / std) = (W / (255 std)) p. Zero padding stays zero."""
    scale = 255 * torch.tensor(std, dtype=torch.float64)[:, None, None]
    with torch.device("meta"):
        kernel, stride = cast(tuple[int, int], conv.kernel_size), cast(tuple[int, int], conv.stride)
        raw = nn.Conv2d(3, conv.out_channels, kernel, stride, cast(tuple[int, int], conv.padding))
    raw.weight = nn.Parameter((conv.weight.double() / scale).to(conv.weight.dtype), requires_grad=False)
    raw.bias = conv.bias
    return raw


def _stage(graph: GraphBuilder, name: str, stage: FastVitStage, maps: str, size: int) -> str:
    """Maps are ``size`` high and wide behind the downsampling."""
    if stage.downsample is not None:
        maps = _downsample(graph, f"{name}.downsample", stage.downsample, maps)
    if stage.position is not None:
        maps = graph.conv(f"{name}.position", stage.position, maps)
    for index, block in enumerate(stage.blocks):
        place = f"{name}.blocks.{index}"
        if isinstance(block, AttentionBlock):
            attended = _attention(graph, place, block, maps, size)
            maps = graph.node("Add", f"{place}.add1", maps, attended)
        else:
            maps = graph.conv(f"{place}.mixer", cast(MixerBlock, block).mixer, maps)
        ffn = _ffn(graph, f"{place}.ffn", cast(ConvFfn, block.ffn), maps)
        maps = graph.node("Add", f"{place}.add", maps, ffn)
    return maps


def _downsample(graph: GraphBuilder, name: str, downsample: Downsample, maps: str) -> str:
    maps = _twins(graph, f"{name}.large", downsample.large, maps)
    if downsample.squeeze is not None:
        maps = _squeeze(graph, f"{name}.squeeze", downsample.squeeze, maps)
    maps = graph.conv(f"{name}.point", downsample.point, _gelu(graph, f"{name}.gelu1", maps))
    return _gelu(graph, f"{name}.gelu2", maps)


def _twins(graph: GraphBuilder, name: str, twins: TwinKernels, maps: str) -> str:
    first = graph.conv(f"{name}.first", twins.first, maps)
    return graph.node("Concat", name, first, graph.conv(f"{name}.second", twins.second, maps), axis=1)


def _attention(graph: GraphBuilder, name: str, block: AttentionBlock, maps: str, size: int) -> str:
    """(B, C, H, W) to the same, through tokens (B * H * W, C)."""
    width, tokens = block.attn.out.in_features, size * size
    rows = graph.node("Transpose", f"{name}.attn.rows", maps, perm=[0, 2, 3, 1])
    hidden = graph.reshape(f"{name}.attn.tokens", rows, -1, width)
    if block.norm is not None:
        hidden = graph.layer_norm(f"{name}.norm", block.norm, hidden)
    hidden = attention(graph, f"{name}.attn", block.attn, hidden, tokens, None)
    rows = graph.reshape(f"{name}.attn.grid", hidden, -1, size, size, width)
    return graph.node("Transpose", f"{name}.attn.maps", rows, perm=[0, 3, 1, 2])


def _ffn(graph: GraphBuilder, name: str, ffn: ConvFfn, maps: str) -> str:
    hidden = graph.conv(f"{name}.fc1", ffn.fc1, graph.conv(f"{name}.conv", ffn.conv, maps))
    return graph.conv(f"{name}.fc2", ffn.fc2, _gelu(graph, f"{name}.gelu", hidden))


def _squeeze(graph: GraphBuilder, name: str, squeeze: SqueezeExcite, maps: str) -> str:
    channels = squeeze.fc1.in_features
    means = graph.node("GlobalAveragePool", f"{name}.means", maps)
    hidden = _gemm(graph, f"{name}.fc1", squeeze.fc1, graph.reshape(f"{name}.vector", means, -1, channels))
    gates = _gemm(graph, f"{name}.fc2", squeeze.fc2, graph.node("Relu", f"{name}.relu", hidden))
    gates = graph.node("Sigmoid", f"{name}.gates", gates)
    return graph.node("Mul", name, maps, graph.reshape(f"{name}.gate_maps", gates, -1, channels, 1, 1))


def _gemm(graph: GraphBuilder, name: str, layer: nn.Linear, value: str) -> str:
    weight, bias = graph.constant(f"{name}.weight", layer.weight), graph.constant(f"{name}.bias", layer.bias)
    return graph.node("Gemm", name, value, weight, bias, transB=1)


def _gelu(graph: GraphBuilder, name: str, value: str) -> str:
    return graph.activation(name, "gelu", value)


def _embeds(graph: GraphBuilder, tower: FastVitTower, maps: str) -> None:
    """(B, 2 C, H, W) to the graph's output (B, D), L2-normalised."""
    means = graph.node("GlobalAveragePool", "pooled.means", maps)
    pooled = graph.reshape("pooled", means, -1, tower.projection.in_features)
    embeds = graph.linear("projection", tower.projection, pooled)
    norm = graph.node("ReduceL2", "projection.norm", embeds, graph.integers(-1), keepdims=1)
    graph.node("Div", "image_embeds", embeds, norm)
