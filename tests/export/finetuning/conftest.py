"""Pictures and models that are tuned in seconds."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from clipedge.calibration import scenes
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.source_texts import SourceTexts
from clipedge.text import Tokenizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other after every small step are slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model() -> Checkpoint:
    """The demonstration checkpoint."""
    return load_checkpoint(DEMO_CHECKPOINT)


@pytest.fixture(scope="session")
def tokenizer(model: Checkpoint) -> Tokenizer:
    return SourceTexts(model).tokenizer


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 captioned scenes, darkened to a third, two of them twice, listed in a table. Not to be changed."""
    folder = tmp_path_factory.mktemp("pairs")
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "caption"])
        for index in range(40):
            scene = scenes.sample_scene("train", index % 38)
            Image.fromarray(scenes.render(scene, 72, 64).picture // 3).save(folder / f"{index}.png")
            table.writerows([f"{index}.png", caption] for caption in scene.captions[:2])
    return folder / "pairs.csv"


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
