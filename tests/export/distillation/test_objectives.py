"""The losses against plain float64 loops over pairs, and their gradients against differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipedge.export.distillation.objectives import (
    Weights,
    affinity_mimicking,
    contrastive_relational,
    distillation_losses,
    feature_cosine,
    feature_mse,
    interactive_contrastive,
)
from clipedge.export.training.contrast import Embeddings

N, D, SCALE, TEACHER_SCALE = 6, 5, 7.0, 11.0
Floats = NDArray[np.float64]


def unit(seed: int) -> Floats:
    values = np.random.default_rng(seed).normal(size=(N, D))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


SIDES = {name: unit(seed) for seed, name in enumerate(("images", "texts", "teacher_images", "teacher_texts"))}
SAME = np.zeros((N, N), bool)
SAME[1, 4] = SAME[4, 1] = True


def t(name: str) -> torch.Tensor:
    return torch.from_numpy(SIDES[name])


def softmax_row(anchor: Floats, others: Floats, scale: float, hidden: NDArray[np.bool_]) -> list[float]:
    """Probabilities by hand; a hidden place has none."""
    powers = [
        0.0 if skip else math.exp(scale * sum(a * b for a, b in zip(anchor, other, strict=True)))
        for other, skip in zip(others, hidden, strict=True)
    ]
    return [power / sum(powers) for power in powers]


def reference_divergence(
    student: tuple[Floats, Floats], teacher: tuple[Floats, Floats], same: NDArray[np.bool_], entropy: bool
) -> float:
    """Mean over rows of both directions: Kullback-Leibler divergence, or cross entropy."""
    total = 0.0
    for flip in (False, True):
        for i in range(N):
            ours, theirs = (
                softmax_row(pair[flip][i], pair[not flip], scale, same[i])
                for pair, scale in ((student, SCALE), (teacher, TEACHER_SCALE))
            )
            for p, q in zip(ours, theirs, strict=True):
                if q:
                    total += -q * math.log(p) + (0.0 if entropy else q * math.log(q))
    return total / (2 * N)


@pytest.mark.parametrize("same", [np.zeros((N, N), bool), SAME], ids=["all", "equal-captions"])
def test_contrastive_losses_equal_a_float64_reference(same: NDArray[np.bool_]) -> None:
    hidden = torch.from_numpy(same)
    student, teacher = (SIDES["images"], SIDES["texts"]), (SIDES["teacher_images"], SIDES["teacher_texts"])
    ours, theirs = (t("images"), t("texts")), (t("teacher_images"), t("teacher_texts"))
    for loss, entropy in ((contrastive_relational, False), (affinity_mimicking, True)):
        expected = reference_divergence(student, teacher, same, entropy)
        assert float(loss(ours, theirs, SCALE, TEACHER_SCALE, hidden)) == pytest.approx(expected, abs=1e-12)
    across = [
        -math.log(softmax_row(anchors[i], others, SCALE, same[i])[i])
        for anchors, others in ((SIDES["images"], SIDES["teacher_texts"]), (SIDES["texts"], SIDES["teacher_images"]))
        for i in range(N)
    ]
    found = interactive_contrastive(Embeddings(*ours), Embeddings(*theirs), SCALE, hidden)
    assert float(found) == pytest.approx(sum(across) / len(across), abs=1e-12)


def test_feature_losses_equal_a_float64_reference() -> None:
    differences = SIDES["images"] - SIDES["teacher_images"]
    mse = float(feature_mse(t("images"), t("teacher_images")))
    assert mse == pytest.approx(sum(x * x for row in differences for x in row) / (N * D), abs=1e-15)
    cosine = float(feature_cosine(t("images"), t("teacher_images")))
    assert cosine == pytest.approx(mse * D / 2, abs=1e-15)  # as the docstring says


def test_affinity_and_relational_gradients_are_equal() -> None:
    teacher = (t("teacher_images"), t("teacher_texts"))
    gradients = []
    for loss in (contrastive_relational, affinity_mimicking):
        images = t("images").clone().requires_grad_()
        loss((images, t("texts")), teacher, SCALE, TEACHER_SCALE).backward()
        assert images.grad is not None
        gradients.append(images.grad)
    torch.testing.assert_close(*gradients, atol=1e-14, rtol=0)


@pytest.mark.parametrize("name", ["cosine", "mse", "relational", "affinity", "interactive", "infonce"])
def test_gradients_of_embeddings_and_temperature(name: str) -> None:
    weights = Weights(**{name: 1.5})

    def loss(images: torch.Tensor, texts: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        student, teacher = Embeddings(images, texts), Embeddings(t("teacher_images"), t("teacher_texts"))
        (found,) = distillation_losses(
            student, teacher, log_scale.exp(), TEACHER_SCALE, weights, torch.from_numpy(SAME)
        ).values()
        return found

    log_scale = torch.tensor(math.log(SCALE), dtype=torch.float64, requires_grad=True)
    inputs = (t("images").clone().requires_grad_(), t("texts").clone().requires_grad_(), log_scale)
    assert torch.autograd.gradcheck(loss, inputs)


def test_losses_are_weighted_and_those_without_weight_left_out() -> None:
    student, teacher = Embeddings(t("images"), t("texts")), Embeddings(t("teacher_images"), t("teacher_texts"))
    one = distillation_losses(student, teacher, torch.tensor(SCALE), TEACHER_SCALE, Weights(cosine=1, infonce=1))
    two = distillation_losses(student, teacher, torch.tensor(SCALE), TEACHER_SCALE, Weights(cosine=3, infonce=0.5))
    assert set(one) == set(two) == {"cosine", "infonce"}
    assert float(two["cosine"]) == pytest.approx(3 * float(one["cosine"]))
    assert float(two["infonce"]) == pytest.approx(0.5 * float(one["infonce"]))


def test_a_perfect_student_loses_nothing_but_what_entropy_costs() -> None:
    teacher = Embeddings(t("teacher_images"), t("teacher_texts"))
    scale = torch.tensor(TEACHER_SCALE, dtype=torch.float64)
    losses = distillation_losses(teacher, teacher, scale, TEACHER_SCALE, Weights(cosine=1, mse=1, relational=1))
    assert all(abs(float(loss)) < 1e-12 for loss in losses.values())
    pair = (teacher.images, t("teacher_texts"))
    least = affinity_mimicking(pair, pair, TEACHER_SCALE, TEACHER_SCALE)
    worse = affinity_mimicking((t("images"), t("teacher_texts")), pair, TEACHER_SCALE, TEACHER_SCALE)
    assert 0 < float(least) < float(worse)
