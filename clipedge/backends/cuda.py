"""The NVIDIA GPU through cuda-python: which one it is, its memory, one stream. Not yet run on a GPU.

Every call of ``cuda.bindings.runtime`` returns a tuple whose first item is the error code.
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.errors import BackendError, MissingDependencyError

try:
    from cuda.bindings import runtime as cudart
except ImportError:
    raise MissingDependencyError(
        'the TensorRT backend needs cuda-python: pip install "clipedge[tensorrt]" '
        '(with CUDA 12, as on JetPack 6: pip install "cuda-python<13")'
    ) from None

__all__ = ["Buffer", "Gpu", "Stream", "gpu"]


@dataclass(frozen=True)
class Gpu:
    """A GPU by its name (``"Orin"``), compute capability (``"8.7"``) and memory in bytes, a Jetson's whole RAM."""

    name: str
    capability: str
    memory: int


def gpu() -> Gpu:
    """The GPU that this process computes on. Raises BackendError where CUDA finds none."""
    try:
        number = _checked(cudart.cudaGetDevice())
        properties = _checked(cudart.cudaGetDeviceProperties(number))
    except (BackendError, RuntimeError) as error:  # RuntimeError: the driver's library is not there at all
        raise BackendError(
            f"no NVIDIA GPU can be used here ({error}): check that `nvidia-smi` shows one and that cuda-python has the "
            'CUDA version that it shows (with CUDA 12: pip install "cuda-python<13"), or use a backend of the CPU'
        ) from None
    name = properties.name.decode("utf-8", "replace")
    return Gpu(name, f"{properties.major}.{properties.minor}", properties.totalGlobalMem)


class Buffer:
    """The same number of bytes twice: in pinned host memory, which the GPU copies by itself, and in the GPU's."""

    def __init__(self, nbytes: int) -> None:
        host = _checked(cudart.cudaMallocHost(nbytes))
        weakref.finalize(self, cudart.cudaFreeHost, host)
        self.address: int = _checked(cudart.cudaMalloc(nbytes))
        weakref.finalize(self, cudart.cudaFree, self.address)
        self._host_address: int = host
        self._bytes = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(host))

    def host(self, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The first bytes of the host's memory as an array, which is no copy."""
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        return self._bytes[:size].view(dtype).reshape(shape)

    def to_gpu(self, nbytes: int, stream: Stream) -> None:
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(cudart.cudaMemcpyAsync(self.address, self._host_address, nbytes, kind, stream.handle))

    def to_host(self, nbytes: int, stream: Stream) -> None:
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(cudart.cudaMemcpyAsync(self._host_address, self.address, nbytes, kind, stream.handle))


class Stream:
    """Work that the GPU does in the order in which it was asked for."""

    def __init__(self) -> None:
        stream = _checked(cudart.cudaStreamCreate())
        weakref.finalize(self, cudart.cudaStreamDestroy, stream)
        self.handle = int(stream)

    def wait(self) -> None:
        """Until everything asked for is done. Raises BackendError if any of it failed."""
        _checked(cudart.cudaStreamSynchronize(self.handle))


def _checked(result: tuple[Any, ...]) -> Any:
    """What a call returned beside its error code, None if nothing. Raises BackendError with the error's name."""
    error, *values = result
    if error != cudart.cudaError_t.cudaSuccess:
        raise BackendError(f"CUDA failed with {error.name}")
    return values[0] if values else None
