"""The shape of a CLIP model, read from a Hugging Face ``config.json`` the way transformers reads it.

transformers leaves fields out of ``config.json`` that equal its defaults, so the defaults here are those of its
``CLIPVisionConfig``, ``CLIPTextConfig`` and ``CLIPConfig``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clipedge.errors import CheckpointError

__all__ = ["Activation", "ImageConfig", "ModelConfig", "TextConfig", "read_json", "read_model_config"]

Activation = Literal["quick_gelu", "gelu"]

# transformers' names for x * sigmoid(1.702 x), OpenAI's, and for the exact Gaussian error linear unit.
ACTIVATIONS: Mapping[str, Activation] = {"quick_gelu": "quick_gelu", "gelu": "gelu"}

LEGACY_EOS_TOKEN_ID = 2


@dataclass(frozen=True)
class ImageConfig:
    """A vision transformer. Sizes in pixels; pictures and patches are square."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation
    eps: float

    @property
    def tokens(self) -> int:
        """Tokens per picture: the patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class TextConfig:
    """A causal text transformer. ``context_length`` is in tokens."""

    vocab_size: int
    context_length: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation
    eps: float
    eos_token_id: int

    @property
    def pools_highest_id(self) -> bool:
        """Whether a text's embedding is taken where the highest id stands, not at the first ``eos_token_id``.

        Configurations written before transformers' pull request 24773 carry a wrong end-of-text id of 2; for
        those transformers keeps OpenAI's original rule (the end-of-text token is the highest of the vocabulary).
        """
        return self.eos_token_id == LEGACY_EOS_TOKEN_ID


@dataclass(frozen=True)
class ModelConfig:
    """Both towers and the dimension of the space they share."""

    image: ImageConfig
    text: TextConfig
    embed_dim: int


def read_model_config(folder: Path) -> ModelConfig:
    """Read ``folder/config.json``.

    Raises CheckpointError when the file is missing or no JSON, is not CLIP's, or asks for something unsupported.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no config.json; expected a Hugging Face CLIP folder "
            "(config.json, model.safetensors, preprocessor_config.json)"
        )
    document = read_json(path)
    model_type = document.get("model_type")
    if model_type != "clip":
        raise CheckpointError(
            f"{path}: model_type is {model_type!r}; this version exports 'clip' only "
            "(transformers' CLIPModel: a vision transformer and a text transformer)"
        )
    return ModelConfig(
        image=_image_config(_Section(path, "vision_config", _tower_section(document, path, "vision_config"))),
        text=_text_config(_Section(path, "text_config", _tower_section(document, path, "text_config"))),
        embed_dim=_Section(path, "", document).integer("projection_dim", 512),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises CheckpointError when the file cannot be read or holds anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); fetch the checkpoint again") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch the checkpoint again")
    return document


def _tower_section(document: Mapping[str, Any], path: Path, name: str) -> Mapping[str, Any]:
    # Old files carry `vision_config_dict` too. transformers completes it with the defaults and lets the result
    # overwrite `vision_config` field by field, so where it is present it alone counts.
    section = document.get(f"{name}_dict")
    if section is None:
        section = document.get(name)
    if section is None:
        section = {}
    if not isinstance(section, dict):
        raise CheckpointError(f"{path}: {name} must be an object, found {section!r:.60}")
    return section


@dataclass(frozen=True)
class _Section:
    """One object of ``config.json``, with its place for the messages."""

    path: Path
    name: str
    values: Mapping[str, Any]

    def refuse(self, key: str, expected: str) -> CheckpointError:
        place = f"{self.name}.{key}" if self.name else key
        return CheckpointError(f"{self.path}: {place}: expected {expected}, found {self.values.get(key)!r:.60}")

    def integer(self, key: str, default: int) -> int:
        value = self.values.get(key, default)
        # `type(...) is`, not isinstance: true is no size.
        if type(value) is not int or value <= 0:
            raise self.refuse(key, "a positive whole number")
        return value

    def eps(self) -> float:
        value = self.values.get("layer_norm_eps", 1e-5)
        if type(value) not in (float, int) or not 0 < value < 1:
            raise self.refuse("layer_norm_eps", "a number between 0 and 1")
        return float(value)

    def activation(self) -> Activation:
        value = self.values.get("hidden_act", "quick_gelu")
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise self.refuse("hidden_act", f"an activation this version knows ({' or '.join(ACTIVATIONS)})")
        return ACTIVATIONS[value]

    def heads(self, width: int, default: int) -> int:
        heads = self.integer("num_attention_heads", default)
        if width % heads:
            raise self.refuse("num_attention_heads", f"a divisor of hidden_size = {width}")
        return heads


def _image_config(section: _Section) -> ImageConfig:
    image_size, patch_size = section.integer("image_size", 224), section.integer("patch_size", 32)
    if image_size % patch_size:
        raise section.refuse("patch_size", f"a divisor of image_size = {image_size}")
    if section.values.get("num_channels", 3) != 3:
        raise section.refuse("num_channels", "3 (red, green, blue)")
    width = section.integer("hidden_size", 768)
    return ImageConfig(
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        layers=section.integer("num_hidden_layers", 12),
        heads=section.heads(width, 12),
        mlp_width=section.integer("intermediate_size", 3072),
        activation=section.activation(),
        eps=section.eps(),
    )


def _text_config(section: _Section) -> TextConfig:
    width = section.integer("hidden_size", 512)
    return TextConfig(
        vocab_size=section.integer("vocab_size", 49408),
        context_length=section.integer("max_position_embeddings", 77),
        width=width,
        layers=section.integer("num_hidden_layers", 12),
        heads=section.heads(width, 8),
        mlp_width=section.integer("intermediate_size", 2048),
        activation=section.activation(),
        eps=section.eps(),
        eos_token_id=section.integer("eos_token_id", 49407),
    )
