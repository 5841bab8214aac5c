"""A model's shape from a Hugging Face ``config.json``, read the way transformers reads it.

transformers leaves fields out of ``config.json`` that equal its defaults, so the defaults here are those of its
``CLIPVisionConfig``, ``CLIPTextConfig`` and ``CLIPConfig``, and of their namesakes of SigLIP.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.configs import (
    LEGACY_EOS_TOKEN_ID,
    Activation,
    TextConfig,
    VitConfig,
    VitModelConfig,
)
from clipedge.export.checkpoints.sections import Section, read_json

__all__ = ["read_model_config", "read_model_type", "read_siglip_config"]

# transformers' names.
ACTIVATIONS: Mapping[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def read_model_type(folder: Path) -> object:
    """What ``config.json`` calls the architecture ("clip"), None where it calls it nothing.

    Raises CheckpointError when the file is missing or no JSON.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no config.json; expected a Hugging Face CLIP folder "
            "(config.json, model.safetensors, preprocessor_config.json)"
        )
    return read_json(path).get("model_type")


def read_model_config(folder: Path) -> VitModelConfig:
    """Read the ``config.json`` of a CLIPModel.

    Raises CheckpointError when the file is missing or no JSON, is not CLIP's, or asks for something unsupported.
    """
    model_type, path = read_model_type(folder), folder / "config.json"
    if model_type != "clip":
        raise CheckpointError(
            f"{path}: model_type is {model_type!r}; this version exports 'clip' only "
            "(transformers' CLIPModel: a vision transformer and a text transformer)"
        )
    document = read_json(path)
    return VitModelConfig(
        image=_image_config(Section(path, "vision_config", _tower_section(document, path, "vision_config"))),
        text=_text_config(Section(path, "text_config", _tower_section(document, path, "text_config"))),
        embed_dim=Section(path, "", document).integer("projection_dim", 512),
    )


def read_siglip_config(folder: Path) -> VitModelConfig:
    """Read the ``config.json`` of a SiglipModel.

    Raises CheckpointError when the file is missing or no JSON, is not SigLIP's, or asks for something unsupported.
    """
    model_type, path = read_model_type(folder), folder / "config.json"
    if model_type != "siglip":
        raise CheckpointError(f"{path}: expected the model_type 'siglip', found {model_type!r}")
    document = read_json(path)
    image = _siglip_image_config(Section(path, "vision_config", _tower_section(document, path, "vision_config")))
    text = Section(path, "text_config", _tower_section(document, path, "text_config"))
    text_config = _siglip_text_config(text)
    if text.values.get("projection_size", text_config.width) not in (image.width, None):
        raise text.refuse("projection_size", f"the image tower's hidden_size = {image.width}")
    return VitModelConfig(image, text_config, embed_dim=image.width)


def _siglip_image_config(section: Section) -> VitConfig:
    if not section.flag("vision_use_head", True):
        raise section.refuse("vision_use_head", "true: without its head the model gives no embedding")
    if section.values.get("num_channels", 3) != 3:
        raise section.refuse("num_channels", "3 (red, green, blue)")
    image_size, patch_size = section.integer("image_size", 224), section.integer("patch_size", 16)
    if patch_size > image_size:
        raise section.refuse("patch_size", f"at most image_size = {image_size}")
    width = section.integer("hidden_size", 768)
    heads = _heads(section, width, 12)
    return VitConfig(
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        layers=section.integer("num_hidden_layers", 12),
        heads=heads,
        mlp_width=section.integer("intermediate_size", 3072),
        activation=_activation(section, "gelu_pytorch_tanh"),
        eps=_eps(section, 1e-6),
        norm_pre=False,
        class_token=False,
        pool="map",
        pool_heads=heads,
    )


def _siglip_text_config(section: Section) -> TextConfig:
    width = section.integer("hidden_size", 768)
    return TextConfig(
        vocab_size=section.integer("vocab_size", 32000),
        context_length=section.integer("max_position_embeddings", 64),
        width=width,
        layers=section.integer("num_hidden_layers", 12),
        heads=_heads(section, width, 12),
        mlp_width=section.integer("intermediate_size", 3072),
        activation=_activation(section, "gelu_pytorch_tanh"),
        eps=_eps(section, 1e-6),
        eos_token_id=LEGACY_EOS_TOKEN_ID,  # unused: the last token is pooled
        causal=False,
        pool="last",
        projection_bias=True,
    )


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


def _image_config(section: Section) -> VitConfig:
    image_size, patch_size = section.integer("image_size", 224), section.integer("patch_size", 32)
    if image_size % patch_size:
        raise section.refuse("patch_size", f"a divisor of image_size = {image_size}")
    if section.values.get("num_channels", 3) != 3:
        raise section.refuse("num_channels", "3 (red, green, blue)")
    width = section.integer("hidden_size", 768)
    return VitConfig(
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        layers=section.integer("num_hidden_layers", 12),
        heads=_heads(section, width, 12),
        mlp_width=section.integer("intermediate_size", 3072),
        activation=_activation(section),
        eps=_eps(section),
    )


def _text_config(section: Section) -> TextConfig:
    width = section.integer("hidden_size", 512)
    return TextConfig(
        vocab_size=section.integer("vocab_size", 49408),
        context_length=section.integer("max_position_embeddings", 77),
        width=width,
        layers=section.integer("num_hidden_layers", 12),
        heads=_heads(section, width, 8),
        mlp_width=section.integer("intermediate_size", 2048),
        activation=_activation(section),
        eps=_eps(section),
        eos_token_id=section.integer("eos_token_id", 49407),
    )


def _eps(section: Section, default: float = 1e-5) -> float:
    value = section.values.get("layer_norm_eps", default)
    if type(value) not in (float, int) or not 0 < value < 1:
        raise section.refuse("layer_norm_eps", "a number between 0 and 1")
    return float(value)


def _activation(section: Section, default: str = "quick_gelu") -> Activation:
    value = section.values.get("hidden_act", default)
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise section.refuse("hidden_act", f"an activation this version knows ({' or '.join(ACTIVATIONS)})")
    return ACTIVATIONS[value]


def _heads(section: Section, width: int, default: int) -> int:
    heads = section.integer("num_attention_heads", default)
    if width % heads:
        raise section.refuse("num_attention_heads", f"a divisor of hidden_size = {width}")
    return heads
