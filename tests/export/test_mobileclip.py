"""What is refused of MobileCLIP's files and configurations; that the right ones are read right is in
``tests/origin/test_mobileclip.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints import ModelSource, load_checkpoint
from clipedge.export.checkpoints.architectures import architecture_named, preprocessing_named
from clipedge.export.checkpoints.configs import FastVitConfig, VitConfig
from clipedge.export.checkpoints.mobileclip.timm import mobileclip_layout
from clipedge.export.checkpoints.openclip.config import openclip_model


def layout_config(name: str, **changes: Any) -> object:
    document = architecture_named(name)
    document = {**document, "vision_cfg": {**document["vision_cfg"], **changes}}
    return mobileclip_layout(openclip_model(Path("open_clip_config.json"), document), {}).config


@pytest.mark.parametrize("name", ["MobileCLIP-S1", "MobileCLIP2-S0", "MobileCLIP2-S2", "MobileCLIP2-S3"])
def test_a_name_stands_for_a_fastvit(name: str) -> None:
    config = layout_config(name)
    assert isinstance(config, FastVitConfig)
    assert (config.image_size, config.tokens) == (256, 16 if name == "MobileCLIP2-S3" else 64)
    assert layout_config(name, image_size=320).tokens == (25 if name == "MobileCLIP2-S3" else 100)


def test_b_is_a_vision_transformer() -> None:
    config = layout_config("MobileCLIP2-B")
    assert isinstance(config, VitConfig)
    assert (config.tokens, config.conv_stem) == (197, True)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("MobileCLIP2-S0", {"timm_pool": "token"}, 'timm_pool: expected "avg"'),
        ("MobileCLIP-B", {"timm_pool": "avg"}, 'timm_pool: expected "token"'),
        ("MobileCLIP2-S0", {"timm_proj": "linear"}, "timm_proj: expected null"),
        ("MobileCLIP2-S0", {"image_size": 250}, "image_size: expected a multiple of 32"),
        ("MobileCLIP2-S3", {"image_size": 288}, "image_size: expected a multiple of 64"),
        ("MobileCLIP-B", {"image_size": 256}, "image_size: expected 224"),
    ],
)
def test_other_heads_and_sizes_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        layout_config(name, **changes)


def test_pictures_are_prepared_as_open_clip_does() -> None:
    assert preprocessing_named("MobileCLIP2-S0") == {"mean": 0.0, "std": 1.0, "interpolation": "bilinear"}
    assert preprocessing_named("MobileCLIP2-S4") == {"interpolation": "bilinear"}
    assert preprocessing_named("ViT-B-32") == {}


@pytest.fixture
def apple_file(tmp_path: Path) -> Path:
    """A file with one tensor under Apple's names."""
    path = tmp_path / "mobileclip.pt"
    torch.save({"image_encoder.model.patch_embed.0.rbr_conv.0.conv.weight": torch.zeros(64, 3, 3, 3)}, path)
    return path


def test_apples_files_need_one_of_apples_names(apple_file: Path) -> None:
    with pytest.raises(UsageError, match="--arch MobileCLIP-S1 is none; pass mobileclip_s0, "):
        load_checkpoint(ModelSource(str(apple_file), arch="MobileCLIP-S1"))


def test_apples_files_name_what_they_lack(apple_file: Path) -> None:
    with pytest.raises(CheckpointError, match="has not the tensors of any of mobileclip_s0, "):
        load_checkpoint(apple_file)
    with pytest.raises(CheckpointError, match=r"lack image_encoder\.model\.conv_exp\.rbr_conv\.0\.bn\.bias"):
        load_checkpoint(ModelSource(str(apple_file), arch="mobileclip_s2"))
