"""Finding linear layers: those of the towers, by name, and what looks like one but is none."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clipedge.calibration.linears import PATCH_EMBED, constants_of, linear_layers


def test_a_towers_layers_are_found_in_order_with_their_constants(tiny_tower: onnx.ModelProto) -> None:
    layers = linear_layers(tiny_tower)
    middle = [f"blocks.{i}.{part}" for i in (0, 1) for part in ("attn.qkv", "attn.out", "fc1", "fc2")]
    last = [f"blocks.2.{part}" for part in ("attn.query", "attn.key", "attn.value", "attn.out", "fc1", "fc2")]
    is_image = tiny_tower.graph.input[0].name == "pixels"
    assert [layer.name for layer in layers] == [*([PATCH_EMBED] if is_image else []), *middle, *last]
    constants = constants_of(tiny_tower)
    for layer in layers:
        inputs, outputs = constants[layer.weight].shape
        assert inputs == (192 if layer.name == PATCH_EMBED else 96 if layer.name.endswith("fc2") else 32)
        # The biases of the last keys and values were folded away (clipedge.export.towers.simplify).
        assert (layer.bias is None) == (layer.name in (PATCH_EMBED, "blocks.2.attn.key", "blocks.2.attn.value"))
        assert layer.bias is None or constants[layer.bias].shape == (outputs,)


def model_of(nodes: list[onnx.NodeProto], *outputs: str) -> onnx.ModelProto:
    """(4, 8) x -> outputs; w (8, 8), b (8,) and m (4, 8) are constants."""
    constants = {"w": (8, 8), "b": (8,), "m": (4, 8)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in outputs],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def test_a_bias_is_a_vector_that_nothing_comes_before() -> None:
    product = helper.make_node("MatMul", ["x", "w"], ["p"], name="fc")
    (biased,) = linear_layers(model_of([product, helper.make_node("Add", ["b", "p"], ["y"])], "y"))
    assert (biased.name, biased.activation, biased.weight, biased.bias, biased.output) == ("fc", "x", "w", "b", "y")
    (residual,) = linear_layers(model_of([product, helper.make_node("Add", ["p", "m"], ["y"])], "y"))
    assert (residual.bias, residual.output) == (None, "p"), "a matrix is no bias"
    twice = [product, helper.make_node("Add", ["p", "b"], ["y"]), helper.make_node("Relu", ["p"], ["z"])]
    (shared,) = linear_layers(model_of(twice, "y", "z"))
    assert (shared.bias, shared.output) == (None, "p"), "somebody else reads the product without the bias"


def test_products_of_two_activations_and_the_projection_are_none() -> None:
    assert linear_layers(model_of([helper.make_node("MatMul", ["x", "w"], ["y"], name="projection")], "y")) == []
    assert linear_layers(model_of([helper.make_node("MatMul", ["m", "x"], ["y"], name="scores")], "y")) == []
