"""The weights of FastViT image towers (MobileCLIP's MCi), by the names of timm and by those of Apple's files.

Both name the same modules, which this reads in either of two forms: as trained, where each convolution is a sum of
branches with a BatchNorm each, or re-parameterised, where a file has their sum already. The branches are those of
MobileOne (Vasu et al. 2022, arXiv 2206.04040), FastViT (Vasu et al. 2023, arXiv 2303.14189) and, for large kernels,
RepLKNet (Ding et al. 2022, arXiv 2203.06717).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from clipedge.export.checkpoints.configs import FastVitConfig
from clipedge.export.checkpoints.layouts import ImageLayout
from clipedge.export.checkpoints.mobileclip.reparam import (
    Affine,
    Layer,
    Tensors,
    added,
    as_linear,
    behind_norm,
    canonical,
    convolution,
    every_second,
    identity,
    inputs_halved,
    normalised,
    outputs_halved,
    scaled,
    subtracted,
    transposed,
)
from clipedge.export.checkpoints.openclip.resnet import is_batch_count
from clipedge.export.checkpoints.tensors import Shape, Stored

__all__ = ["APPLE", "TIMM", "FastVitNames", "fastvit_layout", "token_mixer_layers"]

HEAD_WIDTH = 32
TOKEN_KERNEL = (1, 11)


@dataclass(frozen=True)
class FastVitNames:
    """What a library calls the parts of the tower. ``branch``, ``scale`` and ``skip`` are those of a MobileOne block,
    ``large`` that of a large kernel, ``large_sum`` its re-parameterised form. ``flat``: stages, downsamplings and
    encoded positions are numbered through in one list; else each stage has its own."""

    prefix: str
    stem: str
    branch: str
    scale: str
    skip: str
    large: str
    large_sum: str
    position: str
    ffn: str
    layer_scale: str
    final: str
    final_squeeze: tuple[str, str]
    flat: bool


TIMM = FastVitNames(
    prefix="visual.trunk.",
    stem="stem",
    branch="conv_kxk.0",
    scale="conv_scale",
    skip="identity",
    large="large_conv",
    large_sum="reparam_conv",
    position="pos_enc",
    ffn="mlp",
    layer_scale="{}.gamma",
    final="final_conv",
    final_squeeze=("fc1", "fc2"),
    flat=False,
)
APPLE = FastVitNames(
    prefix="image_encoder.model.",
    stem="patch_embed",
    branch="rbr_conv.0",
    scale="rbr_scale",
    skip="rbr_skip",
    large="lkb_origin",
    large_sum="lkb_reparam",
    position="pe",
    ffn="convffn",
    layer_scale="{}",
    final="conv_exp",
    final_squeeze=("reduce", "expand"),
    flat=True,
)


@dataclass(frozen=True)
class _StagePlaces:
    """Where a file has the parts of a stage."""

    downsample: str
    position: str
    blocks: str


@dataclass(frozen=True, eq=False)
class _Reader:
    """One file's layers: what it calls them (``names``) and has of them (``stored``)."""

    names: FastVitNames
    stored: Stored

    def mobile_one(
        self, place: str, shape: tuple[int, int, int, int], groups: int = 1, skip: bool = True, scale: bool = True
    ) -> Layer:
        """A MobileOne block without its activation: a convolution, with ``scale`` one of single positions where the
        first is not, and with ``skip`` the maps themselves where their channels stay; a BatchNorm behind each."""
        if f"{place}.reparam_conv.weight" in self.stored:
            return convolution(f"{place}.reparam_conv", shape)
        outputs, group, *size = shape
        branches = [_conv_norm(f"{place}.{self.names.branch}", shape)]
        if scale and max(size) > 1:
            branches.append(_conv_norm(f"{place}.{self.names.scale}", (outputs, group, 1, 1)))
        if skip and outputs == group * groups:
            branches.append(normalised(identity(outputs, size, group), f"{place}.{self.names.skip}", outputs))
        return added(*branches)

    def large_kernel(self, place: str, outputs: int) -> Layer:
        """A kernel of 7 x 7 and one of 3 x 3 beside it."""
        if f"{place}.{self.names.large_sum}.weight" in self.stored:
            return convolution(f"{place}.{self.names.large_sum}", (outputs, 1, 7, 7))
        large = _conv_norm(f"{place}.{self.names.large}", (outputs, 1, 7, 7))
        return added(large, _conv_norm(f"{place}.small_conv", (outputs, 1, 3, 3)))

    def mixer(self, place: str, width: int, size: tuple[int, int]) -> Layer:
        """RepMixer: x + layer scale * (MobileOne block of x - BatchNorm of x)."""
        if f"{place}.reparam_conv.weight" in self.stored:
            return convolution(f"{place}.reparam_conv", (width, 1, *size))
        same = identity(width, size)
        # A kernel that is one row high, over a text's tokens, has no branch for a single position.
        mixer = self.mobile_one(f"{place}.mixer", (width, 1, *size), width, scale=size[0] > 1)
        norm = normalised(same, f"{place}.norm.{self.names.skip}", width)
        return added(same, scaled(subtracted(mixer, norm), self.layer_scale(f"{place}.layer_scale"), (width, 1, 1)))

    def position(self, place: str, width: int) -> Layer:
        """Conditional positional encoding: a convolution added to its input."""
        if f"{place}.reparam_conv.weight" in self.stored:
            return convolution(f"{place}.reparam_conv", (width, 1, 7, 7))
        encoded = convolution(f"{place}.{self.names.position}", (width, 1, 7, 7))
        return added(identity(width, (7, 7)), encoded)

    def ffn(self, place: str, width: int, hidden: int, size: tuple[int, int], scale: str) -> dict[str, Layer]:
        """ConvFFN, its layer scale (``scale``) in the last of its layers."""
        source = f"{place}.{self.names.ffn}"
        fc2 = convolution(f"{source}.fc2", (width, hidden, 1, 1))
        return {
            "ffn.conv": _conv_norm(f"{source}.conv", (width, 1, *size)),
            "ffn.fc1": convolution(f"{source}.fc1", (hidden, width, 1, 1)),
            "ffn.fc2": scaled(fc2, self.layer_scale(f"{place}.{scale}"), (width, 1, 1)),
        }

    def layer_scale(self, place: str) -> str:
        return self.names.layer_scale.format(place)


