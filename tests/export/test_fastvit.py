"""FastViT towers: reading files of both forms and both libraries, and tower against graph. Tiny; real sizes against
timm are in ``tests/origin/test_mobileclip.py``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.configs import FastVitConfig
from clipedge.export.checkpoints.layouts import ImageLayout
from clipedge.export.checkpoints.mobileclip.fastvit import APPLE, TIMM, FastVitNames, fastvit_layout
from clipedge.export.checkpoints.tensors import open_safetensors, read_tensors
from clipedge.export.graphs.fastvit import write_fastvit_graph
from clipedge.export.towers.fastvit import FastVitTower, empty_fastvit
from clipedge.manifest import Preprocessing

DrawPixels = Callable[[int, int], NDArray[np.uint8]]

PARITY = 1e-5
EMBED_DIM = 20
TINY = FastVitConfig(64, (8, 16, 32, 64), (1, 2, 1, 2), mlp_ratio=3, attention_stages=1, squeeze_stages=(2, 3))
LARGE = FastVitConfig(
    128, (8, 16, 32, 64, 128), (1, 1, 1, 2, 1), 4, attention_stages=2, squeeze_stages=(), norm_eps=1e-5
)
SHIFTED = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}


def preprocessing(
    size: int, mean: tuple[float, ...] = (0.0,) * 3, std: tuple[float, ...] = (1.0,) * 3
) -> Preprocessing:
    return Preprocessing(
        height=size,
        width=size,
        resize="shortest-edge",
        shortest_edge=size,
        interpolation="bilinear",
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def random_file(path: Path, config: FastVitConfig, names: FastVitNames) -> Path:
    """A file of the trained form, with weights that keep activations at their size."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in fastvit_layout(config, EMBED_DIM, names, {}).shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) in (2, 4):
            tensors[name] = noise / math.sqrt(math.prod(shape[1:]))
        elif name.endswith("running_var"):
            tensors[name] = torch.exp(0.2 * noise)
        elif name.endswith(("bias", "running_mean")):
            tensors[name] = 0.1 * noise
        elif "layer_scale" in name:
            tensors[name] = 0.4 * noise
        else:
            tensors[name] = 1 + 0.3 * noise
    save_file(tensors, path)
    return path


def read(path: Path, config: FastVitConfig, names: FastVitNames) -> dict[str, torch.Tensor]:
    stored = open_safetensors([path])
    layout: ImageLayout = fastvit_layout(config, EMBED_DIM, names, stored)
    return layout.canonical(read_tensors(stored, layout.shapes, path, layout.ignored))


def tower_of(weights: dict[str, torch.Tensor], config: FastVitConfig, prepared: Preprocessing) -> FastVitTower:
    with torch.device("meta"):
        tower = empty_fastvit(config, prepared, EMBED_DIM)
    tower.load_state_dict(weights, assign=True)
    return tower.eval().requires_grad_(False)


def run(graph: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (embeds,) = session.run(None, {"pixels": pixels})
    return embeds


@pytest.mark.parametrize(
    ("config", "prepared"),
    [(TINY, preprocessing(64)), (TINY, preprocessing(64, **SHIFTED)), (LARGE, preprocessing(128, **SHIFTED))],
    ids=["four stages", "shifted pixels", "five stages"],
)
def test_graph_gives_what_the_tower_gives(
    config: FastVitConfig, prepared: Preprocessing, draw_pixels: DrawPixels, tmp_path: Path
) -> None:
    """Padding too: a mean that is taken off has to be taken off before the first convolution pads."""
    tower = tower_of(read(random_file(tmp_path / "w.safetensors", config, TIMM), config, TIMM), config, prepared)
    write_fastvit_graph(tower, tmp_path / "image.onnx")
    for batch in (1, 2, 7):
        pixels = draw_pixels(batch, config.image_size)
        expected = tower(torch.from_numpy(pixels)).numpy()
        found = run(tmp_path / "image.onnx", pixels)
        assert found.shape == (batch, EMBED_DIM)
        assert np.abs(found - expected).max() <= PARITY
    assert np.abs(expected - expected.mean(axis=0)).max() > 100 * PARITY


# A convolution of each kind that is trained as a sum: its name in the tower, and its place in files of either library.
SUMS = {
    "stem.0": ("stem.0.reparam_conv", "patch_embed.0.reparam_conv"),
    "stages.0.blocks.0.mixer": ("stages.0.blocks.0.token_mixer.reparam_conv", "network.0.0.token_mixer.reparam_conv"),
    "stages.1.downsample.large": ("stages.1.downsample.proj.0.reparam_conv", "network.1.proj.0.lkb_reparam"),
    "stages.3.position": ("stages.3.pos_emb.reparam_conv", "network.6.reparam_conv"),
}


@pytest.mark.parametrize("library", [0, 1], ids=["timm", "Apple"])
def test_sums_that_a_file_has_already_are_taken_as_they_are(library: int, tmp_path: Path) -> None:
    names = (TIMM, APPLE)[library]
    path = random_file(tmp_path / "trained.safetensors", TINY, names)
    expected = read(path, TINY, names)
    tensors = load_file(path)
    for name, places in SUMS.items():
        place = f"{names.prefix}{places[library]}"
        block = place.rpartition(".")[0]
        tensors = {other: tensor for other, tensor in tensors.items() if not is_branch(other, block)}
        for kind in ("weight", "bias"):
            parts = [
                expected[f"{name}{part}.{kind}"]
                for part in ("", ".first", ".second")
                if f"{name}{part}.{kind}" in expected
            ]
            tensors[f"{place}.{kind}"] = torch.stack(parts, dim=1).flatten(0, 1).contiguous()  # twins alternate
    save_file(tensors, tmp_path / "summed.safetensors")
    found = read(tmp_path / "summed.safetensors", TINY, names)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=0)


