"""FP8 on NVIDIA GPUs: which have it, and since when TensorRT takes graphs such as ours. Not yet run on a GPU.

Tensor cores multiply E4M3 numbers from compute capability 8.9 on: Ada, Hopper and later, but not a Jetson Orin, which
has 8.7 (https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-quantized-types.html). Model
Optimizer gives each output channel of a weight its own scale; TensorRT has that for FP8 since 10.6. Its release notes
say so of Hopper (https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-10/10.6.0.html),
Model Optimizer's support matrix of Ada and later (https://nvidia.github.io/Model-Optimizer/guides/0_support_matrix.html).
"""

from __future__ import annotations

from clipedge.errors import BackendError
from clipedge.manifest import Variant

__all__ = ["check_fp8", "has_fp8"]

LEAST_CAPABILITY = (8, 9)
LEAST_TENSORRT = (10, 6)


def has_fp8(capability: str) -> bool:
    """Whether a GPU of this compute capability, such as ``"8.7"``, multiplies FP8."""
    return _numbers(capability) >= LEAST_CAPABILITY


def check_fp8(variant: Variant, gpu: str, capability: str, tensorrt: str) -> None:
    """Raises BackendError for a variant in FP8 that this GPU, or this version of TensorRT, has no kernels for."""
    if variant.precision != "fp8":
        return
    if not has_fp8(capability):
        raise BackendError(
            f"the {variant.tower} tower is in FP8, which NVIDIA GPUs have from compute capability 8.9 on (Ada and "
            f"later), and {gpu} has {capability}: take a variant in fp16 or int8"
        )
    if _numbers(tensorrt) < LEAST_TENSORRT:
        raise BackendError(
            f"the {variant.tower} tower is in FP8 with a scale for each channel of its weights, which TensorRT has "
            f"from 10.6 on, and this is {tensorrt}: update TensorRT, or take a variant in fp16 or int8"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(part) for part in version.split(".")[:2])
