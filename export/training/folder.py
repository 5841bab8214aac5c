"""A student as a folder that export reads as any other: in Hugging Face's CLIP layout, which transformers reads too, or
with a ResNet or one of timm's towers in OpenCLIP's (``openclip_folder.py``)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.configs import ResNetConfig, TextConfig, TracedImageConfig, VitConfig
from clipedge.export.checkpoints.huggingface.clip import image_tensors, text_tensors
from clipedge.export.checkpoints.huggingface.config import ACTIVATIONS
from clipedge.export.checkpoints.huggingface.preprocessing import processor_config
from clipedge.export.checkpoints.tensors import WEIGHTS_FILE
from clipedge.export.training.openclip_folder import openclip_files
from clipedge.whole import write_whole

__all__ = ["write_student"]

CONFIG_NAME = "config.json"


def write_student(student: Checkpoint, folder: Path, log_scale: float, story: str) -> None:
    """Write a student: weights in float32, configuration, tokenizer, preprocessing, and a model card that tells its
    ``story`` (Markdown). ``log_scale`` is the logarithm of its logit scale.

    Each file is written as a whole, the weights and then the configuration last: with that a folder is a model.
    """
    image, text = student.image, student.text
    assert isinstance(text, TextConfig)
    if isinstance(image, (ResNetConfig, TracedImageConfig)):
        files, library = openclip_files(student, image, text, log_scale), "open_clip"
    else:
        assert isinstance(image, VitConfig)
        files, library = _clip_files(student, image, text, log_scale), "transformers"
    card = _model_card(student, library, story).encode("utf-8", "backslashreplace")
    for name, data in ({"tokenizer.json": student.tokenizer_json, "README.md": card} | files).items():
        write_whole(folder / name, data)


def _clip_files(student: Checkpoint, image: VitConfig, text: TextConfig, log_scale: float) -> dict[str, bytes]:
    tokenizer = json.loads(student.tokenizer_json)
    return {
        "tokenizer_config.json": _json(_tokenizer_config(tokenizer, text.context_length)),
        "preprocessor_config.json": _json(processor_config(student.preprocessing)),
        WEIGHTS_FILE: save(_named_weights(student, image, text, log_scale), {"format": "pt"}),
        CONFIG_NAME: _json(_config(image, text, student.embed_dim, tokenizer)),
    }


def _named_weights(
    student: Checkpoint, image: VitConfig, text: TextConfig, log_scale: float
) -> dict[str, torch.Tensor]:
    """All tensors under their names in the file."""
    tensors = {"logit_scale": torch.tensor(log_scale, dtype=torch.float32)}
    for expected, weights in (
        (image_tensors(image, student.embed_dim), student.image_weights),
        (text_tensors(text, student.embed_dim), student.text_weights),
    ):
        tensors |= {entry.source: weights[name].detach().contiguous() for name, entry in expected.items()}
    return tensors


def _config(image: VitConfig, text: TextConfig, embed_dim: int, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    tokens = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    padding = tokenizer["padding"]["pad_id"]
    start = next((number for name, number in tokens.items() if "start" in name), text.eos_token_id)
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": embed_dim,
        "logit_scale_init_value": math.log(1 / 0.07),
        "vision_config": {
            **_tower_config(image, "clip_vision_model", embed_dim),
            "image_size": image.image_size,
            "patch_size": image.patch_size,
            "num_channels": 3,
        },
        "text_config": {
            **_tower_config(text, "clip_text_model", embed_dim),
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "bos_token_id": start,
            "eos_token_id": text.eos_token_id,
            "pad_token_id": padding,
        },
    }


def _tower_config(config: VitConfig | TextConfig, model_type: str, embed_dim: int) -> dict[str, Any]:
    names = {activation: name for name, activation in ACTIVATIONS.items()}
    return {
        "model_type": model_type,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "hidden_act": names[config.activation],
        "layer_norm_eps": config.eps,
        "projection_dim": embed_dim,
    }


def _tokenizer_config(tokenizer: Mapping[str, Any], context: int) -> dict[str, Any]:
    pad = tokenizer["padding"]["pad_token"]
    return {"tokenizer_class": "CLIPTokenizer", "model_max_length": context, "pad_token": pad, "do_lower_case": True}


def _model_card(student: Checkpoint, library: str, story: str) -> str:
    license = "" if student.license is None else f"license: {_license_lines(student.license)}\n"
    return f"---\n{license}base_model: {json.dumps(student.pinned_name)}\nlibrary_name: {library}\n---\n\n{story}"


def _license_lines(license: str) -> str:
    """As the hub has it: a name of its list, or "other" with the name and the link that stood in brackets."""
    name, _, link = license.partition(" (")
    return f"other\nlicense_name: {name}\nlicense_link: {link.removesuffix(')')}" if link else name


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
