"""Hostile and mistaken inputs: each is an ImageError that says what was found."""

import contextlib

import numpy as np
import PIL.Image
import pytest
from pictures import encode, noise, png, preprocessing

from clipedge.errors import ImageError
from clipedge.images.pixels import MAX_PIXELS, open_rgb, preprocess


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 224, 224), np.float32), r"found float32 \(3, 224, 224\); np.moveaxis.* \* 255"),
        (np.zeros((4, 4, 3), np.float64), r"found float64 .* \* 255"),
        (np.zeros((4, 4, 3), np.uint16), r"found uint16 .* >> 8"),
        (np.zeros((4, 4, 3), bool), "found bool"),
        (np.zeros((3, 8, 9), np.uint8), "moveaxis"),
        (np.zeros((8, 9), np.uint8), 'Frame.from_array\\(array, "gray8"\\)'),
        (np.zeros((8, 9, 4), np.uint8), "rgba8"),
        (np.zeros((8, 9, 1), np.uint8), r"found uint8 \(8, 9, 1\)"),
        (np.zeros((0, 9, 3), np.uint8), "it is empty"),
        (np.zeros(9, np.uint8), r"found uint8 \(9,\)"),
        (np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)), "at most 178,956,970 pixels, found 20000 x 20000"),
    ],
)
def test_an_array_that_is_no_rgb_picture(array, message):
    with pytest.raises(ImageError, match=message):
        preprocess([array], preprocessing())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found 0 bytes"),
        (b"hello, I am a text", "found something that is none"),
        (b"\x89PNG\r\n\x1a\n", "none|damaged"),
        (b"\xff\xd8\xff\xe0", "none|damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n", "PostScript"),
    ],
)
def test_bytes_that_are_no_picture(data, message):
    with pytest.raises(ImageError, match=f"^the image: .*({message})"):
        open_rgb(data)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_a_picture_that_was_cut_off(tmp_path, file_format, kept):
    whole = encode(PIL.Image.fromarray(noise(200, 150)), file_format)
    path = tmp_path / "cut.picture"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ImageError, match=r"cut\.picture: .*(damaged or cut off|is none)"):
        open_rgb(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about TIFF tags
def test_random_damage_raises_only_image_errors():
    rng = np.random.default_rng(6)
    for file_format in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = encode(PIL.Image.fromarray(noise(30, 20)), file_format)
        for _ in range(60):
            data = bytearray(whole)
            for position in rng.integers(0, len(data), 4):
                data[position] = rng.integers(256)
            with contextlib.suppress(ImageError):
                open_rgb(bytes(data))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(13_400, 13_400), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(width, height):
    assert width * height > MAX_PIXELS
    with pytest.raises(ImageError, match="at most 178,956,970 pixels"):
        open_rgb(png(width, height, 8, 2, b""))


def test_the_limit_does_not_depend_on_pillows(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="found 60000 x 60000"):
        open_rgb(png(60_000, 60_000, 8, 2, b""))


def test_a_picture_too_narrow_to_resize_in_memory():
    with pytest.raises(ImageError, match=r"1 x 100000 would be 224 x 22400000; cut out"):
        preprocess([np.zeros((100_000, 1, 3), np.uint8)], preprocessing())


def test_float_and_wide_integer_pictures_are_refused():
    with pytest.raises(ImageError, match="float picture has no range"):
        open_rgb(PIL.Image.new("F", (4, 4)))
    with pytest.raises(ImageError, match="found 0 to 70000"):
        open_rgb(PIL.Image.fromarray(np.array([[0, 70_000]], np.int32)))


def test_an_empty_pil_image_is_refused():
    with pytest.raises(ImageError, match="at least one pixel, found 0 x 5"):
        open_rgb(PIL.Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_first_picture_at_fault_is_named(tmp_path, threads):
    good, bad = noise(300, 200), tmp_path / "bad.jpg"
    bad.write_bytes(encode(PIL.Image.fromarray(noise(900, 900)), "JPEG")[:-5000])  # the end is missing: slow to fail
    with pytest.raises(ImageError, match=r"bad\.jpg: "):
        preprocess([good, good, bad, None, b"nonsense", good], preprocessing(), threads=threads)


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(ImageError, match=r"missing\.png: there is no such file"):
        open_rgb(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="this is a folder"):
        open_rgb(str(tmp_path))
    with pytest.raises(ImageError, match="cannot be opened"):
        open_rgb("a\0b")


def test_the_error_names_the_picture(tmp_path):
    good, bad = noise(8, 8), tmp_path / "bad.jpg"
    bad.write_bytes(b"nonsense")
    with pytest.raises(ImageError, match=r"^images\[2\]: .*found NoneType"):
        preprocess([good, good, None], preprocessing())
    with pytest.raises(ImageError, match=r"bad\.jpg: "):
        preprocess([good, bad], preprocessing())
    with pytest.raises(ImageError, match=r"^images\[1\]: "):
        preprocess([good, b"nonsense"], preprocessing())
