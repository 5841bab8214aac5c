"""What was recognised in a checkpoint: everything that an export takes from it, for a person and for a program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.configs import (
    AnyTextConfig,
    FastVitConfig,
    ImageConfig,
    ResNetConfig,
    TextConfig,
    TracedImageConfig,
    TracedTextConfig,
    VitConfig,
)
from clipedge.export.checkpoints.licenses import License, find_license
from clipedge.export.towers import build_image_tower, build_text_tower
from clipedge.manifest import Preprocessing

__all__ = ["ModelFacts", "TextFacts", "TowerFacts", "architecture", "description_lines", "model_facts"]

# (width, layers) -> the letter of a vision transformer, as Dosovitskiy et al. (arXiv 2010.11929) and their successors
# (Zhai et al. arXiv 2106.04560, Alabdulmohsin et al. arXiv 2305.13035) use it.
VIT_SIZES: Mapping[tuple[int, int], str] = {
    (192, 12): "Ti",
    (384, 12): "S",
    (768, 12): "B",
    (1024, 24): "L",
    (1152, 27): "SO400M",
    (1280, 32): "H",
    (1408, 40): "g",
    (1664, 48): "bigG",
}
# (width, layers) of the modified ResNets of Radford et al. (arXiv 2103.00020).
RESNETS: Mapping[tuple[int, tuple[int, ...]], str] = {
    (64, (3, 4, 6, 3)): "RN50",
    (64, (3, 4, 23, 3)): "RN101",
    (80, (4, 6, 10, 6)): "RN50x4",
    (96, (6, 8, 18, 8)): "RN50x16",
    (128, (3, 15, 36, 10)): "RN50x64",
}


@dataclass(frozen=True)
class TowerFacts:
    """``parameters`` and ``multiply_adds`` (for one input, of linear layers, convolutions and attention) are those of
    the reference tower: what an inference needs, with branches and BatchNorms folded where a family has them."""

    architecture: str
    parameters: int
    multiply_adds: int
    activation: str | None


@dataclass(frozen=True)
class TextFacts:
    """What a text tower takes. ``pool``: the token that becomes the embedding, "end" of the text or "last". Of a tower
    that another library builds only the length is known, in tokens."""

    context_length: int
    vocab_size: int | None = None
    causal: bool | None = None
    pool: str | None = None


@dataclass(frozen=True)
class ModelFacts:
    """A checkpoint without its weights; the fields mean what they mean in ``Checkpoint``."""

    name: str
    revision: str | None
    layout: str
    license: License
    source_sha256: str
    space_id: str
    embedding_dim: int
    image: TowerFacts
    text: TowerFacts
    text_input: TextFacts
    preprocessing: Preprocessing
    activation: str
    logit_scale: float
    logit_bias: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def model_facts(checkpoint: Checkpoint) -> ModelFacts:
    """Describe a checkpoint. Each tower is run once, to count what it computes."""
    return ModelFacts(
        name=checkpoint.name,
        revision=checkpoint.revision,
        layout=checkpoint.layout,
        license=find_license(checkpoint.license),
        source_sha256=checkpoint.source_sha256,
        space_id=checkpoint.space_id,
        embedding_dim=checkpoint.embed_dim,
        image=_image_facts(checkpoint),
        text=_text_facts(checkpoint),
        text_input=_text_input(checkpoint.text),
        preprocessing=checkpoint.preprocessing,
        activation=checkpoint.activation,
        logit_scale=checkpoint.logit_scale,
        logit_bias=checkpoint.logit_bias,
    )


def _image_facts(checkpoint: Checkpoint) -> TowerFacts:
    config, weights = checkpoint.image, checkpoint.image_weights
    device = _device(config)
    tower = build_image_tower(dataclasses.replace(checkpoint, image_weights=_moved(weights, device)))
    pixels = torch.zeros((1, config.image_size, config.image_size, 3), dtype=torch.uint8, device=device)
    return _tower_facts(config, weights, tower, pixels)


def _text_facts(checkpoint: Checkpoint) -> TowerFacts:
    config, weights = checkpoint.text, checkpoint.text_weights
    device = _device(config)
    tower = build_text_tower(dataclasses.replace(checkpoint, text_weights=_moved(weights, device)))
    input_ids = torch.zeros((1, config.context_length), dtype=torch.int64, device=device)
    return _tower_facts(config, weights, tower, input_ids)


def _device(config: ImageConfig | AnyTextConfig) -> str:
    """Where to count: a canonical tower needs no numbers for it, another library's may look at them."""
    return "cpu" if isinstance(config, (TracedImageConfig, TracedTextConfig)) else "meta"


