"""Resizing in strips against Pillow's own resize and crop in one call; what the fast mode may differ by."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from clipedge.images import resize
from clipedge.images.resize import Fit, as_picture, draft_size, fit_exactly, fit_fast, plan
from clipedge.manifest import Preprocessing

FILTERS = {name: PIL.Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}
CLIP = Preprocessing(224, 224, "shortest-edge", 224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def noise(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng([seed, width, height]).integers(0, 256, (height, width, 3), np.uint8)


def in_one_call(pixels: npt.NDArray[np.uint8], fit: Fit, interpolation: str) -> npt.NDArray[np.uint8]:
    resized = PIL.Image.fromarray(pixels).resize((fit.width, fit.height), FILTERS[interpolation])
    return np.asarray(resized.crop((fit.left, fit.top, fit.right, fit.bottom)))


def random_case(rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], Fit]:
    """A picture and where it goes: up or down, its aspect kept or not, a side unchanged, a crop within or beyond it."""
    width, height = np.exp(rng.uniform(0, 5.3, 2)).astype(int).tolist()
    if rng.random() < 0.4:
        scale = rng.uniform(0.1, 3)
        resized_width, resized_height = max(1, int(width * scale)), max(1, int(height * scale))
    else:
        resized_width, resized_height = np.exp(rng.uniform(0, 5.3, 2)).astype(int).tolist()
    if rng.random() < 0.1:
        resized_width = width
    if rng.random() < 0.1:
        resized_height = height
    crop_width, crop_height = rng.integers(1, 150, 2).tolist()
    left, top = (resized_width - crop_width) // 2, (resized_height - crop_height) // 2
    fit = Fit(resized_width, resized_height, left, top, left + crop_width, top + crop_height)
    return noise(width, height), fit


@pytest.mark.parametrize("interpolation", FILTERS)
def test_strips_and_crops_equal_one_call(interpolation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "_STRIP_PIXELS", 1)  # strips for the smallest pictures
    rng = np.random.default_rng(7)
    for number in range(400):
        pixels, fit = random_case(rng)
        source = pixels if number % 3 == 0 else PIL.Image.fromarray(pixels)
        found = np.asarray(fit_exactly(source, fit, interpolation, threads=1 + number % 4))
        np.testing.assert_array_equal(found, in_one_call(pixels, fit, interpolation), err_msg=f"{pixels.shape} {fit}")


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (640, 480), (601, 1201), (600, 1203)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_camera_sizes_equal_one_call(size: tuple[int, int], threads: int) -> None:
    pixels, fit = noise(*size), plan(size, CLIP)
    found = np.asarray(fit_exactly(pixels, fit, "bicubic", threads))
    np.testing.assert_array_equal(found, in_one_call(pixels, fit, "bicubic"))


def test_fast_keeps_the_geometry() -> None:
    """A picture whose colours say where each pixel is: both modes see the same place, at every size and crop."""
    rng = np.random.default_rng(8)
    for _ in range(150):
        _, fit = random_case(rng)
        width, height = rng.integers(1, 900, 2).tolist()
        places = np.zeros((height, width, 3), np.uint8)
        places[..., 0] = np.linspace(0, 255, width)[None, :]
        places[..., 1] = np.linspace(0, 255, height)[:, None]
        found = np.asarray(fit_fast(places, (0, 0, width, height), fit, "bilinear")).astype(int)
        exact = np.asarray(fit_exactly(as_picture(places), fit, "bilinear", 1)).astype(int)
        assert found.shape == exact.shape
        np.testing.assert_allclose(found, exact, atol=max(2, 255 / min(fit.width, fit.height, width, height)))


def test_fast_computes_what_exact_does_where_there_is_nothing_to_save() -> None:
    pixels = noise(300, 280)
    fit = plan((300, 280), CLIP)
    difference = np.asarray(fit_fast(pixels, (0, 0, 300, 280), fit, "bicubic")).astype(int) - in_one_call(
        pixels, fit, "bicubic"
    )
    assert np.abs(difference).max() <= 1, "Pillow's box is rounded to float32"


def test_a_draft_leaves_the_filter_half_as_much_again() -> None:
    assert draft_size(plan((1280, 720), CLIP)) == (597, 336)
    assert draft_size(plan((720, 1280), CLIP)) == (336, 597)


@pytest.mark.parametrize(
    ("offset", "lefts"), [("down", [0, 0, 1, 1, 2, 2, 3, 3]), ("half-even", [0, 0, 1, 2, 2, 2, 3, 4])]
)
def test_the_centre_of_an_odd_surplus(offset: str, lefts: list[int]) -> None:
    """Surpluses 0 to 7; torchvision's CenterCrop computes int(round(surplus / 2.0))."""
    settings = dataclasses.replace(CLIP, crop_offset=offset)
    assert [plan((224 + surplus, 224), settings).left for surplus in range(8)] == lefts
    assert [plan((224, 224 + surplus), settings).top for surplus in range(8)] == lefts
