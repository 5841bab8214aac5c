"""TensorRT on an NVIDIA GPU, running an engine that ``clipedge build`` made on this device. Not yet run on a GPU.

The calls are those that TensorRT 10.3 (JetPack 6) to 11 have in common; tests/runtime/engines/ holds them against the
published bindings of both.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.backends import BATCH, NUMBERS, EngineOptions, check_input
from clipedge.backends.fp8 import check_fp8
from clipedge.engines.cache import cached_entry, made_for, tensorrt_facts
from clipedge.errors import BackendError, MissingDependencyError
from clipedge.manifest import TensorSpec, Variant

try:
    import tensorrt as trt
except (ImportError, OSError, RuntimeError) as error:  # the last two: the package without its libraries
    reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
    raise MissingDependencyError(
        f'TensorRT {reason}: pip install "clipedge[tensorrt]"; a Jetson has it from JetPack '
        "(sudo apt install python3-libnvinfer), visible in a virtual environment made with --system-site-packages"
    ) from None

from clipedge.backends.cuda import Buffer, Gpu, Stream, gpu

__all__ = ["PLAN_NAME", "Log", "TensorRtEngine", "open_engine", "our_facts"]

PLAN_NAME = "engine.plan"


class Log(trt.ILogger):  # type: ignore[misc,unused-ignore]
    """Keeps TensorRT's errors for our own message; it would print them."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(" ".join(message.split()))

    def reason(self) -> str:
        """The first error: the later ones mostly follow from it."""
        return self.errors[0] if self.errors else "it gives no reason"


class TensorRtEngine:
    """A tower in a TensorRT engine. Safe to call from several threads at once: they take turns.

    Inputs are copied once, into pinned memory; from there the GPU fetches them. A strongly typed engine computes in the
    types that its graph has, so ``arithmetic`` is the variant's precision.
    """

    name = "tensorrt"
    version: str = trt.__version__

    def __init__(self, plan: Path, variant: Variant, device: Gpu) -> None:
        self._variant = variant
        self.device = f"{device.name}, compute capability {device.capability}"
        self.arithmetic = NUMBERS[variant.precision]
        self._log = Log()
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise self._refusal("cannot read the engine", "run `clipedge build` again")
        _check_tensors(self._engine, variant)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._refusal("cannot run the engine", "free memory on the GPU, or take a smaller variant")
        self._stream = Stream()
        self._input = self._buffer(variant.inputs[0])
        self._output = self._buffer(variant.outputs[0])
        self._lock = Lock()

    def __call__(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        check_input(batch, self._variant)
        with self._lock:
            pieces = [self._run(batch[i : i + BATCH]) for i in range(0, len(batch), BATCH)]
        return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]

    def _run(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """At most ``BATCH`` inputs: what the engine was built for."""
        source, target = self._variant.inputs[0], self._variant.outputs[0]
        shape = (len(batch), *_row(target))
        np.copyto(self._input.host(source.dtype, batch.shape), batch)
        embeds = self._output.host(target.dtype, shape)
        self._input.to_gpu(batch.nbytes, self._stream)
        if not self._context.set_input_shape(source.name, batch.shape):
            raise self._refusal(f"refuses inputs {list(batch.shape)}", "run `clipedge build` again")
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._refusal("failed", "run `clipedge inspect`")
        self._output.to_host(embeds.nbytes, self._stream)
        self._stream.wait()
        return np.array(embeds, np.float32)  # a copy, which the next call leaves alone

    def _buffer(self, spec: TensorSpec) -> Buffer:
        """Memory for ``BATCH`` rows of an input or output, made known to TensorRT."""
        buffer = Buffer(BATCH * int(np.prod(_row(spec))) * np.dtype(spec.dtype).itemsize)
        if not self._context.set_tensor_address(spec.name, buffer.address):
            raise self._refusal(f"refuses memory for {spec.name}", "run `clipedge build` again")
        return buffer

    def _refusal(self, what: str, step: str) -> BackendError:
        tower = self._variant.tower
        return BackendError(f"TensorRT {self.version} {what} of the {tower} tower: {self._log.reason()}; {step}")


def open_engine(path: Path, variant: Variant, options: EngineOptions) -> TensorRtEngine:
    """The engine that was built here for the graph ``path``; ``options`` are the CPU's and change nothing.

    Raises BackendError where there is no GPU or one without FP8 that is asked for, and for an engine that is missing,
    stale or altered: nothing is built.
    """
    device = gpu()
    check_fp8(variant, device.name, device.capability, trt.__version__)
    entry = cached_entry(path, TensorRtEngine.name, our_facts(variant, device))
    return TensorRtEngine(entry / PLAN_NAME, variant, device)


def our_facts(variant: Variant, device: Gpu) -> dict[str, str]:
    """What an engine of ``variant`` has to have been made for to run here."""
    return made_for(variant, tensorrt_facts(trt.__version__, device.name, device.capability))


def _row(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of one row of a batch."""
    return tuple(size for size in spec.shape[1:] if isinstance(size, int))


def _check_tensors(engine: trt.ICudaEngine, variant: Variant) -> None:
    """Raise BackendError unless the engine has the variant's input and output, in their types."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    found = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name for name in names}
    expected = {spec.name: spec.dtype for spec in (*variant.inputs, *variant.outputs)}
    if found != expected:
        raise BackendError(
            f"the engine of the {variant.tower} tower has the tensors {found}, expected {expected}: "
            "run `clipedge build` again"
        )
