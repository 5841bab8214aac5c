"""Apple's own MobileCLIP files, ``mobileclip_s0.pt`` and so on (https://github.com/apple/ml-mobileclip).

Bare state dicts: ``image_encoder.*``, ``text_encoder.*`` and ``logit_scale``. Dimensions are those of Apple's
``mobileclip/configs``; pictures are resized bilinearly, cut and neither shifted nor scaled, texts tokenized as
OpenCLIP does. MobileCLIP2 comes in OpenCLIP's layout only (``clipedge.export.checkpoints.mobileclip.timm``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints.checkpoint import Checkpoint, ModelSource, exp_logit_scale, space_id
from clipedge.export.checkpoints.configs import (
    LEGACY_EOS_TOKEN_ID,
    FastVitConfig,
    ModelConfig,
    TextConfig,
    VitConfig,
)
from clipedge.export.checkpoints.layouts import ImageLayout, TextLayout
from clipedge.export.checkpoints.licenses import read_license
from clipedge.export.checkpoints.mobileclip.fastvit import APPLE, fastvit_layout, token_mixer_layers
from clipedge.export.checkpoints.mobileclip.fused_blocks import (
    APPLE_BLOCK,
    affine,
    canonical_block,
    fused_block_shapes,
    renamed,
)
from clipedge.export.checkpoints.mobileclip.reparam import Layer, canonical
from clipedge.export.checkpoints.mobileclip.timm import CONV_STEM_VIT, FASTVITS
from clipedge.export.checkpoints.mobileclip.vit import APPLE_VIT, conv_stem_vit_layout
from clipedge.export.checkpoints.openclip.config import openclip_model
from clipedge.export.checkpoints.openclip.preprocessing import read_openclip_preprocessing
from clipedge.export.checkpoints.openclip.resnet import is_batch_count
from clipedge.export.checkpoints.openclip.tokenizer import read_openclip_tokenizer
from clipedge.export.checkpoints.tensors import Shape, Stored, hash_files, read_tensors

__all__ = ["MOBILECLIP_ARCHITECTURES", "is_apple", "read_apple_file"]

EMBED_DIM = 512
TEXT = "text_encoder."
PREPROCESS = {"mean": 0.0, "std": 1.0, "interpolation": "bilinear"}

# What Apple's repository says of all its models since the release of MobileCLIP2, whatever came with a file before.
# There is nothing to train a model in this layout with, so a file in it is one of Apple's or made of one.
LICENSE = "apple-amlr"


def _text(causal: bool, layers: int = 12, mixers: bool = False) -> TextConfig:
    return TextConfig(
        vocab_size=49408,
        context_length=77,
        width=512,
        layers=layers,
        heads=8,
        mlp_width=2048,
        activation="gelu",
        eps=1e-5,
        eos_token_id=LEGACY_EOS_TOKEN_ID,
        causal=causal,
        mixers=mixers,
    )


@dataclass(frozen=True)
class _Architecture:
    image: FastVitConfig | VitConfig
    text: TextConfig


MOBILECLIP_ARCHITECTURES: Mapping[str, _Architecture] = {
    "mobileclip_s0": _Architecture(FASTVITS["fastvit_mci0"], _text(causal=False, layers=4, mixers=True)),
    "mobileclip_s1": _Architecture(FASTVITS["fastvit_mci1"], _text(causal=False)),
    "mobileclip_s2": _Architecture(FASTVITS["fastvit_mci2"], _text(causal=False)),
    "mobileclip_b": _Architecture(replace(CONV_STEM_VIT, eps=1e-5, projection_bias=False), _text(causal=True)),
}


def is_apple(stored: Stored) -> bool:
    """Whether a file is in Apple's layout."""
    return any(name.startswith("image_encoder.model.") for name in stored)


