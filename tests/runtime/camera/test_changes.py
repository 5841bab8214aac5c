"""What counts as a change: nothing that a sensor adds to a still scene, and a small object anywhere in the frame."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from clipedge.camera.changes import CHANGED, Glance, difference, glance
from clipedge.images.frames import Frame, PixelFormat, channel_views, to_rgb

Pixels = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 320, 240
PACKED: tuple[PixelFormat, ...] = ("rgb8", "bgr8", "rgba8", "bgra8", "gray8", "yuyv", "uyvy")
FORMATS: tuple[PixelFormat, ...] = (*PACKED, "nv12", "i420")


def layout(format: PixelFormat, width: int = WIDTH, height: int = HEIGHT) -> list[tuple[int, int]]:
    """(rows, bytes a row) of each plane, written down once more."""
    if format == "nv12":
        return [(height, width), (height // 2, width)]
    if format == "i420":
        return [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    return [(height, width * {"gray8": 1, "yuyv": 2, "uyvy": 2, "rgb8": 3, "bgr8": 3}.get(format, 4))]


def frame_of(format: PixelFormat, planes: list[Pixels], padding: int = 0) -> Frame:
    rows = [np.pad(plane, ((0, 0), (0, padding)), constant_values=np.uint8(77 + padding)) for plane in planes]
    strides = tuple(plane.shape[1] for plane in rows)
    return Frame(tuple(plane.reshape(-1) for plane in rows), strides, WIDTH, HEIGHT, format)


def smooth_planes(format: PixelFormat, rng: np.random.Generator) -> list[Pixels]:
    """Planes of slowly varying bytes, away from the ends of the range."""
    waves = rng.uniform(0.5, 2, 2)
    return [
        np.asarray(
            128 + 50 * np.sin(np.linspace(0, waves[0], rows))[:, None] * np.cos(np.linspace(0, waves[1], length)),
            np.uint8,
        )
        for rows, length in layout(format)
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_noise_is_no_change_and_a_small_object_is_one(format: PixelFormat) -> None:
    rng = np.random.default_rng(FORMATS.index(format))
    planes = smooth_planes(format, rng)
    still = glance(frame_of(format, planes))
    for _ in range(5):
        noisy = [np.asarray((plane + rng.normal(0, 4, plane.shape)).round(), np.uint8) for plane in planes]
        assert difference(still, glance(frame_of(format, noisy))) <= CHANGED
    for _ in range(20):
        top, left = rng.integers(0, 14, 2) / 16  # a square of an eighth of each side, 40 values brighter
        changed = [plane.copy() for plane in planes]
        for plane in changed:
            rows, columns = plane.shape
            y, x = int(top * rows), int(left * columns)
            plane[y : y + rows // 8, x : x + columns // 8] += 40
        assert difference(still, glance(frame_of(format, changed))) > CHANGED


@pytest.mark.parametrize("format", FORMATS)
def test_what_lies_between_the_rows_does_not_matter(format: PixelFormat) -> None:
    planes = smooth_planes(format, np.random.default_rng(1))
    plain = glance(frame_of(format, planes))
    assert difference(plain, glance(frame_of(format, planes, padding=13))) == 0


@pytest.mark.parametrize("format", ["rgb8", "bgra8", "nv12", "yuyv"])
def test_another_colour_of_the_same_brightness_is_a_change(format: PixelFormat) -> None:
    planes = [np.full(size, 128, np.uint8) for size in layout(format)]
    other = [plane.copy() for plane in planes]
    if format in ("rgb8", "bgra8"):
        step = 3 if format == "rgb8" else 4
        other[0][:, 0::step] += 30  # red or blue up, the other one down: the mean of the three stays
        other[0][:, 2::step] -= 30
    elif format == "nv12":
        other[1][:, 0::2] += 30
    else:
        other[0][:, 1::4] += 30
    assert difference(glance(frame_of(format, planes)), glance(frame_of(format, other))) == 30


def test_the_difference_is_that_of_the_means_of_the_samples() -> None:
    """64 x 64 pixels are all of the samples, so a cell is the mean of 4 x 4 pixels."""
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    means = [picture.astype(np.float64).reshape(16, 4, 16, 4, 3).mean(axis=(1, 3)) for picture in (first, second)]
    found = difference(glance(Frame.from_array(first, "rgb8")), glance(Frame.from_array(second, "rgb8")))
    assert found == pytest.approx(np.abs(means[0] - means[1]).max(), abs=1e-4)


def test_frames_of_another_format_or_size_are_always_a_change() -> None:
    grey = np.zeros((30, 40), np.uint8)
    frames = [
        Frame.from_array(grey, "gray8"),
        Frame.from_array(grey.T.copy(), "gray8"),
        Frame.from_array(np.zeros((30, 40, 3), np.uint8), "rgb8"),
        Frame.from_bgr(np.zeros((30, 40, 3), np.uint8)),
    ]
    glances: list[Glance] = list(map(glance, frames))
    for first in range(4):
        for second in range(4):
            assert difference(glances[first], glances[second]) == (0 if first == second else math.inf)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 200), (65, 2)])
def test_a_frame_smaller_than_the_samples_is_looked_at_all_the_same(width: int, height: int) -> None:
    picture = np.full((height, width, 3), 10, np.uint8)
    brighter = np.full((height, width, 3), 30, np.uint8)
    assert difference(glance(Frame.from_bgr(picture)), glance(Frame.from_bgr(brighter))) == 20


@pytest.mark.parametrize("format", FORMATS)
def test_channel_views_lie_in_the_frames_own_memory(format: PixelFormat) -> None:
    rng = np.random.default_rng(3)
    planes = [rng.integers(0, 256, size, np.uint8) for size in layout(format)]
    frame = frame_of(format, planes, padding=5)
    views = channel_views(frame)
    assert all(any(np.shares_memory(view, plane) for plane in frame.planes) for view in views)
    if format in ("rgb8", "rgba8"):
        np.testing.assert_array_equal(np.stack(views, axis=-1), to_rgb(frame))
    if format in ("bgr8", "bgra8"):
        np.testing.assert_array_equal(np.stack(views[::-1], axis=-1), to_rgb(frame))
