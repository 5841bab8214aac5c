"""Exact simplifications: a tower in, a cheaper tower out that computes the same function.

Each step is exact in real arithmetic; in float32 it only rounds differently. Folded weights are computed in
float64 and rounded once. No step changes its argument, and parts that a step leaves alone are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import nn

from clipedge.export.towers import FoldedImageEmbedding, ImageEmbedding, ImageTower, TextTower
from clipedge.export.towers.blocks import (
    AbsorbedAttention,
    Attention,
    Block,
    FusedAttention,
    PooledAttention,
    linear_of,
)
from clipedge.export.towers.dense import Contributions, DenseTower
from clipedge.export.towers.mixer import TokenMixer
from clipedge.export.towers.pooling import AttentionPooling, FoldedQueryAttention, Perceptron, QueryAttention
from clipedge.export.towers.stem import ConvStem, FoldedConvStem

__all__ = [
    "absorb_keys_and_values",
    "fold_attention_biases",
    "fold_attention_scale",
    "fold_image_embedding",
    "fold_norms",
    "fold_pooling",
    "fold_query",
    "fuse_qkv",
    "pool_last_block",
    "simplify_dense_tower",
    "simplify_image_tower",
    "simplify_text_tower",
]

TowerT = TypeVar("TowerT", ImageTower, TextTower)


def simplify_image_tower(tower: ImageTower) -> ImageTower:
    """All steps that apply to an image tower, in the order they need."""
    tower = fold_image_embedding(tower)
    return _simplify_blocks(tower) if tower.pooling is None else fold_query(fold_pooling(_simplify_all_tokens(tower)))


def simplify_dense_tower(tower: ImageTower) -> DenseTower:
    """An image tower's patches after all steps that apply to them.

    The last block's values keep their bias: a patch alone does not hand it on whole.
    """
    tower = fold_norms(fold_attention_scale(fuse_qkv(fold_image_embedding(tower))))
    last = _blocks(tower)[-1]
    attn = cast(FusedAttention, last.attn)
    width, bias = attn.qkv.in_features, attn.qkv.bias.clone()
    bias[width : 2 * width] = 0  # the keys': the same for all scores
    query = linear_of(attn.qkv.weight[:width], bias[:width])
    key_value = linear_of(attn.qkv.weight[width:], bias[width:])
    contributions = Contributions(query, key_value, attn.out, attn.heads, attn.scale)
    blocks = _blocks(fold_attention_biases(tower))[:-1]
    return DenseTower(
        tower.config, tower.embedding, blocks, last.norm1, contributions, tower.norm_post, tower.projection
    ).eval()


def simplify_text_tower(tower: TextTower) -> TextTower:
    """All steps that apply to a text tower, in the order they need."""
    return _simplify_all_tokens(tower) if tower.config.mixers else _simplify_blocks(tower)


def _simplify_blocks(tower: TowerT) -> TowerT:
    return absorb_keys_and_values(pool_last_block(_simplify_all_tokens(tower)))


def _simplify_all_tokens(tower: TowerT) -> TowerT:
    return fold_attention_biases(fold_norms(fold_attention_scale(fuse_qkv(tower))))


def fold_image_embedding(tower: ImageTower) -> ImageTower:
    """Fold the normalisation of the pixels into the patch convolution, and make that a matrix product.

    With p the pixel values 0 to 255, W (p / 255 - mean) / std = W' (p - 255 mean) for W' = W / (255 std), as long
    as the convolution pads nothing, and CLIP's does not. The constant W' 255 mean joins class token and positions.
    """
    embedding = cast(ImageEmbedding, tower.embedding)
    dtype = embedding.position.dtype
    tokens = embedding.position.double()
    if isinstance(embedding.patch, ConvStem):
        patch: nn.Linear | FoldedConvStem = _fold_stem(embedding.patch, embedding)
    else:
        patch, shift = _fold_pixels(cast(nn.Conv2d, embedding.patch), embedding)
        tokens = tokens - shift
    if embedding.class_token is not None:
        tokens[0] = embedding.position[0].double() + embedding.class_token.double()
    folded = FoldedImageEmbedding(tower.config.patch_size, patch, tokens.to(dtype), embedding.norm)
    return ImageTower(tower.config, folded, _blocks(tower), tower.norm_post, tower.projection, tower.pooling)


def _fold_pixels(conv: nn.Conv2d, embedding: ImageEmbedding) -> tuple[nn.Linear, torch.Tensor]:
    """The convolution of normalised pixels as a matrix product of raw ones, without bias, and what it then gives too
    much, (W,) in float64."""
    weight = conv.weight.double().permute(0, 2, 3, 1)  # (W, row, column, channel), as pixels lie
    weight = (weight / (255 * weight.new_tensor(embedding.std))).to(conv.weight.dtype)
    # From the weights as they were rounded: the other way the constant would carry their rounding errors.
    shift = (weight.double() * (255 * weight.new_tensor(embedding.mean, dtype=torch.float64))).sum((1, 2, 3))
    return linear_of(weight.flatten(1), None), shift


def _fold_stem(stem: ConvStem, embedding: ImageEmbedding) -> FoldedConvStem:
    first, shift = _fold_pixels(stem.first, embedding)
    bias = cast(torch.Tensor, stem.first.bias)
    second, third = (
        linear_of(conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias) for conv in (stem.second, stem.third)
    )
    return FoldedConvStem(linear_of(first.weight, (bias.double() - shift).to(bias.dtype)), second, third)


def fuse_qkv(tower: TowerT) -> TowerT:
    """One linear layer for queries, keys and values instead of three."""

    def fuse(block: Block) -> Block:
        attn = cast(Attention, block.attn)
        parts = (attn.query, attn.key, attn.value)
        qkv = linear_of(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
        return _with_attention(block, FusedAttention(qkv, attn.out, attn.heads, attn.scale))

    return _map_blocks(tower, fuse)


def fold_attention_scale(tower: TowerT) -> TowerT:
    """Multiply the queries' weights by the attention scale instead of the scores. Needs ``fuse_qkv``."""

    def fold(block: Block) -> Block:
        attn = cast(FusedAttention, block.attn)
        scale = torch.ones(attn.qkv.out_features, dtype=torch.float64)
        scale[: attn.qkv.in_features] = attn.scale
        weight, dtype = attn.qkv.weight, attn.qkv.weight.dtype
        qkv = linear_of((weight * scale[:, None]).to(dtype), (attn.qkv.bias * scale).to(dtype))
        return _with_attention(block, FusedAttention(qkv, attn.out, attn.heads, 1.0))

    return _map_blocks(tower, fold)


