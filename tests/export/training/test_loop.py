"""The loop: what the weights and their average follow, when it ends, and what it goes on with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipedge.errors import ClipEdgeError, UsageError
from clipedge.export.training import loop
from clipedge.export.training.learner import Learner
from clipedge.export.training.recipe import TrainingRecipe
from clipedge.export.training.state import State

RECIPE = TrainingRecipe(
    steps=20, learning_rate=0.1, weight_decay=0.01, warmup=0.1, ema=0.5, batch_size=2, validate_every=10, save_every=5
)
Train = Callable[..., Learner]


def test_a_matrix_is_learned(train_matrix: Train) -> None:
    progress = train_matrix(RECIPE).progress
    assert progress.ended and progress.step == len(progress.losses) == 20
    assert np.mean(progress.losses[-5:]) < 0.2 * np.mean(progress.losses[:5])
    assert [scored.step for scored in progress.scores] == [10, 20] and progress.best == progress.scores[-1]


def test_the_average_and_the_rate_are_what_the_weights_follow(
    train_matrix: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the states after each step: the average, computed again in float64, and how far AdamW goes at first."""
    states: list[dict[str, np.ndarray[Any, Any]]] = []

    def kept(path: Path, state: State, run: str) -> None:
        states.append({name: tensor.detach().double().numpy().copy() for name, tensor in state.tensors.items()})

    monkeypatch.setattr(loop, "save_state", kept)
    train_matrix(dataclasses.replace(RECIPE, save_every=1, ema=0.3, warmup=0.2))
    averages: dict[str, Any] = {"matrix": 0.0, "bias": 0.0, "log_scale": 1.0}
    for step, state in enumerate(states, start=1):
        decay = min(0.3, step / (step + 10))
        for name, average in averages.items():
            averages[name] = decay * average + (1 - decay) * state[f"weights.{name}"]
            np.testing.assert_allclose(state[f"average.{name}"], averages[name], atol=1e-6)
    # Adam's first update is the rate itself, whatever the gradient: a quarter of the highest.
    np.testing.assert_allclose(states[0]["weights.bias"], 0.1 / 4, rtol=0.01)
    assert len(states) == 20


def test_it_ends_early_when_nothing_gets_better(train_matrix: Train) -> None:
    recipe = dataclasses.replace(RECIPE, validate_every=2, patience=2, learning_rate=1e-30)  # too low to change a score
    progress = train_matrix(recipe).progress
    assert progress.ended and progress.step == 6
    assert progress.best is not None and progress.best.step == 2
    assert train_matrix(recipe).progress == progress  # what has ended is not gone on with


def test_a_loss_that_is_no_number_ends_the_training(train_matrix: Train) -> None:
    with pytest.raises(ClipEdgeError, match=r"the loss of step \d+ is (nan|inf).*lower learning rate"):
        train_matrix(dataclasses.replace(RECIPE, learning_rate=1e30, warmup=0.0))


def test_an_interrupted_training_ends_with_the_same_bits(train_matrix: Train, tmp_path: Path) -> None:
    """It goes on with the state of step 10; one that was interrupted before there was a state begins again."""
    whole = train_matrix(RECIPE, "whole")
    for dies_at in (13, 3):
        with pytest.raises(KeyboardInterrupt):
            train_matrix(RECIPE, f"killed-{dies_at}", dies_at=dies_at)
        resumed = train_matrix(RECIPE, f"killed-{dies_at}")
        assert resumed.progress == whole.progress
        ours, theirs = whole.tensors(), resumed.tensors()
        assert ours.keys() == theirs.keys() and len(ours) == 3 * 6
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_states_of_other_runs_and_damaged_ones_are_refused(train_matrix: Train, tmp_path: Path) -> None:
    train_matrix(RECIPE)
    path = tmp_path / "run.safetensors"
    (tmp_path / "another.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="other settings"):
        train_matrix(RECIPE, "another")
    with pytest.raises(UsageError, match="other tensors"):
        train_matrix(RECIPE, rows=5)
    sound = path.read_bytes()
    for damage in (b"", sound[:-9], sound[:300], b"{}" + sound, sound.replace(b'\\"step\\"', b'\\"stop\\"')):
        path.write_bytes(damage)
        with pytest.raises(UsageError, match="damaged"):
            train_matrix(RECIPE)
