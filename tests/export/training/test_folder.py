"""A model as a folder: read back as it was written, by transformers, too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from clipedge.calibration import scenes
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student
from clipedge.export.towers import build_image_tower, build_text_tower
from clipedge.export.training.folder import write_student
from clipedge.text import Tokenizer


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    """The demonstration checkpoint."""
    return load_checkpoint(DEMO_CHECKPOINT)


@pytest.mark.parametrize("resize", ["shortest-edge", "squash"])
def test_a_written_model_is_read_as_it_was(model: Checkpoint, resize: Any, tmp_path: Path) -> None:
    settings = dataclasses.replace(model.preprocessing, resize=resize, interpolation="bilinear")
    changed = dataclasses.replace(model, preprocessing=settings, license="apple-amlr (https://example.org/LICENSE)")
    write_student(changed, tmp_path / "copy", 4.0, "# A copy\n")
    found = load_checkpoint(tmp_path / "copy")
    assert found.space_id == model.space_id
    for field in ("image", "text", "embed_dim", "preprocessing", "license", "tokenizer_json"):
        assert getattr(found, field) == getattr(changed, field), field
    assert found.logit_scale == pytest.approx(float(np.exp(np.float32(4.0))))


@pytest.mark.parametrize("student", [None, "vit:layers=1,width=32,heads=2,patch=16"], ids=["itself", "student"])
def test_transformers_reads_it_and_gives_the_same_embeddings(
    student: str | None, model: Checkpoint, tmp_path: Path
) -> None:
    written = model if student is None else make_student(model, parse_spec(student), 0, [])
    write_student(written, tmp_path, 3.5, "# A model\n")
    theirs = CLIPModel.from_pretrained(tmp_path).eval()
    pictures, _ = scenes.labelled_pictures("test", 4, size=64)
    texts = ["a red circle", "two blue stars above a house"]
    inputs = CLIPImageProcessorPil.from_pretrained(tmp_path)(list(pictures), return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(tmp_path)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = theirs(**inputs, **tokens)
        images = build_image_tower(written)(torch.from_numpy(pictures))
        ids = np.array(Tokenizer.from_file(model.tokenizer_json, 32)(texts))
        ours = build_text_tower(written)(torch.from_numpy(ids))
    torch.testing.assert_close(images, found.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, found.text_embeds, atol=1e-5, rtol=0)
    assert theirs.logit_scale.item() == 3.5
