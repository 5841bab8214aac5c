"""The ONNX graphs in ONNX Runtime against transformers' CLIPModel, and what the graphs consist of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from transformers import CLIPImageProcessorPil, CLIPModel

from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.graphs import write_image_graph, write_text_graph
from clipedge.export.towers import build_image_tower, build_text_tower

PARITY = 5e-6
BATCH_PARITY = 1e-6

DrawPixels = Callable[[int, int], NDArray[np.uint8]]
DrawTexts = Callable[[int, int, int], NDArray[np.int64]]
MakeClip = Callable[..., Path]
Embeds = NDArray[np.float32]

IMAGE_OPERATORS = {
    *("Cast", "Reshape", "Transpose", "MatMul", "Pad", "Add", "LayerNormalization", "Split", "Softmax"),
    *("Mul", "Sigmoid", "Gather", "ReduceL2", "ReduceSum", "Div"),
}
TEXT_OPERATORS = {
    *("Gather", "Equal", "Cast", "ArgMax", "GatherND", "Reshape", "Transpose", "MatMul", "Add"),
    *("LayerNormalization", "Split", "Softmax", "Mul", "Sigmoid", "ReduceL2", "ReduceSum", "Div"),
}


def write_graphs(checkpoint: Checkpoint, folder: Path) -> tuple[Path, Path]:
    image, text = folder / "image.onnx", folder / "text.onnx"
    write_image_graph(build_image_tower(checkpoint), image)
    write_text_graph(build_text_tower(checkpoint), text)
    return image, text


def open_graph(path: Path) -> Callable[[NDArray[Any]], Embeds]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda value: session.run(None, {name: value})[0]


@torch.no_grad()
def transformers_embeds(folder: Path, pixels: NDArray[np.uint8], input_ids: NDArray[np.int64]) -> tuple[Embeds, Embeds]:
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()  # left alone it computes in float16
    processor = CLIPImageProcessorPil.from_pretrained(folder, do_resize=False, do_center_crop=False)
    values = processor(list(pixels), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    images = model.get_image_features(values).pooler_output
    texts = model.get_text_features(torch.from_numpy(input_ids)).pooler_output
    return tuple((embeds / embeds.norm(dim=-1, keepdim=True)).numpy() for embeds in (images, texts))


def assert_parity(found: Embeds, expected: Embeds) -> None:
    """Raw, and without the mean embedding, beside which everything else can be small."""
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    centred = np.abs(expected - expected.mean(axis=0)).max()
    assert centred > 1e3 * PARITY  # otherwise the comparison would say little
    assert np.abs(found - expected).max() <= PARITY
    assert np.abs((found - found.mean(axis=0)) - (expected - expected.mean(axis=0))).max() <= PARITY


def check_parity(folder: Path, workspace: Path, pixels: NDArray[np.uint8], texts: NDArray[np.int64]) -> None:
    expected_images, expected_texts = transformers_embeds(folder, pixels, texts)
    image, text = write_graphs(load_checkpoint(folder), workspace)
    assert_parity(open_graph(image)(pixels), expected_images)
    assert_parity(open_graph(text)(texts), expected_texts)


def test_parity_with_transformers(
    tiny_clip: Path, tmp_path: Path, draw_pixels: DrawPixels, draw_texts: DrawTexts
) -> None:
    config = load_checkpoint(tiny_clip)
    texts = draw_texts(14, config.text.context_length, config.text.vocab_size)
    check_parity(tiny_clip, tmp_path, draw_pixels(8, config.image.image_size), texts)


def test_parity_of_the_demonstration_checkpoint(tmp_path: Path, draw_pixels: DrawPixels, draw_texts: DrawTexts) -> None:
    config = load_checkpoint(DEMO_CHECKPOINT)
    texts = draw_texts(14, config.text.context_length, config.text.vocab_size)
    check_parity(DEMO_CHECKPOINT, tmp_path, draw_pixels(8, config.image.image_size), texts)


@pytest.mark.slow
def test_parity_of_real_architectures(
    vit_b: Path, tmp_path: Path, draw_pixels: DrawPixels, draw_texts: DrawTexts
) -> None:
    check_parity(vit_b, tmp_path, draw_pixels(8, 224), draw_texts(8, 77, 49408))


def test_the_graph_means_the_same_to_the_reference_evaluator(
    make_clip: MakeClip, tmp_path: Path, draw_pixels: DrawPixels, draw_texts: DrawTexts
) -> None:
    """onnx's own implementation of the standard, so that nothing rests on what one engine tolerates."""
    image, text = write_graphs(load_checkpoint(make_clip()), tmp_path)
    for path, value in ((image, draw_pixels(3, 24)), (text, draw_texts(3, 12, 60))):
        (name,) = (value_info.name for value_info in onnx.load(path).graph.input)
        expected = ReferenceEvaluator(str(path)).run(None, {name: value})[0]
        assert np.abs(open_graph(path)(value) - expected).max() <= BATCH_PARITY


