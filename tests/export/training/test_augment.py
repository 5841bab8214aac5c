"""Views of pictures, and their parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import PIL.Image
import pytest

from clipedge.errors import UsageError
from clipedge.export.training.augment import PARAMETERS, Augmentation, augmented, check_augmentation, draw_view
from clipedge.images.pixels import preprocess
from clipedge.manifest import Preprocessing

PIXELS = Preprocessing(16, 16, "shortest-edge", 16, "bicubic", (0.5,) * 3, (0.5,) * 3)
PLAIN = np.array([1.0, 0.0, 0.5, 0.5, 0.0, 0.0, 1.0], np.float32)  # in the order of PARAMETERS


def picture(width: int, height: int) -> PIL.Image.Image:
    coarse = np.random.default_rng(3).integers(0, 255, (5, 6, 3), np.uint8)
    return PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)


def view(**changes: float) -> Any:
    values = dict(zip(PARAMETERS, PLAIN, strict=True)) | changes
    return np.array(list(values.values()), np.float32)


@pytest.mark.parametrize("resize", ["shortest-edge", "squash"])
@pytest.mark.parametrize("size", [(48, 32), (32, 48), (16, 16)])
def test_the_plain_view_is_nearly_the_models_own_preprocessing(size: tuple[int, int], resize: Any) -> None:
    preprocessing = dataclasses.replace(PIXELS, resize=resize)
    own = preprocess([picture(*size)], preprocessing)[0]
    found = augmented(picture(*size), PLAIN, preprocessing)
    # That resizes first and then cuts at whole pixels.
    assert np.abs(found.astype(int) - own).mean() < 3


def test_a_crop_wider_than_what_the_tower_takes_shows_the_same_part() -> None:
    wide = dataclasses.replace(PIXELS, shortest_edge=24)
    own = preprocess([picture(48, 32)], wide)[0]
    assert np.abs(augmented(picture(48, 32), PLAIN, wide).astype(int) - own).mean() < 3


def test_parameters_do_what_they_say() -> None:
    source = picture(40, 32)
    plain = augmented(source, PLAIN, PIXELS).astype(int)
    assert (augmented(source, view(flip=1.0), PIXELS) == plain[:, ::-1]).all()
    brighter = augmented(source, view(brightness=20 / 255), PIXELS).astype(int)
    assert (brighter == np.clip(plain + 20, 0, 255)).all()
    flat = augmented(source, view(contrast=0.0), PIXELS)
    assert set(flat.ravel().tolist()) <= {127, 128}
    left, right = augmented(source, view(left=0.0), PIXELS), augmented(source, view(left=1.0), PIXELS)
    np.testing.assert_array_equal(left, np.asarray(source.resize((16, 16), 3, box=(0, 0, 32, 32))))
    np.testing.assert_array_equal(right, np.asarray(source.resize((16, 16), 3, box=(8, 0, 40, 32))))
    quarter = augmented(source, view(area=0.25, left=0.0, top=0.0), PIXELS)
    np.testing.assert_array_equal(quarter, np.asarray(source.resize((16, 16), 3, box=(0, 0, 16, 16))))


def test_views_are_a_function_of_seed_picture_and_number_and_within_bounds() -> None:
    augmentation = Augmentation(min_area=0.4, flip=0.5, seed=7)
    views = np.stack([draw_view(augmentation, picture, number) for picture in range(200) for number in range(2)])
    assert len(np.unique(views, axis=0)) == 400
    np.testing.assert_array_equal(draw_view(augmentation, 3, 1), views[7])
    assert not (draw_view(dataclasses.replace(augmentation, seed=8), 3, 1) == views[7]).all()
    columns = dict(zip(PARAMETERS, views.T, strict=True))
    assert 0.4 <= columns["area"].min() < 0.45 and 0.95 < columns["area"].max() <= 1
    assert np.abs(columns["aspect"]).max() <= np.log(4 / 3) + 1e-6
    assert 0.4 < columns["flip"].mean() < 0.6
    assert np.abs(columns["brightness"]).max() <= 0.1 and np.abs(columns["contrast"] - 1).max() <= 0.1 + 1e-6


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3)])
def test_pictures_of_any_shape_have_views(size: tuple[int, int]) -> None:
    augmentation = Augmentation(min_area=0.01, max_aspect=10.0)
    for number in range(50):
        found = augmented(picture(*size), draw_view(augmentation, 0, number), PIXELS)
        assert found.shape == (16, 16, 3) and found.dtype == np.uint8


@pytest.mark.parametrize(
    "values",
    [{"min_area": 0.0}, {"max_aspect": 0.5}, {"flip": 1.5}, {"brightness": -1.0}, {"contrast": 1.0}, {"seed": -1}],
)
def test_impossible_augmentations_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        check_augmentation(Augmentation(**values))
