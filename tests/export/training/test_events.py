"""TensorBoard's event files, read back by TensorBoard itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clipedge.cli import main
from clipedge.export.training.learner import Learner
from clipedge.export.training.recipe import TrainingRecipe, learning_rate

STUDENT = "vit:layers=1,width=32,heads=2,patch=16"
RECIPE = TrainingRecipe(
    steps=10, learning_rate=0.1, weight_decay=0.0, warmup=0.1, ema=0.5, batch_size=2, validate_every=5, save_every=5
)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_curves_are_those_of_the_training(train_matrix: Callable[..., Learner], tmp_path: Path) -> None:
    progress = train_matrix(RECIPE, events=tmp_path / "events").progress
    found = curves(tmp_path / "events")
    assert found.keys() == {"loss", "learning_rate", "validation/cosine"}
    assert found["loss"] == [(step, pytest.approx(loss)) for step, loss in enumerate(progress.losses, start=1)]
    rates = [(step, pytest.approx(learning_rate(step, RECIPE))) for step in range(1, 11)]
    assert found["learning_rate"] == rates
    assert found["validation/cosine"] == [(s.step, pytest.approx(s.score.cosine)) for s in progress.scores]


def test_a_resumed_training_has_every_step_once(train_matrix: Callable[..., Learner], tmp_path: Path) -> None:
    """It was interrupted after step 8, and its last state is that of step 5."""
    events = tmp_path / "events"
    with pytest.raises(KeyboardInterrupt):
        train_matrix(RECIPE, dies_at=9, events=events)
    assert [step for step, _ in curves(events)["loss"]] == list(range(1, 9))
    progress = train_matrix(RECIPE, events=events).progress
    assert curves(events)["loss"] == [(step, pytest.approx(loss)) for step, loss in enumerate(progress.losses, start=1)]


def test_the_command_line_writes_them_and_names_the_extra_without_tensorboard(
    pairs: Path, exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", "--student", STUDENT, "--data", str(pairs), "--validation", str(exam), "--tensorboard"]
    options = ["--steps", "2", "--batch-size", "16", "--views", "1"]
    assert main([*command, *options, "--output", str(tmp_path / "student")]) == 0
    found = curves(tmp_path / "student" / "training" / "tensorboard")
    best = json.loads((tmp_path / "student" / "distill.json").read_bytes())["result"]["best"]
    assert [step for step, _ in found["loss"]] == [1, 2]
    assert found["validation/top-1"] == [(2, pytest.approx(best["score"]["accuracy"]))]
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    capsys.readouterr()
    assert main([*command, *options, "--output", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert 'pip install "clipedge[tensorboard]"' in said and said.count("\n") == 1
    assert not (tmp_path / "none").exists()
