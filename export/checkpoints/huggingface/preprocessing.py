"""How the model's pictures were prepared, read from the checkpoint's Hugging Face image processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.sections import read_json
from clipedge.manifest import Preprocessing

__all__ = ["CLIP_PROCESSOR", "SIGLIP_PROCESSOR", "preprocessing_of", "processor_config", "read_preprocessing"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

CLIP_PROCESSOR, SIGLIP_PROCESSOR = "CLIPImageProcessor", "SiglipImageProcessor"


@dataclass(frozen=True)
class _Defaults:
    """What an image processor of transformers does where its file says nothing."""

    center_crop: bool
    size: int | Mapping[str, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


PROCESSORS: Mapping[str, _Defaults] = {
    CLIP_PROCESSOR: _Defaults(center_crop=True, size=224, mean=OPENAI_MEAN, std=OPENAI_STD),
    SIGLIP_PROCESSOR: _Defaults(
        center_crop=False, size={"height": 224, "width": 224}, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ),
}
# Other names of a processor: in files that old versions wrote, and of the same thing in another library.
OLD_NAMES = {"CLIPFeatureExtractor": CLIP_PROCESSOR}
VARIANTS = ("Fast", "Pil")

# Pillow's numbers (PIL.Image.Resampling). Box and Hamming exist, but no CLIP is known to use them.
INTERPOLATIONS: Mapping[int, Literal["nearest", "lanczos", "bilinear", "bicubic"]] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}


def read_preprocessing(folder: Path, image_size: int, processor: str = CLIP_PROCESSOR) -> Preprocessing:
    """Read how to prepare pictures for a tower that takes ``image_size`` x ``image_size`` pixels.

    ``processor`` is what the model's pictures go through where the file does not name it.

    Like transformers, takes the ``image_processor`` of ``processor_config.json`` where there is one, and else
    ``preprocessor_config.json``. ``rescale_factor`` and the switches ``do_rescale`` and ``do_normalize`` end up in
    ``mean`` and ``std``, which are for pixels scaled to [0, 1]. Raises CheckpointError for settings that the
    runtime does not honour (it always resizes, and never pads).
    """
    path, values = _processor_settings(folder)
    return preprocessing_of(path, values, image_size, processor)


def preprocessing_of(
    path: Path, values: Mapping[str, Any], image_size: int, processor: str = CLIP_PROCESSOR
) -> Preprocessing:
    """The same of a processor's settings, whoever read them; ``path`` is their file for the messages."""
    defaults = _defaults(path, values, processor)
    if not values.get("do_resize", True):
        raise CheckpointError(f"{path}: do_resize is off; ClipEdge always resizes, expected true")
    if values.get("do_pad"):
        raise CheckpointError(f"{path}: do_pad is true; ClipEdge does not pad pictures, expected false")
    resample = values.get("resample", 3)
    if type(resample) is not int or resample not in INTERPOLATIONS:
        raise CheckpointError(
            f"{path}: resample is {resample!r}; expected 0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic)"
        )
    resize, shortest_edge = _resize(path, values, image_size, defaults)
    mean, std = _mean_and_std(path, values, defaults)
    return Preprocessing(
        height=image_size,
        width=image_size,
        resize=resize,
        shortest_edge=shortest_edge,
        interpolation=INTERPOLATIONS[resample],
        mean=mean,
        std=std,
    )


def _defaults(path: Path, values: Mapping[str, Any], processor: str) -> _Defaults:
    found = str(values.get("image_processor_type") or values.get("feature_extractor_type") or processor)
    name = OLD_NAMES.get(found, found)
    for variant in VARIANTS:
        name = name.removesuffix(variant)
    if name not in PROCESSORS:
        raise CheckpointError(f"{path}: the image processor is {found!r}; expected {' or '.join(PROCESSORS)}")
    return PROCESSORS[name]


