"""Hugging Face CLIP folders with seeded random weights, written by transformers itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

# ViT-B/32 of the CLIP paper; B/16 differs in the patch size alone.
VIT_B_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "eos_token_id": 49407,
}
VIT_B_IMAGE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
}

TINY_TEXT = {
    "hidden_size": 24,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 12,
    "vocab_size": 60,
    "bos_token_id": 58,
    "eos_token_id": 59,
    "pad_token_id": 0,
}
TINY_IMAGE = {
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 8,
}

MakeClip = Callable[..., Path]


def write_clip_folder(
    folder: Path, text: dict[str, Any], image: dict[str, Any], projection_dim: int = 20, seed: int = 0
) -> Path:
    """Save a CLIPModel with random weights, and CLIP's preprocessing, the way transformers does."""
    config = CLIPConfig(text_config=text, vision_config=image, projection_dim=projection_dim)
    with torch.device("meta"):
        model = CLIPModel(config)
    model.to_empty(device="cpu")
    randomise(model, seed)
    model.save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": image["image_size"]},
        "crop_size": {"height": image["image_size"], "width": image["image_size"]},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def randomise(model: CLIPModel, seed: int) -> None:
    """Fill every weight so that nothing is neutral and activations keep their size through the layers.

    transformers' own initialisation would hide faults: its biases are zero, its gains one, and its weights so
    small that all pictures get nearly the same embedding.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.state_dict().items():
        noise = torch.randn(weight.shape, generator=generator)
        if name == "logit_scale":
            noise = torch.tensor(math.log(60.0))
        elif name.endswith("bias"):
            noise *= 0.1
        elif "norm" in name:
            noise = 1 + 0.3 * noise
        elif "embedding" not in name or "patch" in name:
            noise /= math.sqrt(math.prod(weight.shape[1:]))
        weight.copy_(noise)


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """Write a tiny CLIP; ``text`` and ``image`` change fields of its configuration."""

    def make(text: dict[str, Any] | None = None, image: dict[str, Any] | None = None, **changes: Any) -> Path:
        folder = tmp_path / f"clip{len(list(tmp_path.iterdir()))}"
        return write_clip_folder(folder, TINY_TEXT | (text or {}), TINY_IMAGE | (image or {}), **changes)

    return make
