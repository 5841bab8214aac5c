"""Mixed precision on the CPU: what is computed in half, that a student learns by it, and that it goes on exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation import Weights, trainer
from clipedge.export.distillation.trainer import Trained, Work
from clipedge.export.towers import build_image_tower
from clipedge.export.training.contrast import infonce
from clipedge.export.training.gradients import embedding_gradients
from clipedge.export.training.precision import Precision

ALL = Weights(cosine=8.0, relational=1.0, affinity=1.0, interactive=1.0)
HALVES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
SCALE = 1024.0


def gradients(
    beginner: Checkpoint, pixels: torch.Tensor, precision: Precision, parts: int = 1
) -> tuple[float, dict[str, torch.Tensor], set[torch.dtype]]:
    """The loss, the weights' gradients, and the types of a block's matrix products and of the embeddings' gradients."""
    weights = {name: weight.clone() for name, weight in beginner.image_weights.items()}
    tower = build_image_tower(dataclasses.replace(beginner, image_weights=weights)).requires_grad_(True)
    types: set[torch.dtype] = set()
    tower.blocks[0].fc1.register_forward_hook(lambda _, __, output: types.add(output.dtype))  # type: ignore[union-attr, operator]
    texts = torch.nn.functional.normalize(
        torch.randn(len(pixels), 128, generator=torch.Generator().manual_seed(0)), dim=1
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)

    def loss_of(images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.float32
        return infonce(images, texts, 20.0)

    loss = embedding_gradients(tower, pixels, loss_of, parts, precision=precision, scaler=scaler)
    return loss, {name: weight.grad for name, weight in tower.named_parameters() if weight.grad is not None}, types


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("precision", list(HALVES))
def test_products_are_half_and_gradients_nearly_those_of_float32(
    precision: Precision, parts: int, beginner: Checkpoint, make_work: Callable[..., Work]
) -> None:
    pixels = torch.from_numpy(make_work().validation.pixels[:8])
    exact, expected, types = gradients(beginner, pixels, "no")
    assert types == {torch.float32}
    loss, found, types = gradients(beginner, pixels, precision, parts)
    assert types == {HALVES[precision]}
    assert loss == pytest.approx(exact, abs=0.02) and loss != exact
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    first, second = (torch.cat([values[name].flatten() for name in expected]) for values in (expected, found))
    assert float(torch.nn.functional.cosine_similarity(first, second, dim=0)) > 0.999
    assert float(second.norm() / first.norm()) == pytest.approx(1, abs=0.02)  # both multiplied by the scale


def test_a_student_learns_in_mixed_precision(
    make_work: Callable[..., Work], train_tiny: Callable[..., Trained]
) -> None:
    settings = {"steps": 20, "validate_every": 20, "save_every": 20}
    full = train_tiny(make_work(ALL, **settings), "no").progress
    for precision in HALVES:
        trained = train_tiny(make_work(ALL, **settings, mixed_precision=precision), precision)
        mixed = trained.progress
        assert np.mean(mixed.losses[-5:]) < np.mean(mixed.losses[:5]) - 0.5
        assert mixed.losses != full.losses and mixed.losses[0] == pytest.approx(full.losses[0], abs=0.05)
        assert np.mean(mixed.losses[-5:]) == pytest.approx(np.mean(full.losses[-5:]), abs=0.2)
        assert mixed.best is not None and full.best is not None
        assert mixed.best.score.cosine == pytest.approx(full.best.score.cosine, abs=0.02)
        assert {weight.dtype for weight in trained.weights.values()} == {torch.float32}


@pytest.mark.parametrize("precision", list(HALVES))
def test_an_interrupted_mixed_training_ends_with_the_same_bits(
    precision: Precision,
    make_work: Callable[..., Work],
    train_tiny: Callable[..., Trained],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With float16 the gradients' scale belongs to the state: the first one overflows here, and is halved."""
    work = make_work(ALL, steps=6, save_every=2, mixed_precision=precision)

    def scaler(*_: Any) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=2.0**40, enabled=precision == "fp16", growth_interval=3)

    monkeypatch.setattr(trainer, "gradient_scaler", scaler)
    whole = train_tiny(work, "whole")
    real = trainer.student_views

    def interrupted(*given: Any) -> torch.Tensor:
        if given[5] == 4:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(trainer, "student_views", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(work, "resumed")
    monkeypatch.setattr(trainer, "student_views", real)
    resumed = train_tiny(work, "resumed")
    assert resumed.progress == whole.progress
    assert all(torch.equal(weight, resumed.weights[name]) for name, weight in whole.weights.items())
