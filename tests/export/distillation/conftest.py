"""Students that are trained in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipedge.calibration.data import read_pictures
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.distillation import PAIRS, Recipe, Weights
from clipedge.export.distillation.shards import open_cache
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student
from clipedge.export.distillation.teacher import ask_teacher, teacher_facts
from clipedge.export.distillation.trainer import Trained, Work, train
from clipedge.export.distillation.validation import prepare_validation
from clipedge.export.training.data import pictures_sha256

TINY = "vit:layers=1,width=32,heads=2,patch=16"
QUICK = Recipe(steps=10, batch_size=16, learning_rate=3e-3, validate_every=5, save_every=5, views=1, ema=0.5)


@pytest.fixture(autouse=True, scope="module")
def alone(one_thread: None) -> None:
    """Every test here is on one thread."""


@pytest.fixture(scope="session")
def teacher() -> Checkpoint:
    """The demonstration checkpoint."""
    return load_checkpoint(DEMO_CHECKPOINT)


@pytest.fixture(scope="session")
def make_work(
    teacher: Checkpoint, pairs: Path, exam: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Work]:
    """A work with the recipe and the losses that are asked for; the teacher is asked once."""
    pictures = read_pictures(pairs)
    facts = teacher_facts(teacher, pictures_sha256(pictures), QUICK.augmentation, 1)
    cache = open_cache(tmp_path_factory.mktemp("cache"), facts)
    lessons = ask_teacher(teacher, pictures, QUICK.augmentation, 1, cache, True)
    validation = prepare_validation(teacher, read_pictures(exam), None, None, cache)

    def make(weights: Weights = PAIRS, **changes: Any) -> Work:
        return Work(teacher, pictures, lessons, validation, dataclasses.replace(QUICK, **changes), weights)

    return make


@pytest.fixture(scope="session")
def beginner(teacher: Checkpoint) -> Checkpoint:
    """A tiny student with new weights. Not to be changed."""
    return make_student(teacher, parse_spec(TINY), 0, [])


@pytest.fixture
def train_tiny(beginner: Checkpoint, tmp_path: Path) -> Callable[..., Trained]:
    """Train the beginner; a name is that of the state's file and of the run."""

    def run(work: Work, name: str = "run", events: Path | None = None) -> Trained:
        return train(beginner, work, tmp_path / f"{name}.safetensors", name, events)

    return run
