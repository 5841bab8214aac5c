"""Where weights come from: a Hugging Face CLIP folder, read without transformers.

Expected in the folder: ``config.json``, ``model.safetensors`` (or its shards and their index),
``preprocessor_config.json``, for the text tower ``tokenizer.json``, and for the licence a model card ``README.md``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from clipedge.errors import CheckpointError
from clipedge.export.configs import ImageConfig, ModelConfig, TextConfig, read_model_config
from clipedge.export.preprocessing import read_preprocessing
from clipedge.export.tokenizer import load_tokenizer_json, read_pad_token
from clipedge.export.weights import find_weight_files, hash_files, read_weights
from clipedge.manifest import Preprocessing
from clipedge.text import bake_tokenizer

__all__ = ["DEMO_CHECKPOINT", "Checkpoint", "load_checkpoint"]

DEMO_CHECKPOINT = Path(__file__).parent / "demo"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A CLIP model as it was trained.

    Weights are float32 under the towers' own parameter names (``clipedge.export.towers``). An image and a text
    match with probability ``activation(logit_scale * cosine + logit_bias)``. ``license`` is what the model card
    says, None where it says nothing. ``source_sha256`` is the hash of the weights file, ``space_id`` that of the
    embedding space (see ``_space_id``); both in hex.
    """

    name: str
    folder: Path
    image: ImageConfig
    text: TextConfig
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

    @cached_property
    def tokenizer_json(self) -> bytes:
        """The tokenizer, made to cut and pad to the context length; read when asked for, since an image tower
        needs none. Raises CheckpointError when it is missing or damaged."""
        return bake_tokenizer(load_tokenizer_json(self.folder), self.text.context_length, read_pad_token(self.folder))


def load_checkpoint(model: str | os.PathLike[str]) -> Checkpoint:
    """Load a Hugging Face CLIP folder (``model_type`` "clip", weights in safetensors).

    Dimensions, activation, epsilon and the end-of-text rule are read from the checkpoint. Raises CheckpointError
    when the folder is missing, damaged, or of an architecture or preprocessing that is not supported.
    """
    folder = _checkpoint_folder(model)
    config = read_model_config(folder)
    preprocessing = read_preprocessing(folder, config.image.image_size)
    files = find_weight_files(folder)
    weights = read_weights(files, config)
    return Checkpoint(
        name=folder.name,
        folder=folder,
        image=config.image,
        text=config.text,
        embed_dim=config.embed_dim,
        image_weights=weights.image,
        text_weights=weights.text,
        logit_scale=_logit_scale(folder, weights.logit_scale),
        logit_bias=0.0,
        activation="softmax",
        preprocessing=preprocessing,
        license=_read_license(folder),
        source_sha256=hash_files(files),
        space_id=_space_id(config, weights.image, weights.text),
    )


def _logit_scale(folder: Path, stored: float) -> float:
    """The factor itself; CLIP trains its logarithm and keeps it below log(100)."""
    if stored > 20:
        raise CheckpointError(
            f"{folder}: logit_scale is {stored:.1f}, a logarithm; expected about 4.6 (a factor of 100) at most"
        )
    return math.exp(stored)


def _checkpoint_folder(model: str | os.PathLike[str]) -> Path:
    folder = Path(model)
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise CheckpointError(
            f"{folder} is a file; expected a Hugging Face CLIP folder (config.json, model.safetensors)"
        )
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(model)):
        raise CheckpointError(
            f"there is no folder {folder}; if {folder} is a model on a hub: this version downloads none, "
            "so fetch it and pass the local folder"
        )
    raise CheckpointError(f"there is no folder {folder}; expected the path of a Hugging Face CLIP folder")


def _read_license(folder: Path) -> str | None:
    """The ``license`` of the model card's front matter (the YAML between the first two lines of dashes)."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    front_matter = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
    found = front_matter and re.search(r"^license:[ \t]*[\"']?([^\"'\s#]+)", front_matter[1], re.MULTILINE)
    return found[1] if found else None


def _space_id(
    config: ModelConfig, image_weights: Mapping[str, torch.Tensor], text_weights: Mapping[str, torch.Tensor]
) -> str:
    """Name the embedding space: SHA-256 over what determines both towers' outputs.

    Hashed in this order: a JSON header (both configurations, that is sizes, heads, activation, epsilon and
    end-of-text rule, and the embedding dimension), then for the image and the text tower every tensor by
    canonical name: name, shape, and the values as little-endian float32. Not part of it: how the weights are
    stored (sharding, fp16 files holding the same values), the logit scale, and the preprocessing, so a prompt
    bank outlives a corrected ``preprocessor_config.json``.
    """
    header = {"format": "clipedge-space-1", **dataclasses.asdict(config)}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + b"\n")
    for tower, weights in (("image", image_weights), ("text", text_weights)):
        for name in sorted(weights):
            tensor = weights[name]
            digest.update(f"{tower}.{name} {list(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()
