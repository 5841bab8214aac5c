"""What the preprocessing modes cost, and what the fast one does to an embedding.

    python benchmarks/preprocessing.py [--bundle DIR] [--pictures DIR] [--threads N] [--json]

Pictures are rendered scenes with the noise of a camera, saved as JPEG (quality 90) in the sizes that cameras have, or
a folder of one's own as it is. A row is a mode and a size: milliseconds from JPEG bytes to the model's pixels (median
over all pictures, each picture's modes in turn), and how near the embedding comes to exact mode's, as cosines after
removing the mean embedding. "One call" is Pillow's resize of the whole picture, then the crop: what exact mode has to
equal bit for bit, and is checked to. Without ``--bundle`` the demonstration model is exported in float32 first.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from machine import describe_machine
from numpy.typing import NDArray

import clipedge
from clipedge.calibration.scenes import labelled_scene, render
from clipedge.folders import read_folder
from clipedge.images.pixels import open_rgb, preprocess
from clipedge.manifest import Preprocessing

SIZES = ((640, 480), (1280, 720), (1283, 727), (720, 1280), (1920, 1080), (4032, 3024))
NOISE = 6.0  # standard deviation of each channel of each pixel, of 255: a small camera indoors
QUALITY = 90
REPEATS = 5
LARGE = 4_000_000  # pixels, from which a third of the scenes has to do: drawing one takes seconds

ToPixels = Callable[[bytes], NDArray[np.uint8]]


@dataclass(frozen=True)
class Row:
    """One mode on one set of pictures; cosines are to exact mode."""

    pictures: str
    count: int
    mode: str
    milliseconds: float
    median_centred_cosine: float
    lowest_centred_cosine: float


def rendered_jpegs(size: tuple[int, int], count: int) -> list[bytes]:
    """Labelled test scenes of ``size`` (width, height) with noise."""
    rng = np.random.default_rng(size)
    jpegs = []
    for index in range(count):
        picture = render(labelled_scene("test", index)[0], *size).picture
        picture = np.clip(picture + rng.normal(0, NOISE, picture.shape) + 0.5, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        PIL.Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY)
        jpegs.append(buffer.getvalue())
    return jpegs


def in_one_call(settings: Preprocessing) -> ToPixels:
    """The plain way, for models that are resized by their shorter side and cropped."""
    resampling = PIL.Image.Resampling[settings.interpolation.upper()]

    def to_pixels(jpeg: bytes) -> NDArray[np.uint8]:
        picture = open_rgb(jpeg)
        short, edge = min(picture.size), settings.shortest_edge
        resized = picture.resize([int(edge * side / short) for side in picture.size], resampling)
        left, top = (resized.width - settings.width) // 2, (resized.height - settings.height) // 2
        return np.asarray(resized.crop((left, top, left + settings.width, top + settings.height)))[None]

    return to_pixels


def modes(settings: Preprocessing, threads: int | None) -> dict[str, ToPixels]:
    """By name, in the table's order."""
    ways: dict[str, ToPixels] = {} if settings.resize == "squash" else {"one call": in_one_call(settings)}
    return ways | {
        "exact, one thread": lambda jpeg: preprocess([jpeg], settings, "exact", 1),
        "exact": lambda jpeg: preprocess([jpeg], settings, "exact", threads),
        "fast": lambda jpeg: preprocess([jpeg], settings, "fast", threads),
    }


def measure(clip: clipedge.Clip, title: str, jpegs: Sequence[bytes], threads: int | None) -> list[Row]:
    """A row for each mode."""
    ways = modes(clip.manifest.preprocessing, threads)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    pixels: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in ways}
    for jpeg in jpegs:
        for name, to_pixels in ways.items():
            pixels[name].append(to_pixels(jpeg))
        for _ in range(REPEATS):
            for name, to_pixels in ways.items():
                begin = time.perf_counter()
                to_pixels(jpeg)
                seconds[name].append(time.perf_counter() - begin)
    embeds = {name: np.concatenate([clip.image_engine(one) for one in some]) for name, some in pixels.items()}
    exact = embeds["exact"]
    rows = []
    for name in ways:
        if name != "fast" and not np.array_equal(np.concatenate(pixels[name]), np.concatenate(pixels["exact"])):
            raise SystemExit(f"{title}: the pixels of {name!r} are not those of exact mode")
        cosines = centred_cosines(exact, embeds[name])
        low, middle = float(cosines.min()), float(np.median(cosines))
        rows.append(Row(title, len(jpegs), name, 1000 * float(np.median(seconds[name])), middle, low))
    return rows


def centred_cosines(reference: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row by row, (N,), after removing the reference's mean: unrelated pictures score about 0."""
    mean = reference.mean(axis=0, dtype=np.float64)
    left, right = reference - mean, found - mean
    return (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))


def exported_demo(folder: Path) -> Path:
    """The demonstration model's image tower in float32."""
    from clipedge.export import export

    export(None, folder / "demo", precision="fp32")
    return folder / "demo"


def table(rows: Sequence[Row]) -> str:
    """Markdown; in brackets the number of pictures."""
    lines = [
        "| pictures | mode | JPEG to pixels, ms | median centred cosine to exact | lowest |",
        "|---|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row.pictures} ({row.count}) | {row.mode} | {row.milliseconds:.1f} | {row.median_centred_cosine:.5f} "
        f"| {row.lowest_centred_cosine:.5f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the model that judges (default: the demonstration model)")
    parser.add_argument("--pictures", type=Path, help="a folder of JPEG files to measure on, as well as the scenes")
    parser.add_argument("--count", type=int, default=24, help="scenes of each size (default 24)")
    parser.add_argument("--threads", type=int, help="for decoding and resizing (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        clip = clipedge.load(args.bundle or exported_demo(Path(scratch)))
        rows = []
        if args.pictures:
            jpegs = [path.read_bytes() for path in read_folder(args.pictures).paths]
            rows += measure(clip, str(args.pictures), jpegs, args.threads)
        for width, height in SIZES:
            large = width * height > LARGE
            jpegs = rendered_jpegs((width, height), max(2, args.count // 3) if large else args.count)
            rows += measure(clip, f"scenes, {width} x {height}", jpegs, args.threads)
    machine = describe_machine()
    if args.json:
        print(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    print(f"{machine['cpu']}, {machine['cores']} cores; Pillow {PIL.__version__}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
