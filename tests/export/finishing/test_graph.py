"""A graph in torch computes what ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from clipedge.calibration.linears import constants_of
from clipedge.calibration.storage import cpu_session
from clipedge.errors import UsageError
from clipedge.export.checkpoints import load_checkpoint
from clipedge.export.finishing.graph import torch_graph
from clipedge.export.finishing.layers import check_tower
from clipedge.export.graphs import write_image_graph, write_text_graph
from clipedge.export.towers import build_image_tower, build_text_tower


def assert_same(model: onnx.ModelProto, inputs: np.ndarray) -> None:
    expected = cpu_session(model).run(None, {model.graph.input[0].name: inputs})[0]
    found = torch_graph(model, constants_of(model), {})(torch.from_numpy(inputs)).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_an_image_tower(tiny_clip: Path, tmp_path: Path) -> None:
    tower = build_image_tower(load_checkpoint(tiny_clip))
    write_image_graph(tower, tmp_path / "image.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    assert_same(onnx.load(tmp_path / "image.onnx"), pixels)


def test_a_text_tower(tiny_clip: Path, tmp_path: Path) -> None:
    tower = build_text_tower(load_checkpoint(tiny_clip))
    write_text_graph(tower, tmp_path / "text.onnx")
    tokens = np.random.default_rng(0).integers(3, 58, (4, tower.config.context_length))
    tokens[np.arange(4), [1, 3, 2, 4]] = 59  # ends; the highest id, and where the end is 2 there is none
    assert_same(onnx.load(tmp_path / "text.onnx"), tokens)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_siglip_pools_by_attention(tower: str, make_siglip: Callable[[], Path], tmp_path: Path) -> None:
    checkpoint = load_checkpoint(make_siglip())
    if tower == "image":
        write_image_graph(build_image_tower(checkpoint), tmp_path / "tower.onnx")
        inputs: np.ndarray = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    else:
        write_text_graph(build_text_tower(checkpoint), tmp_path / "tower.onnx")
        inputs = np.random.default_rng(0).integers(3, 58, (3, 12))
    assert_same(onnx.load(tmp_path / "tower.onnx"), inputs)


def test_a_convolutional_tower_is_refused_by_its_operators() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    nodes = [helper.make_node(kind, ["x"], ["x"], name=kind) for kind in ("Relu", "GlobalAveragePool", "Conv")]
    model = helper.make_model(helper.make_graph(nodes, "g", [value], [value]))
    with pytest.raises(UsageError, match=r"^--finish knows .* has Conv, GlobalAveragePool, too; leave it out$"):
        check_tower(model)


def test_an_operator_may_be_replaced_and_gradients_flow() -> None:
    names = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="layer"),
        helper.make_node("Relu", ["z"], ["y"], name="relu"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", names[:1], names[1:]))
    weight = torch.tensor([[1.0, -1.0], [2.0, 0.5]], requires_grad=True)
    found = torch_graph(model, {"w": np.zeros((2, 2), np.float32)}, {"layer": lambda x, _: x @ weight})
    found(torch.tensor([[1.0, 2.0]])).sum().backward()  # 5 and 0: behind the ReLU the second column is cut off
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 0.0], [2.0, 0.0]]