def fastvit_layout(
    config: FastVitConfig, embed_dim: int, names: FastVitNames, stored: Stored, stem_scale: bool = True
) -> ImageLayout:
    """How a file with ``stored`` in it has a FastViT.

    ``stem_scale``: whether the stem's blocks have been trained with a branch for a single position too.
    """
    layers = dict(_layers(config, embed_dim, _Reader(names, stored), stem_scale))
    shapes = {name: shape for layer in layers.values() for name, shape in layer.shapes.items()}
    return ImageLayout(config, shapes, lambda tensors: canonical(layers, tensors), is_batch_count)


def token_mixer_layers(place: str, width: int, hidden: int, stored: Stored) -> dict[str, Layer]:
    """The block of MobileCLIP-S0's text tower at ``place``, which is that of the image tower with kernels over tokens.

    Its perceptron is stored as convolutions of one position.
    """
    reader = _Reader(APPLE, stored)
    ffn = reader.ffn(place, width, hidden, TOKEN_KERNEL, "layer_scale")
    return {
        "mixer": reader.mixer(f"{place}.token_mixer", width, TOKEN_KERNEL),
        "conv": ffn["ffn.conv"],
        "fc1": as_linear(ffn["ffn.fc1"]),
        "fc2": as_linear(ffn["ffn.fc2"]),
    }


