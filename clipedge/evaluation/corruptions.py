"""Pictures made worse on purpose: noise, blur, contrast, crop, rotation and JPEG artefacts, each in three severities.

After ImageNet-C (Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations"), whose severities 1, 3 and 5 are 1, 2 and 3 here for noise, blur, contrast and JPEG; crop and rotation
are this project's. As there, the picture is corrupted at the size at which a model looks at it, since noise and
artefacts on many more pixels than that would be averaged away:

- noise: normal noise in every channel, standard deviation 0.08, 0.18, 0.38 of full white
- blur: a Gaussian of standard deviation 1, 3, 6 pixels of a picture with a shorter side of 224, in proportion
- contrast: every channel is brought nearer to its mean, to 0.4, 0.2, 0.05 of its distance
- crop: a window of 0.85, 0.7, 0.55 of each side, at a place drawn at random
- rotation: by 10, 25, 45 degrees to a side drawn at random; the corners take the picture's mean colour
- jpeg: written and read with quality 25, 15, 7

What is drawn at random depends on the picture's number, the kind and the severity alone.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageFilter

__all__ = ["CONDITIONS", "CORRUPTIONS", "SEVERITIES", "Condition", "corrupt", "shrink_to"]

SEVERITIES = (1, 2, 3)
NOISE = (0.08, 0.18, 0.38)
BLUR = (1 / 224, 3 / 224, 6 / 224)
CONTRAST = (0.4, 0.2, 0.05)
CROP = (0.85, 0.7, 0.55)
ROTATION = (10, 25, 45)
QUALITY = (25, 15, 7)

Picture = PIL.Image.Image


class Condition(NamedTuple):
    """One of ``CORRUPTIONS`` at one of ``SEVERITIES``."""

    corruption: str
    severity: int


def shrink_to(picture: Picture, side: int) -> Picture:
    """The picture with a shorter side of ``side``, or as it is where that is not longer."""
    shorter = min(picture.size)
    if shorter <= side:
        return picture
    width, height = (max(side, round(length * side / shorter)) for length in picture.size)
    return picture.resize((width, height), PIL.Image.Resampling.BICUBIC)


def corrupt(picture: Picture, condition: Condition, number: int) -> Picture:
    """An RGB picture made worse; ``number`` is its place among the pictures. Only a crop has another size."""
    corruption, severity = condition
    rng = np.random.default_rng([number, list(CORRUPTIONS).index(corruption), severity])
    return CORRUPTIONS[corruption](picture, severity - 1, rng)


def _noise(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    values = np.asarray(picture, np.float32)
    grain = rng.standard_normal(values.shape, np.float32) * np.float32(255 * NOISE[level])
    return _picture(values + grain)


def _blur(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    return picture.filter(PIL.ImageFilter.GaussianBlur(BLUR[level] * min(picture.size)))


def _contrast(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    values = np.asarray(picture, np.float32)
    mean = values.mean(axis=(0, 1))
    return _picture(mean + (values - mean) * np.float32(CONTRAST[level]))


def _crop(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    width, height = (max(1, round(CROP[level] * length)) for length in picture.size)
    left = int(rng.integers(0, picture.width - width + 1))
    top = int(rng.integers(0, picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


def _rotation(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    red, green, blue = (int(value) for value in np.asarray(picture).mean(axis=(0, 1)).round())
    angle = ROTATION[level] * (1 if rng.random() < 0.5 else -1)
    return picture.rotate(angle, PIL.Image.Resampling.BICUBIC, fillcolor=(red, green, blue))


def _jpeg(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    file = BytesIO()
    picture.save(file, "JPEG", quality=QUALITY[level])
    return PIL.Image.open(file).convert("RGB")


def _picture(values: npt.NDArray[np.float32]) -> Picture:
    return PIL.Image.fromarray((values + 0.5).clip(0, 255).astype(np.uint8))


CORRUPTIONS: dict[str, Callable[[Picture, int, np.random.Generator], Picture]] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "crop": _crop,
    "rotation": _rotation,
    "jpeg": _jpeg,
}
CONDITIONS = tuple(Condition(corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES)
