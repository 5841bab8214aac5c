"""TensorBoard's event files, read back by TensorBoard itself."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clipedge.cli import main
from clipedge.export.distillation import trainer
from clipedge.export.distillation.trainer import Trained, Work
from clipedge.export.training.recipe import learning_rate

STUDENT = "vit:layers=1,width=32,heads=2,patch=16"


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_curves_are_those_of_the_training(
    make_work: Callable[..., Work], train_tiny: Callable[..., Trained], tmp_path: Path
) -> None:
    work = make_work()
    progress = train_tiny(work, "run", tmp_path / "events").progress
    found = curves(tmp_path / "events")
    assert found.keys() == {"loss", "learning_rate", "validation/cosine", "validation/top-1"}
    assert found["loss"] == [(step, pytest.approx(loss)) for step, loss in enumerate(progress.losses, start=1)]
    rates = [(step, pytest.approx(learning_rate(step, work.recipe))) for step in range(1, 11)]
    assert found["learning_rate"] == rates
    assert found["validation/cosine"] == [(s.step, pytest.approx(s.score.cosine)) for s in progress.scores]
    assert found["validation/top-1"] == [(s.step, pytest.approx(s.score.accuracy)) for s in progress.scores]


def test_a_text_tower_of_its_own_has_a_curve(
    make_work: Callable[..., Work], train_tiny: Callable[..., Trained], tmp_path: Path
) -> None:
    work = dataclasses.replace(make_work(steps=2, validate_every=1), own_text=True)
    progress = train_tiny(work, "run", tmp_path / "events").progress
    found = curves(tmp_path / "events")["validation/cosine of texts"]
    assert found == [(s.step, pytest.approx(s.score.text_cosine)) for s in progress.scores] and len(found) == 2


def test_a_resumed_training_has_every_step_once(
    make_work: Callable[..., Work], train_tiny: Callable[..., Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was interrupted after step 8, and its last state is that of step 5."""
    real = trainer.student_views

    def interrupted(*given: Any) -> Any:
        if given[5] == 9:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(trainer, "student_views", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(make_work(), "run", tmp_path / "events")
    assert [step for step, _ in curves(tmp_path / "events")["loss"]] == list(range(1, 9))
    monkeypatch.setattr(trainer, "student_views", real)
    progress = train_tiny(make_work(), "run", tmp_path / "events").progress
    found = curves(tmp_path / "events")["loss"]
    assert found == [(step, pytest.approx(loss)) for step, loss in enumerate(progress.losses, start=1)]


def test_the_command_line_writes_them_and_names_the_extra_without_tensorboard(
    pairs: Path, exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", "--student", STUDENT, "--data", str(pairs), "--validation", str(exam), "--tensorboard"]
    options = ["--steps", "2", "--batch-size", "16", "--views", "1"]
    assert main([*command, *options, "--output", str(tmp_path / "student")]) == 0
    assert [step for step, _ in curves(tmp_path / "student" / "training" / "tensorboard")["loss"]] == [1, 2]
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    capsys.readouterr()
    assert main([*command, *options, "--output", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert 'pip install "clipedge[tensorboard]"' in said and said.count("\n") == 1
    assert not (tmp_path / "none").exists()
