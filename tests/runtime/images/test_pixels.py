"""Pixels against Pillow and transformers' own Pillow image processor."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pictures import encode, noise, preprocessing

from clipedge.errors import ImageError
from clipedge.images.frames import Frame
from clipedge.images.pixels import as_list, preprocess


def transparent_palette():
    picture = PIL.Image.fromarray(noise(90, 70)).quantize(16)
    return encode(picture, transparency=3)


def transparent_rgb():
    pixels = noise(50, 60)
    pixels[10:30, 10:30] = (9, 8, 7)
    return encode(PIL.Image.fromarray(pixels), transparency=(9, 8, 7))


def translucent(mode):
    return encode(PIL.Image.fromarray(noise(80, 50, 4)).convert(mode))


def rgb_png(width, height):
    return encode(PIL.Image.fromarray(noise(width, height)))


ENCODED = {
    "portrait": lambda: rgb_png(97, 161),
    "landscape": lambda: rgb_png(301, 150),
    "1:20": lambda: rgb_png(20, 400),
    "20:1": lambda: rgb_png(1000, 50),
    "4000 pixels": lambda: encode(PIL.Image.fromarray(noise(4000, 301)), "JPEG"),
    "one pixel": lambda: rgb_png(1, 1),
    "one pixel high": lambda: rgb_png(37, 1),
    "three pixels wide": lambda: rgb_png(3, 31),
    "already the size": lambda: rgb_png(224, 224),
    "one too wide": lambda: rgb_png(225, 224),
    "jpeg": lambda: encode(PIL.Image.fromarray(noise(203, 301)), "JPEG"),
    "progressive jpeg": lambda: encode(PIL.Image.fromarray(noise(203, 99)), "JPEG", progressive=True),
    "grey": lambda: encode(PIL.Image.fromarray(noise(90, 61)[..., 0])),
    "bilevel": lambda: encode(PIL.Image.fromarray(noise(90, 61)[..., 0]).convert("1")),
    "rgba": lambda: translucent("RGBA"),
    "grey with alpha": lambda: translucent("LA"),
    "webp with alpha": lambda: encode(PIL.Image.fromarray(noise(80, 50, 4)), "WEBP", lossless=True),
    "palette": lambda: encode(PIL.Image.fromarray(noise(90, 70)).quantize(64)),
    "palette with transparency": transparent_palette,
    "rgb with a transparent colour": transparent_rgb,
    "gif": lambda: encode(PIL.Image.fromarray(noise(90, 70)).quantize(64), "GIF"),
    "cmyk jpeg": lambda: encode(PIL.Image.fromarray(noise(120, 80)).convert("CMYK"), "JPEG"),
    "tiff": lambda: encode(PIL.Image.fromarray(noise(60, 90)), "TIFF", compression="tiff_lzw"),
    "bmp": lambda: encode(PIL.Image.fromarray(noise(60, 91)), "BMP"),
}


def processor(settings):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    squash = settings.resize == "squash"
    return CLIPImageProcessorPil(
        size={"height": settings.height, "width": settings.width}
        if squash
        else {"shortest_edge": settings.shortest_edge},
        crop_size={"height": settings.height, "width": settings.width},
        do_center_crop=not squash,
        resample=PIL.Image.Resampling[settings.interpolation.upper()],
        do_rescale=False,
        do_normalize=False,
    )


def transformers_pixels(picture, settings):
    pixels = processor(settings)(picture, return_tensors="np")["pixel_values"]
    assert pixels.dtype == np.uint8
    return pixels.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", ENCODED)
def test_pixels_equal_transformers(name):
    data = ENCODED[name]()
    expected = transformers_pixels(PIL.Image.open(io.BytesIO(data)), preprocessing())
    pixels = preprocess([data], preprocessing())
    assert pixels.dtype == np.uint8 and pixels.shape == (1, 224, 224, 3) and pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    "settings",
    [
        preprocessing(64, 64, shortest_edge=64),
        preprocessing(65, 33, shortest_edge=65),
        preprocessing(31, 64, shortest_edge=50),  # cut in one direction, padded in none
        preprocessing(64, 64, shortest_edge=41),  # smaller than the crop: padded, by an odd number
        preprocessing(64, 30, shortest_edge=41),
        preprocessing(48, 80, resize="squash"),
        preprocessing(40, 40, shortest_edge=40, interpolation="nearest"),
        preprocessing(40, 40, shortest_edge=40, interpolation="bilinear"),
        preprocessing(40, 40, shortest_edge=40, interpolation="lanczos"),
    ],
    ids=str,
)
def test_every_setting_equals_transformers(settings):
    sizes = [(64, 64), (65, 64), (63, 100), (41, 41), (200, 33), (7, 150), (119, 83)]
    pictures = [PIL.Image.fromarray(noise(*size)) for size in sizes]
    for picture in pictures:
        np.testing.assert_array_equal(
            preprocess([picture], settings), transformers_pixels(picture, settings), err_msg=str(picture.size)
        )


def test_many_sizes_round_as_transformers():
    rng = np.random.default_rng(5)
    settings = preprocessing(28, 28, shortest_edge=28)
    for width, height in rng.integers(1, 120, (150, 2)).tolist():
        picture = PIL.Image.fromarray(noise(width, height))
        expected = transformers_pixels(picture, settings)
        np.testing.assert_array_equal(preprocess([picture], settings), expected, err_msg=f"{width}x{height}")


def test_pixels_equal_pillows_resize_and_crop():
    picture = PIL.Image.fromarray(noise(640, 427))
    resized = picture.resize((335, 224), PIL.Image.Resampling.BICUBIC)  # int(224 * 640 / 427) = 335
    expected = np.asarray(resized)[:, 55:279]  # (335 - 224) // 2 = 55
    np.testing.assert_array_equal(preprocess([picture], preprocessing())[0], expected)


def test_golden_pixels_worked_out_by_hand():
    # Halved by the triangle filter: weights 1 3 3 1 of 8, centred at 2.5 and 4.5 of a ramp of 16 per pixel.
    ramp = np.arange(0, 128, 16, dtype=np.uint8)[None, :, None].repeat(4, 0).repeat(3, 2)
    pixels = preprocess([ramp], preprocessing(2, 2, shortest_edge=2, interpolation="bilinear"))
    assert pixels[0, :, :, 1].tolist() == [[40, 72], [40, 72]]


def test_a_picture_smaller_than_the_crop_stands_in_the_middle_of_black():
    white = np.full((1, 1, 3), 255, np.uint8)
    pixels = preprocess([white], preprocessing(4, 3, shortest_edge=1))
    assert pixels[0, :, :, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 255, 0], [0, 0, 0]]


def test_every_kind_of_input_gives_the_same_pixels(tmp_path):
    array = noise(50, 40)
    data = encode(PIL.Image.fromarray(array))
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with PIL.Image.open(path) as opened:
        inputs = [data, str(path), path, opened, array, array[::-1][::-1], Frame.from_bgr(array[..., ::-1])]
        pixels = preprocess(inputs, preprocessing(16, 16, shortest_edge=16))
    for index in range(1, len(inputs)):
        np.testing.assert_array_equal(pixels[index], pixels[0], err_msg=str(index))


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("threads", [2, 3, 64, None])
def test_threads_change_nothing(mode, threads):
    jpegs = [encode(PIL.Image.fromarray(noise(700 + 20 * i, 500, seed=i)), "JPEG") for i in range(5)]
    pictures = [*jpegs, noise(800, 600), Frame.from_bgr(noise(801, 600))]
    expected = [preprocess([picture], preprocessing(), mode, 1)[0] for picture in pictures]
    np.testing.assert_array_equal(preprocess(pictures, preprocessing(), mode, threads), expected)
    for picture, pixels in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(preprocess([picture], preprocessing(), mode, threads)[0], pixels)


def test_a_picture_that_is_in_the_list_twice_is_loaded_once():
    data = encode(PIL.Image.fromarray(noise(900, 700)), "JPEG")
    expected = preprocess([data], preprocessing())
    for _ in range(20):
        with PIL.Image.open(io.BytesIO(data)) as unloaded:
            found = preprocess([unloaded] * 4, preprocessing(), threads=4)
        np.testing.assert_array_equal(found, np.repeat(expected, 4, axis=0))


def test_as_list():
    array = noise(4, 5)
    frame = Frame.from_bgr(array)
    picture = PIL.Image.fromarray(array)
    for one in ["a.png", Path("a.png"), b"bytes", picture, frame]:
        assert as_list(one) == [one]
    assert [item.shape for item in as_list(array)] == [(5, 4, 3)]
    assert [item.shape for item in as_list(np.stack([array, array]))] == [(5, 4, 3)] * 2
    assert as_list(["a.png", b"bytes"]) == ["a.png", b"bytes"]
    assert as_list(Path(name) for name in "ab") == [Path("a"), Path("b")]
    assert as_list([]) == []
    with pytest.raises(ImageError, match=r"expected a path, encoded bytes.* found int"):
        as_list(3)


def test_no_pictures():
    assert preprocess([], preprocessing()).shape == (0, 224, 224, 3)
