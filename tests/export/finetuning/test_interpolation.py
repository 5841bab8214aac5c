"""The line between two models, and where on it one stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipedge.export.finetuning.interpolation import ALPHAS, Point, between, choose_alpha
from clipedge.export.training.scores import Score


def test_weights_lie_on_the_line_in_float64_and_the_ends_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    before, tuned = (
        {"a": torch.randn(40, 7, generator=generator), "b": torch.randn((), generator=generator)} for _ in "01"
    )
    for alpha in (*ALPHAS, 0.123):
        found = between(before, tuned, alpha)
        for name, weight in found.items():
            expected = (1 - alpha) * before[name].double().numpy() + alpha * tuned[name].double().numpy()
            np.testing.assert_allclose(weight.numpy(), expected, atol=1e-6)
            assert weight.shape == before[name].shape and weight.dtype == torch.float32
    assert all(torch.equal(weight, before[name]) for name, weight in between(before, tuned, 0.0).items())
    assert all(torch.equal(weight, tuned[name]) for name, weight in between(before, tuned, 1.0).items())


def line(originals: list[float] | None) -> list[Point]:
    domain = Score(0.5, 1.0)
    if originals is None:
        return [Point(alpha, domain, None) for alpha in ALPHAS]
    return [Point(alpha, domain, Score(share, 1.0)) for alpha, share in zip(ALPHAS, originals, strict=True)]


FALLING = [0.98, 0.985, 0.98, 0.98, 0.975, 0.97, 0.965, 0.95, 0.9, 0.8, 0.7]


@pytest.mark.parametrize(
    ("originals", "named", "most", "expected"),
    [
        (FALLING, None, 1.0, 0.5),  # exactly one point below the start
        (FALLING, None, 0.9, 0.4),
        (FALLING, None, 0.0, 0.3),
        (FALLING, None, 100.0, 1.0),
        (FALLING, 0.25, 0.0, 0.25),
        ([0.9] + [0.1] * 10, None, 1.0, 0.0),
        ([0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1], None, 1.0, 0.9),
        (None, None, 1.0, 0.5),
        (None, 1.0, 1.0, 1.0),
    ],
)
def test_the_largest_alpha_that_forgets_little_enough(
    originals: list[float] | None, named: float | None, most: float, expected: float
) -> None:
    assert choose_alpha(line(originals), named, most) == expected
