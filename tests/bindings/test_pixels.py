"""The preprocessing of libclipedge against the Python runtime's and against Pillow, bit for bit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from native_pixels import (
    FORMATS,
    HERE,
    INTERPOLATIONS,
    MATRICES,
    OFFSETS,
    OPTIMISED,
    RANGES,
    Pixels,
    ToPixels,
    case_bytes,
    compile_native,
    image_numbers,
    load_native,
    preprocessing_numbers,
)

from clipedge.images.frames import Frame, to_rgb
from clipedge.images.pixels import preprocess
from clipedge.images.resize import _columns_may_come_first, plan
from clipedge.manifest import Preprocessing

COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]
COUNT = 500  # random cases
SANITIZERS = ["-O1", "-g", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = pytest.mark.skipif(not COMPILERS, reason="expected g++ or clang++, found neither; install one")

# Pillow's releases before 13 begin along the rows of every picture. The compiled code does as Pillow 13.
OLD_PILLOW = int(PIL.__version__.split(".")[0]) < 13


def settings_of(height: int, width: int, resize: str, edge: int, interpolation: str, offset: str) -> Preprocessing:
    ones = (1.0, 1.0, 1.0)
    return Preprocessing(height, width, resize, edge, interpolation, ones, ones, crop_offset=offset)  # type: ignore[arg-type]


def random_size(rng: np.random.Generator, number: int) -> tuple[int, int]:
    """Width and height: small, of one pixel, very long, or a camera's."""
    kind = number % 10
    if kind == 0:
        return (1, int(rng.integers(1, 700))) if rng.random() < 0.5 else (int(rng.integers(1, 700)), 1)
    if kind == 1:
        long, short = int(rng.integers(700, 1500)), int(rng.integers(2, 9))
        return (long, short) if rng.random() < 0.5 else (short, long)
    if number % 100 == 2:
        return [(1280, 720), (720, 1280), (641, 479), (1919, 1079), (333, 777)][number // 100 % 5]
    width, height = np.exp(rng.uniform(0, 6, 2)).astype(int)
    return int(width), int(height)


def random_settings(rng: np.random.Generator, width: int, height: int) -> Preprocessing:
    """Square and oblong results, of the picture's own size now and then, larger and smaller than the shorter edge."""
    sizes = [int(size) for size in np.exp(rng.uniform(0, 5.2, 3))]
    if rng.random() < 0.1:
        sizes[0] = min(height, 300)
    if rng.random() < 0.1:
        sizes[1] = min(width, 300)
    if rng.random() < 0.3:
        sizes = [sizes[0]] * 3
    resize = "squash" if rng.random() < 0.4 else "shortest-edge"
    longest = 1_500_000 // max(width / height, height / width)  # or Pillow resizes a line to a field of 100 megapixels
    edge = min(sizes[2], max(1, int(longest**0.5)))
    interpolation = rng.choice(["bicubic", "bicubic", "bilinear", "bilinear", "lanczos", "nearest"])
    return settings_of(sizes[0], sizes[1], resize, edge, str(interpolation), str(rng.choice(OFFSETS)))


def random_frame(rng: np.random.Generator, width: int, height: int, pixel_format: str) -> Frame:
    """Random bytes in rows with up to 16 bytes of rubbish after each but the last."""
    w2, h2 = (width + 1) // 2, (height + 1) // 2
    layout = {
        "nv12": [(height, width), (h2, 2 * w2)],
        "i420": [(height, width), (h2, w2), (h2, w2)],
        "yuyv": [(height, 4 * w2)],
        "uyvy": [(height, 4 * w2)],
        "gray8": [(height, width)],
    }.get(pixel_format, [(height, width * (4 if "a" in pixel_format else 3))])
    strides = tuple(row_bytes + int(rng.integers(0, 17)) for _, row_bytes in layout)
    planes = tuple(
        rng.integers(0, 256, (rows - 1) * stride + row_bytes, np.uint8)
        for (rows, row_bytes), stride in zip(layout, strides, strict=True)
    )
    matrix, value_range = str(rng.choice(MATRICES)), str(rng.choice(RANGES))
    return Frame(planes, strides, width, height, pixel_format, matrix, value_range)  # type: ignore[arg-type]


def random_cases(seed: int, count: int) -> Iterator[tuple[Frame, Preprocessing]]:
    rng = np.random.default_rng(seed)
    made = 0
    while made < count:
        width, height = random_size(rng, made)
        settings = random_settings(rng, width, height)
        frame = random_frame(rng, width, height, FORMATS[made % len(FORMATS)])
        if OLD_PILLOW and _columns_may_come_first(width, height, plan((width, height), settings)):
            continue
        yield frame, settings
        made += 1


def describe(frame: Frame, settings: Preprocessing) -> str:
    return f"{image_numbers(frame)} {frame.strides} -> {preprocessing_numbers(settings)}"


@pytest.fixture(scope="module")
def cases() -> list[tuple[Frame, Preprocessing, Pixels]]:
    """Frames, settings, and what the Python runtime makes of them."""
    return [(frame, how, preprocess([frame], how, threads=1)[0]) for frame, how in random_cases(1, COUNT)]


@pytest.fixture(scope="module", params=[f"{name}, {loops}" for name in COMPILERS for loops in ("any", "AVX2")])
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ToPixels:
    """Each compiler's code, by the loops for any processor and by those for AVX2."""
    compiler, loops = request.param.split(", ")
    library = tmp_path_factory.getbasetemp() / f"pixels-{compiler}.so"
    if not library.exists():
        compile_native(compiler, library, [*OPTIMISED, "-shared", "-fPIC"])
    found = load_native(library, avx2=loops == "AVX2")
    if found is None:
        pytest.skip("this processor has no AVX2")
    return found


def test_every_case_equals_the_python_runtime(
    native: ToPixels, cases: list[tuple[Frame, Preprocessing, Pixels]]
) -> None:
    for frame, settings, expected in cases:
        np.testing.assert_array_equal(native(frame, settings), expected, err_msg=describe(frame, settings))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_rgb_equals_pillow_in_one_call(native: ToPixels, interpolation: str) -> None:
    rng = np.random.default_rng(2)
    for width, height in [(1280, 720), (720, 1280), (640, 480), (200, 150), (31, 1200), (1200, 31), (224, 224), (5, 3)]:
        if OLD_PILLOW and height > 2 * width:
            continue
        for resize in ("shortest-edge", "squash"):
            settings = settings_of(224, 224, resize, 224, interpolation, "down")
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            fit = plan((width, height), settings)
            filter = PIL.Image.Resampling[interpolation.upper()]
            resized = PIL.Image.fromarray(pixels).resize((fit.width, fit.height), filter)
            expected = np.asarray(resized.crop((fit.left, fit.top, fit.right, fit.bottom)))
            found = native(Frame.from_array(pixels, "rgb8"), settings)
            np.testing.assert_array_equal(found, expected, err_msg=f"{width} x {height}, {resize}")


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("value_range", RANGES)
def test_every_pair_of_bytes(native: ToPixels, matrix: str, value_range: str) -> None:
    """Green of all pairs of Cb and Cr with four values of Y each; red and blue of all of Y with Cr, Y with Cb."""
    luma = np.random.default_rng(3).integers(0, 256, (512, 512), np.uint8)
    cb, cr = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    ramp = np.arange(256, dtype=np.uint8).repeat(2)[:, None].repeat(512, axis=1)
    for channels in [(luma, cb, cr), (ramp, cb, cb)]:
        planes = tuple(np.ascontiguousarray(channel).reshape(-1) for channel in channels)
        frame = Frame(planes, (512, 256, 256), 512, 512, "i420", matrix, value_range)  # type: ignore[arg-type]
        found = native(frame, settings_of(512, 512, "squash", 512, "nearest", "down"))
        np.testing.assert_array_equal(found, to_rgb(frame))


@pytest.mark.parametrize(
    ("compiler", "flags", "runner"),
    [
        (COMPILERS[0] if COMPILERS else "g++", SANITIZERS, []),
        ("aarch64-linux-gnu-g++", [*OPTIMISED, "-static"], ["qemu-aarch64"]),
    ],
    ids=["sanitizers", "ARM"],
)
def test_builds_that_python_cannot_load(
    compiler: str,
    flags: list[str],
    runner: list[str],
    cases: list[tuple[Frame, Preprocessing, Pixels]],
    tmp_path: Path,
) -> None:
    """Each plane in memory of exactly its size, and both kinds of loops where there are two."""
    missing = [name for name in (compiler, *runner) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    program, file = tmp_path / "pixels_cases", tmp_path / "cases"
    compile_native(compiler, program, flags, [HERE / "pixels_cases.cpp"])
    file.write_bytes(b"".join(case_bytes(*case) for case in cases))
    run = subprocess.run([*runner, program, file], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"{COUNT} cases")


def test_what_cannot_be_is_refused(native: ToPixels) -> None:
    good = settings_of(224, 224, "shortest-edge", 224, "bicubic", "down")
    for changes, message in [
        ({"width": 0}, "at least 1, found 0 x 4"),
        ({"width": -3}, "at least 1, found -3 x 4"),
        ({"width": 65_536}, "65535 pixels a side .* found 65536 x 4; scale it down"),
        ({"width": 60_000, "height": 60_000}, "178956970 in all, found 60000 x 60000"),
        ({"strides": (11,)}, "plane 0 of an image of 4 x 4 .* 12 bytes per row, found a stride of 11; a stride counts"),
        ({"strides": (2**62,)}, "beyond every memory"),
        ({"width": 65_535, "height": 1, "strides": (3 * 65_535,)}, "would be 14679840 x 224; cut out the part"),
    ]:
        frame = Frame.from_array(np.zeros((4, 4, 3), np.uint8), "rgb8")
        for name, value in changes.items():
            object.__setattr__(frame, name, value)
        with pytest.raises(ValueError, match=message):
            native(frame, good)
