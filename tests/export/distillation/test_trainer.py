"""The loop: what a step computes, and that a student learns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipedge.calibration.data import choose, open_item
from clipedge.errors import ClipEdgeError, UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation import Recipe, Weights, trainer
from clipedge.export.distillation.objectives import feature_cosine
from clipedge.export.distillation.recipe import check_recipe
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student, with_image_tower
from clipedge.export.distillation.trainer import Trained, Work, train
from clipedge.export.distillation.validation import validate
from clipedge.export.towers import build_image_tower
from clipedge.export.training.augment import augmented
from clipedge.export.training.contrast import infonce
from clipedge.export.training.gradients import embedding_gradients
from clipedge.export.training.recipe import batch_rows, ema_decay, learning_rate
from clipedge.export.training.state import State

SPEC = "vit:layers=1,width=32,heads=2,patch=16"


def student_of(teacher: Checkpoint, seed: int = 0) -> Checkpoint:
    return make_student(teacher, parse_spec(SPEC), seed, [])


def run(teacher: Checkpoint, work: Work, folder: Path, name: str = "run") -> Trained:
    return train(student_of(teacher), work, folder / f"{name}.safetensors", name)


def test_a_student_learns_in_a_few_steps(teacher: Checkpoint, make_work: Callable[..., Work], tmp_path: Path) -> None:
    work = make_work(steps=40, validate_every=20)
    beginner = student_of(teacher)
    before = validate(build_image_tower(beginner), work.validation)
    trained = run(teacher, work, tmp_path)
    after = validate(build_image_tower(with_image_tower(teacher, beginner.image, trained.weights)), work.validation)  # type: ignore[arg-type]
    assert abs(before.cosine) < 0.02 < 0.03 < after.cosine
    assert before.accuracy is not None and after.accuracy is not None and after.accuracy > before.accuracy
    losses = trained.progress.losses
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    best = trained.progress.best
    assert best is not None and best.score.accuracy == after.accuracy
    assert best.score.cosine == pytest.approx(after.cosine, abs=1e-6)  # of the tower in the form that is trained
    assert [scored.step for scored in trained.progress.scores] == [20, 40]


def test_training_is_deterministic_and_depends_on_the_seed(
    teacher: Checkpoint, make_work: Callable[..., Work], tmp_path: Path
) -> None:
    first, second = (run(teacher, make_work(), tmp_path, name) for name in ("a", "b"))
    other = run(teacher, make_work(seed=1), tmp_path, "c")
    assert first.progress.losses == second.progress.losses != other.progress.losses
    assert all(torch.equal(weight, second.weights[name]) for name, weight in first.weights.items())


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(
    parts: int, teacher: Checkpoint, make_work: Callable[..., Work]
) -> None:
    student = student_of(teacher)
    work = make_work()
    pixels = torch.from_numpy(work.validation.pixels[:7])
    texts = torch.nn.functional.normalize(torch.randn(7, 128, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = []
    for count in (1, parts):
        tower = build_image_tower(student).double().requires_grad_(True)
        tower.zero_grad()
        loss = embedding_gradients(tower, pixels, lambda images: infonce(images, texts.double(), 20.0), count)
        found.append((loss, [weight.grad.clone() for weight in tower.parameters() if weight.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-12)
    for one, several in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, several, atol=1e-12, rtol=1e-9)


def test_an_accumulated_training_follows_the_whole_one(
    teacher: Checkpoint, make_work: Callable[..., Work], tmp_path: Path
) -> None:
    whole = run(teacher, make_work(steps=4), tmp_path, "whole")
    parts = run(teacher, make_work(steps=4, accumulate=4), tmp_path, "parts")
    np.testing.assert_allclose(whole.progress.losses, parts.progress.losses, atol=1e-4)


def test_the_first_loss_is_that_of_the_views_and_captions_of_the_batch(
    teacher: Checkpoint, make_work: Callable[..., Work], tmp_path: Path
) -> None:
    """Cosine alone, recomputed from the recorded lessons."""
    work = make_work(weights=Weights(cosine=2.0), steps=1)
    found = run(teacher, work, tmp_path).progress.losses[0]
    rows, _ = batch_rows(1, len(work.lessons.rows), work.recipe)
    pixels = [
        augmented(open_item(work.pictures.items[row]), work.lessons.views[row, 0], teacher.preprocessing)
        for row in rows
    ]
    with torch.no_grad():
        images = build_image_tower(student_of(teacher))(torch.from_numpy(np.stack(pixels)))
    expected = 2 * feature_cosine(images, torch.from_numpy(work.lessons.images[rows, 0].astype(np.float32)))
    assert found == pytest.approx(float(expected), abs=1e-5)


def test_training_ends_early_when_nothing_gets_better(
    teacher: Checkpoint, make_work: Callable[..., Work], tmp_path: Path
) -> None:
    work = make_work(steps=40, validate_every=2, patience=2, learning_rate=1e-30)  # too low to change a weight
    trained = run(teacher, work, tmp_path)
    assert trained.progress.ended and trained.progress.step == 6
    assert trained.progress.best is not None and trained.progress.best.step == 2
    again = train(student_of(teacher), work, tmp_path / "run.safetensors", "run")
    assert again.progress == trained.progress  # what has ended is not gone on with


def test_a_loss_that_is_no_number_ends_the_training(
    teacher: Checkpoint, make_work: Callable[..., Work], tmp_path: Path
) -> None:
    work = make_work()
    lessons = dataclasses.replace(work.lessons, images=np.full_like(work.lessons.images, np.nan))
    with pytest.raises(ClipEdgeError, match=r"the loss of step 1 is nan.*lower learning rate"):
        run(teacher, dataclasses.replace(work, lessons=lessons), tmp_path)


def test_states_of_other_runs_and_damaged_ones_are_refused(
    teacher: Checkpoint, make_work: Callable[..., Work], tmp_path: Path
) -> None:
    run(teacher, make_work(steps=5), tmp_path)
    path = tmp_path / "run.safetensors"
    with pytest.raises(UsageError, match="other settings"):
        train(student_of(teacher), make_work(), path, "another")
    bigger = make_student(teacher, parse_spec("vit:layers=2,width=32,heads=2,patch=16"), 0, [])
    with pytest.raises(UsageError, match="other tensors"):
        train(bigger, make_work(), path, "run")
    sound = path.read_bytes()
    for damage in (b"", sound[:-9], sound[:300], b"{}" + sound, sound.replace(b'\\"step\\"', b'\\"stop\\"')):
        path.write_bytes(damage)
        with pytest.raises(UsageError, match="damaged"):
            train(student_of(teacher), make_work(), path, "run")


def test_the_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=100, warmup=0.1, learning_rate=2.0)
    rates = [learning_rate(step, recipe) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(rates) == 2.0 and all(a >= b for a, b in pairwise(rates[10:])) and 0 < rates[-1] < 0.01
    assert rates[55] == pytest.approx(1 + math.cos(math.pi / 2))  # half the way down
    assert learning_rate(1, dataclasses.replace(recipe, warmup=0.0)) == 2.0
    assert learning_rate(100, dataclasses.replace(recipe, warmup=1.0)) == 2.0


def test_the_average_and_the_rate_are_what_the_weights_follow(
    teacher: Checkpoint, make_work: Callable[..., Work], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the states after each step: the average, computed again in float64, and how far AdamW goes at first."""
    states: list[dict[str, np.ndarray[Any, Any]]] = []

    def kept(path: Path, state: State, run: str) -> None:
        states.append({name: tensor.detach().double().numpy().copy() for name, tensor in state.tensors.items()})

    monkeypatch.setattr(trainer, "save_state", kept)
    work = make_work(steps=8, save_every=1, ema=0.3, warmup=0.5)
    run(teacher, work, tmp_path)
    first = build_image_tower(student_of(teacher))
    averages = {name: weight.double().numpy() for name, weight in first.named_parameters()}
    for step, state in enumerate(states, start=1):
        decay = min(0.3, step / (step + 10))
        for name, average in averages.items():
            averages[name] = decay * average + (1 - decay) * state[f"weights.{name}"]
            np.testing.assert_allclose(state[f"average.{name}"], averages[name], atol=1e-6)
    # Adam's first update of a weight without decay is the rate itself, whatever the gradient: a quarter of the highest.
    moved = np.abs(states[0]["weights.blocks.0.fc1.bias"])
    assert np.median(moved) == pytest.approx(work.recipe.learning_rate / 4, rel=0.02)