def fold_norms(tower: TowerT) -> TowerT:
    """Fold gain and bias of every LayerNorm into the linear layer behind it. Needs ``fuse_qkv``.

    W (g * x + b) + c = (W * g) x + (W b + c). Left alone: the norm in front of an image tower's blocks, whose
    output is also the residual stream.
    """

    def fold(block: Block) -> Block:
        attn = cast(FusedAttention, block.attn)
        norm1, qkv = _fold_norm(block.norm1, attn.qkv)
        norm2, fc1 = _fold_norm(block.norm2, block.fc1)
        attn = FusedAttention(qkv, attn.out, attn.heads, attn.scale)
        return Block(norm1, attn, norm2, fc1, block.fc2, block.activation)

    folded = _map_blocks(tower, fold)
    norm_post, projection = tower.norm_post, tower.projection
    if isinstance(norm_post, nn.LayerNorm):
        norm_post, projection = _fold_norm(norm_post, cast(nn.Linear, projection))
    return _rebuild(folded, _blocks(folded), norm_post, projection)


def fold_attention_biases(tower: TowerT) -> TowerT:
    """Drop the keys' bias and fold the values' bias into the output projection's. Needs ``fuse_qkv``.

    The keys' bias adds the same number to all scores of a query, which softmax ignores. The attention weights of a
    query add up to one, so it receives the values' bias b whole, and the output projection makes W b of it. Needs
    ``fold_norms`` before it: the norms' biases end up in these biases too.
    """

    def fold(block: Block) -> Block:
        attn = cast(FusedAttention, block.attn)
        width, dtype = attn.qkv.in_features, attn.qkv.weight.dtype
        query, _, value = attn.qkv.bias.double().chunk(3)
        qkv = linear_of(attn.qkv.weight, torch.cat([query, torch.zeros(2 * width).double()]).to(dtype))
        bias = attn.out.bias.double() + attn.out.weight.double() @ value
        out = linear_of(attn.out.weight, bias.to(dtype))
        return _with_attention(block, FusedAttention(qkv, out, attn.heads, attn.scale))

    return _map_blocks(tower, fold)


def pool_last_block(tower: TowerT) -> TowerT:
    """Let the last block compute only the token that is pooled. Needs ``fuse_qkv``.

    Its query, output projection and perceptron are for that token alone; keys and values are still of all tokens.
    """
    *others, last = _blocks(tower)
    attn = cast(FusedAttention, last.attn)
    width = attn.qkv.in_features
    query = linear_of(attn.qkv.weight[:width], attn.qkv.bias[:width])
    key_value = linear_of(attn.qkv.weight[width:], attn.qkv.bias[width:])
    pooled = PooledAttention(query, key_value, attn.out, attn.heads, attn.scale)
    return _rebuild(tower, [*others, _with_attention(last, pooled)], tower.norm_post, tower.projection)


