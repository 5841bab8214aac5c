"""ONNX Runtime on the CPU."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.backends import check_input
from clipedge.errors import BackendError, MissingDependencyError
from clipedge.manifest import Variant

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

    def __init__(self, path: Path, variant: Variant, threads: int | None) -> None:
        self._variant = variant
        self._output = variant.outputs[0].name
        provider = "CPUExecutionProvider"
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=session_options(threads), providers=[provider]
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


def open_engine(path: Path, variant: Variant, threads: int | None) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(path, variant, threads)


def session_options(threads: int | None = None) -> Any:
    """ONNX Runtime's settings for the CPU: ``threads`` threads (None: one per core), right answers in INT8."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    if platform.machine().lower() in ("x86_64", "amd64") and not _has_vnni():
        # Without VNNI the u8 x s8 kernels add pairs of products in 16 bits, which saturates: wrong answers.
        # This setting picks kernels that do not. With VNNI it would cost a factor of two to three.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _has_vnni() -> bool:
    """Whether an x86 CPU multiplies u8 x s8 into 32 bits. Where that cannot be told: no, which is slow but right."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
