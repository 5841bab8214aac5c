"""The preprocessing of libclipedge, compiled by itself and called through ctypes, for tests and benchmarks."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipedge.images.frames import Frame
from clipedge.manifest import Preprocessing

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "bindings" / "c" / "src"
FILES = [
    HERE / "pixels_entry.cpp",
    *(SOURCES / f"{name}.cpp" for name in ("axis", "colour", "kernels", "pixels", "resize")),
]
WARNINGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror"]
# -O3 vectorises the loops; contraction into fused multiply-adds would change the filter's weights.
OPTIMISED = ["-O3", "-ffp-contract=off"]

FORMATS = ("rgb8", "bgr8", "rgba8", "bgra8", "gray8", "nv12", "i420", "yuyv", "uyvy")
MATRICES = ("bt601", "bt709")
RANGES = ("limited", "full")
MODES = ("shortest-edge", "squash")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
OFFSETS = ("down", "half-even")

Pixels = NDArray[np.uint8]
ToPixels = Callable[[Frame, Preprocessing], Pixels]


def compile_native(compiler: str, output: Path, flags: Sequence[str], files: Sequence[Path] = ()) -> None:
    """Compile into ``output``, warnings being errors. Raises AssertionError with what the compiler says."""
    command = [compiler, *WARNINGS, *flags, f"-I{SOURCES}", "-o", output, *FILES, *files]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert run.returncode == 0 and not run.stderr, run.stderr


def image_numbers(frame: Frame) -> list[int]:
    """Width, height, format, matrix and range, as C counts them."""
    return [
        frame.width,
        frame.height,
        FORMATS.index(frame.format) + 1,
        MATRICES.index(frame.color_matrix) + 1,
        RANGES.index(frame.color_range) + 1,
    ]


def preprocessing_numbers(settings: Preprocessing) -> list[int]:
    """Width, height, resize, shortest edge, interpolation and crop offset, as C counts them."""
    return [
        settings.width,
        settings.height,
        MODES.index(settings.resize) + 1,
        settings.shortest_edge,
        INTERPOLATIONS.index(settings.interpolation) + 1,
        OFFSETS.index(settings.crop_offset) + 1,
    ]


def case_bytes(frame: Frame, settings: Preprocessing, expected: Pixels) -> bytes:
    """One case of a file for pixels_cases.cpp."""
    planes = [bytes(plane) for plane in frame.planes]
    strides = [*frame.strides, 0, 0][:3]
    sizes = [*map(len, planes), 0, 0][:3]
    numbers = image_numbers(frame) + preprocessing_numbers(settings)
    # 4x: the gap that a C compiler leaves before 64-bit numbers.
    head = struct.pack("<11i4x3q3q", *numbers, *strides, *sizes)
    return b"".join([head, *planes, expected.tobytes()])


def load_native(library: Path, avx2: bool) -> ToPixels | None:
    """The compiled preprocessing, (H, W, 3) uint8; None where the processor lacks AVX2. Raises ValueError as C does."""
    native = ctypes.CDLL(str(library))
    native.pixels_scratch.restype = ctypes.c_void_p
    scratch = native.pixels_scratch(int(avx2))
    if scratch is None:
        return None
    call = native.pixels_preprocess
    call.argtypes = [ctypes.c_void_p] * 7 + [ctypes.c_size_t]

    def to_pixels(frame: Frame, settings: Preprocessing) -> Pixels:
        planes = [np.frombuffer(plane, np.uint8).ctypes.data for plane in frame.planes]
        pixels = np.full((settings.height, settings.width, 3), 99, np.uint8)
        message = ctypes.create_string_buffer(400)
        failed = call(
            scratch,
            (ctypes.c_void_p * 3)(*planes),
            (ctypes.c_size_t * 3)(*frame.strides),
            (ctypes.c_int32 * 5)(*image_numbers(frame)),
            (ctypes.c_int32 * 6)(*preprocessing_numbers(settings)),
            pixels.ctypes.data,
            message,
            len(message),
        )
        if failed:
            raise ValueError(message.value.decode())
        return pixels

    return to_pixels
