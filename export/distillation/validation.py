"""How good a student is by now: zero-shot accuracy where classes are known, and how near it is to its teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from clipedge.calibration.data import Pictures
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation.shards import Cache, Shard
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_image_tower
from clipedge.export.training.data import classes_of, default_templates, pictures_sha256
from clipedge.export.training.scores import Score, embed_all, read_pixels, score_embeddings
from clipedge.text import fill_template

__all__ = ["Validation", "prepare_validation", "score_images", "validate"]


@dataclass(frozen=True, eq=False)
class Validation:
    """N held-out pictures as the towers take them, and the teacher's embeddings of them (N, D) float32.

    ``truth`` (N,) int64 are indices into the label embeddings (L, D) float32; both are None where no class is known.
    """

    pixels: npt.NDArray[np.uint8]
    teacher: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32] | None
    truth: npt.NDArray[np.int64] | None


def prepare_validation(
    teacher: Checkpoint,
    pictures: Pictures,
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
    cache: Cache,
) -> Validation:
    """Read the pictures, and have the teacher embed them and the labels once.

    ``labels`` name classes that are numbers; without, the pictures' own class names are the labels. Raises ImageError
    if no picture can be read, UsageError for labels that are not those of the pictures.
    """
    names, truth = classes_of(pictures, labels)
    prompts = [fill_template(each, name) for name in names for each in templates or default_templates(names)]
    rows, pixels = read_pixels(pictures, teacher.preprocessing)

    def ask() -> Shard:
        tensors = {"images": embed_all(build_image_tower(teacher), pixels)}
        if prompts:
            texts = SourceTexts(teacher).encode(prompts)
            means = texts.reshape(len(names), -1, texts.shape[1]).mean(axis=1)
            tensors["labels"] = np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))
        return Shard(tensors)

    key = hashlib.sha256(json.dumps([pictures_sha256(pictures), rows.tolist(), prompts]).encode()).hexdigest()
    shapes: dict[str, tuple[int | None, ...]] = {"images": (len(pixels), teacher.embed_dim)}
    if prompts:
        shapes["labels"] = (len(names), teacher.embed_dim)
    tensors = cache.shard(f"validation-{key[:16]}", ask, shapes).tensors
    return Validation(pixels, tensors["images"], tensors.get("labels"), None if truth is None else truth[rows])


def validate(tower: torch.nn.Module, validation: Validation) -> Score:
    """Score an image tower."""
    return score_images(embed_all(tower, validation.pixels), validation)


def score_images(images: npt.NDArray[np.float32], validation: Validation) -> Score:
    """Score embeddings (N, D) of the validation pictures."""
    return score_embeddings(images, validation.teacher, validation.labels, validation.truth)
