"""ModifiedResNet towers and their graphs against an implementation with BatchNorms, in float64."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from safetensors.torch import save_file
from torch import nn

import clipedge
from clipedge.calibration import scenes
from clipedge.calibration.linears import linear_layers
from clipedge.errors import CheckpointError
from clipedge.export import export
from clipedge.export.checkpoints import load_checkpoint
from clipedge.export.checkpoints.configs import ResNetConfig
from clipedge.export.checkpoints.openclip.config import openclip_model
from clipedge.export.checkpoints.openclip.resnet import canonical_resnet, is_batch_count, resnet_shapes
from clipedge.export.checkpoints.openclip.weights import text_layout
from clipedge.export.checkpoints.tensors import open_safetensors, read_tensors
from clipedge.export.graphs import write_image_graph
from clipedge.export.towers import ResNetTower
from clipedge.export.towers.resnet import empty_resnet, fold_pixel_range
from clipedge.images.pixels import preprocess
from clipedge.manifest import Preprocessing

EXACT = 1e-12
PARITY = 5e-6
EMBED_DIM = 20
MEAN, STD = (0.48, 0.45, 0.31), (0.27, 0.16, 0.28)

CONFIGS = {
    "plain": ResNetConfig(image_size=64, width=8, layers=(2, 1, 2, 1), heads=4),
    "one-position": ResNetConfig(image_size=32, width=4, layers=(1, 1, 1, 1), heads=1),
    "odd-maps": ResNetConfig(image_size=96, width=6, layers=(1, 2, 1, 3), heads=3),
}

DrawPixels = Callable[[int, int], NDArray[np.uint8]]
Tensors = dict[str, torch.Tensor]


class OriginBlock(nn.Module):
    """A block as the paper has it: convolution, BatchNorm, ReLU; parameters by OpenAI's names."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        for index, (a, b, kernel) in enumerate([(inputs, width, 1), (width, width, 3), (width, 4 * width, 1)], 1):
            self.add_module(f"conv{index}", nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False))
            self.add_module(f"bn{index}", nn.BatchNorm2d(b))
        if inputs != 4 * width or stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))
        else:
            self.downsample = nn.Sequential()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pool = nn.AvgPool2d(self.stride)
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(pool(y))) + self.downsample(pool(x))).relu()


