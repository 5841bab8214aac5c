"""A CLIP model as it was trained: what every kind of source is read into."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.configs import AnyTextConfig, ImageConfig, ModelConfig
from clipedge.manifest import Preprocessing

__all__ = ["Checkpoint", "ModelSource", "UnsupportedArchitectureError", "exp_logit_scale", "space_id"]


class UnsupportedArchitectureError(CheckpointError):
    """A sound checkpoint that no reader here knows; the library that the model comes from may know it."""


@dataclass(frozen=True)
class ModelSource:
    """What a user named: a folder, a file or a model on a hub, and what a file of weights alone does not say.

    ``arch``: the name of its architecture, for a bare state dict. ``tokenizer``: a file or folder with its tokenizer.
    ``revision``: a branch, tag or commit on the hub. ``adapter``: the folder of an adapter that is merged into it.
    """

    model: str
    arch: str | None = None
    tokenizer: str | None = None
    revision: str | None = None
    adapter: str | None = None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A CLIP model as it was trained.

    Weights are float32 under the towers' own parameter names (``clipedge.export.towers``). An image and a text
    match with probability ``activation(logit_scale * cosine + logit_bias)``. ``license`` is what the model card
    says (``clipedge.export.checkpoints.licenses``), None where it says nothing. ``source_sha256`` is the hash of the
    weights file, ``space_id`` that of the embedding space (see ``space_id``); both in hex. ``read_tokenizer`` gives the
    bytes of a tokenizer.json that cuts and pads to the context length. ``layout`` tells in words what was read,
    ``revision`` the commit of a model on a hub.
    """

    name: str
    source: ModelSource
    image: ImageConfig
    text: AnyTextConfig
    embed_dim: int
    image_weights: Mapping[str, torch.Tensor]
    text_weights: Mapping[str, torch.Tensor]
    logit_scale: float
    logit_bias: float
    activation: Literal["softmax", "sigmoid"]
    preprocessing: Preprocessing
    license: str | None
    source_sha256: str
    space_id: str
    read_tokenizer: Callable[[], bytes]
    layout: str = ""
    revision: str | None = None

    @property
    def pinned_name(self) -> str:
        """The name, with the commit where there is one: what finds exactly this model again."""
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @cached_property
    def tokenizer_json(self) -> bytes:
        """The tokenizer, made to cut and pad to the context length; read when asked for, since an image tower
        needs none. Raises CheckpointError when it is missing or damaged."""
        return self.read_tokenizer()


def exp_logit_scale(place: Path, stored: float) -> float:
    """The factor itself; CLIP trains its logarithm and keeps it below log(100)."""
    if stored > 20:
        raise CheckpointError(
            f"{place}: logit_scale is {stored:.1f}, a logarithm; expected about 4.6 (a factor of 100) at most"
        )
    return math.exp(stored)


def space_id(
    config: ModelConfig, image_weights: Mapping[str, torch.Tensor], text_weights: Mapping[str, torch.Tensor]
) -> str:
    """Name the embedding space: SHA-256 over what determines both towers' outputs.

    Hashed in this order: a JSON header (both configurations without the fields that have their default, that is
    sizes, heads, activation, epsilon and end-of-text rule, and the embedding dimension), then for the image and the
    text tower every tensor by canonical name: name, shape, and the values as little-endian float32. Not part of it:
    how the weights are stored (the kind of checkpoint, sharding, fp16 files holding the same values), the logit
    scale, and the preprocessing, so a prompt bank outlives a corrected ``preprocessor_config.json``.
    """
    header = {
        "format": "clipedge-space-1",
        "image": _fields(config.image),
        "text": _fields(config.text),
        "embed_dim": config.embed_dim,
    }
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + b"\n")
    for tower, weights in (("image", image_weights), ("text", text_weights)):
        for name in sorted(weights):
            tensor = weights[name]
            digest.update(f"{tower}.{name} {list(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()


def _fields(config: ImageConfig | AnyTextConfig) -> dict[str, Any]:
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    }
