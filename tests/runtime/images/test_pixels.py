"""Pixels against Pillow and transformers' own Pillow image processor; hostile and mistaken inputs."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from clipedge.errors import ImageError, UsageError
from clipedge.images import pixels as images
from clipedge.images.frames import Frame
from clipedge.images.pixels import MAX_PIXELS, as_list, open_rgb, preprocess
from clipedge.manifest import Preprocessing


def preprocessing(height=224, width=224, resize="shortest-edge", shortest_edge=224, interpolation="bicubic"):
    return Preprocessing(
        height=height,
        width=width,
        resize=resize,
        shortest_edge=shortest_edge,
        interpolation=interpolation,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def noise(width, height, channels=3, seed=0):
    """Smooth and sharp parts, so that filters, roundings and offsets all show."""
    rng = np.random.default_rng([seed, width, height])
    ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 100, width))[:, :, None]
    return (ramp + rng.integers(0, 36, (height, width, channels))).astype(np.uint8)


def encode(picture, file_format="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


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


def png(width, height, bit_depth, colour_type, scanlines):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")
    )


def test_16_bit_grey_and_16_bit_colour_files_give_the_same_pixels():
    values = np.arange(0, 65536, 997, dtype=">u2")
    grey = png(len(values), 1, 16, 0, b"\0" + values.tobytes())
    colour = png(len(values), 1, 16, 2, b"\0" + values.repeat(3).tobytes())
    np.testing.assert_array_equal(np.asarray(open_rgb(grey)), np.asarray(open_rgb(colour)))


def test_the_first_picture_of_an_animation():
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(open_rgb(data))[0, 0].tolist() == [255, 0, 0]


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


def smooth(width, height):
    """A picture as a camera sees it: next to nothing at the scale of single pixels."""
    return PIL.Image.fromarray(noise(40, 30)).resize((width, height), PIL.Image.Resampling.BICUBIC)


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


def test_the_callers_picture_is_left_alone():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    with PIL.Image.open(io.BytesIO(encode(PIL.Image.fromarray(noise(40, 20, 4)), exif=exif.tobytes()))) as picture:
        open_rgb(picture)
        assert picture.size == (40, 20) and picture.mode == "RGBA" and picture.getexif()[0x0112] == 6


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
