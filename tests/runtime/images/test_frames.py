"""Camera frames against a float64 computation from the standards' forward matrices, and against Pillow."""

import itertools

import numpy as np
import PIL.Image
import pytest

from clipedge.errors import ImageError
from clipedge.images.frames import Frame, to_rgb

KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def reference_rgb(ycbcr, matrix, color_range):
    """Invert the standard's RGB -> Y'CbCr matrix numerically; (..., 3) bytes -> (..., 3) bytes."""
    kr, kb = KR_KB[matrix]
    kg = 1 - kr - kb
    forward = np.array(
        [
            [kr, kg, kb],
            [-kr / (1 - kb) / 2, -kg / (1 - kb) / 2, 0.5],
            [0.5, -kg / (1 - kr) / 2, -kb / (1 - kr) / 2],
        ]
    )
    zero, scale = ([0, 128, 128], [255, 255, 255])
    if color_range == "limited":
        zero, scale = ([16, 128, 128], [219, 224, 224])
    rgb = (ycbcr.astype(np.float64) - zero) / scale @ np.linalg.inv(forward).T
    halves_up = np.floor(rgb * 255 + 0.5 + 1e-9)  # the summand absorbs what float64 leaves of an exact half
    return np.clip(halves_up, 0, 255).astype(np.uint8)


