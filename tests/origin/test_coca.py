"""CoCa's towers against open_clip: attentional pooling, and the class token behind the text."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from clipedge.errors import CheckpointError
from clipedge.export import export
from clipedge.export.checkpoints import load_checkpoint
from clipedge.text import Tokenizer, TruncatedTextWarning

AskOrigin = Callable[..., Path]

TINY: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"layers": 2, "width": 128, "image_size": 64, "attentional_pool": True, "attn_pooler_heads": 4},
    "text_cfg": {"layers": 2, "width": 64, "heads": 2, "embed_cls": True},
    "multimodal_cfg": {"layers": 1, "width": 64, "heads": 2},
}
# A pad inside a text: "!" in the middle of a word has its id.
TEXTS = ["a photo of a cat", "", "!?!?! wow", "word " * 200, "x" * 400]


@pytest.mark.parametrize("width", [128, 64], ids=["narrower pooler", "one matrix for the pooler"])
def test_towers_are_open_clips(width: int, ask_origin: AskOrigin, assert_as_origin: Any, tmp_path: Path) -> None:
    changes = TINY | {"vision_cfg": TINY["vision_cfg"] | {"width": width}}
    folder = ask_origin("coca_ViT-B-32", changes=changes, texts=TEXTS)
    checkpoint = load_checkpoint(folder)
    assert_as_origin(checkpoint, folder, tmp_path)
    tokenizer = Tokenizer.from_file(checkpoint.tokenizer_json, checkpoint.text.context_length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        np.testing.assert_array_equal(tokenizer(TEXTS), load_file(folder / "origin.safetensors")["input_ids"])


@pytest.mark.slow
def test_the_real_configuration(ask_origin: AskOrigin, assert_as_origin: Any, tmp_path: Path) -> None:
    shallow = {"layers": 2}
    changes = {"vision_cfg": shallow, "text_cfg": shallow, "multimodal_cfg": {"layers": 1}}
    folder = ask_origin("coca_ViT-B-32", changes=changes)
    assert_as_origin(load_checkpoint(folder), folder, tmp_path)


@pytest.mark.slow
def test_int8_passes_its_proof(ask_origin: AskOrigin, tmp_path: Path) -> None:
    assert export(ask_origin("coca_ViT-B-32", changes=TINY), tmp_path / "bundle", calibration_data="scenes").passed


@pytest.mark.parametrize(
    ("tower", "change", "message"),
    [
        ("vision_cfg", {"attentional_pool": "parallel"}, "attentional_pool: expected False or True, found 'parallel'"),
        ("vision_cfg", {"attn_pooler_heads": 7}, "attn_pooler_heads: expected a divisor of embed_dim = 64"),
        ("text_cfg", {"pad_id": 1}, "pad_id: expected 0 beside embed_cls, found 1"),
    ],
)
def test_other_varieties_are_refused(tower: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    document = {"model_cfg": TINY | {tower: TINY[tower] | change}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    (tmp_path / "open_clip_model.safetensors").write_bytes(save({}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)
