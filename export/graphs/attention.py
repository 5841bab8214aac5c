"""The attention of transformer blocks in torch -> ONNX.

Shapes in comments: B batch, T tokens, W width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable

from clipedge.export.graphs.nodes import GraphBuilder
from clipedge.export.towers.blocks import AbsorbedAttention, FusedAttention, PooledAttention

__all__ = ["TakeToken", "attention", "pooled_attention"]

# (name of the new value, value (B * T, W)) -> the pooled tokens (B, W)
TakeToken = Callable[[str, str], str]


def attention(graph: GraphBuilder, name: str, attn: FusedAttention, hidden: str, tokens: int, mask: str | None) -> str:
    """Self-attention, (B * T, W) to (B * T, W); ``mask`` (T, T) is added to the scores."""
    qkv = graph.linear(f"{name}.qkv", attn.qkv, hidden)
    query, key, value = graph.split(f"{name}.split", qkv, ("query", "key", "value"))
    mixed = _attend(graph, name, query, key, value, attn, (tokens, tokens), mask)
    return graph.linear(f"{name}.out", attn.out, mixed)


def pooled_attention(
    graph: GraphBuilder,
    name: str,
    attn: PooledAttention | AbsorbedAttention,
    hidden: str,
    tokens: int,
    take: TakeToken,
    mask_row: str | None,
) -> str:
    """Attention of the token that ``take`` takes, (B * T, W) to (B, W); ``mask_row`` (B, 1, 1, T) is added to the
    scores."""
    query = graph.linear(f"{name}.query", attn.query, take(f"{name}.pooled", hidden))
    if isinstance(attn, AbsorbedAttention):
        mixed = _ask_tokens(graph, name, attn, query, hidden, tokens, mask_row)
    else:
        key_value = graph.linear(f"{name}.key_value", attn.key_value, hidden)
        key, value = graph.split(f"{name}.split", key_value, ("key", "value"))
        mixed = _attend(graph, name, query, key, value, attn, (1, tokens), mask_row)
    return graph.linear(f"{name}.out", attn.out, mixed)


def _ask_tokens(
    graph: GraphBuilder,
    name: str,
    attn: AbsorbedAttention,
    query: str,
    hidden: str,
    tokens: int,
    mask_row: str | None,
) -> str:
    """The queries (B, W) and the tokens (B * T, W) to (B, W)."""
    width, heads = attn.out.in_features, attn.heads
    own = graph.constant(f"{name}.own", attn.own)
    by_sample = graph.reshape(f"{name}.tokens", hidden, -1, tokens, width)
    row = graph.reshape(f"{name}.query_row", query, -1, 1, width)
    apart = graph.node("Mul", f"{name}.query_per_head", row, own)  # (B, H, W)
    asked = graph.linear(f"{name}.key", attn.key, graph.reshape(f"{name}.queries", apart, -1, width))
    asked = graph.reshape(f"{name}.asked", asked, -1, heads, width)
    channels = graph.node("Transpose", f"{name}.channels", by_sample, perm=[0, 2, 1])  # (B, W, T)
    scores = graph.node("MatMul", f"{name}.scores", asked, channels)  # (B, H, T)
    if mask_row is not None:
        scores = graph.node("Add", f"{name}.masked", scores, graph.reshape(f"{name}.mask_row", mask_row, -1, 1, tokens))
    weights = graph.node("Softmax", f"{name}.softmax", scores, axis=-1)
    mixed = graph.node("MatMul", f"{name}.mixed", weights, by_sample)  # (B, H, W)
    values = graph.linear(f"{name}.value", attn.value, graph.reshape(f"{name}.mixtures", mixed, -1, width))
    values = graph.node("Mul", f"{name}.value_per_head", graph.reshape(f"{name}.values", values, -1, heads, width), own)
    return graph.node("ReduceSum", f"{name}.joined", values, graph.integers(1), keepdims=0)


def _attend(
    graph: GraphBuilder,
    name: str,
    query: str,
    key: str,
    value: str,
    attn: FusedAttention | PooledAttention,
    counts: tuple[int, int],
    mask: str | None,
) -> str:
    """softmax(Q K^T + mask) V per head; (B * Q, W) and twice (B * T, W) to (B * Q, W), ``counts`` being (Q, T)."""
    width, heads = attn.out.in_features, attn.heads
    queries, tokens = counts

    def per_head(part: str, projected: str, count: int, perm: list[int]) -> str:
        cut = graph.reshape(f"{name}.{part}_heads", projected, -1, count, heads, width // heads)
        return graph.node("Transpose", f"{name}.{part}_per_head", cut, perm=perm)

    keys = per_head("key", key, tokens, [0, 2, 3, 1])  # (B, H, W / H, T)
    scores = graph.node("MatMul", f"{name}.scores", per_head("query", query, queries, [0, 2, 1, 3]), keys)
    if mask is not None:
        scores = graph.node("Add", f"{name}.masked", scores, mask)
    weights = graph.node("Softmax", f"{name}.softmax", scores, axis=-1)
    mixed = graph.node("MatMul", f"{name}.mixed", weights, per_head("value", value, tokens, [0, 2, 1, 3]))
    merged = graph.node("Transpose", f"{name}.merged", mixed, perm=[0, 2, 1, 3])
    return graph.reshape(f"{name}.joined", merged, -1, width)
