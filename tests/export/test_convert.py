"""The INT8 pixel path, alone: every other layer stays in float."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from clipedge.calibration import scenes
from clipedge.calibration.calibrate import Calibration
from clipedge.calibration.linears import PATCH_EMBED, linear_layers
from clipedge.calibration.quantize import quantize
from clipedge.calibration.rounding import SCHEMES
from clipedge.calibration.storage import cpu_session
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.graphs import write_image_graph
from clipedge.export.towers import build_image_tower


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The demonstration model's image tower in float, and with only its patch embedding in INT8."""
    path = tmp_path_factory.mktemp("graph") / "image.onnx"
    checkpoint = load_checkpoint(DEMO_CHECKPOINT)
    write_image_graph(build_image_tower(checkpoint), path)
    model = onnx.load(path)
    others = [layer.name for layer in linear_layers(model) if layer.name != PATCH_EMBED]
    pixel_mean = [255 * mean for mean in checkpoint.preprocessing.mean]
    return model, quantize(model, Calibration({}, {}), SCHEMES["x86"], pixel_mean, keep_float=others)


def embed(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    embeds: np.ndarray = cpu_session(model).run(None, {"pixels": pixels})[0]
    return embeds


def test_int8_pixels_cost_next_to_nothing(towers: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    """Dark, bright and ordinary pictures: an error in the constant would show most on the uniform ones."""
    pictures, _ = scenes.labelled_pictures("test", 30)
    levels = np.array([0, 64, 128, 192, 255], np.uint8)
    uniform = np.broadcast_to(levels[:, None, None, None], (5, *pictures.shape[1:]))
    pixels = np.concatenate([pictures, uniform])
    exact, rounded = (embed(model, pixels) for model in towers)
    mean = exact.mean(axis=0)
    cosines = ((exact - mean) * (rounded - mean)).sum(axis=1)
    cosines /= np.linalg.norm(exact - mean, axis=1) * np.linalg.norm(rounded - mean, axis=1)
    assert cosines.min() > 0.999


def test_the_class_token_keeps_its_constant(towers: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    exact, rounded = (
        next(numpy_helper.to_array(item) for item in model.graph.initializer if item.name == "embedding.tokens")
        for model in towers
    )
    np.testing.assert_array_equal(exact[0, 0], rounded[0, 0])
    assert np.abs(exact[0, 1:] - rounded[0, 1:]).min(axis=0).max() > 0  # the patches' rows did move
