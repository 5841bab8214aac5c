"""The losses against plain float64 loops, and where that for classes is CLIP's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipedge.export.finetuning.objectives import class_contrast, class_contrast_with_terms, infonce_with_terms
from clipedge.export.training.contrast import Embeddings, infonce

N, C, D, SCALE = 7, 3, 5, 9.0
CLASSES = np.array([0, 2, 2, 1, 0, 2, 1])
Floats = NDArray[np.float64]


def unit(count: int, seed: int) -> Floats:
    values = np.random.default_rng(seed).normal(size=(count, D))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def log_share(anchor: Floats, others: Floats, place: int) -> float:
    """The logarithm of one place's softmax probability, by hand."""
    scores = [SCALE * math.fsum(a * b for a, b in zip(anchor, other, strict=True)) for other in others]
    return scores[place] - math.log(math.fsum(math.exp(score) for score in scores))


def reference(images: Floats, texts: Floats) -> float:
    of_images = [-log_share(images[i], texts, CLASSES[i]) for i in range(N)]
    of_texts = []
    for text in range(C):
        mine = [i for i in range(N) if CLASSES[i] == text]
        of_texts.append(math.fsum(-log_share(texts[text], images, i) for i in mine) / len(mine))
    return (math.fsum(of_images) / N + math.fsum(of_texts) / C) / 2


def test_the_loss_equals_a_float64_reference() -> None:
    images, texts = unit(N, 0), unit(C, 1)
    found = class_contrast(torch.from_numpy(images), torch.from_numpy(texts), torch.from_numpy(CLASSES), SCALE)
    assert float(found) == pytest.approx(reference(images, texts), abs=1e-12)
    single = class_contrast(
        torch.from_numpy(images).float(), torch.from_numpy(texts).float(), torch.from_numpy(CLASSES), SCALE
    )
    assert float(single) == pytest.approx(reference(images, texts), abs=1e-5)


def test_it_is_clips_loss_where_no_class_repeats() -> None:
    images, texts = torch.from_numpy(unit(N, 0)), torch.from_numpy(unit(N, 1))
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    found = class_contrast(images, texts, order, SCALE)
    torch.testing.assert_close(found, infonce(images, texts[order], SCALE), atol=1e-12, rtol=0)


def test_pictures_of_one_class_do_not_push_each_other_away() -> None:
    """Perfect embeddings cost nothing among pictures, where CLIP's loss would take equal texts for negatives."""
    texts = torch.eye(D, dtype=torch.float64)[:C]
    images = texts[torch.from_numpy(CLASSES)]
    terms = class_contrast_with_terms(Embeddings(images, texts), torch.from_numpy(CLASSES), 100.0, images, texts)
    assert float(terms["image_image"]) < 1e-9 and float(terms["text_text"]) < 1e-9
    counts = np.bincount(CLASSES)
    # A text cannot tell its pictures apart: the entropy of equal shares is what is left.
    assert float(terms["image_text"]) == pytest.approx(np.log(counts).mean() / 2, abs=1e-9)
    assert float(infonce(images, texts[torch.from_numpy(CLASSES)], 100.0)) > 0.5


def test_the_terms_are_those_of_pairs() -> None:
    images, others = torch.from_numpy(unit(N, 0)), torch.from_numpy(unit(N, 2))
    texts, wordings = torch.from_numpy(unit(N, 1)), torch.from_numpy(unit(N, 3))
    own, places = Embeddings(images, texts), torch.arange(N)
    found = class_contrast_with_terms(own, places, SCALE, others, wordings)
    expected = infonce_with_terms(own, SCALE, None, others, wordings)
    assert found.keys() == expected.keys() == {"image_text", "image_image", "text_text"}
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, atol=1e-12, rtol=0)
    assert class_contrast_with_terms(own, places, SCALE).keys() == {"image_text"}


def test_further_terms_are_there_when_asked_for() -> None:
    """Each is CLIP's loss, which is the one for classes where each row is a class of its own."""
    images, texts, views, wordings = (torch.from_numpy(unit(N, seed)) for seed in range(4))
    own, each = Embeddings(images, texts), torch.arange(N)
    assert infonce_with_terms(own, SCALE).keys() == {"image_text"}
    terms = infonce_with_terms(own, SCALE, None, views, wordings)
    for name, pair in {
        "image_text": (images, texts),
        "image_image": (images, views),
        "text_text": (texts, wordings),
    }.items():
        torch.testing.assert_close(terms[name], class_contrast(*pair, each, SCALE), atol=1e-12, rtol=0)
