"""What a file holds becomes upright RGB: EXIF orientation, transparency, 16 bits, animations."""

import io
import struct

import numpy as np
import PIL.Image
import pytest
from pictures import encode, noise, png

from clipedge.images.pixels import open_rgb


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_as_by_load_image(tmp_path, orientation, file_format):
    from transformers.image_utils import load_image

    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"picture.{file_format.lower()}"
    path.write_bytes(encode(PIL.Image.fromarray(noise(40, 20)), file_format, exif=exif.tobytes()))
    expected = np.asarray(load_image(str(path)))
    assert expected.shape == ((40, 20, 3) if orientation > 4 else (20, 40, 3))
    upright = open_rgb(path)
    np.testing.assert_array_equal(np.asarray(upright), expected)
    np.testing.assert_array_equal(np.asarray(open_rgb(upright)), expected)  # not turned a second time
    with PIL.Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(open_rgb(picture)), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF|Tag data larger|Truncated File:UserWarning")
@pytest.mark.parametrize(
    "broken",
    [
        b"Exif\0\0neither II nor MM",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0" + struct.pack("<I", 8) + b"\xff\xff" + b"\x12\x01\x09\x00" * 3,
    ],
)
def test_a_broken_exif_block_does_not_hide_the_picture(broken):
    picture = PIL.Image.fromarray(noise(40, 20))
    np.testing.assert_array_equal(np.asarray(open_rgb(encode(picture, exif=broken))), np.asarray(picture))


def test_transparency_is_laid_over_white():
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, :3] = (200, 100, 0)
    pixels[0, :, 3] = (0, 51, 255)
    rgb = np.asarray(open_rgb(PIL.Image.fromarray(pixels)))
    assert rgb.tolist() == [[[255, 255, 255], [244, 224, 204], [200, 100, 0]]]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bits_are_scaled_not_clipped(mode):
    values = np.array([[0, 255, 256, 0x1234, 0xFEFF, 0xFF00, 0xFFFF]], np.uint16)
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    picture = PIL.Image.frombytes(mode, (7, 1), values.astype(dtype).tobytes())
    assert np.asarray(open_rgb(picture))[0, :, 1].tolist() == [0, 0, 1, 0x12, 0xFE, 0xFF, 0xFF]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_files(file_format):
    values = np.arange(0, 65536, 997, dtype=np.uint16).reshape(1, -1)
    data = encode(PIL.Image.frombytes("I;16", values.shape[::-1], values.tobytes()), file_format)
    assert np.asarray(open_rgb(data))[0, :, 0].tolist() == (values[0] // 256).tolist()


def test_16_bit_grey_and_16_bit_colour_files_give_the_same_pixels():
    values = np.arange(0, 65536, 997, dtype=">u2")
    grey = png(len(values), 1, 16, 0, b"\0" + values.tobytes())
    colour = png(len(values), 1, 16, 2, b"\0" + values.repeat(3).tobytes())
    np.testing.assert_array_equal(np.asarray(open_rgb(grey)), np.asarray(open_rgb(colour)))


def test_the_first_picture_of_an_animation():
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(open_rgb(data))[0, 0].tolist() == [255, 0, 0]


def test_the_callers_picture_is_left_alone():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    with PIL.Image.open(io.BytesIO(encode(PIL.Image.fromarray(noise(40, 20, 4)), exif=exif.tobytes()))) as picture:
        open_rgb(picture)
        assert picture.size == (40, 20) and picture.mode == "RGBA" and picture.getexif()[0x0112] == 6