def read_apple_file(path: Path, source: ModelSource, stored: Stored) -> Checkpoint:
    """Read the file ``path`` with ``stored`` in it. Without ``source.arch`` its tensors tell the architecture.

    The tokenizer is ``source.tokenizer``, else looked for beside the file. Raises UsageError for an unknown ``arch``,
    CheckpointError where the file does not belong to it or is damaged.
    """
    image, text = _layouts(_architecture(path, source.arch, stored), stored)
    shapes = {**image.shapes, **text.shapes, "logit_scale": ()}
    tensors = read_tensors(stored, shapes, path, is_batch_count)
    config = ModelConfig(image.config, text.config, EMBED_DIM)
    image_weights, text_weights = image.canonical(tensors), text.canonical(tensors)
    sizes = {"context_length": text.config.context_length, "vocab_size": text.config.vocab_size}
    model = openclip_model(path, {"embed_dim": EMBED_DIM, "vision_cfg": {}, "text_cfg": sizes})
    return Checkpoint(
        name=path.stem,
        source=source,
        image=config.image,
        text=config.text,
        embed_dim=EMBED_DIM,
        image_weights=image_weights,
        text_weights=text_weights,
        logit_scale=exp_logit_scale(path, float(tensors["logit_scale"])),
        logit_bias=0.0,
        activation="softmax",
        preprocessing=read_openclip_preprocessing(path, PREPROCESS, image.config.image_size),
        license=read_license(path.parent) or LICENSE,
        source_sha256=hash_files([path]),
        space_id=space_id(config, image_weights, text_weights),
        read_tokenizer=lambda: read_openclip_tokenizer(
            model, Path(source.tokenizer) if source.tokenizer else path.parent
        ),
    )


def _architecture(path: Path, arch: str | None, stored: Stored) -> _Architecture:
    names = ", ".join(MOBILECLIP_ARCHITECTURES)
    if arch is not None:
        if arch not in MOBILECLIP_ARCHITECTURES:
            raise UsageError(f"{path} is in Apple's layout of MobileCLIP, of which --arch {arch} is none; pass {names}")
        return MOBILECLIP_ARCHITECTURES[arch]
    found = {name: stored[name].shape for name in stored}
    for architecture in MOBILECLIP_ARCHITECTURES.values():
        image, text = _layouts(architecture, stored)
        if {**image.shapes, **text.shapes}.items() <= found.items():
            return architecture
    raise CheckpointError(
        f"{path} is in Apple's layout of MobileCLIP, but has not the tensors of any of {names}; pass one of them with "
        "--arch to see what differs"
    )


def _layouts(architecture: _Architecture, stored: Stored) -> tuple[ImageLayout, TextLayout]:
    text = _text_layout(architecture.text, stored)
    if isinstance(architecture.image, VitConfig):
        return conv_stem_vit_layout(architecture.image, EMBED_DIM, APPLE_VIT), text
    return fastvit_layout(architecture.image, EMBED_DIM, APPLE, stored), text


def _text_layout(config: TextConfig, stored: Stored) -> TextLayout:
    """Blocks are numbered through, the first and the last being the token mixers where there are some."""
    width, position = config.width, f"{TEXT}positional_embedding.pos_embed.pos_embed"
    first, last = int(config.mixers), config.layers + int(config.mixers)
    blocks = [f"{TEXT}transformer.{index}" for index in range(first, last)]
    mixers = _mixers(config, stored)
    shapes: dict[str, Shape] = {
        f"{TEXT}embedding_layer.weight": (config.vocab_size, width),
        position: (1, 1, config.context_length, width),
        **{name: shape for layer in mixers.values() for name, shape in layer.shapes.items()},
        **{name: shape for block in blocks for name, shape in fused_block_shapes(block, APPLE_BLOCK, config).items()},
        **affine(f"{TEXT}final_layer_norm", (width,)),
        f"{TEXT}projection_layer": (width, EMBED_DIM),
    }

    def canonical_text(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights = {
            "embedding.token": tensors[f"{TEXT}embedding_layer.weight"],
            "embedding.position": tensors[position].reshape(config.context_length, width),
            **canonical(mixers, tensors),
            **renamed(tensors, "norm_post", f"{TEXT}final_layer_norm"),
            "projection.weight": tensors[f"{TEXT}projection_layer"].T.contiguous(),
        }
        for index, block in enumerate(blocks):
            weights |= canonical_block(f"blocks.{index}", tensors, block, APPLE_BLOCK)
        return weights

    return TextLayout(config, shapes, canonical_text, is_batch_count)


def _mixers(config: TextConfig, stored: Stored) -> dict[str, Layer]:
    """The layers of the token mixers, by their names in the tower."""
    if not config.mixers:
        return {}
    layers: dict[str, Layer] = {}
    for mixer, index in enumerate((0, config.layers + 1)):
        place = f"{TEXT}transformer.{index}"
        for name, layer in token_mixer_layers(place, config.width, config.mlp_width, stored).items():
            layers[f"mixers.{mixer}.{name}"] = layer
    return layers