def _processor_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file and its settings. A null there is no default: in transformers it switches a step off."""
    combined = folder / "processor_config.json"
    path, document = folder / "preprocessor_config.json", None
    if combined.is_file():
        document = read_json(combined).get("image_processor")
    if isinstance(document, dict):
        path = combined
    elif path.is_file():
        document = read_json(path)
    else:
        raise CheckpointError(
            f"{folder} has no preprocessor_config.json, so how its pictures were resized and normalised is "
            "unknown; add the one that came with the model"
        )
    return path, document


def _resize(
    path: Path, values: Mapping[str, Any], image_size: int, defaults: _Defaults
) -> tuple[Literal["shortest-edge", "squash"], int]:
    size = _size(path, "size", values.get("size", defaults.size), square=bool(values.get("default_to_square", False)))
    crop = None
    if values.get("do_center_crop", defaults.center_crop):
        crop = _size(path, "crop_size", values.get("crop_size", 224), square=True)
        if crop != (image_size, image_size):
            raise CheckpointError(
                f"{path}: crop_size is {' x '.join(map(str, crop))}, but the image tower takes "
                f"{image_size} x {image_size} (config.json); one of the two files belongs to another model"
            )
    if len(size) == 2:
        if size != (image_size, image_size):
            raise CheckpointError(
                f"{path}: size is {size[0]} x {size[1]}; expected {image_size} x {image_size}, what the tower takes"
            )
        return "squash", image_size
    if crop is None:
        raise CheckpointError(
            f"{path}: do_center_crop is off with size by shortest edge, so pictures keep their aspect ratio; "
            f"expected a crop to {image_size} x {image_size}"
        )
    if size[0] < image_size:
        raise CheckpointError(
            f"{path}: the shortest edge is resized to {size[0]} pixels and then cropped to {image_size}, which "
            f"pads with black; expected a shortest edge of {image_size} or more"
        )
    return "shortest-edge", size[0]


def _size(path: Path, key: str, value: Any, square: bool) -> tuple[int] | tuple[int, int]:
    """(shortest edge,) or (height, width), from any of the notations of transformers' ``get_size_dict``."""
    if type(value) is int:
        value = {"height": value, "width": value} if square else {"shortest_edge": value}
    elif isinstance(value, list) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    if isinstance(value, dict):
        numbers = [number for number in value.values() if type(number) is int and number > 0]
        if len(numbers) == len(value) and value.keys() == {"shortest_edge"}:
            return (value["shortest_edge"],)
        if len(numbers) == len(value) and value.keys() == {"height", "width"}:
            return value["height"], value["width"]
    raise CheckpointError(
        f"{path}: {key} is {value!r:.80}; expected a number, a shortest_edge, or height and width (pixels)"
    )


def _mean_and_std(
    path: Path, values: Mapping[str, Any], defaults: _Defaults
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    # transformers computes (p * rescale_factor - mean) / std on pixels p of 0 to 255. With f = 255 * rescale_factor
    # that is (p / 255 - mean / f) / (std / f).
    rescale_factor = values.get("rescale_factor", 1 / 255)
    if type(rescale_factor) not in (int, float) or not 0 < rescale_factor < float("inf"):
        raise CheckpointError(f"{path}: rescale_factor is {rescale_factor!r:.80}; expected a number above zero")
    factor = 255.0 * rescale_factor
    if not values.get("do_rescale", True):
        factor = 255.0
    elif abs(factor - 1.0) < 1e-9:
        factor = 1.0  # files round 1/255; mean and std stay as they were written
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if values.get("do_normalize", True):
        mean = _numbers(path, "image_mean", values.get("image_mean", defaults.mean))
        std = _numbers(path, "image_std", values.get("image_std", defaults.std))
    if min(std) <= 0:
        raise CheckpointError(f"{path}: image_std is {std}; expected numbers above zero")
    return _divided(mean, factor), _divided(std, factor)


def _numbers(path: Path, key: str, value: Any) -> tuple[float, float, float]:
    """Three finite numbers; one number stands for all three channels, as in transformers."""
    numbers = [value] * 3 if type(value) in (int, float) else value
    if (
        not isinstance(numbers, (list, tuple))
        or len(numbers) != 3
        or not all(type(number) in (int, float) and abs(number) < float("inf") for number in numbers)
    ):
        raise CheckpointError(f"{path}: {key} is {value!r:.80}; expected a number, or one for each of 3 channels")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _divided(triple: tuple[float, float, float], divisor: float) -> tuple[float, float, float]:
    return triple[0] / divisor, triple[1] / divisor, triple[2] / divisor


def processor_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """A preprocessor_config.json of CLIP's image processor that is read back as ``preprocessing``."""
    crops = preprocessing.resize == "shortest-edge"
    shape = {"height": preprocessing.height, "width": preprocessing.width}
    numbers = {name: number for number, name in INTERPOLATIONS.items()}
    return {
        "image_processor_type": CLIP_PROCESSOR,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocessing.shortest_edge} if crops else shape,
        "resample": numbers[preprocessing.interpolation],
        "do_center_crop": crops,
        "crop_size": shape,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
