"""What every training is told, and what follows from it for a step."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from clipedge.errors import UsageError
from clipedge.export.training.recipe import TrainingRecipe, batch_rows, check_training, ema_decay, learning_rate

RECIPE = TrainingRecipe(steps=100, learning_rate=2.0, weight_decay=0.05, warmup=0.1, ema=0.99)


def test_the_rate_rises_and_falls() -> None:
    rates = [learning_rate(step, RECIPE) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(rates) == 2.0 and all(a >= b for a, b in pairwise(rates[10:])) and 0 < rates[-1] < 0.01
    assert rates[55] == pytest.approx(1 + math.cos(math.pi / 2))  # half the way down
    assert learning_rate(1, dataclasses.replace(RECIPE, warmup=0.0)) == 2.0
    assert learning_rate(100, dataclasses.replace(RECIPE, warmup=1.0)) == 2.0


def test_every_pass_takes_each_row_once_in_another_order() -> None:
    recipe = dataclasses.replace(RECIPE, batch_size=8)
    passes = [[batch_rows(4 * number + step, 35, recipe) for step in range(1, 5)] for number in range(3)]
    for number, batches in enumerate(passes):
        rows = np.concatenate([rows for rows, _ in batches])
        assert len(set(rows.tolist())) == 32 and {passed for _, passed in batches} == {number}
    assert not np.array_equal(passes[0][0][0], passes[1][0][0])


def test_the_average_forgets_the_first_steps() -> None:
    decays = [ema_decay(step, RECIPE) for step in (1, 10, 100, 10_000)]
    assert decays[0] < 0.1 and decays == sorted(decays) and decays[-1] == 0.99


@pytest.mark.parametrize(
    "values",
    [
        *({"steps": 0}, {"batch_size": 1}, {"accumulate": 0}, {"accumulate": 129}, {"learning_rate": 0.0}),
        *({"learning_rate": math.nan}, {"warmup": 1.1}, {"patience": 0}, {"seed": -1}, {"ema": 1.0}),
        *({"weight_decay": -1.0}, {"save_every": 0}, {"validate_every": 0}),
    ],
)
def test_impossible_settings_are_refused_by_name(values: dict[str, Any]) -> None:
    check_training(RECIPE)
    with pytest.raises(UsageError, match=f"expected {next(iter(values))} to be"):
        check_training(dataclasses.replace(RECIPE, **values))


def test_a_batch_is_shared_evenly() -> None:
    recipe = dataclasses.replace(RECIPE, batch_size=12, accumulate=4)
    check_training(recipe, processes=3)
    with pytest.raises(UsageError, match="accumulate to be a process' share of the batch, 4, at most, found 5"):
        check_training(dataclasses.replace(recipe, accumulate=5), processes=3)
    with pytest.raises(UsageError, match="multiple of the 5 processes"):
        check_training(dataclasses.replace(recipe, accumulate=1), processes=5)
