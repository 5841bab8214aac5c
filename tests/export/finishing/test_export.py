"""`clipedge export --finish`, and the calibration cache that keeps what was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from clipedge.calibration import scenes
from clipedge.calibration.cache import cache_lines, load_cache
from clipedge.cli import main
from clipedge.errors import UsageError
from clipedge.export import export
from clipedge.export.checkpoints import DEMO_CHECKPOINT

STEPS = 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "my-clip"
    return Path(shutil.copytree(DEMO_CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.py")))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    scenes.write_folder(folder, "calibration", 90, width=80, height=64, by_label=True)
    return folder


@pytest.fixture(scope="module")
def finished(checkpoint: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, exported with --finish, and its calibration cache."""
    folder = tmp_path_factory.mktemp("finished")
    options = ["--calibration-data", str(photos), "--finish", str(STEPS), "--calibration-cache", str(folder / "cache")]
    assert main(["export", str(checkpoint), "--output", str(folder / "bundle"), "--no-text", *options]) == 0
    return folder


def test_the_report_says_that_it_was_finished(finished: Path) -> None:
    report = json.loads((finished / "bundle" / "report.json").read_text())
    assert report["calibration"].startswith("60 pictures of ")
    assert report["calibration"].endswith(f", finished in {STEPS} steps")


def test_the_cache_makes_the_same_graph_without_training(checkpoint: Path, finished: Path, tmp_path: Path) -> None:
    photos = tmp_path / "others"
    scenes.write_folder(photos, "validation", 40, width=80, height=64, by_label=True)
    options = {"calibration_data": photos, "calibration_cache": finished / "cache", "text": False}
    for number, steps in enumerate((STEPS, 0)):  # the file says that it is finished; nobody has to say it again
        export(checkpoint, tmp_path / str(number), finish=steps, **options)
        name = "image.int8.x86.onnx"
        assert (tmp_path / str(number) / name).read_bytes() == (finished / "bundle" / name).read_bytes()


def test_another_number_of_steps_does_not_throw_the_training_away(
    checkpoint: Path, photos: Path, finished: Path, tmp_path: Path
) -> None:
    before = (finished / "cache").read_bytes()
    options = {"calibration_data": photos, "calibration_cache": finished / "cache", "text": False}
    message = r"has a calibration of the image tower for x86 that was finished in 2 steps, now asked for are 5 steps;"
    with pytest.raises(UsageError, match=message):
        export(checkpoint, tmp_path / "bundle", finish=5, **options)
    assert (finished / "cache").read_bytes() == before


def test_a_cache_without_training_is_where_it_begins(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    options = {"calibration_data": photos, "calibration_cache": tmp_path / "cache", "text": False}
    export(checkpoint, tmp_path / "bundle", **options)
    assert load_cache(tmp_path / "cache").calibrations["x86", "image"].finished == 0
    export(checkpoint, tmp_path / "bundle", finish=STEPS, **options)
    found = load_cache(tmp_path / "cache")
    assert found.calibrations["x86", "image"].finished == STEPS
    lines = cache_lines(found)
    assert any(f"image tower, target x86, finished in {STEPS} steps" in line for line in lines)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("weight", np.ones((3, 4), np.float32)),
        ("weight", np.ones(4, np.int8)),
        ("weight_scale", np.ones(3, np.float32)),
        ("weight_scale", np.full(512, np.nan, np.float32)),
        ("weight_scale", np.zeros(512, np.float32)),
        ("weight", None),
    ],
)
def test_damaged_weights_in_a_cache_are_refused(
    finished: Path, tmp_path: Path, name: str, tensor: np.ndarray | None
) -> None:
    with safe_open(finished / "cache", framework="numpy") as file:
        head = file.metadata()
    tensors = load_file(finished / "cache")
    key = f"x86.image.{name}.blocks.0.fc1"
    if tensor is None:
        del tensors[key]
    else:
        tensors[key] = tensor
    save_file(tensors, tmp_path / "cache", head)
    with pytest.raises(UsageError, match=r"^\S+ is no calibration cache of clipedge, or a damaged one"):
        load_cache(tmp_path / "cache")


def test_nothing_to_finish_is_said_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["export", "no-such-model", "--output", str(tmp_path / "b"), "--precision", "fp32", "--finish", "9"]) == 2
    )
    assert "--finish trains INT8 layers, found --precision fp32 alone; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
