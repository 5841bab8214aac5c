"""The preprocessing of libclipedge beside Pillow's and the Python runtime's: camera frames to a CLIP's 224 pixels.

    python benchmarks/c_preprocessing.py [--repeats 30] [--compiler g++]

Frames of noise in every format that libclipedge takes. "Pillow" is resize and crop of the same picture, already in
Pillow's memory as RGB: neither the conversion from the format nor the copy into Pillow is counted. The others begin
with the frame. "Python" is the runtime on one thread. libclipedge is compiled by --compiler with -O3 and keeps its
scratch from frame to frame as a loaded model does; "portable" are its loops for any processor, as compiled for this
one. Every way runs on one thread, and what counts is that thread's processor time: on a shared machine the clock on
the wall times the others as well. All ways of a row take turns, medians are reported, and every way's pixels are
compared: they have to be the same bit for bit. Writes results/c_preprocessing.md and .json, prints the former.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from layout import REPOSITORY, RESULTS
from machine import describe_machine
from numpy.typing import NDArray

sys.path.insert(0, str(REPOSITORY / "tests" / "bindings"))

from native_pixels import FORMATS, OPTIMISED, compile_native, load_native

from clipedge.images.frames import Frame, to_rgb
from clipedge.images.pixels import preprocess
from clipedge.images.resize import plan
from clipedge.manifest import Preprocessing

SIZES = ((640, 480), (1280, 720), (1920, 1080))
TARGET_SIZE, TARGET = (1280, 720), 2.5  # times as fast as Pillow
CLIP = Preprocessing(224, 224, "shortest-edge", 224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SQUASH = Preprocessing(224, 224, "squash", 224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

Way = Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Row:
    """One size, format and resize mode: each way's median in milliseconds, and how often AVX2's goes into Pillow's."""

    size: str
    format: str
    resize: str
    pillow: float
    python: float
    portable: float
    avx2: float | None
    speedup: float | None


def random_frame(width: int, height: int, pixel_format: Any) -> Frame:
    rng = np.random.default_rng([width, height])
    shape = {"gray8": (height, width), "yuyv": (height, width, 2), "uyvy": (height, width, 2)}.get(
        pixel_format, (height, width, 4 if "a" in pixel_format else 3)
    )
    if pixel_format in ("nv12", "i420"):
        shape = (height * 3 // 2, width)
    return Frame.from_array(rng.integers(0, 256, shape, np.uint8), pixel_format)


def ways_of(frame: Frame, settings: Preprocessing, library: Path) -> dict[str, Way]:
    """By the name of their field in Row."""
    picture = PIL.Image.fromarray(to_rgb(frame))
    fit = plan(picture.size, settings)

    def pillow() -> NDArray[np.uint8]:
        resized = picture.resize((fit.width, fit.height), PIL.Image.Resampling.BICUBIC)
        return np.asarray(resized.crop((fit.left, fit.top, fit.right, fit.bottom)))

    ways: dict[str, Way] = {
        "pillow": pillow,
        "python": lambda: preprocess([frame], settings, "exact", 1)[0],
    }
    portable, avx2 = (load_native(library, avx2=wanted) for wanted in (False, True))
    assert portable is not None
    ways["portable"] = lambda: portable(frame, settings)
    if avx2 is not None:
        ways["avx2"] = lambda: avx2(frame, settings)
    return ways


def measure(frame: Frame, settings: Preprocessing, library: Path, repeats: int) -> Row:
    ways = ways_of(frame, settings, library)
    size = f"{frame.width} x {frame.height}"
    expected = ways["pillow"]()
    for name, way in ways.items():
        if not np.array_equal(way(), expected):
            raise SystemExit(f"{size}, {frame.format}: the pixels of {name} are not Pillow's")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            begin = time.thread_time()
            way()
            seconds[name].append(time.thread_time() - begin)
    medians: dict[str, float] = {name: 1000 * float(np.median(some)) for name, some in seconds.items()}
    avx2 = medians.pop("avx2", None)
    speedup = None if avx2 is None else medians["pillow"] / avx2
    return Row(size, frame.format, settings.resize, **medians, avx2=avx2, speedup=speedup)


def judge(rows: list[Row]) -> list[dict[str, Any]]:
    """The acceptance: every format of the target's size. ``met`` is None where the processor has no AVX2."""
    width, height = TARGET_SIZE
    return [
        {
            "text": f"{row.size}, {row.format}, {row.resize}: at least {TARGET} times as fast as Pillow",
            "found": row.speedup,
            "met": None if row.speedup is None else row.speedup >= TARGET,
        }
        for row in rows
        if row.size == f"{width} x {height}"
    ]


def markdown(document: dict[str, Any]) -> str:
    machine, rows, targets = document["machine"], document["rows"], document["targets"]
    met = sum(target["met"] is True for target in targets)
    lines = [
        "# Preprocessing in libclipedge",
        "",
        "Frame to 224 x 224 pixels, bicubic, on one thread, in milliseconds of processor time: medians of ways that",
        "take turns. All pixels are equal bit for bit. Pillow: resize and crop alone, of a picture that is RGB in its",
        "memory already. Python: the runtime, from the frame. C++: libclipedge, from the frame. The last column is",
        "Pillow's time divided by that of libclipedge with AVX2.",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; Pillow {document['pillow']}, "
        f"{document['compiler']}; {document['repeats']} repeats.",
        "",
        "| frame | format | resize | Pillow | Python | C++, portable | C++, AVX2 | ratio |",
        "|---|---|---|---:|---:|---:|---:|---:|",
        *(_line(row) for row in rows),
        "",
        f"Target, {TARGET_SIZE[0]} x {TARGET_SIZE[1]}: at least {TARGET} times as fast as Pillow with AVX2: {met} of "
        f"{len(targets)} met.",
    ]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    names = ("pillow", "python", "portable", "avx2")
    cells = ["-" if row[name] is None else f"{row[name]:.2f}" for name in names]
    cells.append("-" if row["speedup"] is None else f"{row['speedup']:.1f}")
    return f"| {row['size']} | {row['format']} | {row['resize']} | " + " | ".join(cells) + " |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="of each way (default 30)")
    parser.add_argument("--compiler", default="g++", help="default g++")
    arguments = parser.parse_args()
    version = subprocess.run([arguments.compiler, "--version"], capture_output=True, text=True, check=True).stdout
    jobs = [(size, pixel_format, CLIP) for size in SIZES for pixel_format in FORMATS]
    jobs += [(TARGET_SIZE, "rgb8", SQUASH), (TARGET_SIZE, "nv12", SQUASH)]
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "pixels.so"
        compile_native(arguments.compiler, library, [*OPTIMISED, "-shared", "-fPIC"])
        rows = [
            measure(random_frame(*size, pixel_format), settings, library, arguments.repeats)
            for size, pixel_format, settings in jobs
        ]
    document = {
        "machine": describe_machine(),
        "pillow": PIL.__version__,
        "compiler": version.splitlines()[0],
        "repeats": arguments.repeats,
        "rows": [asdict(row) for row in rows],
        "targets": judge(rows),
    }
    page = markdown(document)
    (RESULTS / "c_preprocessing.md").write_text(page, encoding="utf-8")
    (RESULTS / "c_preprocessing.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(page, end="")


if __name__ == "__main__":
    main()
