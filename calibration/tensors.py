"""The types and sizes of a graph's tensors, inferred without a copy of its weights."""

from __future__ import annotations

import onnx
from onnx import helper, shape_inference

from clipedge.calibration.storage import without_constants

__all__ = ["inferred"]

SHAPE_BYTES = 1024  # constants up to this size may be shapes, which decide about other shapes


def inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What ONNX's shape inference knows of the tensors of a graph: its inputs, outputs, constants and all between."""
    light = without_constants(model)
    for constant in model.graph.initializer:
        if constant.ByteSize() <= SHAPE_BYTES:
            light.graph.initializer.append(constant)
        else:
            value = helper.make_tensor_value_info(constant.name, constant.data_type, list(constant.dims))
            light.graph.input.append(value)
    graph = shape_inference.infer_shapes(light, data_prop=True).graph
    return [*graph.input, *graph.value_info, *graph.output]
