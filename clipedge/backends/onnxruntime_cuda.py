"""ONNX Runtime's CUDA execution provider, with nothing left to the CPU. Not yet run on a GPU."""

from __future__ import annotations

from pathlib import Path

from clipedge.backends import EngineOptions
from clipedge.backends.onnxruntime import OnnxRuntimeEngine, Provider
from clipedge.manifest import Variant

__all__ = ["CUDA", "open_engine"]

CUDA = Provider(
    "onnxruntime-cuda",
    "CUDAExecutionProvider",
    "cuda",
    # It has no products of 8 bits for Quantize/Dequantize pairs: weights are dequantized.
    lambda variant: "float16" if variant.precision == "fp16" else "float32",
    "it needs an NVIDIA GPU (see `nvidia-smi`) and the CUDA and cuDNN that this ONNX Runtime was built for; "
    "install these, or use another backend",
    "libonnxruntime_providers_cuda.so",
    {"use_tf32": "0"},  # float32 that was asked for is not rounded to TF32
)


def open_engine(path: Path, variant: Variant, options: EngineOptions) -> OnnxRuntimeEngine:
    """Raises MissingDependencyError without the provider, BackendError where it is there and does not run it all."""
    return OnnxRuntimeEngine(path, variant, options, CUDA)
