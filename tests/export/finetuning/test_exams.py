"""Scores against what transformers answers, and what cannot be an exam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from clipedge.calibration import scenes
from clipedge.calibration.data import Pictures, read_pictures
from clipedge.errors import UsageError
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint
from clipedge.export.finetuning.exams import examine, prepare_exam, top1
from clipedge.export.finetuning.towers import Towers
from clipedge.text import Tokenizer


def embedded(model: Checkpoint, pictures: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised embeddings by transformers."""
    clip = CLIPModel.from_pretrained(DEMO_CHECKPOINT).eval()
    mean, std = np.array(model.preprocessing.mean), np.array(model.preprocessing.std)
    pixels = torch.from_numpy(((pictures / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        found = clip(input_ids=torch.from_numpy(tokens), pixel_values=pixels)
    return found.image_embeds.numpy(), found.text_embeds.numpy()


def test_classes_are_scored_as_transformers_answers(model: Checkpoint, tokenizer: Tokenizer) -> None:
    pictures, truth = scenes.labelled_pictures("test", 60, size=64)
    pictures = pictures // 3  # dark enough for mistakes
    data = Pictures("here", list(pictures), truth, scenes.CLASS_NAMES)
    exam = prepare_exam(model, data, None, ["a photo of a {}.", "{}"], tokenizer)
    assert exam.kind == "zero-shot top-1 of 120 classes" and exam.tokens.shape == (120, 2, 32)
    prompts = tokenizer([text for name in scenes.CLASS_NAMES for text in (f"a photo of a {name}.", name)])
    images, texts = embedded(model, pictures, prompts)
    means = texts.reshape(120, 2, -1).mean(axis=1)
    right = ((images @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(axis=1) == truth).mean()
    score = examine(Towers(model), exam)
    assert top1(score) == pytest.approx(right) and 0 < right < 1
    assert score.cosine == pytest.approx(1, abs=1e-5)


def test_captions_are_scored_by_which_is_the_pictures_own(model: Checkpoint, pairs: Path, tokenizer: Tokenizer) -> None:
    data = read_pictures(pairs)
    assert data.captions is not None
    first = [captions[0] for captions in data.captions]
    exam = prepare_exam(model, data, None, None, tokenizer)
    distinct = list(dict.fromkeys(first))
    assert exam.kind == f"own caption of {len(distinct)}, top-1" and len(distinct) <= 38
    images, texts = embedded(model, exam.pixels, tokenizer(distinct))
    answers = (images @ texts.T).argmax(axis=1)
    right = np.mean([distinct[answer] == text for answer, text in zip(answers, first, strict=True)])
    assert top1(examine(Towers(model), exam)) == pytest.approx(right)


def test_a_changed_model_moves_away_from_what_it_was(model: Checkpoint, classes: Path, tokenizer: Tokenizer) -> None:
    exam = prepare_exam(model, read_pictures(classes), scenes.CLASS_NAMES, None, tokenizer)
    assert exam.tokens.shape[:2] == (120, len(scenes.TEMPLATES))
    towers = Towers(model)
    with torch.no_grad():
        weight = towers.image.projection.weight
        assert isinstance(weight, torch.Tensor)
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * weight.std())
    assert examine(towers, exam).cosine < 0.9


def test_other_pictures_than_those_trained_on_are_refused(
    model: Checkpoint, classes: Path, pairs: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(
        UsageError, match=r"classes that the training pictures have not: blue star.*expected some of a, b"
    ):
        prepare_exam(model, read_pictures(classes), ["a", "b"], None, tokenizer)
    with pytest.raises(UsageError, match="neither classes nor captions"):
        prepare_exam(model, read_pictures(pairs.parent), None, None, tokenizer)
    with pytest.raises(UsageError, match="neither classes nor captions"):
        prepare_exam(model, read_pictures(pairs), ["a", "b"], None, tokenizer)
