"""What a step computes, that a model learns, and that a resumed one ends as an uninterrupted one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipedge.calibration.data import read_pictures
from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.finetuning import Recipe, trainer
from clipedge.export.finetuning.batches import draw_batch
from clipedge.export.finetuning.exams import examine, prepare_exam, top1
from clipedge.export.finetuning.material import gather
from clipedge.export.finetuning.objectives import class_contrast
from clipedge.export.finetuning.recipe import check_recipe
from clipedge.export.finetuning.towers import Towers
from clipedge.export.finetuning.trainer import Trained, Work, train
from clipedge.export.training.contrast import infonce
from clipedge.text import Tokenizer

QUICK = Recipe(steps=4, batch_size=8, learning_rate=5e-4, validate_every=4, save_every=2, ema=0.5)
MakeWork = Callable[..., Work]


@pytest.fixture(scope="module")
def make_work(model: Checkpoint, tokenizer: Tokenizer, classes: Path, pairs: Path) -> MakeWork:
    """A work on classes or pairs with the recipe that is asked for."""
    found = {}
    for name, source in (("classes", classes), ("pairs", pairs)):
        material = gather(read_pictures(source), None, ["a {}.", "a photo of a {}."], tokenizer)
        labels = material.labels or None
        found[name] = Work(model, material, prepare_exam(model, read_pictures(source), labels, None, tokenizer), QUICK)

    def make(source: str = "classes", **changes: Any) -> Work:
        return dataclasses.replace(found[source], recipe=dataclasses.replace(QUICK, **changes))

    return make


def equal(first: Trained, second: Trained) -> bool:
    return all(torch.equal(weight, second.weights[name]) for name, weight in first.weights.items())


@pytest.mark.parametrize(("source", "lora"), [("classes", None), ("classes", 4), ("pairs", None)])
def test_a_model_learns(source: str, lora: int | None, make_work: MakeWork, tmp_path: Path) -> None:
    rate = 1e-4 if lora is None else 1e-2
    work = make_work(source, steps=8, batch_size=12, lora=lora, learning_rate=rate)
    before = examine(Towers(work.model), work.exam)
    found = train(work, tmp_path / "state", "run")
    tuned = Towers(work.model)
    tuned.assign(found.weights)
    after = examine(tuned, work.exam)
    assert found.progress.best is not None and found.progress.best.score == after
    assert top1(after) > top1(before) and after.cosine < 0.999
    assert np.mean(found.progress.losses[-3:]) < np.mean(found.progress.losses[:3])


def test_a_training_depends_on_its_seed(make_work: MakeWork, tmp_path: Path) -> None:
    first, other = (train(make_work(steps=1, seed=seed), tmp_path / str(seed), str(seed)) for seed in (0, 1))
    assert first.progress.losses != other.progress.losses


@pytest.mark.parametrize("source", ["classes", "pairs"])
def test_the_first_loss_is_that_of_the_batch(source: str, make_work: MakeWork, tmp_path: Path) -> None:
    work = make_work(source, steps=1)
    found = train(work, tmp_path / "state", "run").progress.losses[0]
    batch = draw_batch(work.material, work.model.preprocessing, work.recipe, 1)
    towers = Towers(work.model)
    with torch.no_grad():
        images, texts = towers.image(batch.pixels[0]), towers.text(batch.tokens[0])
        scale = work.model.logit_scale
        if source == "classes":
            expected = class_contrast(images, texts, batch.places, scale)
        else:
            expected = infonce(images, texts[batch.places], scale, batch.same)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_the_terms_add_up_by_their_weights(make_work: MakeWork, tmp_path: Path) -> None:
    losses = {}
    for name, changes in {
        "none": {},
        "images": {"image_image": 2.0},
        "both": {"image_image": 2.0, "text_text": 0.5},
    }.items():
        losses[name] = train(make_work(steps=1, **changes), tmp_path / name, name).progress.losses[0]
    assert losses["none"] < losses["images"] < losses["both"]
    work = make_work(steps=1, image_image=2.0, text_text=0.5)
    batch = draw_batch(work.material, work.model.preprocessing, work.recipe, 1)
    towers = Towers(work.model)
    with torch.no_grad():
        images = torch.stack([towers.image(view) for view in batch.pixels])
        texts = torch.stack([towers.text(wording) for wording in batch.tokens])
        terms = trainer.batch_losses(images, texts, batch, True, towers.log_scale.exp())
    expected = terms["image_text"] + 2.0 * terms["image_image"] + 0.5 * terms["text_text"]
    assert losses["both"] == pytest.approx(float(expected), rel=1e-5)


def test_parts_of_a_batch_follow_the_whole(make_work: MakeWork, tmp_path: Path) -> None:
    whole, parts = (
        train(make_work(accumulate=parts, image_image=0.5), tmp_path / str(parts), str(parts)) for parts in (1, 3)
    )
    np.testing.assert_allclose(whole.progress.losses, parts.progress.losses, rtol=1e-4)


@pytest.mark.parametrize("lora", [None, 4])
def test_a_resumed_training_ends_with_the_same_bits(
    lora: int | None, make_work: MakeWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_work(steps=5, validate_every=2, lora=lora)
    whole = train(work, tmp_path / "whole", "run")
    drawn = trainer.draw_batch

    def dies(material: Any, preprocessing: Any, recipe: Recipe, step: int) -> Any:
        if step == 4:  # a state was saved after the second step
            raise KeyboardInterrupt
        return drawn(material, preprocessing, recipe, step)

    monkeypatch.setattr(trainer, "draw_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        train(work, tmp_path / "killed", "run")
    monkeypatch.setattr(trainer, "draw_batch", drawn)
    resumed = train(work, tmp_path / "killed", "run")
    assert resumed.progress == whole.progress and equal(resumed, whole)
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not torch.are_deterministic_algorithms_enabled()


def test_updates_leave_all_other_weights_alone(make_work: MakeWork, tmp_path: Path) -> None:
    work = make_work(lora=4)
    before, after = Towers(work.model).weights(), train(work, tmp_path / "state", "run")
    changed = {name for name, weight in after.weights.items() if not torch.equal(weight, before[name])}
    assert changed and all(".attn." in name or ".fc" in name or name == "log_scale" for name in changed)
    assert not any(name.endswith(".bias") for name in changed)
    assert after.parameters < 0.2 * sum(weight.numel() for weight in before.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"lora": 0}, "lora to be a rank of 1 or more"),
        ({"image_image": -1.0}, "image_image"),
        ({"text_text": float("nan")}, "text_text"),
    ],
)
def test_impossible_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_recipe(dataclasses.replace(QUICK, **changes))


def test_updates_have_a_higher_rate_of_their_own() -> None:
    assert Recipe().to_dict()["learning_rate"] == 1e-5 and Recipe(lora=8).rate == 1e-4
    assert Recipe(lora=8, learning_rate=3e-4).rate == 3e-4
