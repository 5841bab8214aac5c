"""How good a model is at a set of pictures: their classes, or which of all captions is whose."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipedge.calibration.data import Pictures
from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.finetuning.towers import Towers
from clipedge.export.material import truth_of
from clipedge.export.towers import build_image_tower
from clipedge.export.training.data import check_captions, default_templates
from clipedge.export.training.scores import Score, embed_all, read_pixels, score_embeddings
from clipedge.text import Tokenizer, TruncatedTextWarning, fill_template

__all__ = ["Exam", "examine", "prepare_exam", "top1"]


@dataclass(frozen=True, eq=False)
class Exam:
    """N pictures, each with the right one of A answers. ``kind``: what a share of right answers is called.

    ``pixels`` (N, H, W, 3) uint8; ``tokens`` (A, wordings, context length) int64; ``truth`` (N,) int64; ``before``
    (N, D) float32, the pictures' embeddings by the model before it was tuned.
    """

    kind: str
    pixels: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]
    before: npt.NDArray[np.float32]


def prepare_exam(
    model: Checkpoint,
    pictures: Pictures,
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
    tokenizer: Tokenizer,
) -> Exam:
    """Read the pictures. The answers are ``labels`` in all templates where given, else the pictures' captions, of each
    its first, else their own classes.

    Raises ImageError if no picture can be read, UsageError for pictures of other classes than ``labels``, and for such
    that have neither captions nor classes.
    """
    if labels is None and pictures.captions is not None:
        check_captions(pictures, "leave those pictures out")
        first = [captions[0] for captions in pictures.captions]
        answers = list(dict.fromkeys(first))
        places = {text: place for place, text in enumerate(answers)}
        texts, truth = [[text] for text in answers], np.array([places[text] for text in first], np.int64)
        kind = f"own caption of {len(answers)}, top-1"
    else:
        names, truth = _classes(pictures, labels)
        texts = [[fill_template(each, name) for each in templates or default_templates(names)] for name in names]
        kind = f"zero-shot top-1 of {len(names)} classes"
    rows, pixels = read_pixels(pictures, model.preprocessing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)  # as in training
        tokens = tokenizer([text for wordings in texts for text in wordings])
    before = embed_all(build_image_tower(model), pixels)
    return Exam(kind, pixels, tokens.reshape(len(texts), -1, tokens.shape[1]), truth[rows], before)


def _classes(pictures: Pictures, labels: Sequence[str] | None) -> tuple[Sequence[str], npt.NDArray[np.int64]]:
    if pictures.labels is None:
        raise UsageError(
            f"{pictures.source} has neither classes nor captions to examine a model on; sort its pictures into one "
            "sub-folder for each class, or name another set"
        )
    if labels is None:
        return pictures.class_names, pictures.labels
    truth = truth_of(pictures, labels)
    if truth is None:
        strange = [name for name in pictures.class_names if name not in labels]
        raise UsageError(
            f"{pictures.source} has classes that the training pictures have not: {', '.join(strange[:3])}; expected "
            f"some of {', '.join(labels[:5])}. Rename its folders, or name all classes: --labels"
        )
    return labels, truth


def examine(towers: Towers, exam: Exam) -> Score:
    """The share of right answers, and the pictures' mean cosine to what they were before."""
    answers, wordings, _ = exam.tokens.shape
    texts = embed_all(towers.text, exam.tokens.reshape(answers * wordings, -1))
    means = texts.reshape(answers, wordings, -1).mean(axis=1)
    labels = means / np.linalg.norm(means, axis=1, keepdims=True)
    return score_embeddings(embed_all(towers.image, exam.pixels), exam.before, labels, exam.truth)


def top1(score: Score) -> float:
    """The share of right answers, which every exam has."""
    assert score.accuracy is not None
    return score.accuracy
