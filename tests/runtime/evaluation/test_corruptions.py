"""Corruptions do what their definitions say, the more so the severer, and the same at every run."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from clipedge.evaluation.corruptions import (
    BLUR,
    CONDITIONS,
    CONTRAST,
    CORRUPTIONS,
    CROP,
    NOISE,
    SEVERITIES,
    Condition,
    corrupt,
    shrink_to,
)


def scene(width: int = 90, height: int = 60) -> PIL.Image.Image:
    """A smooth picture whose colours tell places apart."""
    x, y = np.meshgrid(np.linspace(60, 190, width), np.linspace(60, 190, height))
    return PIL.Image.fromarray(np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8))


def values(picture: PIL.Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(picture, np.float64)


def flat(level: int, side: int = 200) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (side, side), (level, level, level))


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda item: f"{item[0]}{item[1]}")
def test_a_corrupted_picture_is_a_function_of_picture_number_and_condition(condition: Condition) -> None:
    picture = scene()
    before = picture.tobytes()
    found = corrupt(picture, condition, 7)
    assert found.mode == "RGB"
    assert found.tobytes() == corrupt(picture, condition, 7).tobytes()
    assert picture.tobytes() == before
    drawn = {corrupt(picture, condition, number).tobytes() for number in range(12)}
    assert (len(drawn) > 1) == (condition.corruption in ("noise", "crop", "rotation"))


@pytest.mark.parametrize("corruption", [name for name in CORRUPTIONS if name != "crop"])
def test_severer_is_further_from_the_picture(corruption: str) -> None:
    picture = PIL.Image.fromarray(np.asarray(scene()) + np.random.default_rng(1).integers(0, 40, (60, 90, 1), np.uint8))
    errors = [
        np.abs(values(corrupt(picture, Condition(corruption, i), 3)) - values(picture)).mean() for i in SEVERITIES
    ]
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_the_kinds_and_severities_are_the_documented_ones() -> None:
    assert [tuple(item) for item in CONDITIONS] == [
        (kind, severity) for kind in ("noise", "blur", "contrast", "crop", "rotation", "jpeg") for severity in (1, 2, 3)
    ]


@pytest.mark.parametrize("severity", [1, 2])  # the third reaches black and white
def test_noise_has_its_standard_deviation(severity: int) -> None:
    noisy = values(corrupt(flat(128), Condition("noise", severity), 0))
    assert noisy.std() == pytest.approx(255 * NOISE[severity - 1], rel=0.03)
    assert noisy.mean() == pytest.approx(128, abs=1)
    assert np.corrcoef(noisy.reshape(-1, 3).T)[0, 1] == pytest.approx(0, abs=0.03)  # every channel its own


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_has_its_width_in_proportion_to_the_picture(severity: int) -> None:
    line = np.zeros((224, 224, 3), np.uint8)
    line[:, 112] = 255
    row = values(corrupt(PIL.Image.fromarray(line), Condition("blur", severity), 0))[100, :, 0]
    places = np.arange(224)
    width = np.sqrt((row * (places - 112) ** 2).sum() / row.sum())
    assert width == pytest.approx(224 * BLUR[severity - 1], rel=0.2)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_keeps_the_mean_of_every_channel(severity: int) -> None:
    picture = scene()
    found = values(corrupt(picture, Condition("contrast", severity), 0))
    assert found.mean(axis=(0, 1)) == pytest.approx(values(picture).mean(axis=(0, 1)), abs=0.6)
    assert found.std(axis=(0, 1)) == pytest.approx(CONTRAST[severity - 1] * values(picture).std(axis=(0, 1)), abs=0.4)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_crop_is_a_window_of_the_picture(severity: int) -> None:
    picture = scene()
    whole = np.asarray(picture)
    found = np.asarray(corrupt(picture, Condition("crop", severity), 5))
    height, width = found.shape[:2]
    assert (height, width) == (round(60 * CROP[severity - 1]), round(90 * CROP[severity - 1]))
    left = int(np.abs(whole[0, :, 0].astype(int) - found[0, 0, 0]).argmin())
    top = int(np.abs(whole[:, 0, 1].astype(int) - found[0, 0, 1]).argmin())
    assert (whole[top : top + height, left : left + width] == found).all()


@pytest.mark.parametrize(("severity", "angle"), [(1, 10), (2, 25), (3, 45)])
def test_a_rotation_turns_about_the_centre_to_either_side(severity: int, angle: int) -> None:
    dot = np.zeros((101, 101, 3), np.uint8)
    dot[48:53, 78:83] = 255  # 30 to the right of the centre
    found = set()
    for number in range(16):
        turned = values(corrupt(PIL.Image.fromarray(dot), Condition("rotation", severity), number))[..., 0]
        y, x = (float((turned * axis).sum() / turned.sum()) for axis in np.mgrid[:101, :101])
        found.add(round(np.degrees(np.arctan2(50 - y, x - 50))))
    assert len(found) == 2
    assert sorted(found) == pytest.approx([-angle, angle], abs=2)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda item: f"{item[0]}{item[1]}")
def test_one_pixel_is_enough(condition: Condition) -> None:
    assert min(corrupt(PIL.Image.new("RGB", (1, 1)), condition, 0).size) == 1


def test_large_pictures_are_corrupted_at_the_size_that_a_model_sees() -> None:
    assert shrink_to(scene(900, 600), 224).size == (336, 224)
    assert shrink_to(scene(600, 901), 224).size == (224, 336)
    small = scene(90, 60)
    assert shrink_to(small, 224) is small
