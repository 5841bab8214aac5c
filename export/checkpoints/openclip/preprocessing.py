"""OpenCLIP's ``preprocess_cfg``, as ``open_clip.transform.image_transform`` honours it at inference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from clipedge.export.checkpoints.huggingface.preprocessing import OPENAI_MEAN, OPENAI_STD
from clipedge.export.checkpoints.sections import Section
from clipedge.manifest import Preprocessing

__all__ = ["read_openclip_preprocessing"]

# "random" picks a filter for each picture of the training, and is bicubic afterwards.
INTERPOLATIONS: Mapping[str, Literal["bicubic", "bilinear"]] = {
    "bicubic": "bicubic",
    "bilinear": "bilinear",
    "random": "bicubic",
}
RESIZE_MODES: Mapping[str, Literal["shortest-edge", "squash"]] = {"shortest": "shortest-edge", "squash": "squash"}


def read_openclip_preprocessing(path: Path, values: Mapping[str, Any], image_size: int) -> Preprocessing:
    """``values`` is ``preprocess_cfg``; ``path`` the file for the messages.

    Missing values are OpenAI's: bicubic, the shorter side scaled to ``image_size``, the centre cut out. OpenCLIP
    overrides ``size`` with that of the tower, so one that differs from it is of another model. Raises CheckpointError
    for that, and for settings that the runtime does not honour (``resize_mode`` "longest" pads).
    """
    section = Section(path, "preprocess_cfg", {key: value for key, value in values.items() if value is not None})
    size = section.values.get("size", image_size)
    if size not in (image_size, [image_size, image_size], (image_size, image_size)):
        raise section.refuse("size", f"{image_size}, what the image tower takes")
    if section.values.get("mode", "RGB") != "RGB":
        raise section.refuse("mode", "RGB")
    interpolation = section.values.get("interpolation", "bicubic")
    if interpolation not in INTERPOLATIONS:
        raise section.refuse("interpolation", " or ".join(INTERPOLATIONS))
    resize_mode = section.values.get("resize_mode", "shortest")
    if resize_mode not in RESIZE_MODES:
        raise section.refuse("resize_mode", " or ".join(RESIZE_MODES))
    mean, std = _three(section, "mean", OPENAI_MEAN), _three(section, "std", OPENAI_STD)
    if min(std) <= 0:
        raise section.refuse("std", "numbers above zero")
    return Preprocessing(
        height=image_size,
        width=image_size,
        resize=RESIZE_MODES[resize_mode],
        shortest_edge=image_size,
        interpolation=INTERPOLATIONS[interpolation],
        mean=mean,
        std=std,
        crop_offset="half-even",  # torchvision's CenterCrop
    )


def _three(section: Section, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    """A number for each channel; one stands for all three."""
    value = section.values.get(key, default)
    numbers = [value] * 3 if type(value) in (int, float) else value
    if (
        not isinstance(numbers, (list, tuple))
        or len(numbers) != 3
        or not all(type(number) in (int, float) and abs(number) < float("inf") for number in numbers)
    ):
        raise section.refuse(key, "a number, or one for each of 3 channels")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
