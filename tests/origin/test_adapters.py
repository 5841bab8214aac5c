"""Adapters that peft trained, merged here, against transformers' model that peft merged them into."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clipedge.export.checkpoints import load_checkpoint
from clipedge.export.towers import build_image_tower, build_text_tower

LINEAR = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "visual_projection", "text_projection"]
ADAPTERS: dict[str, dict[str, dict[str, Any]]] = {
    "clip": {
        "attention": {"r": 4, "lora_alpha": 10, "target_modules": ["q_proj", "v_proj"]},
        "rank-stabilised": {"r": 4, "lora_alpha": 3, "use_rslora": True, "target_modules": LINEAR},
        "patterns": {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "fc1"],
            "rank_pattern": {"q_proj": 6, r"vision_model.*fc1": 3},
            "alpha_pattern": {"text_model.encoder.layers.0.self_attn.q_proj": 32, "layers.1.mlp.fc1": 2},
        },
        "embeddings": {
            "r": 2,
            "lora_alpha": 8,
            "target_modules": ["token_embedding", "patch_embedding"],
            "modules_to_save": ["visual_projection"],
        },
    },
    "siglip": {"sigmoid": {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "fc1", "fc2"]}},
}
PARITY = 1e-5


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, origin_python: Path) -> Path:
    """The folder that ``adapter_worker.py`` filled, with ``pixels.npy`` (4, 24, 24, 3) uint8 beside it."""
    job = tmp_path_factory.mktemp("adapters")
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)
    np.save(job / "pixels.npy", pixels)
    input_ids = torch.from_numpy(generator.integers(1, 58, (4, 12)))
    input_ids[:, -1] = 59
    clip = (np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711]))
    for family, (mean, std) in {"clip": clip, "siglip": (np.full(3, 0.5), np.full(3, 0.5))}.items():
        values = torch.from_numpy((pixels / 255 - mean) / std).float().permute(0, 3, 1, 2).contiguous()
        save_file({"pixel_values": values, "input_ids": input_ids}, job / f"{family}.safetensors")
    (job / "job.json").write_text(json.dumps(ADAPTERS))
    command = [str(origin_python), str(Path(__file__).with_name("adapter_worker.py")), str(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return job


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, adapters in ADAPTERS.items() for name in adapters]
)
def test_a_merged_adapter_gives_what_peft_gives(adapters: Path, family: str, name: str) -> None:
    checkpoint, base = load_checkpoint(adapters / name), load_checkpoint(adapters / family)
    expected, inputs = load_file(adapters / f"{name}.safetensors"), load_file(adapters / f"{family}.safetensors")
    pixels = torch.from_numpy(np.load(adapters / "pixels.npy"))
    assert checkpoint.name == name
    assert checkpoint.layout == f"Hugging Face folder ({family}), an adapter merged into it"
    assert len({checkpoint.space_id, base.space_id}) == len({checkpoint.source_sha256, base.source_sha256}) == 2
    for found, embeds in (
        (build_image_tower(checkpoint)(pixels), expected["image_embeds"]),
        (build_text_tower(checkpoint)(inputs["input_ids"]), expected["text_embeds"]),
    ):
        assert (found - embeds).abs().max() < PARITY
    changed = (build_image_tower(base)(pixels) - expected["image_embeds"]).abs().max()
    assert changed > 100 * PARITY, "the adapter matters"