def random_channels(rng, width, height, rows_per_chroma):
    """Y at full size, Cb and Cr subsampled, and all three upsampled pixel by pixel."""
    y = rng.integers(0, 256, (height, width), np.uint8)
    shape = ((height + rows_per_chroma - 1) // rows_per_chroma, (width + 1) // 2)
    cb, cr = rng.integers(0, 256, (2, *shape), np.uint8)
    full = np.empty((height, width, 3), np.uint8)
    for row, column in itertools.product(range(height), range(width)):
        chroma = row // rows_per_chroma, column // 2
        full[row, column] = y[row, column], cb[chroma], cr[chroma]
    return y, cb, cr, full


def interleave(*channels):
    return np.stack(channels, axis=-1).reshape(channels[0].shape[0], -1)


def pack(pixel_format, y, cb, cr):
    if pixel_format == "nv12":
        return [y, interleave(cb, cr)]
    if pixel_format == "i420":
        return [y, cb, cr]
    y = np.pad(y, ((0, 0), (0, y.shape[1] % 2)))
    even, odd = y[:, 0::2], y[:, 1::2]
    return [interleave(even, cb, odd, cr) if pixel_format == "yuyv" else interleave(cb, even, cr, odd)]


def padded(plane, padding):
    """The plane's memory with `padding` bytes of rubbish after every row but the last."""
    memory = np.pad(plane, ((0, 0), (0, padding)), constant_values=99).reshape(-1)
    return memory[: memory.size - padding].tobytes()


@pytest.mark.parametrize("pixel_format", ["nv12", "i420", "yuyv", "uyvy"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("color_range", ["full", "limited"])
@pytest.mark.parametrize(("width", "height", "padding"), [(34, 130, 0), (33, 65, 7), (1, 1, 3)])
def test_yuv_equals_the_float64_computation(pixel_format, matrix, color_range, width, height, padding):
    rng = np.random.default_rng(width)
    rows_per_chroma = 2 if pixel_format in ("nv12", "i420") else 1
    y, cb, cr, full = random_channels(rng, width, height, rows_per_chroma)
    planes = pack(pixel_format, y, cb, cr)
    frame = Frame(
        planes=tuple(padded(plane, padding) for plane in planes),
        strides=tuple(plane.shape[1] + padding for plane in planes),
        width=width,
        height=height,
        format=pixel_format,
        color_matrix=matrix,
        color_range=color_range,
    )
    rgb = to_rgb(frame)
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, reference_rgb(full, matrix, color_range))


def test_full_range_bt601_agrees_with_pillow():
    ycbcr = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    ycbcr[:, 1::2, 1:] = ycbcr[:, 0::2, 1:]  # one chroma value for two pixels, as in yuyv
    packed = pack("yuyv", ycbcr[..., 0], ycbcr[:, ::2, 1], ycbcr[:, ::2, 2])[0]
    frame = Frame((packed,), (128,), 64, 64, "yuyv", "bt601", "full")
    pillow = np.asarray(PIL.Image.frombytes("YCbCr", (64, 64), ycbcr.tobytes()).convert("RGB"))
    difference = np.abs(to_rgb(frame).astype(int) - pillow)
    assert difference.max() <= 1  # Pillow computes with 6 fractional bits


@pytest.mark.parametrize(
    ("matrix", "ycbcr", "rgb"),
    [  # colour bars as the standards tabulate them (limited range)
        ("bt601", (16, 128, 128), (0, 0, 0)),
        ("bt601", (235, 128, 128), (255, 255, 255)),
        ("bt601", (81, 90, 240), (255, 0, 0)),
        ("bt601", (145, 54, 34), (0, 255, 0)),
        ("bt601", (41, 240, 110), (0, 0, 255)),
        ("bt709", (63, 102, 240), (255, 0, 0)),
        ("bt709", (173, 42, 26), (0, 255, 0)),
        ("bt709", (32, 240, 118), (0, 0, 255)),
    ],
)
def test_colour_bars(matrix, ycbcr, rgb):
    y, cb, cr = ycbcr
    frame = Frame((bytes([y, cb, y, cr]),), (4,), 2, 1, "yuyv", matrix, "limited")
    assert np.abs(to_rgb(frame).astype(int) - rgb).max() <= 1


def test_packed_formats():
    rgb = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    alpha = np.full((5, 7, 1), 3, np.uint8)
    bgr = rgb[..., ::-1]
    np.testing.assert_array_equal(to_rgb(Frame.from_bgr(bgr)), rgb)
    np.testing.assert_array_equal(to_rgb(Frame.from_array(rgb, "rgb8")), rgb)
    np.testing.assert_array_equal(to_rgb(Frame.from_array(np.concatenate([rgb, alpha], 2), "rgba8")), rgb)
    np.testing.assert_array_equal(to_rgb(Frame.from_array(np.concatenate([bgr, alpha], 2), "bgra8")), rgb)
    gray = rgb[..., 0]
    np.testing.assert_array_equal(to_rgb(Frame.from_array(gray, "gray8")), np.stack([gray] * 3, 2))


@pytest.mark.parametrize("pixel_format", ["rgb8", "bgr8", "rgba8", "bgra8", "gray8"])
def test_packed_formats_with_padded_rows(pixel_format):
    channels = {"gray8": 1, "rgba8": 4, "bgra8": 4}.get(pixel_format, 3)
    array = np.random.default_rng(2).integers(0, 256, (4, 5, channels), np.uint8)
    rows = array.reshape(4, -1)
    frame = Frame((padded(rows, 11),), (rows.shape[1] + 11,), 5, 4, pixel_format)
    tight = Frame.from_array(array[..., 0] if channels == 1 else array, pixel_format)
    np.testing.assert_array_equal(to_rgb(frame), to_rgb(tight))


@pytest.mark.parametrize("pixel_format", ["nv12", "i420", "yuyv", "uyvy"])
def test_one_array_holds_the_planes_of_a_yuv_frame(pixel_format):
    rng = np.random.default_rng(3)
    y, cb, cr, full = random_channels(rng, 8, 6, 2 if pixel_format in ("nv12", "i420") else 1)
    memory = np.concatenate([plane.reshape(-1) for plane in pack(pixel_format, y, cb, cr)])
    shape = (9, 8) if pixel_format in ("nv12", "i420") else (6, 8, 2)
    frame = Frame.from_array(memory.reshape(shape), pixel_format, "bt709", "full", timestamp=1.5)
    assert (frame.width, frame.height, frame.timestamp) == (8, 6, 1.5)
    np.testing.assert_array_equal(to_rgb(frame), reference_rgb(full, "bt709", "full"))


def test_a_view_of_a_larger_picture():
    rgb = np.random.default_rng(4).integers(0, 256, (20, 20, 3), np.uint8)
    np.testing.assert_array_equal(to_rgb(Frame.from_array(rgb[3:9, 4:17], "rgb8")), rgb[3:9, 4:17])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((bytes(12),), (6,), 2, 2, "rgb24"), "format is one of rgb8"),
        (((bytes(11),), (6,), 2, 2, "rgb8"), "plane 0 needs 12 bytes .* found 11"),
        (((bytes(12),), (2,), 2, 2, "rgb8"), "6 bytes per row, found a stride of 2; a stride counts bytes"),
        (((bytes(12),), (-6,), 2, 2, "rgb8"), "found a stride of -6"),
        (((bytes(12),), (6,), 0, 2, "rgb8"), "at least 1, found 0 x 2"),
        (((bytes(4),), (2,), 2, 2, "nv12"), r"has 2 plane\(s\) .* found 1"),
        (((bytes(4), bytes(1)), (2, 2), 2, 2, "nv12"), "plane 1 needs 2 bytes .* found 1"),
        (((np.zeros(12, np.float32),), (6,), 2, 2, "rgb8"), "must hold uint8, found float32"),
        (((np.zeros((2, 12), np.uint8)[:, ::2],), (6,), 2, 2, "rgb8"), "contiguous"),
        (((b"",), (6,), 2, 2, "rgb8"), "found 0; check the width"),
        ((("text",), (6,), 2, 2, "rgb8"), "byte buffer, found str"),
        (((bytes(12),), (6,), 2, 2, "rgb8", "bt2020"), "color_matrix is one of bt601, bt709; found 'bt2020'"),
        (((bytes(12),), (6,), 2, 2, "rgb8", "bt601", "tv"), "color_range is one of full, limited"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ImageError, match=message):
        Frame(*arguments)


@pytest.mark.parametrize(
    ("shape", "dtype", "pixel_format"),
    [
        ((4, 4), np.uint8, "bgr8"),
        ((4, 4, 4), np.uint8, "bgr8"),
        ((4, 4, 3), np.float32, "bgr8"),
        ((0, 4, 3), np.uint8, "bgr8"),
        ((4, 3, 2), np.uint8, "yuyv"),
        ((4, 4), np.uint8, "nv12"),
        ((6, 3), np.uint8, "i420"),
        ((4, 4, 1), np.uint8, "gray8"),
    ],
)
def test_an_array_of_another_shape_is_refused(shape, dtype, pixel_format):
    with pytest.raises(ImageError, match=rf"a {pixel_format} frame is a uint8 array of shape .* found"):
        Frame.from_array(np.zeros(shape, dtype), pixel_format)