def _moved(weights: Mapping[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    return {name: weight.to(device) for name, weight in weights.items()}


def _tower_facts(
    config: ImageConfig | AnyTextConfig, weights: Mapping[str, torch.Tensor], tower: nn.Module, inputs: torch.Tensor
) -> TowerFacts:
    # Attention as plain matrix products: the counter does not know every fused form of it.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        tower(inputs)
    return TowerFacts(
        architecture=architecture(config),
        parameters=sum(weight.numel() for weight in weights.values()),
        multiply_adds=counter.get_total_flops() // 2,  # it counts multiplications and additions
        activation=getattr(config, "activation", None),
    )


def _text_input(config: AnyTextConfig) -> TextFacts:
    if isinstance(config, TracedTextConfig):
        return TextFacts(config.context_length)
    return TextFacts(config.context_length, config.vocab_size, config.causal, config.pool)


@singledispatch
def architecture(config: object) -> str:
    """A tower in words: its family's name for it where it has one, else its sizes."""
    sizes = ", ".join(f"{field.name} {getattr(config, field.name)}" for field in dataclasses.fields(config))  # type: ignore[arg-type]
    return f"{type(config).__name__.removesuffix('Config')} ({sizes})"


@architecture.register
def _(config: VitConfig) -> str:
    letter = VIT_SIZES.get((config.width, config.layers))
    if letter:
        name = f"ViT-{letter}/{config.patch_size}"
    else:
        name = f"vision transformer of {config.layers} layers of width {config.width}, patches of {config.patch_size}"
    pooled = "" if config.pool == "class" else ", pooled by attention"
    return f"{name}, {config.image_size} pixels{pooled}"


@architecture.register
def _(config: ResNetConfig) -> str:
    layers = tuple(config.layers)
    name = RESNETS.get((config.width, layers), f"modified ResNet of width {config.width}, blocks {_list(layers)}")
    return f"{name}, {config.image_size} pixels, pooled by attention"


@architecture.register
def _(config: FastVitConfig) -> str:
    return f"FastViT of widths {_list(config.widths)}, blocks {_list(config.depths)}, {config.image_size} pixels"


@architecture.register
def _(config: TextConfig) -> str:
    return f"transformer of {config.layers} layers of width {config.width}"


@architecture.register
def _(config: TracedImageConfig) -> str:
    return f"{config.architecture}, {config.image_size} pixels, built by {config.library}"


@architecture.register
def _(config: TracedTextConfig) -> str:
    return f"{config.architecture}, built by transformers"


def _list(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))


def description_lines(facts: ModelFacts) -> list[str]:
    """The facts as a table for a terminal."""
    pixels = facts.preprocessing
    resize = f"shorter side to {pixels.shortest_edge}, centre" if pixels.resize == "shortest-edge" else "squashed"
    return [
        f"{facts.name}{f'@{facts.revision}' if facts.revision else ''}",
        f"  source            {facts.layout}, SHA-256 of the weights {facts.source_sha256[:16]}…",
        f"  licence           {facts.license}",
        *_tower_lines("image", facts.image),
        *_tower_lines("text", facts.text),
        f"  text              {_text_line(facts.text_input)}",
        f"  picture           {pixels.width} x {pixels.height}, {resize}, {pixels.interpolation}",
        f"  mean, std         {_triple(pixels.mean)}, {_triple(pixels.std)}",
        f"  embedding         {facts.embedding_dim} numbers, space {facts.space_id[:16]}…",
        f"  probabilities     {facts.activation}, scale {facts.logit_scale:.2f}, bias {facts.logit_bias:.2f}",
    ]


def _tower_lines(name: str, tower: TowerFacts) -> list[str]:
    activation = f", {tower.activation}" if tower.activation else ""
    return [
        f"  {f'{name} tower':18}{tower.architecture}{activation}",
        f"  {'':18}{_count(tower.parameters)} parameters, {_count(tower.multiply_adds)} multiply-adds",
    ]


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} G" if number >= 1e9 else f"{number / 1e6:.2f} M"


def _text_line(text: TextFacts) -> str:
    words = [f"{text.context_length} tokens"]
    if text.vocab_size is not None:
        words.append(f"vocabulary of {text.vocab_size}")
    if text.causal is not None:
        words.append(f"each token sees {'those before it' if text.causal else 'all'}")
    if text.pool is not None:
        words.append(f"pooled at {'its end' if text.pool == 'end' else 'the last token'}")
    return ", ".join(words)


def _triple(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
