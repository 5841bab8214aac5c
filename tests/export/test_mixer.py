"""The convolutional blocks of MobileCLIP-S0's text tower, read in either form, and the tower against its graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from clipedge.export.checkpoints.configs import TextConfig
from clipedge.export.checkpoints.mobileclip.fastvit import token_mixer_layers
from clipedge.export.checkpoints.mobileclip.reparam import canonical
from clipedge.export.graphs import write_text_graph
from clipedge.export.towers.mixer import TokenMixer, empty_token_mixer
from clipedge.export.towers.text import TextTower, empty_text_tower

PARITY = 1e-5
WIDTH, HIDDEN, TOKENS = 24, 80, 14
PLACE = "text_encoder.transformer.0"
CONFIG = TextConfig(
    vocab_size=60,
    context_length=TOKENS,
    width=WIDTH,
    layers=2,
    heads=3,
    mlp_width=HIDDEN,
    activation="gelu",
    eps=1e-5,
    eos_token_id=2,
    causal=False,
    mixers=True,
)

# As Apple's files have them (mobileclip/modules/text/repmixer.py), without the statistics of the BatchNorms.
NAMES = {
    "token_mixer.norm.rbr_skip": (WIDTH,),
    "token_mixer.mixer.rbr_skip": (WIDTH,),
    "token_mixer.mixer.rbr_conv.0.bn": (WIDTH,),
    "token_mixer.mixer.rbr_conv.0.conv.weight": (WIDTH, 1, 1, 11),
    "token_mixer.layer_scale": (WIDTH, 1, 1),
    "convffn.conv.conv.weight": (WIDTH, 1, 1, 11),
    "convffn.conv.bn": (WIDTH,),
    "convffn.fc1.weight": (HIDDEN, WIDTH, 1, 1),
    "convffn.fc1.bias": (HIDDEN,),
    "convffn.fc2.weight": (WIDTH, HIDDEN, 1, 1),
    "convffn.fc2.bias": (WIDTH,),
    "layer_scale": (WIDTH, 1, 1),
}


@pytest.fixture
def trained() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in NAMES.items():
        if len(shape) > 1 or name.endswith("bias"):
            tensors[f"{PLACE}.{name}"] = 0.3 * torch.randn(shape, generator=generator)
            continue
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{PLACE}.{name}.{part}"] = torch.exp(0.3 * torch.randn(shape, generator=generator))
    return tensors


def as_trained(tensors: Mapping[str, torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
    """The block with its branches and norms as they are, in float64; (B, T, W) to (B, T, W)."""
    values = {name.removeprefix(f"{PLACE}."): tensor.double() for name, tensor in tensors.items()}

    def norm(name: str, maps: torch.Tensor) -> torch.Tensor:
        parts = (values[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(maps, *parts, eps=1e-5)

    def conv_norm(name: str, maps: torch.Tensor) -> torch.Tensor:
        weight = values[f"{name}.conv.weight"]
        return norm(f"{name}.bn", F.conv2d(maps, weight, padding=(0, 5), groups=WIDTH))

    maps = hidden.double().permute(0, 2, 1)[:, :, None]
    mixed = conv_norm("token_mixer.mixer.rbr_conv.0", maps) + norm("token_mixer.mixer.rbr_skip", maps)
    maps = maps + values["token_mixer.layer_scale"] * (mixed - norm("token_mixer.norm.rbr_skip", maps))
    seen = F.conv2d(conv_norm("convffn.conv", maps), values["convffn.fc1.weight"], values["convffn.fc1.bias"])
    seen = F.conv2d(F.gelu(seen), values["convffn.fc2.weight"], values["convffn.fc2.bias"])
    return (maps + values["layer_scale"] * seen)[:, :, 0].permute(0, 2, 1)


def read_mixer(tensors: dict[str, torch.Tensor]) -> TokenMixer:
    layers = token_mixer_layers(PLACE, WIDTH, HIDDEN, tensors)  # type: ignore[arg-type]  # only names are looked at
    shapes = {name: shape for layer in layers.values() for name, shape in layer.shapes.items()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    mixer = empty_token_mixer(WIDTH, HIDDEN)
    mixer.load_state_dict(canonical(layers, tensors))
    return mixer.requires_grad_(False)


def test_the_form_for_inference_gives_what_the_trained_one_gives(trained: dict[str, torch.Tensor]) -> None:
    hidden = torch.randn(3, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    expected = as_trained(trained, hidden)
    assert (read_mixer(trained)(hidden) - expected).abs().max() <= PARITY
    summed = {name: tensor for name, tensor in trained.items() if ".token_mixer." not in name}
    for kind in ("weight", "bias"):
        summed[f"{PLACE}.token_mixer.reparam_conv.{kind}"] = read_mixer(trained).mixer.get_parameter(kind)
    assert (read_mixer(summed)(hidden) - expected).abs().max() <= PARITY


@pytest.fixture
def tower() -> TextTower:
    torch.manual_seed(2)
    tower = empty_text_tower(CONFIG, 20).eval().requires_grad_(False)
    for name, parameter in tower.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return tower


def run(graph: Path, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (embeds,) = session.run(None, {"input_ids": input_ids})
    return embeds


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_graph_gives_what_the_tower_gives(
    tower: TextTower, batch: int, draw_texts: Callable[[int, int, int], NDArray[np.int64]], tmp_path: Path
) -> None:
    write_text_graph(tower, tmp_path / "text.onnx")
    texts = draw_texts(batch, TOKENS, CONFIG.vocab_size)
    expected = tower(torch.from_numpy(texts)).numpy()
    assert np.abs(run(tmp_path / "text.onnx", texts) - expected).max() <= PARITY


def test_a_tower_without_mixers_gives_something_else(tower: TextTower) -> None:
    """Both mixers matter for the embedding."""
    texts = torch.arange(TOKENS)[None]
    for place in (0, 1):
        others = [torch.nn.Identity() if index == place else mixer for index, mixer in enumerate(tower.mixers)]
        changed = copy.copy(tower)
        changed._modules = {**tower._modules, "mixers": torch.nn.ModuleList(others)}
        assert (changed(texts) - tower(texts)).abs().max() > 1e3 * PARITY
