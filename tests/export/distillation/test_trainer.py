"""What a step computes, and that a student learns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clipedge.calibration.data import choose, open_item
from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation import Recipe, Weights
from clipedge.export.distillation.objectives import feature_cosine
from clipedge.export.distillation.recipe import check_recipe
from clipedge.export.distillation.students import with_image_tower
from clipedge.export.distillation.trainer import Trained, Work
from clipedge.export.distillation.validation import validate
from clipedge.export.towers import build_image_tower
from clipedge.export.training.augment import augmented
from clipedge.export.training.recipe import batch_rows

MakeWork = Callable[..., Work]
Train = Callable[..., Trained]


def test_a_student_learns_in_a_few_steps(
    teacher: Checkpoint, beginner: Checkpoint, make_work: MakeWork, train_tiny: Train
) -> None:
    work = make_work(steps=40, validate_every=20)
    before = validate(build_image_tower(beginner), work.validation)
    trained = train_tiny(work)
    after = validate(build_image_tower(with_image_tower(teacher, beginner.image, trained.weights)), work.validation)  # type: ignore[arg-type]
    assert abs(before.cosine) < 0.02 < 0.03 < after.cosine
    assert before.accuracy is not None and after.accuracy is not None and after.accuracy > before.accuracy
    losses = trained.progress.losses
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    best = trained.progress.best
    assert best is not None and best.score.accuracy == after.accuracy
    assert best.score.cosine == pytest.approx(after.cosine, abs=1e-6)  # of the tower in the form that is trained
    assert [scored.step for scored in trained.progress.scores] == [20, 40]


def test_training_is_deterministic_and_depends_on_the_seed(make_work: MakeWork, train_tiny: Train) -> None:
    first, second = (train_tiny(make_work(), name) for name in ("a", "b"))
    other = train_tiny(make_work(seed=1), "c")
    assert first.progress.losses == second.progress.losses != other.progress.losses
    assert all(torch.equal(weight, second.weights[name]) for name, weight in first.weights.items())


def test_an_accumulated_training_follows_the_whole_one(make_work: MakeWork, train_tiny: Train) -> None:
    whole = train_tiny(make_work(steps=4), "whole")
    parts = train_tiny(make_work(steps=4, accumulate=4), "parts")
    np.testing.assert_allclose(whole.progress.losses, parts.progress.losses, atol=1e-4)


def test_the_first_loss_is_that_of_the_views_and_captions_of_the_batch(
    teacher: Checkpoint, beginner: Checkpoint, make_work: MakeWork, train_tiny: Train
) -> None:
    """Cosine alone, recomputed from the recorded lessons."""
    work = make_work(weights=Weights(cosine=2.0), steps=1)
    found = train_tiny(work).progress.losses[0]
    rows, _ = batch_rows(1, len(work.lessons.rows), work.recipe)
    pixels = [
        augmented(open_item(work.pictures.items[row]), work.lessons.views[row, 0], teacher.preprocessing)
        for row in rows
    ]
    with torch.no_grad():
        images = build_image_tower(beginner)(torch.from_numpy(np.stack(pixels)))
    expected = 2 * feature_cosine(images, torch.from_numpy(work.lessons.images[rows, 0].astype(np.float32)))
    assert found == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        *({"steps": 0}, {"views": 0}, {"weights": Weights()}, {"weights": Weights(cosine=-1.0)}),
        *({"mixed_precision": "fp8"}, {"corruption": 1.1}, {"adversarial": -1.0}, {"adversarial": math.nan}),
    ],
)
def test_impossible_settings_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        check_recipe(Recipe(**values))


def test_pictures_that_were_left_out_are_not_trained_on(make_work: MakeWork, train_tiny: Train) -> None:
    """Lessons about some rows of a larger set give the training on these rows alone."""
    work = make_work(steps=2)
    kept = np.arange(0, 64, 2)
    lessons = work.lessons
    assert lessons.captions is not None
    some = dataclasses.replace(
        lessons, rows=kept, views=lessons.views[kept], images=lessons.images[kept],
        captions=tuple(lessons.captions[row] for row in kept),
    )  # fmt: skip
    alone = dataclasses.replace(some, rows=np.arange(32))
    first = train_tiny(dataclasses.replace(work, lessons=some), "some")
    pictures = choose(work.pictures, kept)
    second = train_tiny(dataclasses.replace(work, lessons=alone, pictures=pictures), "alone")
    assert first.progress.losses == second.progress.losses