def test_every_pass_takes_each_row_once_in_another_order() -> None:
    recipe = Recipe(batch_size=8)
    passes = [[batch_rows(4 * number + step, 35, recipe) for step in range(1, 5)] for number in range(3)]
    for number, batches in enumerate(passes):
        rows = np.concatenate([rows for rows, _ in batches])
        assert len(set(rows.tolist())) == 32 and {passed for _, passed in batches} == {number}
    assert not np.array_equal(passes[0][0][0], passes[1][0][0])


def test_the_average_forgets_the_first_steps() -> None:
    recipe = Recipe(ema=0.99)
    decays = [ema_decay(step, recipe) for step in (1, 10, 100, 10_000)]
    assert decays[0] < 0.1 and decays == sorted(decays) and decays[-1] == 0.99


@pytest.mark.parametrize(
    "values",
    [
        *({"steps": 0}, {"batch_size": 1}, {"accumulate": 0}, {"accumulate": 129}, {"learning_rate": 0.0}),
        *({"learning_rate": math.nan}, {"warmup": 1.1}, {"patience": 0}, {"views": 0}, {"seed": -1}, {"ema": 1.0}),
        *({"weights": Weights()}, {"weights": Weights(cosine=-1.0)}, {"weight_decay": -1.0}, {"save_every": 0}),
        *({"mixed_precision": "fp8"}, {"corruption": 1.1}, {"adversarial": -1.0}, {"adversarial": math.nan}),
    ],
)
def test_impossible_settings_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        check_recipe(Recipe(**values))


def test_pictures_that_were_left_out_are_not_trained_on(
    teacher: Checkpoint, make_work: Callable[..., Work], tmp_path: Path
) -> None:
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
    first = run(teacher, dataclasses.replace(work, lessons=some), tmp_path, "some")
    pictures = choose(work.pictures, kept)
    second = run(teacher, dataclasses.replace(work, lessons=alone, pictures=pictures), tmp_path, "alone")
    assert first.progress.losses == second.progress.losses
