"""How good a student is by now: zero-shot accuracy where classes are known, and how near it is to its teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from clipedge.calibration.data import Pictures
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation.shards import Cache, Shard
from clipedge.export.distillation.texts import label_prompts, tokens_of
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_image_tower
from clipedge.export.training.data import classes_of, pictures_sha256
from clipedge.export.training.scores import Score, embed_all, ensembles, read_pixels, score_embeddings

__all__ = ["Validation", "prepare_validation", "score_images", "validate"]


@dataclass(frozen=True, eq=False)
class Validation:
    """N held-out pictures as the towers take them, and the teacher's embeddings of them (N, D) float32.

    ``truth`` (N,) int64 are indices into the label embeddings (L, D) float32, None where no class is known; labels are
    then the texts on which a student's own text tower is compared with its teacher's, or None, too. ``tokens`` (L,
    wordings, context length) int64 are what the label embeddings are means of.
    """

    pixels: npt.NDArray[np.uint8]
    teacher: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32] | None
    truth: npt.NDArray[np.int64] | None
    tokens: npt.NDArray[np.int64] | None


def prepare_validation(
    teacher: Checkpoint,
    pictures: Pictures,
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
    cache: Cache,
    texts: Sequence[str] = (),
) -> Validation:
    """Read the pictures, and have the teacher embed them and the labels once.

    ``labels`` name classes that are numbers; without, the pictures' own class names are the labels. Where no class is
    known, ``texts`` stand for the labels. Raises ImageError if no picture can be read, UsageError for labels that are
    not those of the pictures.
    """
    names, truth = ((), None) if texts and pictures.labels is None else classes_of(pictures, labels)
    prompts = label_prompts(names, templates) or list(texts)
    answers = len(names or prompts)
    rows, pixels = read_pixels(pictures, teacher.preprocessing)
    source = SourceTexts(teacher)

    def ask() -> Shard:
        tensors = {"images": embed_all(build_image_tower(teacher), pixels)}
        if prompts:
            tensors["labels"] = ensembles(source.encode(prompts), answers)
        return Shard(tensors)

    key = hashlib.sha256(json.dumps([pictures_sha256(pictures), rows.tolist(), prompts]).encode()).hexdigest()
    shapes: dict[str, tuple[int | None, ...]] = {"images": (len(pixels), teacher.embed_dim)}
    if prompts:
        shapes["labels"] = (answers, teacher.embed_dim)
    tensors = cache.shard(f"validation-{key[:16]}", ask, shapes).tensors
    tokens = tokens_of(source.tokenizer, prompts).reshape(answers, -1, teacher.text.context_length) if prompts else None
    return Validation(pixels, tensors["images"], tensors.get("labels"), None if truth is None else truth[rows], tokens)


def validate(tower: torch.nn.Module, validation: Validation, text_tower: torch.nn.Module | None = None) -> Score:
    """Score an image tower among the teacher's labels, or among those of the student's own text tower."""
    images = embed_all(tower, validation.pixels)
    if text_tower is None:
        return score_images(images, validation)
    assert validation.labels is not None and validation.tokens is not None
    texts = embed_all(text_tower, validation.tokens.reshape(-1, validation.tokens.shape[-1]))
    labels = ensembles(texts, len(validation.labels))
    score = score_images(images, replace(validation, labels=labels))
    return replace(score, text_cosine=float((labels * validation.labels).sum(axis=1).mean()))


def score_images(images: npt.NDArray[np.float32], validation: Validation) -> Score:
    """Score embeddings (N, D) of the validation pictures."""
    return score_embeddings(images, validation.teacher, validation.labels, validation.truth)
