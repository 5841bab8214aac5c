"""TensorRT's documented rules: a graph that keeps them all, broken in one place at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from clipedge.errors import BackendError
from clipedge.export.checkpoints import load_checkpoint
from clipedge.export.graphs import write_dense_graph, write_image_graph, write_text_graph
from clipedge.export.tensorrt_rules import RULES, broken_rules, require_tensorrt
from clipedge.export.towers import ImageTower, build_image_tower, build_text_tower

HEADS, OUTPUTS = 2, 20  # of the graph
MakeAttention = Callable[..., onnx.ModelProto]


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def set_constant(model: onnx.ModelProto, name: str, value: Any) -> None:
    old = next((item for item in model.graph.initializer if item.name == name), None) or model.graph.initializer.add()
    old.CopyFrom(numpy_helper.from_array(np.asarray(value), name))


def put_before(model: onnx.ModelProto, reader: str, place: int, operator: str, **attributes: Any) -> str:
    """A node between an input of ``reader`` and its producer; its name."""
    node, name = node_of(model, reader), f"{operator}.{len(model.graph.node)}"
    extra = helper.make_node(operator, [node.input[place]], [name], name=name, **attributes)
    node.input[place] = name
    model.graph.node.insert(list(model.graph.node).index(node), extra)
    return name


def break_opset(model: onnx.ModelProto) -> str:
    model.opset_import[0].version = 21
    return "the file"


def break_ir_version(model: onnx.ModelProto) -> str:
    model.ir_version = 11
    return "the file"


def fix_the_batch(model: onnx.ModelProto) -> str:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    return "x"


def leave_the_tokens_open(model: onnx.ModelProto) -> str:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "tokens"
    return "x"


def move_bytes(model: onnx.ModelProto) -> str:
    return put_before(model, "cast", 0, "Transpose", perm=[0, 1, 2])


def cast_bytes_to_integers(model: onnx.ModelProto) -> str:
    put_before(model, "flat", 0, "Cast", to=TensorProto.FLOAT)
    node_of(model, "cast").attribute[0].i = TensorProto.INT32
    return "cast"


def break_operator(model: onnx.ModelProto) -> str:
    return put_before(model, "y", 0, "Bernoulli")


def take_a_foreign_operator(model: onnx.ModelProto) -> str:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    node = node_of(model, "y")
    node.op_type, node.domain = "BiasGelu", "com.microsoft"
    return "y"


def compute_in_double(model: onnx.ModelProto) -> str:
    put_before(model, "y", 0, "Cast", to=TensorProto.DOUBLE)
    name = put_before(model, "y", 0, "Neg")
    put_before(model, "y", 0, "Cast", to=TensorProto.FLOAT)
    return name


def move_quantized_numbers(model: onnx.ModelProto) -> str:
    return put_before(model, "norm.dq", 0, "Identity")


def compute_axes(model: onnx.ModelProto) -> str:
    put_before(model, "length", 1, "Identity")
    return "length"


def ask_for_the_mean(model: onnx.ModelProto) -> str:
    node_of(model, "norm").output.append("mean")
    return "norm"


def compute_a_scale(model: onnx.ModelProto) -> str:
    put_before(model, "joined.dq", 1, "Identity")
    return "joined.dq"


def negate_a_scale(model: onnx.ModelProto) -> str:
    set_constant(model, "norm.scale", np.float32(-0.1))
    return "norm.q"


def lose_zero_points(model: onnx.ModelProto) -> str:
    set_constant(model, "qkv.weight.zero", np.zeros(5, np.int8))
    return "qkv.weight.dq"


def shift_zero(model: onnx.ModelProto) -> str:
    set_constant(model, "norm.zero", np.int8(-128))
    return "norm.q"


def quantize_to_bytes(model: onnx.ModelProto) -> str:
    set_constant(model, "norm.zero", np.uint8(0))
    return "norm.q"


def say_no_type(model: onnx.ModelProto) -> str:
    for name in ("norm.q", "norm.dq"):
        del node_of(model, name).input[2]
    return "norm.q"


def quantize_a_bias(model: onnx.ModelProto) -> str:
    set_constant(model, "qkv.bias", np.ones(3 * HEADS * 16, np.int32))
    set_constant(model, "qkv.bias.scale", np.float32(0.1))
    node = node_of(model, "qkv.add")
    extra = helper.make_node("DequantizeLinear", ["qkv.bias", "qkv.bias.scale"], ["bias"], name="bias")
    node.input[1] = "bias"
    model.graph.node.insert(0, extra)
    return "bias"


def scale_channels_of_an_activation(model: onnx.ModelProto) -> str:
    set_constant(model, "norm.scale", np.full(HEADS * 16, 0.1, np.float32))
    set_constant(model, "norm.zero", np.zeros(HEADS * 16, np.int8))
    return "norm.q"


def scale_input_channels(model: onnx.ModelProto) -> str:
    set_constant(model, "qkv.weight.scale", np.full(HEADS * 16, 0.1, np.float32))
    set_constant(model, "qkv.weight.zero", np.zeros(HEADS * 16, np.int8))
    node_of(model, "qkv.weight.dq").attribute[0].i = 0
    return "qkv.weight.dq"


def leave_a_weight_in_float(model: onnx.ModelProto) -> str:
    set_constant(model, "projection.float", np.ones((HEADS * 16, OUTPUTS), np.float32))
    node_of(model, "projection").input[1] = "projection.float"
    return "projection"


def quantize_scores_alone(model: onnx.ModelProto) -> str:
    node_of(model, "mixed").input[0], node_of(model, "mixed").input[1] = "softmax", "v.turned"
    return "softmax"


def leave_the_result_in_float(model: onnx.ModelProto) -> str:
    node_of(model, "projection").input[0] = "joined"
    leave_a_weight_in_float(model)
    return "softmax"


BREAKS: list[tuple[str, Callable[[onnx.ModelProto], str]]] = [
    ("opset", break_opset),
    ("ir-version", break_ir_version),
    ("batch", fix_the_batch),
    ("batch", leave_the_tokens_open),
    ("uint8", move_bytes),
    ("uint8", cast_bytes_to_integers),
    ("operator", break_operator),
    ("operator", take_a_foreign_operator),
    ("type", compute_in_double),
    ("type", move_quantized_numbers),
    ("constant-axes", compute_axes),
    ("outputs", ask_for_the_mean),
    ("constant-scale", compute_a_scale),
    ("scale", negate_a_scale),
    ("scale", lose_zero_points),
    ("zero-point", shift_zero),
    ("quantized-type", quantize_to_bytes),
    ("quantized-type", say_no_type),
    ("quantized-type", quantize_a_bias),
    ("per-channel", scale_channels_of_an_activation),
    ("per-channel", scale_input_channels),
    ("both-inputs", leave_a_weight_in_float),
    ("attention-pairs", quantize_scores_alone),
    ("attention-pairs", leave_the_result_in_float),
]


def test_the_graph_that_the_others_are_made_of_keeps_all_rules_and_runs(attention: MakeAttention) -> None:
    model = attention()
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).integers(0, 256, (3, 8, HEADS * 16), np.uint8)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), 1, rtol=1e-5)
    assert broken_rules(model) == []
    require_tensorrt(model, "image.onnx")


@pytest.mark.parametrize(("rule", "break_it"), BREAKS, ids=[break_it.__name__ for _, break_it in BREAKS])
def test_a_broken_rule_is_named_with_the_node_and_no_other_is(
    rule: str, break_it: Callable[[onnx.ModelProto], str], attention: MakeAttention
) -> None:
    model = attention()
    node = break_it(model)
    found = broken_rules(model)
    assert {finding.rule for finding in found} == {rule}, found
    assert node in {finding.node for finding in found}


SIZES: list[tuple[str, dict[str, int]]] = [("attention-length", {"tokens": 513}), ("attention-heads", {"head": 24})]
IN_FP8 = {"fp8-opset", "fp8-convolution", "fp8-attention-heads"}  # test_fp8.py


@pytest.mark.parametrize(("rule", "sizes"), SIZES)
def test_sizes_beyond_the_fused_kernels_are_found(rule: str, sizes: dict[str, int], attention: MakeAttention) -> None:
    assert [(finding.rule, finding.node) for finding in broken_rules(attention(**sizes))] == [(rule, "softmax")]


def test_every_rule_is_broken_here_and_has_a_source() -> None:
    assert {rule.name for rule in RULES} == {name for name, _ in (*BREAKS, *SIZES)} | IN_FP8
    assert all(rule.source.startswith("https://") and rule.text for rule in RULES)
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_long_attention_in_float_is_no_matter_of_int8(attention: MakeAttention) -> None:
    model = attention(tokens=513, head=24)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if node.op_type == "MatMul" and node.name in ("scores", "mixed"):
                node.input[place] = name.removesuffix(".dq")
    assert broken_rules(model) == []


def test_the_error_names_file_nodes_rules_and_documents(attention: MakeAttention) -> None:
    model = attention()
    shift_zero(model)
    scale_channels_of_an_activation(model)
    set_constant(model, "joined.zero", np.int8(7))
    set_constant(model, "norm.zero", np.full(HEADS * 16, 3, np.int8))
    with pytest.raises(BackendError) as caught:
        require_tensorrt(model, "image.int8.tensorrt.onnx")
    text = str(caught.value)
    assert text.startswith("image.int8.tensorrt.onnx breaks TensorRT's rules: norm.q: the zero point is 3")
    assert "[rule zero-point]" in text and "and 3 more" in text
    assert "work-quantized-types" in text and "another --target" in text


def written(write: Callable[..., None], tower: Any, folder: Path) -> onnx.ModelProto:
    write(tower, folder / "graph.onnx")
    return onnx.load(folder / "graph.onnx")


@pytest.mark.parametrize(
    "image",
    [{}, {"hidden_act": "gelu"}],
    ids=["quick_gelu", "gelu"],
)
def test_the_towers_of_a_clip_keep_the_rules(make_clip: Callable[..., Path], tmp_path: Path, image: Any) -> None:
    checkpoint = load_checkpoint(make_clip(image=image))
    tower = build_image_tower(checkpoint)
    assert broken_rules(written(write_image_graph, tower, tmp_path)) == []
    assert broken_rules(written(write_text_graph, build_text_tower(checkpoint), tmp_path)) == []
    if not image:
        assert isinstance(tower, ImageTower)
        assert broken_rules(written(write_dense_graph, tower, tmp_path)) == []


@pytest.mark.parametrize("size", [24, 29], ids=["whole patches", "patches that do not cover the picture"])
def test_the_towers_of_a_siglip_keep_the_rules(make_siglip: Callable[..., Path], tmp_path: Path, size: int) -> None:
    checkpoint = load_checkpoint(make_siglip(image={"image_size": size}))
    assert broken_rules(written(write_image_graph, build_image_tower(checkpoint), tmp_path)) == []
    assert broken_rules(written(write_text_graph, build_text_tower(checkpoint), tmp_path)) == []
