"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.backends import EngineOptions, check_input, describe_arithmetic
from clipedge.backends.cpu import has_half_products, products_saturate
from clipedge.errors import BackendError, MissingDependencyError
from clipedge.manifest import Target, Variant

try:
    import onnxruntime
except ImportError:
    raise MissingDependencyError(
        'ONNX Runtime is not installed: pip install "clipedge[cpu]" (or "clipedge[gpu]" with an NVIDIA GPU)'
    ) from None

__all__ = ["OnnxRuntimeEngine", "open_engine", "session_options"]

ERRORS_ONLY = 3


class OnnxRuntimeEngine:
    """A tower in an ONNX Runtime session. Safe to call from several threads at once."""

    name = "onnxruntime"
    device = "cpu"
    version: str = onnxruntime.__version__

    def __init__(self, path: Path, variant: Variant, options: EngineOptions) -> None:
        self._variant = variant
        self._output = variant.outputs[0].name
        self.arithmetic = describe_arithmetic(variant.precision, _arithmetic(variant))
        provider = "CPUExecutionProvider"
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=session_options(options, variant.target), providers=[provider]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise BackendError(
                f"ONNX Runtime {self.version} refuses {path.name}: {_first_line(error)}; "
                "update onnxruntime, or export the bundle again"
            ) from None
        self._session.disable_fallback()
        if self._session.get_providers() != [provider]:
            raise BackendError(f"asked for {provider}, ONNX Runtime chose {self._session.get_providers()}")

    def __call__(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        check_input(batch, self._variant)
        feed = {self._variant.inputs[0].name: batch}
        try:
            (embeds,) = self._session.run([self._output], feed)
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime failed on the {self._variant.tower} tower: {_first_line(error)}"
            ) from None
        result: npt.NDArray[np.float32] = embeds
        return result


def open_engine(path: Path, variant: Variant, options: EngineOptions) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(path, variant, options)


def session_options(engine_options: EngineOptions | None = None, target: Target = "any") -> Any:
    """ONNX Runtime's settings for the CPU: right answers in INT8, threads and spinning as asked for.

    ``target`` is that of the graph's variant.
    """
    wanted = engine_options or EngineOptions()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = wanted.threads or 0
    if not wanted.spinning:
        # Threads sleep between calls and spin within one. The other switch, session.intra_op.allow_spinning=0, also
        # lets them sleep between two layers of one call.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if products_saturate() and target != "x86":
        # Without VNNI the u8 x s8 kernels add pairs of products in 16 bits, which saturates: wrong answers. The
        # weights of graphs for x86 have 7 bits so that this cannot happen (clipedge.calibration.rounding). For the
        # others this setting picks slower kernels, which do not saturate.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _arithmetic(variant: Variant) -> str:
    """INT8 layers become MatMulIntegerToFloat, and float16 is widened (tests/runtime/test_executed.py); on ARM with
    float16 products not everywhere, as ONNX Runtime's sources have it. There it has not been run. Behind the float
    biases of graphs for TensorRT no integer product is known here."""
    if variant.precision == "fp16" and has_half_products():
        return "float16 and float32"
    return "int8" if variant.precision == "int8" and variant.target != "tensorrt" else "float32"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
