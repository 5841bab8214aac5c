"""ONNX graphs on disk and in ONNX Runtime, whatever their size.

An ONNX file is one protobuf message, and those end at 2 GiB. Larger weights lie in a second file beside it, as the
standard's external data (https://onnx.ai/onnx/repo-docs/ExternalData.html). Engines map that file into memory instead
of copying it, so large graphs are opened that way here even where one file would hold them.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import onnxruntime
from onnx import helper

from clipedge.backends.onnxruntime import session_options

__all__ = ["cpu_session", "save_model", "without_constants"]

# What is not weights fits the margin many times over.
MAX_INLINE_BYTES = 2**31 - 2**24
# A session from a file costs a moment; serialized in memory, a graph is there three times.
MAX_SESSION_BYTES = 2**27
SMALL_BYTES = 1024  # constants of this size stay in the graph: shapes have to be there when it is read
ALIGNMENT = 64  # bytes, a cache line: what a memory-mapped tensor wants


def save_model(model: onnx.ModelProto, path: Path) -> list[str]:
    """Write a graph; the names of the files, of which there are two if the weights do not fit into one."""
    if _weight_bytes(model) <= MAX_INLINE_BYTES:
        path.write_bytes(model.SerializeToString())
        return [path.name]
    return _save_external(model, path, ())


def cpu_session(model: onnx.ModelProto, outputs: Sequence[str] = ()) -> Any:
    """An ONNX Runtime session on the CPU, with the runtime's own settings.

    The tensors named in ``outputs`` are returned behind the model's own outputs.
    """
    if _weight_bytes(model) <= MAX_SESSION_BYTES:
        return _session(_watched(model, outputs, model.graph.initializer).SerializeToString())
    with tempfile.TemporaryDirectory(prefix="clipedge-") as folder:
        path = Path(folder, "model.onnx")
        _save_external(model, path, outputs)
        return _session(str(path))  # maps the weights, and keeps them when the files are gone


def without_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model without its constants (and inferred shapes), which may take gigabytes."""
    graph = helper.make_graph([], model.graph.name, model.graph.input, model.graph.output)
    graph.node.extend(model.graph.node)
    return helper.make_model(
        graph,
        ir_version=model.ir_version,
        opset_imports=model.opset_import,
        producer_name=model.producer_name,
    )


def _session(model: str | bytes) -> Any:
    return onnxruntime.InferenceSession(model, sess_options=session_options(), providers=["CPUExecutionProvider"])


def _watched(model: onnx.ModelProto, outputs: Sequence[str], constants: Iterable[onnx.TensorProto]) -> onnx.ModelProto:
    watched = without_constants(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    watched.graph.initializer.extend(constants)
    return watched


def _save_external(model: onnx.ModelProto, path: Path, outputs: Sequence[str]) -> list[str]:
    data = path.with_name(f"{path.name}.data")
    with data.open("wb") as file:
        placed = [_placed(constant, file, data.name) for constant in model.graph.initializer]
    path.write_bytes(_watched(model, outputs, placed).SerializeToString())
    return [path.name, data.name]


def _placed(constant: onnx.TensorProto, file: BinaryIO, name: str) -> onnx.TensorProto:
    """Write a constant to ``file``, called ``name``, and return the tensor that says where; a small one as it is."""
    if _tensor_bytes(constant) <= SMALL_BYTES or not constant.HasField("raw_data"):
        return constant
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    placed = onnx.TensorProto(name=constant.name, data_type=constant.data_type, dims=constant.dims)
    placed.data_location = onnx.TensorProto.EXTERNAL
    values = {"location": name, "offset": file.tell(), "length": file.write(constant.raw_data)}
    for key, value in values.items():
        placed.external_data.add(key=key, value=str(value))
    return placed


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(map(_tensor_bytes, model.graph.initializer))


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    return int(math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
