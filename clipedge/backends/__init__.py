"""Engines: each runs one tower's ONNX file. One file per engine, imported only when that engine is opened."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clipedge.errors import BackendError, MissingDependencyError, UsageError
from clipedge.manifest import Variant

__all__ = ["BACKENDS", "Engine", "open_engine"]

# In the order in which they are tried when none is named.
BACKENDS = ("onnxruntime",)


class Engine(Protocol):
    """A loaded tower. ``name`` is the backend, ``device`` what it effectively runs on, ``version`` its library's."""

    name: str
    device: str
    version: str

    def __call__(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """(N, ...) inputs of the tower -> (N, D) L2-normalised embeddings."""


Opener = Callable[[Path, Variant, "int | None"], Engine]


def open_engine(path: Path, variant: Variant, backend: str | None = None, threads: int | None = None) -> Engine:
    """Open a tower's graph in the named backend, or in the first of ``BACKENDS`` that is installed.

    ``threads`` is the number of CPU threads (None: one per core). Raises UsageError for an unknown backend,
    MissingDependencyError if it is not installed, BackendError if it refuses the graph: a backend that was asked
    for runs or raises.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; it has to be 1 or more, or None for one per core")
    if backend is not None:
        if backend not in BACKENDS:
            raise UsageError(f"unknown backend {backend!r}; there are: {', '.join(BACKENDS)}")
        return _opener(backend)(path, variant, threads)
    missing = []
    for name in BACKENDS:
        try:
            opener = _opener(name)
        except MissingDependencyError as error:
            missing.append(str(error))
            continue
        return opener(path, variant, threads)
    raise MissingDependencyError("; ".join(missing))


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
    opener: Opener = import_module(f"clipedge.backends.{name}").open_engine
    return opener
