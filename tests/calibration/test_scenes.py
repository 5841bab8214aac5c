"""Rendered scenes: the same everywhere, at any size, with true boxes, masks and captions, and honest splits."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipedge.calibration import scenes
from clipedge.errors import UsageError

MANY = 1500


def test_a_scene_is_a_function_of_split_and_index() -> None:
    for split in scenes.SPLITS:
        first = scenes.render(scenes.sample_scene(split, 5), 64, 64)
        again = scenes.render(scenes.sample_scene(split, 5), 64, 64)
        assert np.array_equal(first.picture, again.picture)
        assert first.captions == again.captions


def test_another_process_draws_the_same_picture() -> None:
    code = (
        "from clipedge.calibration.scenes import *; import sys;"
        "assert 'torch' not in sys.modules;"
        "sys.stdout.buffer.write(render(sample_scene('proof', 11), 40, 30).picture.tobytes())"
    )
    drawn = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert drawn == scenes.render(scenes.sample_scene("proof", 11), 40, 30).picture.tobytes()


def test_splits_and_indices_give_different_pictures() -> None:
    drawn = {
        scenes.render(scenes.sample_scene(split, index), 32, 32).picture.tobytes()
        for split in scenes.SPLITS
        for index in range(20)
    }
    labelled = {
        scenes.render(scenes.labelled_scene(split, index)[0], 32, 32).picture.tobytes()
        for split in scenes.SPLITS
        for index in range(20)
    }
    assert len(drawn | labelled) == 2 * 20 * len(scenes.SPLITS)


def test_held_out_combinations_touch_every_shape_and_color() -> None:
    assert len(scenes.CLASSES) == len(set(scenes.CLASSES)) >= 100
    assert {shape for _, shape in scenes.HELD_OUT} == set(scenes.SHAPES)
    assert {color for color, _ in scenes.HELD_OUT} == set(scenes.COLORS)


def test_training_never_shows_a_held_out_combination() -> None:
    for index in range(MANY):
        for item in scenes.sample_scene("train", index).objects:
            assert (item.color, item.shape) not in scenes.HELD_OUT
        assert scenes.CLASSES[scenes.labelled_scene("train", index)[1]] not in scenes.HELD_OUT


@pytest.mark.parametrize("split", ["validation", "calibration", "proof", "test"])
def test_other_splits_show_every_class(split: str) -> None:
    labels = {scenes.labelled_scene(split, index)[1] for index in range(MANY)}
    assert labels == set(range(len(scenes.CLASS_NAMES)))
    seen = {(o.color, o.shape) for index in range(500) for o in scenes.sample_scene(split, index).objects}
    assert seen & scenes.HELD_OUT


def test_one_or_two_objects_as_asked() -> None:
    counts = [len(scenes.sample_scene("test", index).objects) for index in range(MANY)]
    assert 0.64 < counts.count(1) / MANY < 0.76
    assert {len(scenes.sample_scene("test", index, objects=2).objects) for index in range(20)} == {2}


def test_relations_are_true_and_unambiguous() -> None:
    for index in range(300):
        scene = scenes.sample_scene("test", index, objects=2)
        first, second = scene.objects
        dx, dy = first.x - second.x, first.y - second.y
        truth = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}
        assert max(truth, key=lambda relation: truth[relation]) == scene.relation
        assert not scenes.render(scene, 64, 64).masks.all(axis=0).any()


def test_captions_name_what_is_there() -> None:
    for index in range(300):
        scene = scenes.sample_scene("test", index)
        assert len(set(scene.captions)) > 1
        for caption in scene.captions:
            for item in scene.objects:
                assert f"{item.color} {item.shape}" in caption
            assert "a orange" not in caption


@pytest.mark.parametrize(("width", "height"), [(64, 64), (200, 90), (90, 200), (400, 20), (1, 1), (37, 53)])
def test_any_size_and_aspect(width: int, height: int) -> None:
    for index in range(10):
        rendered = scenes.render(scenes.sample_scene("test", index), width, height)
        assert rendered.picture.shape == (height, width, 3)
        assert rendered.picture.dtype == np.uint8
        assert rendered.masks.shape == (len(rendered.boxes), height, width)


def test_boxes_are_the_masks_extent_and_lie_in_the_central_square() -> None:
    width, height = 300, 120
    for index in range(60):
        rendered = scenes.render(scenes.sample_scene("test", index), width, height)
        for (left, top, right, bottom), mask in zip(rendered.boxes, rendered.masks, strict=True):
            inside = np.zeros_like(mask)
            inside[top:bottom, left:right] = True
            assert mask.any()
            assert not (mask & ~inside).any()
            assert mask[top].any() and mask[bottom - 1].any() and mask[:, left].any() and mask[:, right - 1].any()
            assert left >= 90 and right <= 210


def test_masks_show_the_objects_color() -> None:
    for index in range(60):
        scene = scenes.sample_scene("test", index)
        rendered = scenes.render(scene, 128, 128)
        for item, mask in zip(scene.objects, rendered.masks, strict=True):
            ink = rendered.picture[mask].astype(float)
            hue = ink - ink.mean(axis=1, keepdims=True)
            expected = np.array(item.rgb, dtype=float) - np.mean(item.rgb)
            if np.abs(expected).max() > 40:  # white has no hue
                assert np.corrcoef(hue.mean(axis=0), expected)[0, 1] > 0.9, item


def test_a_large_picture_scaled_down_looks_like_a_small_one() -> None:
    for index in range(20):
        scene = scenes.sample_scene("test", index)
        small = scenes.render(scene, 64, 64).picture.astype(float)
        large = Image.fromarray(scenes.render(scene, 256, 256).picture).resize((64, 64), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(large, dtype=float) - small).mean() < 8


def test_labelled_pictures_start_anywhere() -> None:
    pictures, labels = scenes.labelled_pictures("proof", 12, size=32)
    tail, tail_labels = scenes.labelled_pictures("proof", 4, size=32, start=8)
    assert pictures.shape == (12, 32, 32, 3) and pictures.dtype == np.uint8 and labels.dtype == np.int64
    assert np.array_equal(pictures[8:], tail) and np.array_equal(labels[8:], tail_labels)


def test_held_out_only() -> None:
    _, labels = scenes.labelled_pictures("test", 50, size=16, held_out_only=True)
    assert {scenes.CLASSES[label] for label in labels} <= scenes.HELD_OUT


def test_write_folder(tmp_path: Path) -> None:
    paths = scenes.write_folder(tmp_path / "flat", "test", 3, width=80, height=48)
    for path in paths:
        with Image.open(path) as picture:
            assert picture.size == (80, 48) and picture.mode == "RGB"
    tree = scenes.write_folder(tmp_path / "tree", "test", 3, by_label=True)
    assert all(path.parent.name in scenes.CLASS_NAMES for path in tree)
    assert sorted(path.name for path in paths) == sorted(path.name for path in tree)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown split 'tset'"):
        scenes.sample_scene("tset", 0)
    with pytest.raises(UsageError, match="0 or more"):
        scenes.labelled_scene("test", -1)
    with pytest.raises(UsageError, match="1 or 2 objects"):
        scenes.sample_scene("test", 0, objects=3)
    with pytest.raises(UsageError, match="never occur"):
        scenes.labelled_scene("train", 0, held_out_only=True)
    with pytest.raises(UsageError, match="at least 1 x 1"):
        scenes.render(scenes.sample_scene("test", 0), 0, 4)


def test_unseen_shapes_are_drawn_on_demand_and_in_no_split() -> None:
    assert not set(scenes.UNSEEN) & set(scenes.SHAPES)
    drawn = {
        scenes.render(scenes.scene_of("test", 3, "red", shape), 32, 32).masks[0].tobytes()
        for shape in (*scenes.SHAPES, *scenes.UNSEEN)
    }
    assert len(drawn) == len(scenes.SHAPES) + len(scenes.UNSEEN)
    scene = scenes.scene_of("test", 3, "blue", scenes.UNSEEN[0])
    assert scene == scenes.scene_of("test", 3, "blue", scenes.UNSEEN[0])
    assert scene != scenes.scene_of("validation", 3, "blue", scenes.UNSEEN[0])
    assert 0.02 < scenes.render(scene, 64, 64).masks[0].mean() < 0.5


@pytest.mark.parametrize(("color", "shape"), [("mauve", "star"), ("red", "blob")])
def test_a_scene_of_what_cannot_be_drawn_is_refused(color: str, shape: str) -> None:
    with pytest.raises(UsageError, match=f"no scene has a {color} {shape}"):
        scenes.scene_of("test", 0, color, shape)
