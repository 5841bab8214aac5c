"""Convolutions over a text's tokens -> ONNX."""

from __future__ import annotations

from collections.abc import Callable

from clipedge.export.graphs.nodes import GraphBuilder
from clipedge.export.towers.mixer import TokenMixer

__all__ = ["token_mixer"]


def token_mixer(
    graph: GraphBuilder,
    name: str,
    block: TokenMixer,
    hidden: str,
    tokens: int,
    take: Callable[[str, str], str] | None = None,
) -> str:
    """(B * T, W) to (B * T, W), or to (B, W): only the tokens that ``take`` gives (name, value) pass the perceptron."""
    width = block.fc1.in_features
    rows = graph.reshape(f"{name}.tokens", hidden, -1, 1, tokens, width)
    maps = graph.conv(f"{name}.mixer", block.mixer, graph.node("Transpose", f"{name}.maps", rows, perm=[0, 3, 1, 2]))
    seen = _rows(graph, f"{name}.seen", graph.conv(f"{name}.conv", block.conv, maps), width)
    mixed = _rows(graph, f"{name}.mixed", maps, width)
    if take is not None:
        mixed, seen = take(f"{name}.pooled", mixed), take(f"{name}.pooled_seen", seen)
    inner = graph.activation(f"{name}.gelu", "gelu", graph.linear(f"{name}.fc1", block.fc1, seen))
    return graph.node("Add", f"{name}.add", mixed, graph.linear(f"{name}.fc2", block.fc2, inner))


def _rows(graph: GraphBuilder, name: str, maps: str, width: int) -> str:
    """(B, W, 1, T) to (B * T, W)."""
    return graph.reshape(name, graph.node("Transpose", f"{name}.by_token", maps, perm=[0, 2, 3, 1]), -1, width)
