"""`clipedge export --finish`, and the calibration cache that keeps what was trained."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from clipedge.calibration import scenes
from clipedge.calibration.cache import CalibrationCache, cache_lines, load_cache, save_cache
from clipedge.calibration.data import scene_pictures
from clipedge.calibration.quantize import quantize
from clipedge.cli import main
from clipedge.errors import UsageError
from clipedge.export.checkpoints import DEMO_CHECKPOINT
from clipedge.export.convert import SourceTower
from clipedge.export.ranges import Calibrations
from clipedge.export.streams import PixelStream

STEPS = 2
SPACE = "ab" * 32


def prepared(tower: Any, cache: Path, finish: int, split: str = "calibration") -> tuple[Calibrations, SourceTower]:
    """What an export with these pictures, cache and steps works with; no picture has been looked at."""
    stream = PixelStream(scene_pictures(split, 64, 64), tower.source.calibration.preprocessing, "calibrating")
    return Calibrations(SPACE, stream, cache, finish=finish), replace(tower.source, calibration=stream)


def write_plain_cache(tower: Any, path: Path, target: str) -> None:
    """A calibration without training, made on the tower's pictures, which are those of the split "calibration"."""
    made_on = tower.source.calibration.sha256
    save_cache(path, CalibrationCache(SPACE, made_on, {(target, "image"): tower.calibrations[target]}))


@pytest.fixture(scope="module")
def cache(tower: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a finished calibration of the image tower for x86."""
    path = tmp_path_factory.mktemp("finished") / "cache"
    write_plain_cache(tower, path, "x86")
    calibrations, source = prepared(tower, path, STEPS)
    calibrations.of(source, tower.graph, "x86")
    assert calibrations.description is not None and calibrations.description.endswith(", finished in 2 steps")
    calibrations.save()
    return path


@pytest.mark.parametrize("steps", [STEPS, 0], ids=["asked for again", "not asked for"])
def test_the_cache_makes_the_same_graph_without_training(tower: Any, cache: Path, steps: int) -> None:
    calibrations, source = prepared(tower, cache, steps, "validation")
    found = calibrations.of(source, tower.graph, "x86")
    assert found.finished == STEPS and calibrations.description == f"what {cache} keeps of an earlier export"
    graphs = [
        quantize(tower.graph, calibration, tower.schemes["x86"], tower.source.pixel_mean).SerializeToString()
        for calibration in (found, load_cache(cache).calibrations["x86", "image"])
    ]
    assert graphs[0] == graphs[1]


def test_what_was_trained_is_not_thrown_away(tower: Any, cache: Path) -> None:
    calibrations, source = prepared(tower, cache, 5)
    message = (
        r"has a calibration of the image tower for x86 that was finished in 2 steps, now asked for are 5 steps; leave "
        r"that out, or name another file$"
    )
    with pytest.raises(UsageError, match=message):
        calibrations.of(source, tower.graph, "x86")


def test_a_calibration_without_training_is_where_it_begins(tower: Any, tmp_path: Path) -> None:
    write_plain_cache(tower, tmp_path / "cache", "arm")
    others, source = prepared(tower, tmp_path / "cache", STEPS, "validation")
    with pytest.raises(
        UsageError, match=r"has no finished calibration of the image tower for arm, and was made on other"
    ):
        others.of(source, tower.graph, "arm")
    same, source = prepared(tower, tmp_path / "cache", STEPS)
    same.of(source, tower.graph, "arm")
    same.save()
    found = load_cache(tmp_path / "cache")
    assert found.calibrations["arm", "image"].finished == STEPS
    lines = cache_lines(found)
    assert any("image tower, target arm, finished in 2 steps" in line for line in lines)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("weight", np.ones((3, 4), np.float32)),
        ("weight", np.ones(4, np.int8)),
        ("weight_scale", np.ones(3, np.float32)),
        ("weight_scale", np.full(513, np.nan, np.float32)),
        ("weight_scale", np.zeros(513, np.float32)),
        ("weight", None),
    ],
)
def test_damaged_weights_are_refused(cache: Path, tmp_path: Path, name: str, tensor: np.ndarray | None) -> None:
    with safe_open(cache, framework="numpy") as file:
        head = file.metadata()
    tensors = load_file(cache)
    key = f"x86.image.{name}.blocks.0.fc1"
    assert tensors[key].shape[-1] == 513
    if tensor is None:
        del tensors[key]
    else:
        tensors[key] = tensor
    save_file(tensors, tmp_path / "cache", head)
    with pytest.raises(UsageError, match=r"^\S+ is no calibration cache of clipedge, or a damaged one"):
        load_cache(tmp_path / "cache")


def test_an_export_is_finished_and_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, both towers."""
    scenes.write_folder(tmp_path / "photos", "calibration", 60, width=64, height=64, by_label=True)
    model = Path(shutil.copytree(DEMO_CHECKPOINT, tmp_path / "clip", ignore=shutil.ignore_patterns("*.py")))
    arguments = ["--calibration-data", str(tmp_path / "photos"), "--finish", "4", "--json"]
    assert main(["export", str(model), "--output", str(tmp_path / "bundle"), *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["calibration"].endswith(", finished in 4 steps")
    assert not any(layer["in_float"] for layer in report["layers"])


def test_nothing_to_finish_is_said_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output", str(tmp_path / "b"), "--precision", "fp32", "--finish", "9"]
    assert main(["export", "no-such-model", *arguments]) == 2
    assert "--finish trains INT8 layers, found precision fp32; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
