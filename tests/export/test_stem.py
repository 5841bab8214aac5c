"""The convolutional stem of MobileCLIP-B: its matrix products on raw pixels against its convolutions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from clipedge.export.checkpoints.configs import VitConfig
from clipedge.export.graphs import write_image_graph
from clipedge.export.towers.simplify import fold_image_embedding
from clipedge.export.towers.vit import ImageTower, empty_vit
from clipedge.manifest import Preprocessing

PARITY = 1e-5
SIZE = 48
CONFIG = VitConfig(
    image_size=SIZE,
    patch_size=16,
    width=32,
    layers=2,
    heads=4,
    mlp_width=96,
    activation="gelu",
    eps=1e-6,
    norm_pre=False,
    conv_stem=True,
    projection_bias=True,
)


@pytest.fixture(params=[((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))])
def tower(request: pytest.FixtureRequest) -> ImageTower:
    mean, std = request.param
    torch.manual_seed(0)
    prepared = Preprocessing(
        height=SIZE, width=SIZE, resize="squash", shortest_edge=None, interpolation="bilinear", mean=mean, std=std
    )
    tower = empty_vit(CONFIG, prepared, 20).eval().requires_grad_(False)
    for name, parameter in tower.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return tower


def test_folded_stem_gives_the_same_tokens(
    tower: ImageTower, draw_pixels: Callable[[int, int], NDArray[np.uint8]]
) -> None:
    pixels = torch.from_numpy(draw_pixels(2, SIZE))
    expected, found = tower.embedding(pixels), fold_image_embedding(tower).embedding(pixels)
    assert found.shape == (2, 10, 32)
    assert (found - expected).abs().max() <= PARITY


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_graph_gives_what_the_tower_gives(
    tower: ImageTower, batch: int, draw_pixels: Callable[[int, int], NDArray[np.uint8]], tmp_path: Path
) -> None:
    write_image_graph(tower, tmp_path / "image.onnx")
    pixels = draw_pixels(batch, SIZE)
    session = onnxruntime.InferenceSession(tmp_path / "image.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"pixels": pixels})
    expected = tower(torch.from_numpy(pixels)).numpy()
    assert found.shape == (batch, 20)
    assert np.abs(found - expected).max() <= PARITY
    # Pixels in another order would show.
    shuffled = tower(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 2, 1, 3)))).numpy()
    assert np.abs(shuffled - expected).max() > 1e3 * PARITY