class Origin(nn.Module):
    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.heads, half, features = config.heads, config.width // 2, 32 * config.width
        for index, (a, b) in enumerate([(3, half), (half, half), (half, config.width)], 1):
            self.add_module(f"conv{index}", nn.Conv2d(a, b, 3, stride=2 if index == 1 else 1, padding=1, bias=False))
            self.add_module(f"bn{index}", nn.BatchNorm2d(b))
        inputs = config.width
        for stage, count in enumerate(config.layers):
            width, blocks = config.width * 2**stage, []
            for index in range(count):
                blocks.append(OriginBlock(inputs, width, 2 if stage and not index else 1))
                inputs = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.attnpool = nn.Module()
        self.attnpool.positional_embedding = nn.Parameter(torch.zeros((config.image_size // 32) ** 2 + 1, features))
        for name in "qkv":
            self.attnpool.add_module(f"{name}_proj", nn.Linear(features, features))
        self.attnpool.c_proj = nn.Linear(features, EMBED_DIM)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 to (B, D), normalised."""
        mean, std = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)
        x = ((pixels.double() / 255 - mean) / std).permute(0, 3, 1, 2)
        for index in (1, 2, 3):
            x = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x)).relu()
        x = self.layer4(self.layer3(self.layer2(self.layer1(nn.AvgPool2d(2)(x)))))
        pool = self.attnpool
        tokens = torch.cat([x.mean(dim=(2, 3))[:, None], x.flatten(2).mT], dim=1) + pool.positional_embedding
        mixed = []
        projected = [pool.q_proj(tokens), pool.k_proj(tokens), pool.v_proj(tokens)]
        for query, key, value in zip(*(part.chunk(self.heads, dim=-1) for part in projected), strict=True):
            mixed.append((query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1) @ value)
        return F.normalize(pool.c_proj(torch.cat(mixed, dim=-1)[:, 0]), dim=-1)


def make_origin(config: ResNetConfig) -> Origin:
    """In float64, but of numbers that float32 holds; nothing is neutral, and pictures can be told apart."""
    origin = Origin(config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in origin.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(torch.exp(0.3 * noise))
        elif tensor.ndim == 1:
            tensor.add_(0.2 * noise)
        elif tensor.ndim > 1:
            gain = 1.0 if "proj" in name else 1.4  # a ReLU halves the power of what passes
            tensor.copy_(noise * (0.1 if "position" in name else gain / tensor[0].numel() ** 0.5))
    return origin.double().requires_grad_(False)


def stored_tensors(origin: Origin) -> Tensors:
    return {f"visual.{name}": tensor for name, tensor in origin.state_dict().items()}


def build(config: ResNetConfig, weights: Tensors) -> ResNetTower:
    size = config.image_size
    preprocessing = Preprocessing(size, size, "shortest-edge", size, "bicubic", MEAN, STD)
    with torch.device("meta"):
        tower = empty_resnet(config, preprocessing, EMBED_DIM)
    tower.load_state_dict(weights, assign=True)
    return tower.requires_grad_(False).eval()


def distance(a: Any, b: Any) -> float:
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> ResNetConfig:
    return CONFIGS[request.param]


@pytest.fixture
def origin(config: ResNetConfig) -> Origin:
    return make_origin(config)


@pytest.fixture
def pixels(config: ResNetConfig, draw_pixels: DrawPixels) -> torch.Tensor:
    return torch.from_numpy(draw_pixels(7, config.image_size))


@pytest.fixture
def tower(config: ResNetConfig, origin: Origin) -> ResNetTower:
    tensors = {name: tensor.float() for name, tensor in stored_tensors(origin).items()}
    return build(config, canonical_resnet(tensors, config))


@pytest.fixture
def graph(tower: ResNetTower, tmp_path: Path) -> Path:
    write_image_graph(tower, tmp_path / "image.onnx")
    return tmp_path / "image.onnx"


def open_graph(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


def test_names_and_shapes_are_those_of_the_files(config: ResNetConfig, origin: Origin) -> None:
    stored = {name: tuple(tensor.shape) for name, tensor in stored_tensors(origin).items()}
    counts = {name for name in stored if is_batch_count(name)}
    assert len(counts) == 3 + 4 + 3 * sum(config.layers)
    assert resnet_shapes(config, EMBED_DIM) == {name: stored[name] for name in stored if name not in counts}


def test_the_tower_is_exact(config: ResNetConfig, origin: Origin, pixels: torch.Tensor) -> None:
    """BatchNorms, attention scale and attention biases are folded without changing what is computed."""
    tower = build(config, canonical_resnet(stored_tensors(origin), config))
    expected = origin(pixels)
    assert distance(tower(pixels), expected) < EXACT
    assert distance(expected, expected.roll(1, dims=0)) > 1e3 * PARITY  # the pictures can be told apart


def test_folded_weights_are_rounded_once(config: ResNetConfig, origin: Origin, tower: ResNetTower) -> None:
    exact = canonical_resnet(stored_tensors(origin), config)
    assert tower.state_dict().keys() == exact.keys()
    for name, weight in tower.state_dict().items():
        assert torch.equal(weight, exact[name].float()), name


def test_folding_the_pixels_range_is_exact(tower: ResNetTower, pixels: torch.Tensor) -> None:
    tower = tower.double()
    before = {name: weight.clone() for name, weight in tower.state_dict().items()}
    folded = fold_pixel_range(tower)
    assert folded.stem.spread == (1, 1, 1)
    assert distance(folded(pixels), tower(pixels)) < EXACT
    assert all(torch.equal(weight, before[name]) for name, weight in tower.state_dict().items())


def test_parity_of_the_graph(graph: Path, origin: Origin, tower: ResNetTower, pixels: torch.Tensor) -> None:
    found = open_graph(graph)(pixels.numpy())
    assert found.dtype == np.float32
    assert distance(found, origin(pixels)) < PARITY
    assert distance(found, tower(pixels)) < PARITY


@pytest.mark.parametrize("config", [CONFIGS["one-position"]])
def test_the_graph_means_the_same_to_the_reference_evaluator(graph: Path, pixels: torch.Tensor) -> None:
    """onnx's own implementation of the standard, whose convolutions are slow."""
    expected = ReferenceEvaluator(str(graph)).run(None, {"pixels": pixels.numpy()})[0]
    assert distance(open_graph(graph)(pixels.numpy()), expected) < PARITY


def test_an_embedding_does_not_depend_on_its_batch(graph: Path, pixels: torch.Tensor) -> None:
    encode, values = open_graph(graph), pixels.numpy()
    expected = np.concatenate([encode(values[i : i + 1]) for i in range(len(values))])
    for batch in (2, 7):
        assert distance(encode(values[:batch]), expected[:batch]) < PARITY


def test_the_form_of_the_graph(graph: Path, tower: ResNetTower) -> None:
    model = onnx.load(graph)
    size = tower.config.image_size
    described = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert described == [["batch", size, size, 3], ["batch", EMBED_DIM]]
    assert {node.domain for node in model.graph.node} == {""}
    modules = {name for name, module in tower.named_modules() if isinstance(module, nn.Conv2d)}
    assert {node.name for node in model.graph.node if node.op_type == "Conv"} == modules
    assert [layer.name for layer in linear_layers(model)] == ["pool.attn.query", "pool.attn.key_value"]
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["AveragePool"] == 1 + 3 * 2
    assert operators["Relu"] == 3 + 3 * sum(tower.config.layers)


@pytest.mark.parametrize("config", [ResNetConfig(image_size=32, width=32, layers=(1, 1, 1, 1), heads=2)])
def test_operators_that_onnxruntime_executes(graph: Path) -> None:
    """ReLUs and sums are part of convolutions, and none rearranges its maps: with channels in multiples of 16, as
    real models have them, the last maps are brought into the graph's own order and no others."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(graph.with_suffix(".optimised.onnx"))
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    executed = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    assert (executed["Conv"], executed["AveragePool"]) == (3 + 4 * 4, 1 + 3 * 2)
    assert executed["Relu"] == 0
    assert executed["Add"] == 1  # the positions
    assert executed["ReorderInput"] == 0
    assert executed["ReorderOutput"] <= 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("visual.layer1.0.bn2.running_mean", None, r"lack visual\.layer1\.0\.bn2\.running_mean"),
        ("visual.attnpool.k_proj.bias", None, r"lack visual\.attnpool\.k_proj\.bias"),
        ("visual.layer9.bn2.weight", torch.ones(3), r"have beyond .* visual\.layer9\.bn2\.weight"),
        ("visual.conv1.weight", torch.ones(4, 3, 7, 7), r"visual\.conv1\.weight has the shape \[4, 3, 7, 7\]"),
    ],
)
def test_other_tensors_are_refused(tmp_path: Path, name: str, change: torch.Tensor | None, message: str) -> None:
    config = CONFIGS["plain"]
    tensors = stored_tensors(make_origin(config).float())
    tensors.pop(name, None)
    if change is not None:
        tensors[name] = change
    save_file(tensors, tmp_path / "model.safetensors")
    stored = open_safetensors([tmp_path / "model.safetensors"])
    with pytest.raises(CheckpointError, match=message):
        read_tensors(stored, resnet_shapes(config, EMBED_DIM), tmp_path, is_batch_count)


def test_an_impossible_image_size_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"200 pixels; .* a multiple of 32"):
        resnet_shapes(replace(CONFIGS["plain"], image_size=200), EMBED_DIM)


@pytest.mark.slow
def test_export_of_an_openclip_folder(tmp_path: Path) -> None:
    """From the files to a bundle, and from pictures to embeddings."""
    config = CONFIGS["plain"]
    origin = make_origin(config)
    folder = write_openclip_folder(tmp_path / "tiny-resnet", config, stored_tensors(origin.float()))
    report = export(folder, tmp_path / "bundle", precision="fp32", text=False)
    assert report.passed
    clip = clipedge.load(tmp_path / "bundle")
    pictures, _ = scenes.labelled_pictures("test", 5)
    pixels = preprocess(pictures, load_checkpoint(folder).preprocessing)
    assert distance(clip.encode_image(pictures), origin.double()(torch.from_numpy(pixels))) < PARITY


def write_openclip_folder(folder: Path, config: ResNetConfig, tensors: Tensors) -> Path:
    """The text tower is of OpenCLIP's own kind and as small as can be."""
    vision = {"image_size": config.image_size, "width": config.width, "layers": config.layers}
    text = {"context_length": 12, "vocab_size": 60, "width": 8, "heads": 1, "layers": 1}
    document = {
        "model_cfg": {"embed_dim": EMBED_DIM, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"size": config.image_size, "mean": MEAN, "std": STD},
    }
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    shapes = text_layout(openclip_model(folder, document["model_cfg"]), "").shapes
    texts = {name: torch.randn(shape) for name, shape in shapes.items()}
    save_file({**tensors, **texts, "logit_scale": torch.tensor(4.6)}, folder / "open_clip_model.safetensors")
    return folder