def absorb_keys_and_values(tower: TowerT) -> TowerT:
    """Let the last block ask the tokens themselves instead of their keys and values. Needs ``pool_last_block``.

    In each head, with q the query, K and V the weights of keys and values, a_t the attention of token x_t:
    q (K x_t) = (K^T q) x_t, and sum_t a_t (V x_t + b) = V (sum_t a_t x_t) + b, since the a_t add up to one. The keys'
    bias softmax ignores. DeepSeek-AI 2024, "DeepSeek-V2", arXiv 2405.04434, section 2.1.2, absorbs the weights in the
    same way. For one layer to serve all H heads, each has a row of W channels, most of which are zeros or dropped:
    2 H W W multiply-adds instead of 2 T W W, and H T W instead of T W for each of the two products with the tokens.
    Where that is no less, the tower stays as it is.
    """
    *others, last = _blocks(tower)
    attn = cast(PooledAttention, last.attn)
    heads, tokens, width = attn.heads, tower.config.tokens, attn.out.in_features
    if heads * (width + tokens) >= tokens * (width + 1):
        return tower
    (key, value), bias = attn.key_value.weight.chunk(2), attn.key_value.bias[width:]
    absorbed = AbsorbedAttention(
        attn.query, linear_of(key.T, None), linear_of(value, bias), attn.out, heads, attn.scale
    )
    return _rebuild(tower, [*others, _with_attention(last, absorbed)], tower.norm_post, tower.projection)


def fold_pooling(tower: ImageTower) -> ImageTower:
    """Fold gain and bias of attention pooling's norms into the linear layers behind them."""
    pooling = cast(AttentionPooling, tower.pooling)
    attn, perceptron = cast(QueryAttention, pooling.attn), pooling.perceptron
    norm, key = _fold_norm(pooling.norm, attn.key)
    _, value = _fold_norm(pooling.norm, attn.value)
    attn = QueryAttention(attn.query, key, value, attn.out, attn.heads, attn.scale)
    if isinstance(perceptron, Perceptron):
        bare, fc1 = _fold_norm(perceptron.norm, perceptron.fc1)
        perceptron = Perceptron(bare, fc1, perceptron.fc2, perceptron.activation)
    return _with_pooling(tower, AttentionPooling(norm, attn, perceptron))


def fold_query(tower: ImageTower) -> ImageTower:
    """Fold attention pooling's constant query into the keys, and the values' bias into the output projection's.

    In each head, with q the query's part and K the keys', q (K x + b) = (q K) x + q b: one row instead of the matrix K,
    and a number that is the same for all tokens, which softmax ignores. Needs ``fold_pooling`` before it.
    """
    pooling = cast(AttentionPooling, tower.pooling)
    attn = cast(QueryAttention, pooling.attn)
    dtype = attn.key.weight.dtype
    query = (attn.query.double() * attn.scale).reshape(attn.heads, 1, -1)
    score = (query @ attn.key.weight.double().reshape(attn.heads, query.shape[-1], -1)).squeeze(1)
    bias = attn.out.bias.double() + attn.out.weight.double() @ attn.value.bias.double()
    key_value = linear_of(torch.cat([score.to(dtype), attn.value.weight]), None)
    folded = FoldedQueryAttention(key_value, linear_of(attn.out.weight, bias.to(dtype)), attn.heads)
    return _with_pooling(tower, AttentionPooling(pooling.norm, folded, pooling.perceptron))


def _fold_norm(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[nn.LayerNorm, nn.Linear]:
    """The norm without gain and bias, and the linear layer with them."""
    weight, dtype = linear.weight.double(), linear.weight.dtype
    bias = weight @ norm.bias.double()
    if linear.bias is not None:
        bias = bias + linear.bias.double()
    bare = nn.LayerNorm(linear.in_features, norm.eps, elementwise_affine=False)
    return bare, linear_of((weight * norm.weight.double()).to(dtype), bias.to(dtype))


def _with_attention(block: Block, attn: FusedAttention | PooledAttention | AbsorbedAttention) -> Block:
    return Block(block.norm1, attn, block.norm2, block.fc1, block.fc2, block.activation)


def _map_blocks(tower: TowerT, step: Callable[[Block], Block]) -> TowerT:
    return _rebuild(tower, [step(block) for block in _blocks(tower)], tower.norm_post, tower.projection)


def _blocks(tower: ImageTower | TextTower) -> list[Block]:
    return [cast(Block, block) for block in tower.blocks]


def _rebuild(
    tower: TowerT,
    blocks: list[Block],
    norm_post: nn.LayerNorm | nn.Identity,
    projection: nn.Linear | nn.Identity,
) -> TowerT:
    if isinstance(tower, ImageTower):
        return ImageTower(tower.config, tower.embedding, blocks, norm_post, projection, tower.pooling)
    mixers = [cast(TokenMixer, mixer) for mixer in tower.mixers]
    return TextTower(tower.config, tower.embedding, blocks, norm_post, projection, mixers)


def _with_pooling(tower: ImageTower, pooling: AttentionPooling) -> ImageTower:
    return ImageTower(tower.config, tower.embedding, _blocks(tower), tower.norm_post, tower.projection, pooling)
