"""Augmented pictures by recorded parameters: teacher and student see the same crop, whenever each of them looks.

A student learns most from a teacher that is shown exactly its own view (Beyer et al. 2021, "Knowledge distillation: A
good teacher is patient and consistent", arXiv 2106.05237), and a teacher runs once if the views' parameters are kept
with its embeddings (Vasu et al. 2023, "MobileCLIP", arXiv 2311.17049). So a view is a function of a few numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from clipedge.errors import UsageError
from clipedge.manifest import Preprocessing

__all__ = ["PARAMETERS", "Augmentation", "augmented", "check_augmentation", "draw_view"]

# The columns of a view's parameters. ``area`` is a share of what the model's own crop shows, ``aspect`` the logarithm
# of width by height, ``left`` and ``top`` shares of the room that the crop leaves, ``flip`` 0 or 1, ``brightness``
# is added to pixels of [0, 1], ``contrast`` multiplies their distance from the middle.
PARAMETERS = ("area", "aspect", "left", "top", "flip", "brightness", "contrast")


@dataclass(frozen=True)
class Augmentation:
    """What views are drawn from. ``flip`` is a probability: mirrored pictures contradict captions with left and right,
    so it is 0 unless asked for. ``brightness`` and ``contrast`` are the largest changes."""

    min_area: float = 0.7
    max_aspect: float = 4 / 3
    flip: float = 0.0
    brightness: float = 0.1
    contrast: float = 0.1
    seed: int = 0


def check_augmentation(augmentation: Augmentation) -> None:
    """Raises UsageError for values from which no view can be drawn."""
    limits = {
        "min_area": (0.0 < augmentation.min_area <= 1, "above 0 and at most 1"),
        "max_aspect": (1.0 <= augmentation.max_aspect <= 10, "from 1 to 10"),
        "flip": (0.0 <= augmentation.flip <= 1, "a probability from 0 to 1"),
        "brightness": (0.0 <= augmentation.brightness <= 1, "from 0 to 1"),
        "contrast": (0.0 <= augmentation.contrast < 1, "from 0 to below 1"),
        "seed": (augmentation.seed >= 0, "0 or more"),
    }
    for name, (fits, expected) in limits.items():
        if not fits:
            raise UsageError(f"augmentation: expected {name} {expected}, found {getattr(augmentation, name)}")


def draw_view(augmentation: Augmentation, picture: int, view: int) -> npt.NDArray[np.float32]:
    """The parameters (len(PARAMETERS),) of one view of one picture: a function of the seed and these two numbers."""
    rng = np.random.default_rng((augmentation.seed, picture, view))
    area, aspect, left, top, flip, brightness, contrast = rng.random(len(PARAMETERS))
    widest = math.log(augmentation.max_aspect)
    return np.array(
        [
            augmentation.min_area + (1 - augmentation.min_area) * area,
            (2 * aspect - 1) * widest,
            left,
            top,
            float(flip < augmentation.flip),
            (2 * brightness - 1) * augmentation.brightness,
            1 + (2 * contrast - 1) * augmentation.contrast,
        ],
        np.float32,
    )


def augmented(
    picture: PIL.Image.Image, view: npt.NDArray[np.float32], preprocessing: Preprocessing
) -> npt.NDArray[np.uint8]:
    """A view of an RGB picture as a model of this preprocessing takes it, uint8 (height, width, 3)."""
    parameters = dict(zip(PARAMETERS, map(float, view), strict=True))
    box = _crop(picture.width, picture.height, parameters, preprocessing)
    resample = PIL.Image.Resampling[preprocessing.interpolation.upper()]
    crop = picture.resize((preprocessing.width, preprocessing.height), resample, box=box)
    if parameters["flip"]:
        crop = PIL.ImageOps.mirror(crop)
    # By a table of 256 values: a pixel's result depends on that pixel alone.
    levels = np.arange(256) / 255
    changed = 0.5 + (levels - 0.5) * parameters["contrast"] + parameters["brightness"]
    table = np.clip(np.rint(255 * changed), 0, 255).astype(np.uint8)
    view_pixels: npt.NDArray[np.uint8] = table[np.asarray(crop)]
    return view_pixels


def _crop(
    width: int, height: int, parameters: dict[str, float], preprocessing: Preprocessing
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels."""
    shown_width, shown_height = float(width), float(height)
    if preprocessing.resize == "shortest-edge":
        side = min(width, height) / preprocessing.shortest_edge
        shown_width, shown_height = side * preprocessing.width, side * preprocessing.height
    stretch = math.exp(parameters["aspect"] / 2)
    size = math.sqrt(parameters["area"])
    crop_width, crop_height = min(size * stretch * shown_width, width), min(size / stretch * shown_height, height)
    left, top = parameters["left"] * (width - crop_width), parameters["top"] * (height - crop_height)
    # Rounding must not lead out of the picture, which Pillow refuses.
    return left, top, min(left + crop_width, width), min(top + crop_height, height)
