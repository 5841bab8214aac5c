"""ONNX Runtime: on the CPU, and what its execution providers on a GPU share."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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

__all__ = ["OnnxRuntimeEngine", "Provider", "check_available", "open_engine", "session_options"]

ERRORS_ONLY = 3
FATAL_ONLY = 4
WARNINGS = 2


@dataclass(frozen=True)
class Provider:
    """One of ONNX Runtime's execution providers, for which the backend ``backend`` stands.

    ``numbers``: what a variant's linear layers are computed in. ``needs``: the end of the sentence where
    it does not run. ``library``: the file of ONNX Runtime that it is in, if it is one of its own.
    """

    backend: str
    title: str
    device: str
    numbers: Callable[[Variant], str]
    needs: str
    library: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


def _on_the_cpu(variant: Variant) -> str:
    """INT8 layers become MatMulIntegerToFloat, and float16 is widened (tests/runtime/test_executed.py); on ARM with
    float16 products not everywhere, as ONNX Runtime's sources have it. There it has not been run. Behind the float
    biases of graphs for TensorRT no integer product is known here."""
    if variant.precision == "fp16" and has_half_products():
        return "float16 and float32"
    return "int8" if variant.precision == "int8" and variant.target != "tensorrt" else "float32"


CPU = Provider(
    "onnxruntime",
    "CPUExecutionProvider",
    "cpu",
    _on_the_cpu,
    "update onnxruntime, or export the bundle again",
)


class OnnxRuntimeEngine:
    """A tower in an ONNX Runtime session. Safe to call from several threads at once."""

    version: str = onnxruntime.__version__

    def __init__(self, path: Path, variant: Variant, options: EngineOptions, provider: Provider = CPU) -> None:
        self._variant = variant
        self._output = variant.outputs[0].name
        self.name, self.device = provider.backend, provider.device
        self.arithmetic = describe_arithmetic(variant.precision, provider.numbers(variant))
        check_available(provider)
        settings = session_options(options, variant.target)
        if variant.precision == "fp8":
            # ONNX Runtime 1.32's optimizer takes FP8 for integers: it drops a Relu in front of a QuantizeLinear, and
            # gives other numbers than the standard's (tests/runtime/test_fp8.py). So the graph runs as it is written.
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if provider is CPU:
            self._session = _session(path, settings, provider)
        else:
            with _all_on_the_gpu(settings):
                self._session = _session(path, settings, provider)
        _check_effective(provider, self._session.get_providers())

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


def check_available(provider: Provider) -> None:
    """Raise MissingDependencyError unless this build of ONNX Runtime has the provider: it would only warn."""
    available = onnxruntime.get_available_providers()
    if provider.title not in available:
        raise MissingDependencyError(
            f"the installed ONNX Runtime {onnxruntime.__version__} has no {provider.title}, only "
            f'{", ".join(available)}: pip uninstall onnxruntime, then pip install "clipedge[gpu]" (on a Jetson, the '
            "onnxruntime-gpu that NVIDIA publishes for its JetPack)"
        )


def _session(path: Path, settings: Any, provider: Provider) -> Any:
    """A session on this provider or none. Raises BackendError with ONNX Runtime's reason."""
    providers = [(provider.title, dict(provider.options))]
    try:
        # With the fallback it would print what went wrong and try again on the CPU.
        return onnxruntime.InferenceSession(str(path), settings, providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        reason = _missing_library(provider) or _first_line(error)
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} refuses {path.name}: {reason}; {provider.needs}"
        ) from None


@contextmanager
def _all_on_the_gpu(settings: Any) -> Iterator[None]:
    """Have sessions refused that would compute a layer on the CPU, without the lines that ONNX Runtime logs of it."""
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    settings.log_severity_level = FATAL_ONLY
    onnxruntime.set_default_logger_severity(FATAL_ONLY)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(WARNINGS)  # as it is at the start


def _missing_library(provider: Provider) -> str:
    """The library that ONNX Runtime's own of this provider misses, in the loader's words; "" if none.

    ONNX Runtime only logs it, and goes on with the CPU.
    """
    if not provider.library:
        return ""
    try:
        ctypes.CDLL(str(Path(onnxruntime.__file__).with_name("capi") / provider.library))
    except OSError as error:
        return str(error) if "cannot open shared object file" in str(error) else ""
    return ""


def _check_effective(provider: Provider, chosen: list[str]) -> None:
    """Raise BackendError unless a session runs on the provider: without its libraries ONNX Runtime takes the CPU."""
    if chosen[:1] != [provider.title]:
        raise BackendError(
            f"asked for {provider.title}, ONNX Runtime {onnxruntime.__version__} chose {', '.join(chosen)}"
            f"; {provider.needs}"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
