"""How good a student is by now: zero-shot accuracy where classes are known, and how near it is to its teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from clipedge.calibration.data import Pictures, pixel_batches
from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation.data import pictures_sha256, warn_of_unreadable
from clipedge.export.distillation.shards import Cache, Shard
from clipedge.export.distillation.texts import label_prompts, tokens_of
from clipedge.export.material import truth_of
from clipedge.export.proof import embed, source_encoder
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_image_tower
from clipedge.prompts.bank import check_labels

__all__ = ["Score", "Validation", "classes_of", "prepare_validation", "score_embeddings", "validate"]

BATCH = 64


@dataclass(frozen=True, eq=False)
class Validation:
    """N held-out pictures as the towers take them, and the teacher's embeddings of them (N, D) float32.

    ``truth`` (N,) int64 are indices into the label embeddings (L, D) float32; both are None where no class is known.
    ``tokens`` (L, wordings, context length) int64 are what the label embeddings are means of. Where no class is known
    and the text tower is a student's own, labels are texts that it is compared with its teacher's on.
    """

    pixels: npt.NDArray[np.uint8]
    teacher: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32] | None
    truth: npt.NDArray[np.int64] | None
    tokens: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Score:
    """``accuracy`` is the zero-shot top-1 as a share, None without classes; ``cosine`` the pictures' mean to the
    teacher, ``text_cosine`` that of texts, None where the text tower is the teacher's."""

    accuracy: float | None
    cosine: float
    text_cosine: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """What decides which weights are best: accuracy where it is known, of equal ones the cosines."""
        return 0.0 if self.accuracy is None else self.accuracy, self.cosine + (self.text_cosine or 0.0)


def prepare_validation(
    teacher: Checkpoint,
    pictures: Pictures,
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
    cache: Cache,
    texts: Sequence[str] = (),
) -> Validation:
    """Read the pictures, and have the teacher embed them and the labels once.

    ``labels`` name classes that are numbers; without, the pictures' own class names are the labels, and without classes
    the ``texts``. Raises ImageError if no picture can be read, UsageError for labels that are not those of the
    pictures.
    """
    names, truth = classes_of(pictures, labels)
    prompts = label_prompts(names, templates) or list(texts)
    answers = len(names or prompts)
    unreadable: list[str] = []
    batches = list(pixel_batches(pictures, teacher.preprocessing, unreadable))
    warn_of_unreadable(unreadable, len(pictures))
    rows, pixels = (np.concatenate(parts) for parts in zip(*batches, strict=True))

    source = SourceTexts(teacher)

    def ask() -> Shard:
        tower = source_encoder(build_image_tower(teacher))
        tensors = {"images": embed(tower, np.array_split(pixels, -(-len(pixels) // BATCH)))}
        if prompts:
            tensors["labels"] = _ensembles(source.encode(prompts), answers)
        return Shard(tensors)

    key = hashlib.sha256(json.dumps([pictures_sha256(pictures), rows.tolist(), prompts]).encode()).hexdigest()
    shapes: dict[str, tuple[int | None, ...]] = {"images": (len(pixels), teacher.embed_dim)}
    if prompts:
        shapes["labels"] = (answers, teacher.embed_dim)
    tensors = cache.shard(f"validation-{key[:16]}", ask, shapes).tensors
    tokens = tokens_of(source.tokenizer, prompts).reshape(answers, -1, teacher.text.context_length) if prompts else None
    return Validation(pixels, tensors["images"], tensors.get("labels"), None if truth is None else truth[rows], tokens)


def _ensembles(texts: npt.NDArray[np.float32], answers: int) -> npt.NDArray[np.float32]:
    """(answers, D): the normalised means of each answer's wordings, which follow each other in ``texts``."""
    means = texts.reshape(answers, -1, texts.shape[1]).mean(axis=1)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def classes_of(
    pictures: Pictures, labels: Sequence[str] | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64] | None]:
    """The labels, and for each picture the index of its own; nothing and None where no class is known.

    Raises UsageError for labels that are not those of the pictures.
    """
    if labels is None:
        return (pictures.class_names, pictures.labels) if pictures.labels is not None else ((), None)
    check_labels(labels)
    truth = truth_of(pictures, labels)
    if truth is None:
        raise UsageError(
            f"the labels are not the classes of {pictures.source} (expected {', '.join(pictures.class_names[:5])} "
            f"or numbers that count them, found {', '.join(labels[:5])}); name each class, or leave --labels out"
        )
    return tuple(labels), truth


def validate(
    tower: torch.nn.Module, validation: Validation, text_tower: torch.nn.Module | None = None
) -> Score:
    """Score an image tower beside the teacher's labels, or beside those of the student's own text tower."""
    images = embed(source_encoder(tower), _parts(validation.pixels))
    if text_tower is None:
        return score_embeddings(images, validation)
    assert validation.labels is not None and validation.tokens is not None
    texts = embed(source_encoder(text_tower), _parts(validation.tokens.reshape(-1, validation.tokens.shape[-1])))
    labels = _ensembles(texts, len(validation.labels))
    score = score_embeddings(images, replace(validation, labels=labels))
    return replace(score, text_cosine=float((labels * validation.labels).sum(axis=1).mean()))


def _parts(inputs: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    return np.array_split(inputs, -(-len(inputs) // BATCH))


def score_embeddings(images: npt.NDArray[np.float32], validation: Validation) -> Score:
    """Score embeddings (N, D) of the validation pictures."""
    cosine = float((images * validation.teacher).sum(axis=1).mean())
    if validation.labels is None or validation.truth is None:
        return Score(None, cosine)
    answers = (images @ validation.labels.T).argmax(axis=1)
    return Score(float((answers == validation.truth).mean()), cosine)
