"""CoCa's forms of the towers with random weights: every simplification in float64, and the graphs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints import load_checkpoint
from clipedge.export.checkpoints.configs import PAD_ID, TextConfig, VitConfig
from clipedge.export.graphs import write_image_graph, write_text_graph
from clipedge.export.towers import ImageTower, TextTower, simplify
from clipedge.export.towers.blocks import AbsorbedAttention
from clipedge.export.towers.text import empty_text_tower
from clipedge.export.towers.vit import empty_vit
from clipedge.manifest import Preprocessing

EXACT = 1e-12
PARITY = 5e-6

DrawPixels = Callable[[int, int], NDArray[np.uint8]]
Step = Callable[[Any], Any]

IMAGE = VitConfig(
    image_size=24,
    patch_size=8,
    width=32,
    layers=2,
    heads=4,
    mlp_width=64,
    activation="gelu",
    eps=1e-5,
    pool="attentional",
    pool_heads=2,
)
TEXT = TextConfig(
    vocab_size=50,
    context_length=9,
    width=32,
    layers=2,
    heads=4,
    mlp_width=64,
    activation="gelu",
    eps=1e-5,
    eos_token_id=2,
    pool="last",
    class_token=True,
)
PREPROCESSING = Preprocessing(24, 24, "squash", 24, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))

BLOCK_STEPS: list[Step] = [
    simplify.fuse_qkv,
    simplify.fold_attention_scale,
    simplify.fold_norms,
    simplify.fold_attention_biases,
]
IMAGE_STEPS: list[Step] = [*BLOCK_STEPS, simplify.fold_pooling, simplify.fold_query]
TEXT_STEPS: list[Step] = [*BLOCK_STEPS, simplify.pool_last_block, simplify.absorb_keys_and_values]


def randomised(tower: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(5)
    for weight in tower.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = noise / np.sqrt(weight.shape[-1]) if weight.ndim > 1 else 1 + 0.3 * noise
    return tower.requires_grad_(False).eval()


@pytest.fixture
def image_tower() -> ImageTower:
    return randomised(empty_vit(IMAGE, PREPROCESSING, embed_dim=20))


@pytest.fixture(params=[True, False], ids=["causal", "sees all"])
def text_tower(request: pytest.FixtureRequest) -> TextTower:
    return randomised(empty_text_tower(dataclasses.replace(TEXT, causal=request.param), embed_dim=20))


@pytest.fixture
def pixels(draw_pixels: DrawPixels) -> torch.Tensor:
    return torch.from_numpy(draw_pixels(5, IMAGE.image_size))


@pytest.fixture
def input_ids() -> torch.Tensor:
    """Texts that are empty, short, full, and have padding inside."""
    ids = torch.randint(1, TEXT.vocab_size, (6, TEXT.context_length), generator=torch.Generator().manual_seed(6))
    for index, end in enumerate((1, 2, 5, 8)):
        ids[index, end:] = PAD_ID
    ids[5, 3] = PAD_ID
    return ids


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.mark.parametrize("count", range(1, len(IMAGE_STEPS) + 1), ids=[step.__name__ for step in IMAGE_STEPS])
def test_image_steps_are_exact(image_tower: ImageTower, pixels: torch.Tensor, count: int) -> None:
    """The step of the test's name, after those in front of it."""
    tower: Any = image_tower.double()
    expected = tower(pixels)
    for step in IMAGE_STEPS[:count]:
        tower = step(tower)
    assert distance(tower(pixels), expected) < EXACT
    assert distance(expected[:1].expand_as(expected), expected) > 0.03  # the pictures can be told apart


@pytest.mark.parametrize("count", range(1, len(TEXT_STEPS) + 1), ids=[step.__name__ for step in TEXT_STEPS])
def test_text_steps_are_exact(text_tower: TextTower, input_ids: torch.Tensor, count: int) -> None:
    tower: Any = text_tower.double()
    expected = tower(input_ids)
    for step in TEXT_STEPS[:count]:
        tower = step(tower)
    assert distance(tower(input_ids), expected) < EXACT
    assert distance(expected[:1].expand_as(expected), expected) > 0.03


def test_the_class_token_sees_the_text_and_one_place_more(text_tower: TextTower, input_ids: torch.Tensor) -> None:
    """Gradients tell what an embedding depends on: for a text of two tokens, the first three places."""
    place = text_tower.embedding.position.double().requires_grad_()
    text_tower.double().embedding.position = nn.Parameter(place)
    text_tower(input_ids[1:2]).sum().backward()
    seen = text_tower.embedding.position.grad.abs().amax(dim=1) > 0
    # As a query the class token counts anyhow; as a key it stands behind padding.
    assert seen.tolist() == [True] * 3 + [False] * (TEXT.context_length - 3) + [True]


def test_graphs_are_the_towers(
    image_tower: ImageTower, text_tower: TextTower, pixels: torch.Tensor, input_ids: torch.Tensor, tmp_path: Path
) -> None:
    write_image_graph(image_tower, tmp_path / "image.onnx")
    write_text_graph(text_tower, tmp_path / "text.onnx")
    assert isinstance(simplify.simplify_text_tower(text_tower).blocks[-1].attn, AbsorbedAttention)
    for name, tower, inputs in (("image", image_tower, pixels), ("text", text_tower, input_ids)):
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for batch in (1, 2, len(inputs)):
            (found,) = session.run(None, {session.get_inputs()[0].name: inputs[:batch].numpy()})
            assert distance(torch.from_numpy(found), tower(inputs[:batch])) <= PARITY


@pytest.mark.parametrize(
    ("tower", "change", "message"),
    [
        ("vision_cfg", {"attentional_pool": "parallel"}, "attentional_pool: expected False or True, found 'parallel'"),
        ("vision_cfg", {"attn_pooler_heads": 7}, "attn_pooler_heads: expected a divisor of embed_dim = 64"),
        ("text_cfg", {"pad_id": 1}, "pad_id: expected 0 beside embed_cls, found 1"),
    ],
)
def test_other_varieties_are_refused(tower: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = {
        "embed_dim": 64,
        "vision_cfg": {"attentional_pool": True, "layers": 2, "width": 64},
        "text_cfg": {"embed_cls": True},
    }
    document = {"model_cfg": model | {tower: model[tower] | change}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    (tmp_path / "open_clip_model.safetensors").write_bytes(save({}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)
