"""How large the tensors of a float32 graph become on calibration inputs.

Nothing but one number for each tensor leaves the engine, so memory holds the activations of one input, however many
inputs there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.calibration.drafts import Draft
from clipedge.calibration.half.tensors import float_tensors
from clipedge.calibration.linears import constants_of
from clipedge.calibration.storage import cpu_session
from clipedge.errors import CheckpointError, UsageError

__all__ = ["magnitudes"]


def magnitudes(model: onnx.ModelProto, batches: Iterable[npt.NDArray[Any]]) -> dict[str, float]:
    """The largest magnitude of every float32 tensor that a graph computes, in float32, over all batches of its input.

    Raises UsageError if there is no batch, CheckpointError for NaN or infinite values.
    """
    floats = float_tensors(model)
    computed = [name for node in model.graph.node for name in node.output if name in floats]
    graph = Draft(constants_of(model))
    for node in model.graph.node:
        graph.nodes.append(node)
        for name in node.output:
            if name in floats:
                positive = graph.add("Abs", [name], f"{name}.magnitude")
                graph.add("ReduceMax", [positive], _largest(name), keepdims=0)
    session = cpu_session(graph.finished(model), [_largest(name) for name in computed])
    outputs = [*(value.name for value in model.graph.output), *map(_largest, computed)]
    found = dict.fromkeys(computed, -math.inf)
    for batch in batches:
        for place in range(len(batch)):
            embeds, *largest = session.run(outputs, {session.get_inputs()[0].name: batch[place : place + 1]})
            for name, value in zip(computed, largest, strict=True):
                found[name] = max(found[name], float(value))
            if not (np.isfinite(embeds).all() and np.isfinite(largest).all()):
                raise CheckpointError(
                    "a calibration input gives NaN or infinite values in float32: the model is unsound"
                )
    if math.inf in map(abs, found.values()):
        raise UsageError("the range check got no inputs; give it some hundreds of pictures like the camera's")
    return found


def _largest(tensor: str) -> str:
    return f"{tensor}.largest"
