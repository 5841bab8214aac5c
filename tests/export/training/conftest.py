"""A training of nothing but a matrix, for what every training shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clipedge.export.training.learner import LOG_SCALE, Learner
from clipedge.export.training.loop import run_steps
from clipedge.export.training.precision import gradient_scaler
from clipedge.export.training.recipe import TrainingRecipe
from clipedge.export.training.scores import Score


@pytest.fixture(autouse=True, scope="module")
def alone(one_thread: None) -> None:
    """Every test here is on one thread."""


class Matrix:
    """A matrix of ones is to be found by what each step sees of it, which is noisy."""

    def __init__(self, recipe: TrainingRecipe, rows: int = 4) -> None:
        weights = {"matrix": torch.zeros(rows, 3), "bias": torch.zeros(3), LOG_SCALE: torch.tensor(1.0)}
        self.parameters = {name: torch.nn.Parameter(weight) for name, weight in weights.items()}
        averages = {name: weight.clone() for name, weight in weights.items()}
        self.learner = Learner(self.parameters, averages, recipe, gradient_scaler("no", torch.device("cpu")))

    def gradients(self, step: int) -> float:
        found = self.parameters["matrix"] + self.parameters["bias"]
        seen = 1 + 0.1 * torch.randn(found.shape, generator=torch.Generator().manual_seed(step))
        loss = (found - seen).square().mean() * self.parameters[LOG_SCALE].exp()
        loss.backward()
        return loss.item()

    def score(self) -> Score:
        averages = self.learner.averages
        return Score(None, -float((averages["matrix"] + averages["bias"] - 1).square().mean()))


@pytest.fixture
def train_matrix(tmp_path: Path) -> Callable[..., Learner]:
    """Train; ``name`` is that of the state's file and of the run, and before the step ``dies_at`` it is interrupted."""

    def run(
        recipe: TrainingRecipe, name: str = "run", rows: int = 4, dies_at: int | None = None, events: Path | None = None
    ) -> Learner:
        matrix = Matrix(recipe, rows)

        def gradients(step: int) -> float:
            if step == dies_at:
                raise KeyboardInterrupt
            return matrix.gradients(step)

        run_steps(matrix.learner, gradients, matrix.score, tmp_path / f"{name}.safetensors", name, events=events)
        return matrix.learner

    return run
