"""Which variant of a bundle a backend on a GPU takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clipedge.backends import BACKENDS, GPU_BACKENDS
from clipedge.errors import UsageError
from clipedge.manifest import FileEntry, Variant
from clipedge.model import choose_variant, variant_name


def bundle(*names: str) -> Any:
    """A bundle as far as the choice looks at it, with image towers called ``int8.x86``, ``fp32``."""
    variants = []
    for name in names:
        precision, _, target = name.partition(".")
        file = FileEntry(f"image.{name}.onnx", "ab" * 32)
        variants.append(Variant("image", precision, target or "any", (file,), 19, (), ()))  # type: ignore[arg-type]
    return SimpleNamespace(folder=Path("bundle"), manifest=SimpleNamespace(variants=tuple(variants)))


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("fp32", "fp16.tensorrt", "int8.tensorrt"), "fp16.tensorrt"),
        (("int8.x86", "int8.arm", "fp32", "int8.tensorrt"), "int8.tensorrt"),
        (("int8.x86", "fp32"), "fp32"),
        (("fp16", "fp16.tensorrt"), "fp16.tensorrt"),
        (("fp8.tensorrt", "fp32"), "fp32"),  # an older GPU has no FP8
        (("fp8.tensorrt",), "fp8.tensorrt"),
    ],
)
def test_what_a_gpu_takes_by_itself(backend: str, names: tuple[str, ...], expected: str) -> None:
    assert variant_name(choose_variant(bundle(*names), "image", None, backend)) == expected


@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_a_processor_takes_nothing_that_was_made_for_a_gpu(backend: str | None) -> None:
    assert variant_name(choose_variant(bundle("fp16.tensorrt", "fp32"), "image", None, backend)) == "fp32"
    with pytest.raises(UsageError, match="for this processor"):
        choose_variant(bundle("fp16.tensorrt"), "image", None, backend)


@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_fp8_for_any_device_is_not_made_but_could_be_written(backend: str | None) -> None:
    assert variant_name(choose_variant(bundle("fp8", "fp16"), "image", None, backend)) == "fp16"


@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_a_processor_takes_float16_last_which_it_would_only_widen(backend: str | None) -> None:
    assert variant_name(choose_variant(bundle("fp16", "fp32"), "image", None, backend)) == "fp32"
    assert variant_name(choose_variant(bundle("fp16"), "image", None, backend)) == "fp16"


def test_a_variant_that_was_named_is_taken() -> None:
    assert variant_name(choose_variant(bundle("fp16.tensorrt", "fp32"), "image", "fp32", "tensorrt")) == "fp32"
