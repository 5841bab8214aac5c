"""Float graphs to calibrate: the demonstration model's image tower, and tiny towers and convolutional networks with
random weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import nn

from clipedge.calibration import scenes
from clipedge.calibration.calibrate import Calibration, calibrate, observe_layers
from clipedge.calibration.observe import Observable, Observation
from clipedge.calibration.rounding import SCHEMES
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.checkpoints.configs import FastVitConfig, ResNetConfig, TextConfig, VitConfig
from clipedge.export.graphs import write_image_graph, write_text_graph
from clipedge.export.graphs.fastvit import write_fastvit_graph
from clipedge.export.graphs.resnet import write_resnet_graph
from clipedge.export.towers import ImageEmbedding, ImageTower, TextEmbedding, TextTower, build_image_tower
from clipedge.export.towers.blocks import Attention, Block
from clipedge.export.towers.fastvit import empty_fastvit
from clipedge.export.towers.resnet import empty_resnet

Tower = TypeVar("Tower", bound=nn.Module)
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class DemoTower:
    """The demonstration model's image tower in float, what was observed of it, and fresh pictures (N, 64, 64, 3)."""

    model: onnx.ModelProto
    pixel_mean: tuple[float, ...]
    observed: dict[Observable, Observation]
    calibrations: dict[str, Calibration]  # by target
    pictures: Pixels


@pytest.fixture(scope="session")
def demo_tower(tmp_path_factory: pytest.TempPathFactory) -> DemoTower:
    checkpoint = load_checkpoint(DEMO_CHECKPOINT)
    path = tmp_path_factory.mktemp("demo") / "image.onnx"
    write_image_graph(build_image_tower(checkpoint), path)
    model = onnx.load(path)
    pictures, _ = scenes.labelled_pictures("calibration", 128)
    observed = observe_layers(model, np.array_split(pictures, 8), _class_token_as_much_as_all)
    return DemoTower(
        model=model,
        pixel_mean=tuple(255 * mean for mean in checkpoint.preprocessing.mean),
        observed=observed,
        calibrations={target: calibrate(model, observed, scheme) for target, scheme in SCHEMES.items()},
        pictures=scenes.labelled_pictures("test", 48)[0],
    )


def _class_token_as_much_as_all(pixels: Pixels) -> npt.NDArray[np.float64]:
    weights = np.ones((len(pixels), 65))
    weights[:, 0] = 64
    return weights


@pytest.fixture(scope="session", params=["image", "text"])
def tiny_tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A tower of three blocks with random weights, 32 wide: (N, 24, 24, 3) pixels or (N, 9) token ids of 50."""
    path = tmp_path_factory.mktemp("tiny") / "tower.onnx"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write = _tiny_image if request.param == "image" else _tiny_text
        write(load_checkpoint(DEMO_CHECKPOINT), path)
    return onnx.load(path)


@pytest.fixture(scope="session")
def tiny_inputs(tiny_tower: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    name = tiny_tower.graph.input[0].name
    if name == "pixels":
        return {name: rng.integers(0, 256, (5, 24, 24, 3), np.uint8)}
    tokens = rng.integers(0, 49, (5, 9))
    tokens[np.arange(5), [3, 8, 1, 5, 8]] = 49  # the end of each text
    return {name: tokens}


def _tiny_image(checkpoint: Checkpoint, path: Path) -> None:
    config = VitConfig(24, 8, 32, 3, 4, 96, "gelu", 1e-5)
    embedding = ImageEmbedding(config, dataclasses.replace(checkpoint.preprocessing, width=24, height=24))
    tower = ImageTower(config, embedding, _blocks(config), nn.LayerNorm(32), nn.Linear(32, 20, bias=False))
    write_image_graph(_randomised(tower), path)


def _tiny_text(checkpoint: Checkpoint, path: Path) -> None:
    config = TextConfig(50, 9, 32, 3, 4, 96, "quick_gelu", 1e-5, 49)
    tower = TextTower(config, TextEmbedding(config), _blocks(config), nn.LayerNorm(32), nn.Linear(32, 20, bias=False))
    write_text_graph(_randomised(tower), path)


def _blocks(config: VitConfig | TextConfig) -> list[Block]:
    width = config.width
    return [
        Block(
            nn.LayerNorm(width),
            Attention(
                *(nn.Linear(width, width) for _ in range(4)), config.heads, scale=(width // config.heads) ** -0.5
            ),
            nn.LayerNorm(width),
            nn.Linear(width, config.mlp_width),
            nn.Linear(config.mlp_width, width),
            config.activation,
        )
        for _ in range(config.layers)
    ]


def _randomised(tower: Tower) -> Tower:
    """Nothing neutral: no gain of one, no bias of zero."""
    with torch.no_grad():
        for name, weight in tower.named_parameters():
            if "norm" in name and name.endswith("weight"):
                weight.uniform_(0.5, 2)
            else:
                weight.normal_(std=weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1)
    return tower.requires_grad_(False).eval()


@dataclass(frozen=True, eq=False)
class TinyNetwork:
    """A convolutional image tower in float, what was observed of it, and fresh pictures (N, 64, 64, 3)."""

    model: onnx.ModelProto
    observed: dict[Observable, Observation]
    calibrations: dict[str, Calibration]  # by target
    pictures: Pixels


@pytest.fixture(scope="session", params=["resnet", "fastvit"])
def tiny_network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyNetwork:
    """A ModifiedResNet and a FastViT of one or two blocks a stage: whatever their real counterparts have, in small."""
    path = tmp_path_factory.mktemp("network") / "image.onnx"
    preprocessing = load_checkpoint(DEMO_CHECKPOINT).preprocessing
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "resnet":
            config = ResNetConfig(64, 32, (2, 1, 1, 1), heads=8)
            write_resnet_graph(_randomised_network(empty_resnet(config, preprocessing, 32)), path)
        else:
            shape = FastVitConfig(64, (16, 32, 64), (1, 2, 1), mlp_ratio=3, attention_stages=1, squeeze_stages=(1,))
            write_fastvit_graph(_randomised_network(empty_fastvit(shape, preprocessing, 32)), path)
    model = onnx.load(path)
    pictures, _ = scenes.labelled_pictures("calibration", 48)
    observed = observe_layers(model, np.array_split(pictures, 3), lambda pixels: np.ones((len(pixels), 1)))
    calibrations = {target: calibrate(model, observed, scheme) for target, scheme in SCHEMES.items()}
    return TinyNetwork(model, observed, calibrations, scenes.labelled_pictures("test", 24)[0])


def _randomised_network(tower: Tower) -> Tower:
    """Weights that keep the activations' size from layer to layer (He et al. 2015, arXiv 1502.01852), some channels
    larger than others, and residual branches smaller than the stream that they are added to."""
    with torch.no_grad():
        for name, weight in tower.named_parameters():
            if weight.ndim == 1:
                weight.normal_(std=0.1)
                continue
            weight.normal_(std=weight[0].numel() ** -0.5)
            if weight.ndim == 4:
                spread = torch.exp(0.4 * torch.randn(len(weight)))[:, None, None, None]
                weight.mul_(spread * (0.5 if name.endswith(("conv3.weight", "fc2.weight")) else 1.3))
            if name.endswith("mixer.weight"):  # the stream itself, a little mixed
                weight.mul_(0.2)[:, :, 1, 1] += 1
    return tower.requires_grad_(False).eval()