def _layers(config: FastVitConfig, embed_dim: int, reader: _Reader, stem_scale: bool) -> Iterator[tuple[str, Layer]]:
    names, first, last = reader.names, config.widths[0], config.widths[-1]
    stem = f"{names.prefix}{names.stem}"
    yield "stem.0", reader.mobile_one(f"{stem}.0", (first, 3, 3, 3), scale=stem_scale)
    yield "stem.1", reader.mobile_one(f"{stem}.1", (first, 1, 3, 3), first, skip=False, scale=stem_scale)
    yield "stem.2", reader.mobile_one(f"{stem}.2", (first, first, 1, 1))
    for index, places in enumerate(_places(config, names)):
        for name, layer in _stage(config, index, places, reader):
            yield f"stages.{index}.{name}", layer
    final = f"{names.prefix}{names.final}"
    yield from _twins("final.conv", reader.mobile_one(final, (2 * last, 1, 3, 3), last))
    yield from _squeeze("final.squeeze", f"{final}.se", names.final_squeeze, 2 * last, 2 * last // 16)
    yield "projection", inputs_halved(_projection(names, 2 * last, embed_dim))


def _places(config: FastVitConfig, names: FastVitNames) -> Iterator[_StagePlaces]:
    """Where the stages are, the first without a downsampling, those that attend with an encoded position."""
    stages, place = len(config.widths), 0
    for index in range(stages):
        if not names.flat:
            stage = f"{names.prefix}stages.{index}"
            yield _StagePlaces(f"{stage}.downsample", f"{stage}.pos_emb", f"{stage}.blocks")
            continue
        parts = [index > 0, index >= stages - config.attention_stages, True]
        downsample, position, blocks = (f"{names.prefix}network.{place + sum(parts[:part])}" for part in range(3))
        yield _StagePlaces(downsample, position, blocks)
        place += sum(parts)


def _stage(config: FastVitConfig, index: int, places: _StagePlaces, reader: _Reader) -> Iterator[tuple[str, Layer]]:
    width, hidden = config.widths[index], config.mlp_ratio * config.widths[index]
    if index:
        source = f"{places.downsample}.proj"
        yield from _twins("downsample.large", reader.large_kernel(f"{source}.0", width))
        if index in config.squeeze_stages:
            yield from _squeeze("downsample.squeeze", f"{source}.0.se", ("fc1", "fc2"), width, width // 4)
        yield "downsample.point", inputs_halved(reader.mobile_one(f"{source}.1", (width, width, 1, 1)))
    attends = index >= len(config.widths) - config.attention_stages
    if attends:
        yield "position", reader.position(places.position, width)
    for block in range(config.depths[index]):
        name, source = f"blocks.{block}", f"{places.blocks}.{block}"
        if attends:
            scale = "layer_scale_2"
            yield f"{name}.attn.qkv", _qkv(source, width, batch=config.norm_eps is None)
            out = convolution(f"{source}.token_mixer.proj", (width, width))
            yield f"{name}.attn.out", scaled(out, reader.layer_scale(f"{source}.layer_scale_1"), (width, 1, 1))
        else:
            scale = "layer_scale"
            yield f"{name}.mixer", reader.mixer(f"{source}.token_mixer", width, (3, 3))
        for part, layer in reader.ffn(source, width, hidden, (7, 7), scale).items():
            yield f"{name}.{part}", layer


def _conv_norm(place: str, shape: Shape) -> Layer:
    return normalised(convolution(f"{place}.conv", shape, bias=False), f"{place}.bn", shape[0])


def _qkv(block: str, width: int, batch: bool) -> Layer:
    """Queries, keys and values with the norm in front of them, the queries with the attention scale."""
    qkv = convolution(f"{block}.token_mixer.qkv", (3 * width, width), bias=False)
    layer = behind_norm(qkv, f"{block}.norm", width, batch)

    def fold(tensors: Tensors) -> Affine:
        weight, bias = layer.fold(tensors)
        scale = torch.ones_like(bias)
        scale[:width] = HEAD_WIDTH**-0.5
        return weight * scale[:, None], bias * scale

    return Layer(layer.shapes, fold)


def _twins(name: str, layer: Layer) -> Iterator[tuple[str, Layer]]:
    """Two kernels for each channel. All first kernels come before all second ones then, and whatever reads or scales
    their maps has to be sorted likewise."""
    yield f"{name}.first", every_second(layer, 0)
    yield f"{name}.second", every_second(layer, 1)


def _squeeze(name: str, source: str, parts: tuple[str, str], width: int, inner: int) -> Iterator[tuple[str, Layer]]:
    """Squeeze-and-excitation behind twin kernels; files have its linear layers as convolutions of one position."""
    fc1, fc2 = parts
    yield f"{name}.fc1", inputs_halved(as_linear(convolution(f"{source}.{fc1}", (inner, width, 1, 1))))
    yield f"{name}.fc2", outputs_halved(as_linear(convolution(f"{source}.{fc2}", (width, inner, 1, 1))))


def _projection(names: FastVitNames, features: int, embed_dim: int) -> Layer:
    """timm's classifier; or a matrix that stands to the right of a product, Apple's."""
    if not names.flat:
        return convolution(f"{names.prefix}head.fc", (embed_dim, features))
    place = f"{names.prefix}head.proj"
    return transposed(place, (features, embed_dim))
