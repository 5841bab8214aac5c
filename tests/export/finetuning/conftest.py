"""Pictures and models that are tuned in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from clipedge.calibration import scenes
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.source_texts import SourceTexts
from clipedge.text import Tokenizer


@pytest.fixture(autouse=True, scope="module")
def alone(one_thread: None) -> None:
    """Every test here is on one thread."""


@pytest.fixture(scope="session")
def model() -> Checkpoint:
    """The demonstration checkpoint."""
    return load_checkpoint(DEMO_CHECKPOINT)


@pytest.fixture(scope="session")
def tokenizer(model: Checkpoint) -> Tokenizer:
    return SourceTexts(model).tokenizer


@pytest.fixture(scope="session")
def pairs(write_pairs: Callable[..., Path]) -> Path:
    """40 captioned scenes, darkened to a third, two of them twice. Not to be changed."""
    return write_pairs([scenes.sample_scene("train", index % 38) for index in range(40)], 3)


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 scenes of each of four classes, darkened to a third, in a folder for each class. Not to be changed."""
    folder = tmp_path_factory.mktemp("classes")
    for color, shape in (("red", "circle"), ("blue", "star"), ("green", "square"), ("white", "ring")):
        (folder / f"{color}_{shape}").mkdir()
        for index in range(10):
            picture = scenes.render(scenes.scene_of("train", index, color, shape), 64, 64).picture
            Image.fromarray(picture // 3).save(folder / f"{color}_{shape}" / f"{index}.png")
    return folder
