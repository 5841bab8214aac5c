"""What a benchmark feeds: pixel tensors, a camera's frame, an encoded picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from safetensors import safe_open

from clipedge.errors import ImageError, UsageError
from clipedge.images.frames import Frame
from clipedge.images.pixels import open_rgb
from clipedge.model import Clip
from clipedge.selftest import GOLDEN_NAME, TENSORS

__all__ = ["SOURCES", "Picture", "Query", "given_picture", "nv12_frame", "query_from", "synthetic_picture"]

SOURCES = ("tensor", "frame", "jpeg")
WIDTH, HEIGHT = 1280, 720  # of the synthetic picture: a camera's
QUALITY = 90  # of its JPEG
SEED = 0
MOST_SAMPLES = 16  # in a query from tensors
Query = Callable[[int], object]  # embeds so many samples at once


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, decoded and as JPEG; ``description`` is for the record."""

    description: str
    rgb: PIL.Image.Image
    jpeg: bytes


def synthetic_picture() -> Picture:
    """1280 x 720, always the same: a gradient with boxes and grain, about as hard to decode as a photograph."""
    rng = np.random.default_rng(SEED)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    pixels = np.stack([255 * columns / WIDTH, 255 * rows / HEIGHT, 255 - 255 * columns / WIDTH], axis=2)
    for _ in range(40):
        top, left = rng.integers(0, HEIGHT - 40), rng.integers(0, WIDTH - 40)
        bottom, right = top + rng.integers(20, 300), left + rng.integers(20, 300)
        pixels[top:bottom, left:right] = rng.integers(0, 256, 3)
    pixels += rng.normal(0, 6, pixels.shape)
    rgb = PIL.Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")
    file = io.BytesIO()
    rgb.save(file, "JPEG", quality=QUALITY)
    return Picture(f"synthetic, {WIDTH} x {HEIGHT}, JPEG of {len(file.getvalue()) / 1e3:.0f} kB", rgb, file.getvalue())


def given_picture(path: str) -> Picture:
    """A JPEG file of the user's. Raises ImageError if it cannot be read, UsageError for another format."""
    rgb = open_rgb(path)
    data = Path(path).read_bytes()
    if not data.startswith(b"\xff\xd8\xff"):
        raise UsageError(f"--image {path}: expected a JPEG, found another format; convert it, as cameras send JPEGs")
    return Picture(f"{Path(path).name}, {rgb.width} x {rgb.height}, JPEG of {len(data) / 1e3:.0f} kB", rgb, data)


def nv12_frame(picture: PIL.Image.Image) -> Frame:
    """The picture as NV12 (BT.601, full range), as cameras and hardware decoders deliver it; an odd edge is cut off."""
    width, height = picture.width // 2 * 2, picture.height // 2 * 2
    if not width or not height:
        raise ImageError(f"a frame takes 2 x 2 pixels at least, found {picture.width} x {picture.height}")
    planes = np.asarray(picture.crop((0, 0, width, height)).convert("YCbCr"))
    chroma = planes[::2, ::2, 1:].reshape(height // 2, width)
    return Frame.from_array(np.concatenate([planes[:, :, 0], chroma]), "nv12", "bt601", "full")


def query_from(clip: Clip, source: str, picture: Picture) -> Query:
    """The function that is timed.

    "tensor": the engine alone, on the bundle's golden pixels in turn. "frame" and "jpeg": from the one picture to the
    embedding, with all preprocessing. (MLPerf draws samples at random; here a picture repeats, and its bytes may stay
    in the processor's cache, as those of a camera's last frame do.)
    """
    if source == "tensor":
        goldens, engine, turn = _golden_pixels(clip), clip.image_engine, count()
        ring = np.concatenate(
            [goldens] * (1 + -(-MOST_SAMPLES // len(goldens)))
        )  # so that every query is one slice of it

        def from_tensors(samples: int) -> object:
            start = next(turn) * samples % len(goldens)
            return engine(ring[start : start + samples])

        return from_tensors
    image = nv12_frame(picture.rgb) if source == "frame" else picture.jpeg
    return lambda samples: clip.encode_image([image] * samples)


def _golden_pixels(clip: Clip) -> NDArray[np.uint8]:
    with safe_open(clip.bundle.checked_file(GOLDEN_NAME), framework="numpy") as golden:
        pixels: NDArray[np.uint8] = golden.get_tensor(TENSORS["image"][0])
    return pixels
