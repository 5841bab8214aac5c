"""NVIDIA's Model Optimizer as the quantizer instead of our own: a float graph and inputs -> a graph with Q/DQ pairs.

Its defaults decide what is quantized and with which ranges (entropy calibration; in INT8 attention up to 512 tokens,
sums and poolings besides the layers, in FP8 attention and sums; scales by channel for weights, by tensor for the rest;
https://nvidia.github.io/Model-Optimizer/guides/_onnx_quantization.html), with four exceptions: what is not quantized
stays in float32 instead of float16, weights are stored as quantized, the products of attention that no kernel takes in
8 bits are left in float (``products_with_tokens``), and FP8 leaves the patch embedding in float. That reads bytes, of
which E4M3 keeps four bits (of what FP8 costs the demonstration model it is two fifths); where it is a convolution,
Model Optimizer leaves it in float by itself. It calibrates on the CPU with one input at a time, as if for INT8; for FP8
the same ranges become those of numbers up to 448.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.calibration.attention import products_with_tokens
from clipedge.calibration.linears import PATCH_EMBED
from clipedge.calibration.storage import save_model
from clipedge.errors import BackendError, MissingDependencyError

__all__ = ["quantize_with_modelopt", "require_modelopt"]


def quantize_with_modelopt(
    model: onnx.ModelProto, batches: Iterable[npt.NDArray[Any]], precision: Literal["int8", "fp8"] = "int8"
) -> onnx.ModelProto:
    """A copy of ``model`` (one input) in symmetric INT8 or FP8 for TensorRT, calibrated on all ``batches``, which have
    to fit into memory.

    Raises MissingDependencyError if Model Optimizer is not installed, BackendError if it fails.
    """
    quantize = require_modelopt()
    inputs = {model.graph.input[0].name: np.concatenate(list(batches))}
    in_float = [node.name for node in model.graph.node if precision == "fp8" and node.name == PATCH_EMBED]
    in_float += products_with_tokens(model)
    with tempfile.TemporaryDirectory(prefix="clipedge-") as folder:
        path, result = Path(folder, "model.onnx"), Path(folder, "quantized.onnx")
        save_model(model, path)
        said = io.StringIO()  # standard output is the report's, and progress is for terminals
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                quantize(
                    str(path),
                    quantize_mode=precision,
                    calibration_data=inputs,
                    calibration_eps=["cpu"],
                    nodes_to_exclude=in_float,
                    high_precision_dtype="fp32",
                    dq_only=True,
                    output_path=str(result),
                    log_level="ERROR",
                )
            quantized = onnx.load(result)
        except Exception as error:  # whatever its many libraries raise
            raise BackendError(
                f"Model Optimizer cannot quantize this model: {type(error).__name__}: {error}; export it in INT8 with "
                "--quantizer clipedge, or in fp16"
            ) from error
    # The file declares the newest IR of the onnx that is installed; what it holds is of the opset that it declares.
    quantized.ir_version = model.ir_version
    onnx.checker.check_model(quantized)
    return quantized


def require_modelopt() -> Callable[..., None]:
    """Model Optimizer's function. Raises MissingDependencyError if it is not installed."""
    try:
        from modelopt.onnx.quantization import quantize
    except ImportError as error:
        raise MissingDependencyError(
            f'NVIDIA Model Optimizer is not installed ({error.name} is missing): pip install "clipedge[modelopt]"'
        ) from None
    found: Callable[..., None] = quantize
    return found
