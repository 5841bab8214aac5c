"""The probe's graph, written byte by byte, is what the onnx library reads and computes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from clipedge.doctor.graph import IR_VERSION, OPSET, WEIGHTS, probe_graph, probe_variant


def test_onnx_accepts_the_graph_and_computes_the_product() -> None:
    model = onnx.load_from_string(probe_graph())
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == IR_VERSION
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    assert np.allclose(ReferenceEvaluator(model).run(None, {"x": x})[0], x @ WEIGHTS)


def test_the_variant_describes_the_graph() -> None:
    model, variant = onnx.load_from_string(probe_graph()), probe_variant()
    for found, spec in ((model.graph.input, variant.inputs), (model.graph.output, variant.outputs)):
        shape = tuple(item.dim_param or item.dim_value for item in found[0].type.tensor_type.shape.dim)
        assert (found[0].name, shape) == (spec[0].name, spec[0].shape)
        assert found[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