def is_branch(name: str, block: str) -> bool:
    """Whether a tensor belongs to a convolution that is replaced; squeeze-and-excitation beside it does not."""
    return name.startswith(f"{block}.") and ".se." not in name


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            TIMM,
            {
                "visual.trunk.stem.1.conv_scale.bn.running_var",
                "visual.trunk.stages.1.downsample.proj.0.small_conv.conv.weight",
                "visual.trunk.stages.2.downsample.proj.0.se.fc1.weight",
                "visual.trunk.stages.1.blocks.1.token_mixer.norm.identity.running_mean",
                "visual.trunk.stages.3.pos_emb.pos_enc.bias",
                "visual.trunk.stages.3.blocks.0.layer_scale_1.gamma",
                "visual.trunk.final_conv.se.fc2.bias",
                "visual.trunk.head.fc.bias",
            },
        ),
        (
            APPLE,
            {
                "image_encoder.model.patch_embed.1.rbr_scale.bn.running_var",
                "image_encoder.model.network.1.proj.0.small_conv.conv.weight",
                "image_encoder.model.network.3.proj.0.se.fc1.weight",
                "image_encoder.model.network.2.1.token_mixer.norm.rbr_skip.running_mean",
                "image_encoder.model.network.6.pe.bias",
                "image_encoder.model.network.7.0.layer_scale_1",
                "image_encoder.model.conv_exp.se.expand.bias",
                "image_encoder.model.head.proj",
            },
        ),
    ],
    ids=["timm", "Apple"],
)
def test_tensors_have_their_librarys_names(names: FastVitNames, expected: set[str]) -> None:
    assert expected <= fastvit_layout(TINY, EMBED_DIM, names, {}).shapes.keys()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("visual.trunk.stages.0.blocks.0.token_mixer.mixer.conv_scale.bn.running_var", "lack"),
        ("visual.trunk.stages.3.blocks.1.norm.running_mean", "lack"),
        ("visual.trunk.stages.1.downsample.proj.0.se.fc1.weight", "beyond"),
    ],
)
def test_missing_and_unexpected_tensors_are_refused_by_name(name: str, problem: str, tmp_path: Path) -> None:
    path = random_file(tmp_path / "w.safetensors", TINY, TIMM)
    tensors = load_file(path)
    if problem == "lack":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(4, 16, 1, 1)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=f"{problem}.*{re.escape(name)}"):
        read(path, TINY, TIMM)


def test_tensors_of_another_width_are_refused_by_name(tmp_path: Path) -> None:
    path = random_file(tmp_path / "w.safetensors", TINY, TIMM)
    with pytest.raises(CheckpointError, match=r"stem\.0\.conv_kxk.*\[8, 3, 3, 3\].*\[16, 3, 3, 3\]"):
        read(path, replace(TINY, widths=(16, 32, 64, 128)), TIMM)


def test_engine_computes_fast_kernels_only(tmp_path: Path) -> None:
    """ONNX Runtime knows every GELU again, and every kernel is one of those that it has fast code for."""
    tower = tower_of(read(random_file(tmp_path / "w.safetensors", TINY, TIMM), TINY, TIMM), TINY, preprocessing(64))
    write_fastvit_graph(tower, tmp_path / "image.onnx")
    written = onnx.load(tmp_path / "image.onnx")
    weights = {item.name: item.dims for item in written.graph.initializer}
    for node in written.graph.node:
        if node.op_type == "Conv":
            outputs, inputs_of_group = weights[node.input[1]][:2]
            groups = next(item.i for item in node.attribute if item.name == "group")
            assert inputs_of_group > 1 or outputs == groups  # one kernel for each channel, not two
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tmp_path / "image.onnx", options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "Erf" not in operators
    assert operators.count("Gelu") == 3 + 2 * 3 + 6 + 1  # stem, downsamplings, blocks, expansion