def test_an_embedding_does_not_depend_on_its_batch(
    make_clip: MakeClip, tmp_path: Path, draw_pixels: DrawPixels, draw_texts: DrawTexts
) -> None:
    image, text = write_graphs(load_checkpoint(make_clip()), tmp_path)
    for path, values in ((image, draw_pixels(64, 24)), (text, draw_texts(64, 12, 60))):
        encode = open_graph(path)
        expected = np.concatenate([encode(values[i : i + 1]) for i in range(64)])
        for batch in (2, 7, 64):
            assert np.abs(encode(values[:batch]) - expected[:batch]).max() <= BATCH_PARITY


def test_interface_of_the_graphs(make_clip: MakeClip, tmp_path: Path) -> None:
    image, text = write_graphs(load_checkpoint(make_clip()), tmp_path)
    assert describe(image) == (("pixels", "tensor(uint8)", ["batch", 24, 24, 3]), ("image_embeds", ["batch", 20]))
    assert describe(text) == (("input_ids", "tensor(int64)", ["batch", 12]), ("text_embeds", ["batch", 20]))
    for path in (image, text):
        model = onnx.load(path)
        assert (model.ir_version, model.opset_import[0].version) == (10, 19)


def describe(path: Path) -> tuple[Any, Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (value,), (embeds,) = session.get_inputs(), session.get_outputs()
    return (value.name, value.type, value.shape), (embeds.name, embeds.shape)


def test_graphs_have_no_operators_beyond_the_towers(make_clip: MakeClip, tmp_path: Path) -> None:
    image, text = write_graphs(load_checkpoint(make_clip()), tmp_path)
    for path, expected in ((image, IMAGE_OPERATORS), (text, TEXT_OPERATORS)):
        graph = onnx.load(path).graph
        assert {node.op_type for node in graph.node} == expected
        assert {node.domain for node in graph.node} == {""}
        used = {name for node in graph.node for name in node.input}
        assert used >= {constant.name for constant in graph.initializer}
    operators = Counter(node.op_type for node in onnx.load(image).graph.node)
    # 3 blocks: qkv, out, fc1, fc2 (the last has qkv in three), scores and mix; patch embedding and projection.
    assert operators["MatMul"] == 3 * 6 + 2 + 2
    assert operators["LayerNormalization"] == 3 * 2 + 2
    assert operators["Transpose"] == 2 * 4 + 1 + 1


def test_linear_layers_are_named_after_their_modules(make_clip: MakeClip, tmp_path: Path) -> None:
    graph = onnx.load(write_graphs(load_checkpoint(make_clip()), tmp_path)[0]).graph
    shapes = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    linear = {node.name: node for node in graph.node if node.op_type == "MatMul" and node.input[1] in shapes}
    expected = {"embedding.patch": (192, 32), "projection": (32, 20)}
    for index in range(3):
        name = f"blocks.{index}"
        qkv = {"qkv": (32, 96)} if index < 2 else dict.fromkeys(("query", "key", "value"), (32, 32))
        expected |= {f"{name}.attn.{part}": shape for part, shape in qkv.items()}
        expected |= {f"{name}.attn.out": (32, 32), f"{name}.fc1": (32, 96), f"{name}.fc2": (96, 32)}
    assert {name: shapes[node.input[1]] for name, node in linear.items()} == expected
    for name, node in linear.items():
        assert list(node.output) == [name]
        assert node.input[1] == f"{name}.weight"
    biases = {node.name: node.input[1] for node in graph.node if node.name.removesuffix(".add") in linear}
    assert biases["blocks.0.fc1.add"] == "blocks.0.fc1.bias"


def test_biases_of_zeros_leave_no_node(make_clip: MakeClip, tmp_path: Path) -> None:
    folder = make_clip()
    model = CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
    model.save_pretrained(folder)
    graph = onnx.load(write_graphs(load_checkpoint(folder), tmp_path)[0]).graph
    assert [node.name for node in graph.node if node.op_type == "Add" and "embedding" not in node.name] == [
        f"blocks.{index}.{add}" for index in range(3) for add in ("add1", "add2")
    ]


def test_operators_that_onnxruntime_executes(make_clip: MakeClip, tmp_path: Path) -> None:
    """Nothing of the graph keeps the engine from fusing the activation, and nothing is put back in."""
    operators = {"quick_gelu": "QuickGelu", "gelu": "Gelu", "gelu_pytorch_tanh": "FastGelu"}
    for activation, operator in operators.items():
        fused = f"com.microsoft.{operator}"
        folder = make_clip({"hidden_act": activation}, {"hidden_act": activation})
        for path in write_graphs(load_checkpoint(folder), tmp_path):
            executed = executed_operators(path)
            written = {node.op_type for node in onnx.load(path).graph.node}
            # Gemm: a linear layer and its bias in one. SkipLayerNormalization: the addition in front of the last norm.
            # FusedMatMul: a product with the transposed tokens.
            others = {"Gemm", "com.microsoft.SkipLayerNormalization", "com.microsoft.FusedMatMul"}
            assert executed.keys() - written <= {fused, *others}
            # All linear layers with a bias. In the text tower it does not see the shape of the pooled token.
            assert executed["Gemm"] == 3 * 4 + 1 - (4 if path.stem == "text" else 0)
            assert executed.keys().isdisjoint({"Sigmoid", "Erf", "Tanh"})
            assert executed["Mul"] == 2, "the last block's queries and values, each in its head's channels alone"


def executed_operators(path: Path) -> Counter[str]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warns that the optimised file is for this machine
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    return Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in graph.node)
