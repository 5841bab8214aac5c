"""ONNX Runtime's TensorRT execution provider, with nothing left to the CPU. Not yet run on a GPU.

The provider compiles what its cache lacks when a session is made, which takes minutes. So a session is made only for a
graph that ``clipedge build --backend onnxruntime-tensorrt`` compiled with this ONNX Runtime. (If only TensorRT or the
GPU changed since, ONNX Runtime notices by itself, and compiles again at load: Python is not told these.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime

from clipedge.backends import BATCH, NUMBERS, EngineOptions
from clipedge.backends.onnxruntime import OnnxRuntimeEngine, Provider, check_available
from clipedge.engines import WORKSPACE_BYTES
from clipedge.engines.cache import cached_entry, made_for
from clipedge.errors import BackendError
from clipedge.manifest import TensorSpec, Variant

__all__ = ["TENSORRT", "open_compiled", "open_engine", "our_facts", "provider_options"]

TENSORRT = Provider(
    "onnxruntime-tensorrt",
    "TensorrtExecutionProvider",
    "tensorrt",
    lambda variant: NUMBERS[variant.precision],
    "it needs an NVIDIA GPU (see `nvidia-smi`) and the CUDA and TensorRT that this ONNX Runtime was built for; "
    "install these, or use another backend",
    "libonnxruntime_providers_tensorrt.so",
)


def open_engine(path: Path, variant: Variant, options: EngineOptions) -> OnnxRuntimeEngine:
    """Raises MissingDependencyError without the provider, BackendError without an engine or where it does not run."""
    check_available(TENSORRT)
    entry = cached_entry(path, TENSORRT.backend, our_facts(variant))
    return open_compiled(path, variant, options, entry)


def open_compiled(path: Path, variant: Variant, options: EngineOptions, cache: Path) -> OnnxRuntimeEngine:
    """A session with the engine in ``cache``, which is compiled into it if it is not there.

    Raises BackendError for FP8: the provider has options for float16, bfloat16 and int8, and none for FP8.
    """
    if variant.precision == "fp8":
        raise BackendError(
            f"ONNX Runtime's TensorRT provider does not compile FP8 (the {variant.tower} tower): take the backend "
            "tensorrt, or another variant"
        )
    return OnnxRuntimeEngine(path, variant, options, replace(TENSORRT, options=provider_options(variant, cache)))


def provider_options(variant: Variant, cache: Path) -> dict[str, str]:
    """One engine for every batch from 1 to ``BATCH``, kept in ``cache``: without it, a new batch compiles anew."""
    source = variant.inputs[0]
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_max_workspace_size": str(WORKSPACE_BYTES),
        "trt_profile_min_shapes": _shape(source, 1),
        "trt_profile_opt_shapes": _shape(source, 1),
        "trt_profile_max_shapes": _shape(source, BATCH),
    }


def our_facts(variant: Variant) -> dict[str, str]:
    """What an engine of ``variant`` has to have been compiled for to be opened here."""
    return made_for(variant, {"onnxruntime": onnxruntime.__version__})


def _shape(spec: TensorSpec, batch: int) -> str:
    """``pixels:1x224x224x3``, as the provider wants it."""
    return f"{spec.name}:" + "x".join(map(str, (batch, *spec.shape[1:])))
