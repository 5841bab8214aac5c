"""What a prompt bank was taught by example pictures: how it is computed, and how it is kept in the bank's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_EXAMPLES", "Taught", "TaughtClass", "is_unit", "read_taught", "taught_row", "taught_tensors"]

Floats = npt.NDArray[np.float32]

MAX_EXAMPLES = 16  # for one class: what few-shot methods are measured with, and little enough to keep in the bank

# Chosen on scenes of the split "validation"; what they give on "test" is in benchmarks/results/few_shot.md.
LABEL_METRIC = 12.0  # how much more the direction counts in which the labels differ most than one in which none differ
RESTRAINT = 6.0  # labels: with few of them, each is a large part of what a new class could spoil, so it asks for less
TEXT_WEIGHT = 32.0  # examples that a text is worth with which all examples agree

MEAN, EXAMPLES, TEXTS = "taught_mean_image", "taught_examples", "taught_texts"


@dataclass(frozen=True, eq=False)
class TaughtClass:
    """``examples`` (K, D) float32, unit rows, 1 <= K <= ``MAX_EXAMPLES``: image embeddings in the bank's space.

    ``text_row`` (D,) is the label's row before it was taught, or None for a label that the bank did not have.
    """

    label: str
    examples: Floats
    text_row: Floats | None


@dataclass(frozen=True, eq=False)
class Taught:
    """The taught classes of a bank, and ``mean_image`` (D,) float32, the mean image embedding they were taught with."""

    classes: tuple[TaughtClass, ...]
    mean_image: Floats

    def find(self, label: str) -> TaughtClass | None:
        return next((one for one in self.classes if one.label == label), None)


def taught_row(examples: Floats, others: Floats, text_row: Floats | None, mean_image: Floats) -> Floats:
    """A label's row (D,) float32, of length 1, made of K examples (K, D) so that it stands among texts as a text does.

    ``others`` (L, D), L >= 1, are the rows of the other labels' texts, ``mean_image`` (D,) is the mean embedding of
    pictures of all kinds.

    - A prototype is the mean of the examples (Snell et al. 2017, arXiv 1703.05175). Images and texts live apart
      (Liang et al. 2022, arXiv 2203.02053), so it is the difference from ``mean_image`` that is laid to the mean of the
      texts, as long as the texts' own differences are.
    - Few examples say more about their backgrounds than about their class. The texts' covariance says in which
      directions labels differ, and so which part of the difference is about them.
    - The label's own text counts as far as the examples agree with it: by the share of them that fit it better than
      every other label (Tip-Adapter, arXiv 2111.03930, weighs the two by one number for all classes).
    """
    images, texts = examples.astype(np.float64), others.astype(np.float64)
    mean_text = texts.mean(axis=0)
    spread = texts - mean_text
    difference = images.mean(axis=0) - mean_image
    length = np.linalg.norm(spread, axis=1).mean() if len(texts) > 1 else np.linalg.norm(difference)
    largest = np.linalg.norm(spread, 2) ** 2
    if largest > 0:
        difference = difference + LABEL_METRIC * (spread @ difference @ spread) / largest
    restraint = len(texts) / (len(texts) + RESTRAINT)
    prototype = restraint * length * difference / max(float(np.linalg.norm(difference)), 1e-12)
    if text_row is not None:
        agreeing = float((images @ text_row > (images @ texts.T).max(axis=1)).mean())
        weight = TEXT_WEIGHT * agreeing / (TEXT_WEIGHT * agreeing + len(images))
        prototype = weight * (text_row - mean_text) + (1 - weight) * prototype
    row = mean_text + prototype
    return np.asarray(row / np.linalg.norm(row), np.float32)


# ---- in the bank's file --------------------------------------------------------------------------------------


def taught_tensors(taught: Taught) -> tuple[list[dict[str, Any]], dict[str, Floats]]:
    """The header's entry, {label, examples, text} a class, and the tensors that go with it."""
    entry = [
        {"label": one.label, "examples": len(one.examples), "text": one.text_row is not None} for one in taught.classes
    ]
    texts = [one.text_row for one in taught.classes if one.text_row is not None]
    width = len(taught.mean_image)
    return entry, {
        MEAN: np.ascontiguousarray(taught.mean_image),
        EXAMPLES: np.concatenate([one.examples for one in taught.classes]),
        TEXTS: np.stack(texts) if texts else np.empty((0, width), np.float32),
    }


def read_taught(file: Any, entry: Any, labels: Sequence[str], width: int) -> Taught:
    """The reverse, from an open safetensors file of a bank with these labels and ``width`` numbers a label.

    Raises ValueError for anything that cannot be right.
    """
    labels_taught, counts, with_text = _checked_entry(entry, labels)
    mean_image, examples, texts = (_tensor(file, name) for name in (MEAN, EXAMPLES, TEXTS))
    if mean_image.shape != (width,) or not np.linalg.norm(mean_image) <= 1 + 1e-3:  # `not <=`, so that NaN fails
        raise ValueError(f"{MEAN}: expected the mean of unit vectors ({width},), found {list(mean_image.shape)}")
    for name, tensor, rows in ((EXAMPLES, examples, sum(counts)), (TEXTS, texts, sum(with_text))):
        if tensor.shape != (rows, width) or not is_unit(tensor):
            raise ValueError(f"{name}: expected {rows} unit vectors of {width}, found {list(tensor.shape)}")
    parts = np.split(examples, np.cumsum(counts)[:-1])
    rows_of_text = iter(texts)
    classes = tuple(
        TaughtClass(label, part, next(rows_of_text) if text else None)
        for label, part, text in zip(labels_taught, parts, with_text, strict=True)
    )
    return Taught(classes, mean_image)


def is_unit(rows: npt.NDArray[Any]) -> bool:
    """Whether every row of (N, D) has length 1; False for NaN."""
    return bool(np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3))


def _tensor(file: Any, name: str) -> Floats:
    tensor: npt.NDArray[Any] = file.get_tensor(name)
    if tensor.dtype != np.float32:
        raise ValueError(f"{name}: expected float32, found {tensor.dtype}")
    return tensor


def _checked_entry(entry: Any, labels: Sequence[str]) -> tuple[list[str], list[int], list[bool]]:
    if not isinstance(entry, list) or not entry or not all(isinstance(one, dict) for one in entry):
        raise ValueError(f"taught: expected a list of classes, found {entry!r:.40}")
    names, counts, texts = ([one[key] for one in entry] for key in ("label", "examples", "text"))
    if not all(isinstance(name, str) and name in labels for name in names) or len(set(names)) < len(names):
        raise ValueError(f"taught: expected distinct labels of the bank, found {names!r:.40}")
    if not all(type(count) is int and 1 <= count <= MAX_EXAMPLES for count in counts):
        raise ValueError(f"taught: expected 1 to {MAX_EXAMPLES} examples a class, found {counts!r:.40}")
    if not all(type(text) is bool for text in texts):
        raise ValueError(f"taught: expected true or false for text, found {texts!r:.40}")
    if all(label in names for label in labels) and not any(texts):
        raise ValueError("taught: no label is left that was there before")
    return names, counts, texts
