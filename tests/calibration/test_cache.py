"""Calibrations in a file: what is read is what was written, and anything else is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from clipedge.calibration.cache import CalibrationCache, cache_lines, load_cache, save_cache
from clipedge.calibration.calibrate import Calibration
from clipedge.calibration.quantize import quantize
from clipedge.calibration.rounding import SCHEMES
from clipedge.errors import UsageError


@pytest.fixture(scope="module")
def cache(demo_tower: Any) -> CalibrationCache:
    return cache_of(demo_tower.calibrations)


def cache_of(calibrations: dict[str, Calibration]) -> CalibrationCache:
    """By target."""
    by_tower = {(target, "image"): calibration for target, calibration in calibrations.items()}
    return CalibrationCache("ab" * 32, "cd" * 32, by_tower)


@pytest.fixture
def path(cache: CalibrationCache, tmp_path: Path) -> Path:
    save_cache(tmp_path / "model.cache", cache)
    return tmp_path / "model.cache"


def head_of(path: Path) -> Any:
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["clipedge_calibration"])


def test_what_is_read_is_what_was_written(cache: CalibrationCache, path: Path) -> None:
    found = load_cache(path)
    assert (found.space_id, found.pictures_sha256) == (cache.space_id, cache.pictures_sha256)
    assert list(found.calibrations) == list(cache.calibrations)
    for key, expected in cache.calibrations.items():
        assert list(found.calibrations[key].layers) == list(expected.layers)
        for name, layer in expected.layers.items():
            read = vars(found.calibrations[key].layers[name]).copy()
            np.testing.assert_array_equal(read.pop("shift"), layer.shift)
            assert read == {field: value for field, value in vars(layer).items() if field != "shift"}
        assert found.calibrations[key].scales.keys() == expected.scales.keys()
        for place, scale in expected.scales.items():
            np.testing.assert_array_equal(found.calibrations[key].scales[place], scale)


@pytest.mark.parametrize("target", SCHEMES)
def test_a_graph_made_from_the_file_is_the_same_to_the_bit(
    cache: CalibrationCache, path: Path, demo_tower: Any, target: str
) -> None:
    graphs = [
        quantize(demo_tower.model, found.calibrations[target, "image"], SCHEMES[target], demo_tower.pixel_mean)
        for found in (cache, load_cache(path))
    ]
    assert graphs[0].SerializeToString(deterministic=True) == graphs[1].SerializeToString(deterministic=True)


def test_a_networks_convolutions_keep_the_ranges_of_their_outputs(tiny_network: Any, tmp_path: Path) -> None:
    written = cache_of(tiny_network.calibrations)
    save_cache(tmp_path / "network.cache", written)
    found = load_cache(tmp_path / "network.cache")
    graphs = [
        quantize(tiny_network.model, cache.calibrations["x86", "image"], SCHEMES["x86"]) for cache in (written, found)
    ]
    assert graphs[0].SerializeToString(deterministic=True) == graphs[1].SerializeToString(deterministic=True)
    lines = cache_lines(found)
    layers = found.calibrations["x86", "image"].layers
    for name, layer in layers.items():
        line = next(line for line in lines if line.split()[:1] == [name])
        assert line.endswith(f"{layer.output.high:.3f}" if layer.output else f"{layer.snr_db:.1f}")
    assert max(map(len, lines)) <= 100


def test_writing_replaces_a_file_and_leaves_nothing_beside_it(cache: CalibrationCache, path: Path) -> None:
    first = path.read_bytes()
    save_cache(path, CalibrationCache("ef" * 32, "01" * 32, {}))
    assert load_cache(path).space_id == "ef" * 32
    save_cache(path, cache)
    assert path.read_bytes() == first
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_half_a_file_is_never_at_its_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while a new cache is written leaves the old one."""
    before = path.read_bytes()
    write_bytes = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        write_bytes(self, data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save_cache(path, CalibrationCache("ef" * 32, "01" * 32, {}))
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [0, 7, 100, 5000, -1])
def test_a_file_that_is_cut_off_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UsageError, match=r"model\.cache is no calibration cache of clipedge, or a damaged one"):
        load_cache(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "text").write_text("calibration")
    for name in ("model.safetensors", "text", ".", "missing"):
        with pytest.raises(UsageError, match="is no calibration cache"):
            load_cache(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.pop("towers"),
        lambda head: head.update(towers=[1]),
        lambda head: head["towers"][0].update(places=["nowhere"]),
        lambda head: head["towers"][0]["layers"].update({"blocks.9.fc1": head["towers"][0]["layers"]["blocks.1.fc1"]}),
        lambda head: head["towers"][0]["layers"]["blocks.1.fc1"].update(low="wide"),
        lambda head: head["towers"][0]["layers"]["blocks.1.fc1"].pop("observer"),
    ],
)
def test_a_damaged_head_is_refused(path: Path, change: Any) -> None:
    head = head_of(path)
    change(head)
    save_file(load_file(path), path, {"clipedge_calibration": json.dumps(head)})
    with pytest.raises(UsageError, match="damaged one"):
        load_cache(path)


def test_another_version_says_so(path: Path) -> None:
    head = head_of(path)
    save_file(load_file(path), path, {"clipedge_calibration": json.dumps(head | {"version": 99})})
    with pytest.raises(UsageError, match=r"^\S+ has version 99, this clipedge reads up to 2; calibrate again$"):
        load_cache(path)


def test_printed_it_shows_every_layer_of_every_target(cache: CalibrationCache) -> None:
    lines = cache_lines(cache)
    assert "abababababab" in lines[0] and "cdcdcdcdcdcd" in lines[0]
    text = "\n".join(lines)
    assert "image tower, target x86" in text and "image tower, target arm" in text
    for name, layer in cache.calibrations["x86", "image"].layers.items():
        line = next(line for line in lines if line.split()[:1] == [name])
        assert f"{layer.limits.low:.3f}" in line and f"{layer.limits.high:.3f}" in line
        assert layer.observer in line and line.endswith(f"{layer.snr_db:.1f}")
        assert ("none" in line) == (layer.strength == 0)
    assert max(map(len, lines)) <= 100
