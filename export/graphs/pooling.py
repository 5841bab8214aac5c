"""Attention pooling in torch -> ONNX; see ``clipedge.export.towers.pooling``, whose letters the comments use."""

from __future__ import annotations

from typing import cast

from clipedge.export.graphs.nodes import GraphBuilder
from clipedge.export.towers.pooling import AttentionPooling, FoldedQueryAttention, Perceptron

__all__ = ["attention_pooling"]


def attention_pooling(graph: GraphBuilder, pooling: AttentionPooling, hidden: str, tokens: int) -> str:
    """(B * T, W) to (B, P)."""
    attn, name = cast(FoldedQueryAttention, pooling.attn), "pooling.attn"
    heads, width = attn.heads, attn.out.in_features
    hidden = graph.layer_norm("pooling.norm", pooling.norm, hidden)
    key_value = graph.linear(f"{name}.key_value", attn.key_value, hidden)
    score, value = graph.split(f"{name}.split", key_value, ("score", "value"), (heads, width))
    by_sample = graph.reshape(f"{name}.score_heads", score, -1, tokens, 1, heads)
    scores = graph.node("Transpose", f"{name}.scores", by_sample, perm=[0, 3, 2, 1])  # (B, H, 1, T)
    weights = graph.node("Softmax", f"{name}.softmax", scores, axis=-1)
    values = graph.reshape(f"{name}.value_heads", value, -1, tokens, heads, width // heads)
    values = graph.node("Transpose", f"{name}.value_per_head", values, perm=[0, 2, 1, 3])
    mixed = graph.node("MatMul", f"{name}.mixed", weights, values)  # (B, H, 1, P / H)
    hidden = graph.linear(f"{name}.out", attn.out, graph.reshape(f"{name}.joined", mixed, -1, width))
    if isinstance(pooling.perceptron, Perceptron):
        hidden = _perceptron(graph, "pooling.perceptron", pooling.perceptron, hidden)
    return hidden


def _perceptron(graph: GraphBuilder, name: str, perceptron: Perceptron, hidden: str) -> str:
    mlp = graph.layer_norm(f"{name}.norm", perceptron.norm, hidden)
    mlp = graph.linear(f"{name}.fc1", perceptron.fc1, mlp)
    mlp = graph.linear(f"{name}.fc2", perceptron.fc2, graph.activation(f"{name}.gelu", perceptron.activation, mlp))
    return graph.node("Add", f"{name}.add", hidden, mlp)
