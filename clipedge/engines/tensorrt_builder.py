"""An engine built by TensorRT's Python API. Not yet run on a GPU.

One set of calls serves every version from 10.3 (JetPack 6) to 11. One means something else there: up to 10.x the flag
STRONGLY_TYPED asks for a network that keeps the types of its ONNX graph; in 11 every network does, and the flag is
deprecated and ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorrt as trt

from clipedge.backends import BATCH
from clipedge.backends.cuda import gpu
from clipedge.backends.fp8 import check_fp8
from clipedge.backends.tensorrt import PLAN_NAME, Log, TensorRtEngine, our_facts
from clipedge.engines import WORKSPACE_BYTES
from clipedge.engines.compiled import Compiled, Progress
from clipedge.errors import BackendError
from clipedge.manifest import TensorSpec, Variant
from clipedge.whole import write_whole

__all__ = ["compile_engine"]


def compile_engine(graph: Path, variant: Variant, work: Path, timings: Path, progress: Progress) -> Compiled:
    """Build an engine of the ONNX file ``graph`` into the folder ``work`` and open it there.

    ``timings`` is the file of kernels' times, which is read and written: what was measured once is not measured again.
    Raises BackendError where there is no GPU or one without FP8 that is asked for, and if TensorRT refuses the graph,
    with its own reason.
    """
    device = gpu()
    check_fp8(variant, device.name, device.capability, trt.__version__)
    log = Log()
    (work / PLAN_NAME).write_bytes(_plan(graph, variant, timings, log, progress))
    engine = TensorRtEngine(work / PLAN_NAME, variant, device)
    return Compiled(engine, our_facts(variant, device), f"tensorrt {trt.__version__}")


def _plan(graph: Path, variant: Variant, timings: Path, log: Log, progress: Progress) -> bytes:
    """The engine's bytes."""
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise _refusal(graph, reasons[0] if reasons else log.reason())
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 that was asked for is not rounded to TF32
    config.add_optimization_profile(_profile(builder, variant.inputs[0]))
    monitor = _monitor(progress)  # which has to outlive the build
    config.progress_monitor = monitor
    _use_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refusal(graph, log.reason())
    cache = config.get_timing_cache()
    if cache is not None:
        write_whole(timings, bytes(cache.serialize()))
    return bytes(plan)


def _use_timings(config: trt.IBuilderConfig, timings: Path) -> None:
    """Start from the kernels' times in a file, or from none: those of another version or GPU, or damaged, are left."""
    known = timings.read_bytes() if timings.is_file() else b""
    for stored in dict.fromkeys((known, b"")):
        cache = config.create_timing_cache(stored)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _profile(builder: trt.Builder, spec: TensorSpec) -> Any:
    """Batches from one input, for which kernels are chosen, to ``BATCH``."""
    profile = builder.create_optimization_profile()
    one, most = (1, *spec.shape[1:]), (BATCH, *spec.shape[1:])
    profile.set_shape(spec.name, one, one, most)
    return profile


def _monitor(progress: Progress) -> Any:
    """TensorRT's progress, handed to ``progress``. TensorRT calls it from several threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step, self.steps.get(phase_name, step))
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


def _refusal(graph: Path, reason: str) -> BackendError:
    return BackendError(
        f"TensorRT {trt.__version__} cannot build an engine of {graph.name}: {reason}; export the bundle again with "
        "--target tensorrt, or update TensorRT"
    )
