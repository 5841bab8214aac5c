"""SigLIP in OpenCLIP's layout: what only looks like one of timm's towers is refused. (Parity: tests/origin.)"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints import load_checkpoint


@pytest.mark.parametrize(
    ("tower", "change", "message"),
    [
        ("vision_cfg", {"timm_pool": "avg"}, "timm_pool: expected 'map', found 'avg'"),
        ("vision_cfg", {"timm_proj": "linear"}, "timm_proj: expected 'none', found 'linear'"),
        ("vision_cfg", {"image_size": 256}, "image_size: expected 224, that of the timm_model_name, found 256"),
        (None, {"embed_dim": 512}, "embed_dim: expected 768, the width of the image tower, found 512"),
    ],
)
def test_other_varieties_are_refused(tower: str | None, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    vision = {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"}
    model: dict[str, Any] = {"embed_dim": 768, "vision_cfg": {**vision, "image_size": 224}, "text_cfg": {}}
    (model[tower] if tower else model).update(change)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    (tmp_path / "open_clip_model.safetensors").write_bytes(save({}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)
