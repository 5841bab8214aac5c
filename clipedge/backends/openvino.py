"""OpenVINO on the CPU, running the same ONNX file."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.backends import EngineOptions, check_input, describe_arithmetic
from clipedge.backends.cpu import products_saturate
from clipedge.errors import BackendError, MissingDependencyError
from clipedge.manifest import Variant

try:
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.passes import ConstantFolding, Manager
except ImportError:
    raise MissingDependencyError('OpenVINO is not installed: pip install "clipedge[openvino]"') from None

__all__ = ["OpenVinoEngine", "compile_properties", "open_engine"]


class OpenVinoEngine:
    """A tower compiled by OpenVINO. Safe to call from several threads at once: they take turns.

    INT8 files run on OpenVINO's INT8 kernels, but not on x86 without VNNI. There those kernels are slower than its
    float32 ones (ViT-B/32, batch 1: 86 ms, 75), and saturate on weights of the full range, which graphs for ARM have.
    So there the weights are expanded to float32 once, and activations are not rounded at all: the answers are nearer
    to the source model's than INT8's are, for four times the memory.
    ``arithmetic`` says which of the two was compiled, as read back from the compiled graph.
    """

    name = "openvino"
    device = "cpu"
    version: str = openvino.__version__.partition("-")[0]

    def __init__(self, path: Path, variant: Variant, options: EngineOptions) -> None:
        self._variant = variant
        if variant.precision == "fp8":
            # 2026.4 reads such graphs and does not clip at E4M3's limits: other numbers than the standard's.
            raise BackendError(f"OpenVINO does not compute FP8 as the standard says ({path.name}): take onnxruntime")
        try:
            model = _read(path)
            in_float = variant.precision == "int8" and products_saturate()
            if in_float:
                _expand_to_float(model)
            self._compiled = openvino.Core().compile_model(model, "CPU", compile_properties(options))
            self._output = self._compiled.output(variant.outputs[0].name)
            self._request = self._compiled.create_infer_request()
            executed = _executed_arithmetic(self._compiled)
        except Exception as error:  # OpenVINO raises RuntimeError and classes of its own without a common base
            raise BackendError(
                f"OpenVINO {self.version} refuses {path.name}: {_reason(error)}; "
                "update openvino, or export the bundle again"
            ) from None
        self.arithmetic = describe_arithmetic(variant.precision, executed) + (" (no VNNI)" if in_float else "")
        # One stream computes one request at a time anyway; a request for each thread would only cost its memory.
        self._lock = Lock()

    def __call__(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        check_input(batch, self._variant)
        try:
            with self._lock:
                results = self._request.infer({self._variant.inputs[0].name: batch}, share_inputs=True)
        except Exception as error:
            raise BackendError(f"OpenVINO failed on the {self._variant.tower} tower: {_reason(error)}") from None
        embeds: npt.NDArray[np.float32] = results[self._output]  # a copy, which the next call leaves alone
        return embeds


def open_engine(path: Path, variant: Variant, options: EngineOptions) -> OpenVinoEngine:
    return OpenVinoEngine(path, variant, options)


def compile_properties(options: EngineOptions) -> dict[str, Any]:
    """OpenVINO's settings for the CPU. Its threads sleep when there is nothing to do: ``spinning`` changes nothing.

    The batch stays a dynamic dimension: on ViT-B/32 a graph reshaped to batch 1 was no faster.
    """
    properties: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # Newer CPUs would compute float layers in bfloat16, and quantize the activations of some on the fly.
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if options.threads is not None:
        properties["INFERENCE_NUM_THREADS"] = options.threads
    return properties


def _read(path: Path) -> Any:
    """The ONNX file as OpenVINO's model. (``Core.read_model`` would try its other readers and print their errors.)"""
    reader = FrontEndManager().load_by_framework("onnx")
    return reader.convert(reader.load(str(path)))


def _expand_to_float(model: Any) -> None:
    """In place: activations skip their Quantize/Dequantize pairs, and int8 weights become float32 constants."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":  # what OpenVINO's reader makes of QuantizeLinear
            _dequantized(node).replace(node.input_value(0))
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)


def _dequantized(quantize: Any) -> Any:
    """The output at the end of a Quantize/Dequantize pair: Convert, Convert, Subtract (unless of zero), Multiply."""
    end = quantize
    while end.get_type_name() != "Multiply":
        readers = end.output(0).get_target_inputs()
        if len(readers) != 1 or (end := next(iter(readers)).get_node()).get_type_name() not in (
            "Convert",
            "Subtract",
            "Multiply",
        ):
            raise BackendError(f"{quantize.get_friendly_name()} is no Quantize/Dequantize pair as ClipEdge writes them")
    return end.output(0)


def _executed_arithmetic(compiled: Any) -> str:
    """What the linear layers of a compiled graph multiply: "int8" if any takes bytes, else "float32"."""
    layers = [node for node in compiled.get_runtime_model().get_ops() if _layer_type(node) == "FullyConnected"]
    bytes_taken = [node.input(0).get_element_type() in (openvino.Type.u8, openvino.Type.i8) for node in layers]
    return "int8" if any(bytes_taken) else "float32"


def _layer_type(node: Any) -> str:
    kind: str = node.get_rt_info()["layerType"].value
    return kind


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message: the ones before it say where in its source the error was noticed."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
