"""Engines: each runs one tower's ONNX file. One file per engine, imported only when that engine is opened.

Those on an NVIDIA GPU run only when they are asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clipedge.backends.cpu import has_vnni
from clipedge.errors import BackendError, MissingDependencyError, UsageError
from clipedge.manifest import Precision, Variant

__all__ = [
    "BACKENDS",
    "BATCH",
    "GPU_BACKENDS",
    "NUMBERS",
    "Engine",
    "EngineOptions",
    "engine_facts",
    "open_engine",
    "preferred_backends",
]

BACKENDS = ("onnxruntime", "openvino")
GPU_BACKENDS = ("tensorrt", "onnxruntime-tensorrt", "onnxruntime-cuda")

# What the files of a precision hold, as ``Engine.arithmetic`` calls it.
NUMBERS: dict[Precision, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8", "fp8": "float8"}

# Pictures (or texts) that go through an engine at once: enough to fill the cores, little enough memory for a board.
# Engines that are compiled for a GPU are made for 1 to so many.
BATCH = 16


@dataclass(frozen=True)
class EngineOptions:
    """How an engine uses the processor.

    ``threads``: CPU threads, None for one per core. ``spinning``: whether an engine's threads may wait for the next
    call busily, which answers a little sooner; without it they sleep between calls, and the cores are free and cool.
    Raises UsageError for fewer threads than one.
    """

    threads: int | None = None
    spinning: bool = True

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}; it has to be 1 or more, or None for one per core")


class Engine(Protocol):
    """A loaded tower. ``name`` is the backend, ``device`` what it effectively runs on, ``version`` its library's.

    ``arithmetic`` is what the linear layers are computed in, such as ``"int8"`` or, where that is not the file's
    precision, ``"int8 weights, float32 arithmetic"``.
    """

    name: str
    device: str
    version: str
    arithmetic: str

    def __call__(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """(N, ...) inputs of the tower -> (N, D) L2-normalised embeddings; "dense": (N, rows, columns, D)."""


Opener = Callable[[Path, Variant, EngineOptions], Engine]


def preferred_backends() -> tuple[str, ...]:
    """The backends in the order in which they are tried when none is named.

    In INT8 OpenVINO is the faster one with VNNI (ViT-B/32, batch 1, two cores: 12.9 ms, ONNX Runtime 16.2), and ONNX
    Runtime without it and elsewhere (44 ms, OpenVINO 75). In float32 they are alike.
    """
    return ("openvino", "onnxruntime") if has_vnni() else ("onnxruntime", "openvino")


def open_engine(
    path: Path, variant: Variant, backend: str | None = None, options: EngineOptions | None = None
) -> Engine:
    """Open a tower's graph in the named backend, or in the first of ``preferred_backends()`` that is installed.

    Only the CPU's are tried without a name. Raises UsageError for an unknown backend, MissingDependencyError if it is
    not installed, BackendError if it refuses the graph: a backend that was asked for runs or raises.
    """
    options = options or EngineOptions()
    if backend is not None:
        known = (*BACKENDS, *GPU_BACKENDS)
        if backend not in known:
            raise UsageError(f"unknown backend {backend!r}; there are: {', '.join(known)}")
        return _opener(backend)(path, variant, options)
    missing = []
    for name in preferred_backends():
        try:
            opener = _opener(name)
        except MissingDependencyError as error:
            missing.append(str(error))
            continue
        return opener(path, variant, options)
    raise MissingDependencyError("; ".join(missing))


def engine_facts(engine: Engine) -> dict[str, str]:
    """What computed a result, for reports: backend, version, device, arithmetic."""
    return {
        "backend": engine.name,
        "version": engine.version,
        "device": engine.device,
        "arithmetic": engine.arithmetic,
    }


def describe_arithmetic(weights: Precision, arithmetic: str) -> str:
    """``Engine.arithmetic`` of a file with such weights whose linear layers are computed in such numbers."""
    stored = NUMBERS[weights]
    return arithmetic if stored == arithmetic else f"{stored} weights, {arithmetic} arithmetic"


def check_input(batch: npt.NDArray[np.generic], variant: Variant) -> None:
    """Raise BackendError unless ``batch`` has the dtype and shape of the variant's input."""
    spec = variant.inputs[0]
    fits = batch.ndim == len(spec.shape) and all(
        isinstance(size, str) or size == found for size, found in zip(spec.shape, batch.shape, strict=True)
    )
    if not fits or batch.dtype.name != spec.dtype:
        expected = f"{spec.dtype} {list(spec.shape)}"
        raise BackendError(
            f"the {variant.tower} tower takes {spec.name} as {expected}, found {batch.dtype} {list(batch.shape)}"
        )


def _opener(name: str) -> Opener:
    opener: Opener = import_module(f"clipedge.backends.{name.replace('-', '_')}").open_engine
    return opener
