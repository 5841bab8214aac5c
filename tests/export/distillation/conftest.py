"""Pictures and recipes for students that are trained in seconds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from clipedge.calibration import scenes
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.distillation import Augmentation, Recipe

TINY = "vit:layers=1,width=32,heads=2,patch=16"
QUICK = Recipe(
    steps=12,
    batch_size=16,
    learning_rate=3e-3,
    validate_every=6,
    save_every=4,
    views=1,
    ema=0.5,
    augmentation=Augmentation(min_area=0.9, brightness=0.05),
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other after every small step are slower than one, and a sum's order is then known."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def teacher() -> Checkpoint:
    """The demonstration checkpoint."""
    return load_checkpoint(DEMO_CHECKPOINT)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 captioned scenes as PNG files, listed in a table. Not to be changed."""
    folder = tmp_path_factory.mktemp("pairs")
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "caption"])
        for index in range(64):
            scene = scenes.sample_scene("train", index)
            Image.fromarray(scenes.render(scene, 72, 64).picture).save(folder / f"{index}.png")
            table.writerows([f"{index}.png", caption] for caption in scene.captions[:2])
    return folder / "pairs.csv"


@pytest.fixture(scope="session")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 labelled scenes, a folder for each class. Not to be changed."""
    folder = tmp_path_factory.mktemp("exam")
    scenes.write_folder(folder, "validation", 48, width=64, height=64, by_label=True)
    return folder


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[int], Path]:
    """Write so many different pictures without captions to a folder."""

    def write(count: int) -> Path:
        folder = tmp_path / "pictures"
        scenes.write_folder(folder, "train", count, width=64, height=64)
        return folder

    return write
