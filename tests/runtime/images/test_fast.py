"""The fast mode: near to the exact one, and JPEGs decoded no larger than needed."""

import io

import numpy as np
import PIL.Image
import pytest
from pictures import encode, noise, png, preprocessing, smooth

from clipedge.errors import ImageError, UsageError
from clipedge.images import pixels as images
from clipedge.images.pixels import preprocess


@pytest.mark.parametrize("size", [(1280, 720), (1283, 727), (2049, 1537), (720, 1280), (400, 300), (100, 80)])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_fast_is_near_to_exact(size, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth(*size), "JPEG", quality=95, exif=exif.tobytes())
    exact, fast = (preprocess([data], preprocessing(), mode).astype(int) for mode in ("exact", "fast"))
    assert np.abs(fast - exact).mean() < 1
    assert np.abs(fast - exact).max() < 16


@pytest.mark.parametrize(
    ("size", "orientation", "decoded"),
    [
        ((1280, 720), 1, (640, 360)),
        ((720, 1280), 6, (640, 360)),  # 1280 x 720 once it is upright
        ((4032, 3024), 1, (504, 378)),
        ((1200, 300), 1, (1200, 300)),  # of its 300 rows not one can be spared
        ((336, 336), 1, (336, 336)),
    ],
)
def test_fast_decodes_a_jpeg_at_the_smallest_size_that_will_do(size, orientation, decoded):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO(encode(PIL.Image.new("RGB", size), "JPEG", exif=exif.tobytes()))
    assert images._decode(file, "it", preprocessing()).pixels.size == decoded


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(997, 753), (753, 997), (2041, 1529)])
def test_fast_sees_the_same_place_where_the_decoder_rounds_the_size_up(size, orientation):
    """The colours say where a pixel is; a picture stretched by the rounding would be off by more at its edges."""
    places = np.zeros((size[1], size[0], 3), np.uint8)
    places[..., 0] = np.linspace(0, 255, size[0])[None, :]
    places[..., 1] = np.linspace(0, 255, size[1])[:, None]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encode(PIL.Image.fromarray(places), "JPEG", quality=98, subsampling=0, exif=exif.tobytes())
    small = preprocessing(32, 32, resize="squash")  # a pixel is 8 steps of colour
    exact, fast = (preprocess([data], small, mode).astype(int) for mode in ("exact", "fast"))
    # Red and green; blue is rounded chroma. Measured: 0.6 at most, and 1.4 at least where the rounding is ignored.
    assert np.abs(fast - exact)[..., :2].sum(axis=-1).mean() < 0.9


def test_fast_leaves_the_callers_jpeg_at_its_size():
    with PIL.Image.open(io.BytesIO(encode(smooth(1280, 720), "JPEG"))) as picture:
        preprocess([picture], preprocessing(), "fast")
        assert picture.size == (1280, 720)


def test_fast_is_exact_for_the_nearest_pixels():
    data = encode(PIL.Image.fromarray(noise(1280, 720)), "JPEG")
    settings = preprocessing(interpolation="nearest")
    np.testing.assert_array_equal(preprocess([data], settings, "fast"), preprocess([data], settings))


def test_fast_refuses_what_exact_refuses(tmp_path):
    cut = encode(smooth(1280, 720), "JPEG")[:-3000]
    for data, message in ((cut, "damaged or cut off"), (png(60_000, 60_000, 8, 2, b""), "at most 178,956,970")):
        with pytest.raises(ImageError, match=message):
            preprocess([data], preprocessing(), "fast")


def test_an_unknown_mode_is_refused():
    with pytest.raises(UsageError, match=r"unknown preprocessing .quick.; there are .exact. .* and .fast."):
        preprocess([], preprocessing(), "quick")
