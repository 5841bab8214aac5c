"""CoCa's towers against open_clip: attentional pooling, and the class token behind the text."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from clipedge.calibration import scenes
from clipedge.export import export
from clipedge.export.checkpoints import Checkpoint, load_checkpoint
from clipedge.text import Tokenizer, TruncatedTextWarning

AskOrigin = Callable[..., Path]
AssertAsOrigin = Callable[[Checkpoint, Path, Path], None]

# With towers of the embedding's width, for which the pooler's matrices are stored as one.
TINY: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"layers": 2, "width": 64, "image_size": 64, "attentional_pool": True, "attn_pooler_heads": 4},
    "text_cfg": {"layers": 2, "width": 64, "heads": 2, "embed_cls": True},
    "multimodal_cfg": {"layers": 1, "width": 64, "heads": 2},
}
# A pad inside a text: "!" in the middle of a word has its id.
TEXTS = ["a photo of a cat", "", "!?!?! wow", "word " * 200, "x" * 400]


@pytest.fixture(scope="module")
def tiny(ask_origin: AskOrigin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ask_origin(tmp_path_factory.mktemp("coca"), "coca_ViT-B-32", changes=TINY, texts=TEXTS)


@pytest.mark.slow
def test_towers_are_open_clips(tiny: Path, assert_as_origin: AssertAsOrigin, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny)
    assert_as_origin(checkpoint, tiny, tmp_path)
    tokenizer = Tokenizer.from_file(checkpoint.tokenizer_json, checkpoint.text.context_length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        np.testing.assert_array_equal(tokenizer(TEXTS), load_file(tiny / "origin.safetensors")["input_ids"])


@pytest.mark.slow
def test_int8_passes_its_proof(tiny: Path, tmp_path: Path) -> None:
    scenes.write_folder(tmp_path / "scenes", "calibration", 48)
    assert export(tiny, tmp_path / "bundle", calibration_data=tmp_path / "scenes").passed


@pytest.mark.slow
def test_the_real_configuration(ask_origin: AskOrigin, assert_as_origin: AssertAsOrigin, tmp_path: Path) -> None:
    changes = {"vision_cfg": {"layers": 2}, "text_cfg": {"layers": 2}, "multimodal_cfg": {"layers": 1}}
    folder = ask_origin(tmp_path / "origin", "coca_ViT-B-32", changes=changes)
    assert_as_origin(load_checkpoint(folder), folder, tmp_path)
