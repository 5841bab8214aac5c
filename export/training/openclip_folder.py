"""A student with a ResNet or one of timm's towers in OpenCLIP's layout: transformers' CLIP knows no such tower.

Its texts are cut into tokens by OpenCLIP's rules, of the teacher's vocabulary
(``clipedge.export.checkpoints.openclip.tokenizer``).
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeAlias

import torch
from safetensors.torch import save

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.configs import ResNetConfig, TextConfig, TracedImageConfig
from clipedge.export.checkpoints.openclip.folder import OPENCLIP_CONFIG, OPENCLIP_WEIGHTS
from clipedge.export.checkpoints.openclip.resnet import PREFIX, stored_resnet
from clipedge.export.checkpoints.openclip.weights import stored_text

__all__ = ["check_openclip", "openclip_files", "openclip_image", "openclip_model_cfg"]

StoredConfig: TypeAlias = ResNetConfig | TracedImageConfig


def openclip_files(student: Checkpoint, image: StoredConfig, text: TextConfig, log_scale: float) -> dict[str, bytes]:
    """The contents of the files that make a model of this layout, by their names, the configuration last."""
    tensors = {
        "logit_scale": torch.tensor(log_scale, dtype=torch.float32),
        **openclip_image(student, image),
        **stored_text(student.text_weights, text.layers),
    }
    document = {"model_cfg": openclip_model_cfg(image, text, student.embed_dim), "preprocess_cfg": _preprocess(student)}
    return {
        OPENCLIP_WEIGHTS: save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}),
        OPENCLIP_CONFIG: (json.dumps(document, indent=2) + "\n").encode(),
    }


def openclip_image(student: Checkpoint, image: StoredConfig) -> dict[str, torch.Tensor]:
    """The image tower's tensors under their names in the file."""
    if isinstance(image, ResNetConfig):
        return stored_resnet(student.image_weights, image)
    return {f"{PREFIX}{name}": weight for name, weight in student.image_weights.items()}


def check_openclip(teacher: Checkpoint, student: str) -> None:
    """Raises CheckpointError for a teacher whose pictures or texts are prepared as this layout does not have it.

    ``student`` is what the user asked for.
    """
    assert isinstance(teacher.text, TextConfig)
    pixels, last = teacher.preprocessing, teacher.text.vocab_size - 1
    if pixels.shortest_edge != pixels.height or pixels.interpolation not in ("bicubic", "bilinear"):
        raise CheckpointError(
            f"--student {student}: it is saved in OpenCLIP's layout, whose pictures are scaled to the size that is cut "
            f"out, bicubic or bilinear; those of {teacher.name} are scaled to {pixels.shortest_edge} pixels, "
            f"{pixels.interpolation}. Name one of the vit- or inherit: students"
        )
    added = sorted(token["id"] for token in json.loads(teacher.tokenizer_json)["added_tokens"])
    if added != [last - 1, last]:
        raise CheckpointError(
            f"--student {student}: it is saved in OpenCLIP's layout, where the special tokens are the last two, "
            f"{last - 1} and {last}; {teacher.name} has {', '.join(map(str, added))}. Name one of the vit- or inherit: "
            "students"
        )


def openclip_model_cfg(image: StoredConfig, text: TextConfig, embed_dim: int) -> dict[str, Any]:
    """What describes both towers in this layout."""
    return {
        "embed_dim": embed_dim,
        "quick_gelu": text.activation == "quick_gelu",
        "vision_cfg": _vision(image),
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
            "mlp_ratio": _ratio(text),
            "norm_kwargs": {"eps": text.eps},
            **({"act_kwargs": {"approximate": "tanh"}} if text.activation == "gelu_tanh" else {}),
            **({} if text.pools_highest_id else {"pool_type": "eos", "eos_id": text.eos_token_id}),
        },
    }


def _vision(image: StoredConfig) -> dict[str, Any]:
    if isinstance(image, TracedImageConfig):
        settings: dict[str, Any] = json.loads(image.settings)["vision_cfg"]
        return settings
    return {
        "image_size": image.image_size,
        "layers": list(image.layers),
        "width": image.width,
        "head_width": image.features // image.heads,
        "patch_size": None,
    }


def _ratio(text: TextConfig) -> float:
    """What gives the perceptrons' width again when it is multiplied and truncated, as OpenCLIP does."""
    ratio = text.mlp_width / text.width
    return ratio if int(text.width * ratio) == text.mlp_width else math.nextafter(ratio, math.inf)


def _preprocess(student: Checkpoint) -> dict[str, Any]:
    pixels = student.preprocessing
    return {
        "size": pixels.height,
        "mean": list(pixels.mean),
        "std": list(pixels.std),
        "interpolation": pixels.interpolation,
        "resize_mode": "squash" if pixels.resize == "squash" else "shortest",
    }
