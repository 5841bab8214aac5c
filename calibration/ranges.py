"""Calibration: run the float graph over a stream of inputs and watch the tensors that will be quantized."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime

from clipedge.backends.onnxruntime import session_options
from clipedge.calibration.observers import Histogram
from clipedge.errors import CheckpointError, UsageError

__all__ = ["cpu_session", "observe"]


def observe(
    model: onnx.ModelProto, tensors: Sequence[str], batches: Iterable[npt.NDArray[Any]]
) -> dict[str, Histogram]:
    """Histograms of the named float tensors over all batches of the model's first input.

    Memory holds one batch's activations at a time, whatever the number of batches. Raises UsageError if there is no
    batch, CheckpointError for NaN or infinite activations.
    """
    session = cpu_session(_with_outputs(model, tensors))
    input_name = session.get_inputs()[0].name
    histograms = {name: Histogram() for name in tensors}
    seen = 0
    for batch in batches:
        for name, values in zip(tensors, session.run(list(tensors), {input_name: batch}), strict=True):
            try:
                histograms[name].update(values)
            except ValueError as error:
                raise CheckpointError(f"{name} gives {error} on calibration inputs: the model is unsound") from None
        seen += len(batch)
    if not seen:
        raise UsageError("calibration got no inputs; give it some hundreds of pictures of the kind the camera will see")
    return histograms


def cpu_session(model: onnx.ModelProto) -> Any:
    """An ONNX Runtime session on the CPU, with the runtime's own settings for right INT8 products."""
    return onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=session_options(), providers=["CPUExecutionProvider"]
    )


def _with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy of the model that also returns the named inner tensors."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors)
    return watched
