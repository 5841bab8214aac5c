"""Graphs in half precision: typed as engines ask, and right when they are computed as they are written."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, shape_inference

from clipedge.calibration.calibrate import calibrate, observe_layers
from clipedge.calibration.half.convert import to_half
from clipedge.calibration.half.evaluate import HalfEvaluator
from clipedge.calibration.half.magnitudes import magnitudes
from clipedge.calibration.half.pixels import scaled_pixels
from clipedge.calibration.half.plan import operations_in_float32
from clipedge.calibration.quantize import quantize
from clipedge.calibration.rounding import SCHEMES
from clipedge.calibration.storage import cpu_session
from clipedge.export.tensorrt_rules import broken_rules
from clipedge.selftest import centred_cosines

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def converted(graph: Any) -> onnx.ModelProto:
    scaled = scaled_pixels(graph.model, graph.pixel_mean)
    kept = operations_in_float32("image", scaled, magnitudes(scaled, [graph.inputs]))
    assert not kept, "nothing of a small random model is out of range"
    return to_half(scaled)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {item.name: item.type.tensor_type.elem_type for item in (*graph.input, *graph.value_info, *graph.output)}
    return types | {item.name: item.data_type for item in graph.initializer}


def test_every_family_gives_its_answers_in_half_precision(family: Any) -> None:
    expected, model = family.embeds, converted(family)
    found = HalfEvaluator(model)(family.inputs).reshape(expected.shape)
    cosines = centred_cosines(expected, found, expected.mean(axis=0))
    assert cosines.min() > 0.998 and np.median(cosines) > 0.999
    assert np.abs(found - expected).max() > 1e-5, "this is no float32"
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    in_engine = centred_cosines(expected, family.run(model), expected.mean(axis=0))
    assert in_engine.min() > 0.998


def test_types_are_said_and_alike(family: Any) -> None:
    """ONNX Runtime and the checker refuse operators of mixed types; weights and what is between the layers is half."""
    model = converted(family)
    onnx.checker.check_model(model, full_check=True)
    cpu_session(model)
    for before, after in (
        (family.model.graph.input, model.graph.input),
        (family.model.graph.output, model.graph.output),
    ):
        assert [item.SerializeToString() for item in before] == [item.SerializeToString() for item in after]
    types = types_of(model)
    for node in model.graph.node:
        floats = {types[name] for name in (*node.input, *node.output) if types.get(name) in (FLOAT, HALF)}
        if node.op_type == "Cast":
            continue
        assert len(floats) <= 1, node.name
        if node.op_type in ("MatMul", "Gemm", "Conv", "Softmax"):
            assert floats == {HALF}, node.name
        if node.op_type in ("LayerNormalization", "ReduceL2", "ReduceMean", "GlobalAveragePool"):
            assert floats == {FLOAT}, node.name
    (output,) = model.graph.output
    last = next(node for node in model.graph.node if output.name in node.output)
    assert types[last.input[0]] == FLOAT
    weights = [item for item in model.graph.initializer if len(item.dims) > 1 and item.name.endswith("weight")]
    assert weights and {item.data_type for item in weights} == {HALF}


def test_no_rule_of_tensorrts_is_broken_that_the_float32_graph_keeps(family: Any) -> None:
    before, after = broken_rules(family.model), broken_rules(converted(family))
    assert after == before
    assert {finding.node for finding in after} <= {"node_Shape_0"}, "of bytes, which tracing asks for"


def test_the_file_is_half_as_large(demo: Any) -> None:
    assert converted(demo).ByteSize() < 0.55 * demo.model.ByteSize()


def test_no_two_casts_of_one_tensor_and_none_that_changes_nothing(family: Any) -> None:
    model = converted(family)
    types = types_of(model)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert max(Counter((node.input[0], types[node.output[0]]) for node in casts).values()) == 1
    assert not [node.name for node in casts if types[node.input[0]] == types[node.output[0]]]


def test_operations_that_are_named_stay_in_float32(demo: Any) -> None:
    """A constant that both read has both forms."""
    named = ["blocks.1.fc1", "blocks.1.fc1.add", "blocks.2.gelu.scaled"]
    model = to_half(demo.model, named)
    types = types_of(model)
    for node in model.graph.node:
        if node.output[0] in named:
            assert {types[name] for name in (*node.input, *node.output)} == {FLOAT}
    assert types["blocks.0.fc1"] == types["blocks.1.fc2"] == HALF
    shared = next(node.input[1] for node in demo.model.graph.node if node.name == "blocks.2.gelu.scaled")
    assert (types[shared], types[f"{shared}.float16"]) == (FLOAT, HALF)
    cpu_session(model)


def test_quantized_layers_are_left_alone(demo: Any) -> None:
    """Pairs, their scales, and the layers that read them; what is around them is in half precision."""
    observed = observe_layers(demo.model, [demo.inputs], lambda pixels: np.ones((len(pixels), 65)))
    quantized = quantize(demo.model, calibrate(demo.model, observed, SCHEMES["arm"]), SCHEMES["arm"], demo.pixel_mean)
    model = to_half(quantized)
    before, after = (
        {node.name: list(node.input)[1:] for node in graph.graph.node if "Quantize" in node.op_type}
        | {node.name: node.op_type for node in graph.graph.node if node.op_type == "Gemm"}
        for graph in (quantized, model)
    )
    assert before == after and len(after) > 20
    types = types_of(model)
    assert {types[name] for name in types if name.endswith("scale") and "pixels" not in name} == {FLOAT}
    assert types["blocks.0.attn.softmax"] == types["blocks.1.add2"] == HALF
    expected, found = demo.run(quantized), demo.run(model)
    assert centred_cosines(expected, found, expected.mean(axis=0)).min() > 0.99


def test_a_guarded_length_stays_in_float32() -> None:
    """F.normalize's least length is no half: 1e-12 would be zero, and a vector of zeros NaN."""
    constants = {"axis": np.array([-1]), "least": np.array(1e-12, np.float32), "two": np.array(2, np.float32)}
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["double"]),
        helper.make_node("ReduceL2", ["double", "axis"], ["length"], keepdims=1),
        helper.make_node("Clip", ["length", "least"], ["guarded"]),
        helper.make_node("Div", ["double", "guarded"], ["unit"]),
        helper.make_node("Mul", ["unit", "two"], ["larger"]),
        helper.make_node("Identity", ["larger"], ["y"]),
    ]
    sides = [helper.make_tensor_value_info(name, FLOAT, ["n", 8]) for name in "xy"]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", sides[:1], sides[1:], initializers)
    model = to_half(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 19)]))
    types = types_of(model)
    wide = [types[name] == FLOAT for name in ("double", "length", "guarded", "unit", "larger", "y")]
    assert wide == [False, True, True, True, False, True]
    zeros = np.zeros((1, 8), np.float32)
    assert (HalfEvaluator(model)(zeros) == 0).all()
    assert (onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": zeros})[0] == 0).all()
