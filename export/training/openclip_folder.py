"""A student with a ResNet in OpenCLIP's layout: transformers' CLIP knows no such tower.

Its texts are cut into tokens by OpenCLIP's rules, of the teacher's vocabulary
(``clipedge.export.checkpoints.openclip.tokenizer``).
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from safetensors.torch import save

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.configs import ResNetConfig, TextConfig
from clipedge.export.checkpoints.openclip.folder import OPENCLIP_CONFIG, OPENCLIP_WEIGHTS
from clipedge.export.checkpoints.openclip.resnet import stored_resnet
from clipedge.export.checkpoints.openclip.weights import stored_text

__all__ = ["check_tokenizer", "openclip_files"]


def openclip_files(student: Checkpoint, image: ResNetConfig, text: TextConfig, log_scale: float) -> dict[str, bytes]:
    """The contents of the files that make a model of this layout, by their names, the configuration last."""
    tensors = {
        "logit_scale": torch.tensor(log_scale, dtype=torch.float32),
        **stored_resnet(student.image_weights, image),
        **stored_text(student.text_weights, text.layers),
    }
    document = {"model_cfg": _model(image, text, student.embed_dim), "preprocess_cfg": _preprocess(student)}
    return {
        OPENCLIP_WEIGHTS: save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}),
        OPENCLIP_CONFIG: (json.dumps(document, indent=2) + "\n").encode(),
    }


def check_tokenizer(teacher: Checkpoint) -> None:
    """Raises CheckpointError unless start and end of a text are the last two tokens, as OpenCLIP has them."""
    assert isinstance(teacher.text, TextConfig)
    last = teacher.text.vocab_size - 1
    document = json.loads(teacher.tokenizer_json)
    added = sorted(token["id"] for token in document["added_tokens"])
    if added != [last - 1, last]:
        raise CheckpointError(
            f"{teacher.name}: a ResNet student is saved in OpenCLIP's layout, where the special tokens are the last "
            f"two, {last - 1} and {last}; found {', '.join(map(str, added))}. Name a transformer"
        )


def _model(image: ResNetConfig, text: TextConfig, embed_dim: int) -> dict[str, Any]:
    return {
        "embed_dim": embed_dim,
        "quick_gelu": text.activation == "quick_gelu",
        "vision_cfg": {
            "image_size": image.image_size,
            "layers": list(image.layers),
            "width": image.width,
            "head_width": image.features // image.heads,
            "patch_size": None,
        },
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
