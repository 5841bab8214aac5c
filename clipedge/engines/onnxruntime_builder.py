"""An engine that ONNX Runtime's TensorRT provider compiles when a session is made. Not yet run on a GPU."""

from __future__ import annotations

from pathlib import Path

from clipedge.backends import EngineOptions
from clipedge.backends.onnxruntime_tensorrt import open_compiled, our_facts
from clipedge.engines.compiled import Compiled, Progress
from clipedge.manifest import Variant

__all__ = ["compile_engine"]


def compile_engine(graph: Path, variant: Variant, work: Path, timings: Path, progress: Progress) -> Compiled:
    """As ``tensorrt_builder.compile_engine``. The provider reports no progress and keeps kernels' times by itself."""
    progress(f"onnxruntime builds {graph.name}", 0, 1)
    engine = open_compiled(graph, variant, EngineOptions(), work)
    return Compiled(engine, our_facts(variant), f"onnxruntime {engine.version}")
