"""A graph in half precision, computed as it is written.

Engines on x86 compute such graphs in float32, OpenVINO from end to end and ONNX Runtime between nodes that only move
values, and what overflows in half precision may look fine there. onnx's reference evaluator computes node by node in
NumPy, whose float16 is rounded, and overflows, at every operation. Products, convolutions, averages and erf are
computed in float32 by ONNX Runtime here and rounded once: so do tensor cores that accumulate in float32, so does
NumPy's own product of halves, and it takes a fraction of the time.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from clipedge.calibration.storage import cpu_session

__all__ = ["HalfEvaluator"]

MAX_KEPT_BYTES = 2**28
FAST = ("AveragePool", "Conv", "Erf", "Gemm", "MatMul")


class HalfEvaluator:
    """A graph's first output as a function of its input, as ``clipedge.backends.Engine`` has it."""

    name = "onnx's reference evaluator"
    device = "cpu"
    version: str = onnx.__version__
    arithmetic = "float16"

    def __init__(self, model: onnx.ModelProto) -> None:
        self._input, self._output = model.graph.input[0].name, model.graph.output[0].name
        self._computed = {name for node in model.graph.node for name in node.output}
        self._evaluator = ReferenceEvaluator(model, new_ops=[_fast(operator) for operator in FAST])

    def __call__(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """(N, ...) inputs to (N, ...) float32, as many at once as memory should hold: all that is computed is kept."""
        runs: list[npt.NDArray[np.float32]] = []
        start, size = 0, 1
        while start < len(batch):
            part = batch[start : start + size]
            with np.errstate(all="ignore"):  # what overflows shall show in the result
                values = self._evaluator.run(None, {self._input: part}, intermediate=True)
            runs.append(values[self._output])
            start += len(part)
            kept = sum(value.nbytes for name, value in values.items() if name in self._computed)
            size = max(1, MAX_KEPT_BYTES * len(part) // kept)
        return np.concatenate(runs)


class _InFloat32(OpRun):  # type: ignore[misc]
    """A node that ONNX Runtime computes in float32. Its result has the type of its first input."""

    def _run(self, *inputs: npt.NDArray[Any], **attributes: Any) -> tuple[npt.NDArray[Any]]:
        said = tuple(item.SerializeToString(deterministic=True) for item in self.onnx_node.attribute)
        session = _session(self.op_type, said, len(inputs), self.run_params["opsets"][""])
        feed = {_place(place): value.astype(np.float32) for place, value in enumerate(inputs)}
        return (session.run(None, feed)[0].astype(inputs[0].dtype),)


def _fast(operator: str) -> type[OpRun]:
    return type(operator, (_InFloat32,), {})


@cache
def _session(operator: str, attributes: tuple[bytes, ...], inputs: int, opset: int) -> Any:
    """One operator in float32, for all nodes that say the same: a session has threads of its own."""
    names = [_place(place) for place in range(inputs)]
    node = helper.make_node(operator, names, ["output"])
    node.attribute.extend(map(onnx.AttributeProto.FromString, attributes))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    graph = helper.make_graph([node], operator, values, [helper.make_empty_tensor_value_info("output")])
    return cpu_session(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)]))


def _place(place: int) -> str:
    return f"input.{place}"
