"""Float32 graphs of every family, with inputs, to be converted to half precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import nn

from clipedge.calibration import scenes
from clipedge.calibration.storage import cpu_session
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.checkpoints.configs import (
    FastVitConfig,
    ResNetConfig,
    TextConfig,
    TracedImageConfig,
    VitConfig,
)
from clipedge.export.graphs import write_dense_graph, write_image_graph, write_text_graph
from clipedge.export.towers import TracedImageTower
from clipedge.export.towers.fastvit import empty_fastvit
from clipedge.export.towers.resnet import empty_resnet
from clipedge.export.towers.text import empty_text_tower
from clipedge.export.towers.vit import empty_vit
from clipedge.manifest import Preprocessing

Tower = TypeVar("Tower", bound=nn.Module)
MEAN, STD = (0.48, 0.45, 0.31), (0.27, 0.16, 0.28)
WIDTH, TOKENS, VOCABULARY = 32, 9, 50


@dataclass(frozen=True, eq=False)
class FloatGraph:
    """A tower's graph in float32, inputs of it (N, ...), and what it makes of them (N, D)."""

    model: onnx.ModelProto
    inputs: npt.NDArray[Any]
    pixel_mean: tuple[float, ...]

    @property
    def embeds(self) -> npt.NDArray[np.float32]:
        return self.run(self.model)

    def run(self, model: onnx.ModelProto, inputs: npt.NDArray[Any] | None = None) -> npt.NDArray[np.float32]:
        """What another form of the graph makes of them in ONNX Runtime: (N, D), or (N * patches, D)."""
        feed = {model.graph.input[0].name: self.inputs if inputs is None else inputs}
        (embeds,) = cpu_session(model).run(None, feed)
        return np.asarray(embeds.reshape(-1, embeds.shape[-1]))


def preprocessing(size: int, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Preprocessing:
    return Preprocessing(size, size, "squash", size, "bicubic", mean, std)  # type: ignore[arg-type]


def vit(**changes: Any) -> nn.Module:
    config = dataclasses.replace(VitConfig(24, 8, WIDTH, 3, 4, 96, "gelu", 1e-5), **changes)
    return empty_vit(config, preprocessing(config.image_size), 20)


def text(**changes: Any) -> nn.Module:
    config = TextConfig(VOCABULARY, TOKENS, WIDTH, 3, 4, 96, "quick_gelu", 1e-5, VOCABULARY - 1)
    return empty_text_tower(dataclasses.replace(config, **changes), 20)


class Strange(nn.Module):
    """A tower of no family: convolutions, a norm over channels, an activation, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 4, stride=4), nn.LayerNorm(16)
        self.mixer, self.wide, self.head = (
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.Linear(16, 48),
            nn.Linear(48, 20),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = self.norm(self.mixer(self.stem(pixels)).permute(0, 2, 3, 1))
        result: torch.Tensor = self.head(torch.nn.functional.gelu(self.wide(rows)).mean(dim=(1, 2)))
        return result


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "ViT": vit,
    "ViT with a border": lambda: vit(image_size=28),
    "SigLIP": lambda: vit(pool="map", class_token=False, norm_pre=False, activation="gelu_tanh"),
    "CoCa": lambda: vit(pool="attentional", pool_heads=2),
    "MobileCLIP-B": lambda: vit(image_size=32, patch_size=16, conv_stem=True, norm_pre=False, projection_bias=True),
    "ModifiedResNet": lambda: empty_resnet(ResNetConfig(64, 16, (2, 1, 1, 1), heads=8), preprocessing(64), 32),
    "FastViT": lambda: empty_fastvit(
        FastVitConfig(64, (16, 32, 64), (1, 2, 1), mlp_ratio=3, attention_stages=1, squeeze_stages=(1,)),
        preprocessing(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        32,
    ),
    "traced": lambda: TracedImageTower(
        TracedImageConfig("open_clip", "strange", "{}", 24), Strange(), preprocessing(24)
    ),
    "text": text,
    "SigLIP's text": lambda: text(pool="last", causal=False, activation="gelu_tanh"),
    "CoCa's text": lambda: text(pool="last", class_token=True, activation="gelu"),
    "MobileCLIP-S0's text": lambda: text(mixers=True, causal=False, activation="gelu"),
    "dense": vit,
}


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FloatGraph:
    """A small tower of each family, with seeded random weights."""
    path = tmp_path_factory.mktemp("family") / "tower.onnx"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = _randomised(FAMILIES[request.param]())
    write = write_text_graph if "text" in request.param else write_image_graph
    if request.param == "dense":
        write = write_dense_graph  # type: ignore[assignment]
    write(tower, path)  # type: ignore[arg-type]
    model = onnx.load(path)
    return FloatGraph(model, _inputs(model), tuple(255 * mean for mean in MEAN))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> FloatGraph:
    """The demonstration model's image tower, and scenes."""
    from clipedge.export.towers import build_image_tower

    checkpoint, path = load_checkpoint(DEMO_CHECKPOINT), tmp_path_factory.mktemp("demo") / "image.onnx"
    write_image_graph(build_image_tower(checkpoint), path)
    mean = tuple(255 * mean for mean in checkpoint.preprocessing.mean)
    return FloatGraph(onnx.load(path), scenes.labelled_pictures("test", 32)[0], mean)


def _inputs(model: onnx.ModelProto) -> npt.NDArray[Any]:
    """A dozen soft pictures, or texts that end at different places."""
    rng = np.random.default_rng(0)
    _, *shape = (size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim)
    if model.graph.input[0].name == "pixels":
        size = shape[0]
        soft = rng.uniform(-60, 315, (12, 4, 4, 3)).repeat(-(-size // 4), axis=1).repeat(-(-size // 4), axis=2)
        return (soft[:, :size, :size] + rng.normal(0, 20, (12, size, size, 3))).clip(0, 255).astype(np.uint8)
    tokens = rng.integers(3, VOCABULARY - 1, (12, *shape))
    ends = np.arange(12) % (shape[0] - 2) + 2
    tokens[np.arange(shape[0])[None] > ends[:, None]] = 0
    tokens[np.arange(12), ends] = VOCABULARY - 1
    return tokens


def _randomised(tower: Tower) -> Tower:
    """Nothing neutral; weights that keep the activations' size, and residual branches smaller than their stream."""
    with torch.no_grad():
        for name, weight in tower.named_parameters():
            if weight.ndim == 1:
                neutral = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                weight.copy_(neutral + 0.05 * torch.randn(weight.shape))
                continue
            gain = 1.4 if weight.ndim == 4 else 1.0  # activations halve the power of what passes
            if not any(part in name for part in ("embedding.position", "embedding.token")):
                gain *= weight[0].numel() ** -0.5
            weight.copy_(gain * torch.randn(weight.shape))
            if name.endswith("mixer.weight") and weight.shape[-1] == 3:  # the stream itself, a little mixed
                weight.mul_(0.2)[:, :, 1, 1] += 1
    return tower.requires_grad_(False).eval()
