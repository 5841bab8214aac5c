"""The towers against transformers' CLIPModel, and every simplification against the tower it came from, in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import CLIPModel

from clipedge.export.checkpoints import Checkpoint, load_checkpoint
from clipedge.export.towers import FoldedImageEmbedding, Tower, build_image_tower, build_text_tower, simplify
from clipedge.export.towers.blocks import AbsorbedAttention, PooledAttention

TOLERANCE = 1e-12

DrawPixels = Callable[[int, int], NDArray[np.uint8]]
DrawTexts = Callable[[int, int, int], NDArray[np.int64]]
MakeClip = Callable[..., Path]
Step = Callable[[Any], Any]

SHARED_STEPS: list[Step] = [
    simplify.fuse_qkv,
    simplify.fold_attention_scale,
    simplify.fold_norms,
    simplify.fold_attention_biases,
    simplify.pool_last_block,
    simplify.absorb_keys_and_values,
]
IMAGE_STEPS: list[Step] = [simplify.fold_image_embedding, *SHARED_STEPS]


@pytest.fixture
def checkpoint(tiny_clip: Path) -> Checkpoint:
    return load_checkpoint(tiny_clip)


@pytest.fixture
def pixels(checkpoint: Checkpoint, draw_pixels: DrawPixels) -> torch.Tensor:
    return torch.from_numpy(draw_pixels(6, checkpoint.image.image_size))


@pytest.fixture
def input_ids(checkpoint: Checkpoint, draw_texts: DrawTexts) -> torch.Tensor:
    return torch.from_numpy(draw_texts(14, checkpoint.text.context_length, checkpoint.text.vocab_size))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def normalised(embeds: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(embeds, dim=-1)


@torch.no_grad()
def test_image_tower_equals_transformers(tiny_clip: Path, checkpoint: Checkpoint, pixels: torch.Tensor) -> None:
    model = CLIPModel.from_pretrained(tiny_clip).double().eval()
    mean, std = (pixels.new_tensor(v, dtype=torch.float64) for v in _mean_and_std(checkpoint))
    values = ((pixels.double() / 255 - mean) / std).permute(0, 3, 1, 2)
    expected = normalised(model.get_image_features(values).pooler_output)
    assert distance(build_image_tower(checkpoint).double()(pixels), expected) < TOLERANCE
    assert distance(expected[:1].expand_as(expected), expected) > 0.1  # the pictures can be told apart


@torch.no_grad()
def test_text_tower_equals_transformers(tiny_clip: Path, checkpoint: Checkpoint, input_ids: torch.Tensor) -> None:
    model = CLIPModel.from_pretrained(tiny_clip).double().eval()
    expected = normalised(model.get_text_features(input_ids).pooler_output)
    assert distance(build_text_tower(checkpoint).double()(input_ids), expected) < TOLERANCE
    assert distance(expected[:1].expand_as(expected), expected) > 0.1


@torch.no_grad()
@pytest.mark.parametrize("count", range(1, len(IMAGE_STEPS) + 1), ids=[step.__name__ for step in IMAGE_STEPS])
def test_image_steps_are_exact(checkpoint: Checkpoint, pixels: torch.Tensor, count: int) -> None:
    """The step of the test's name, after those in front of it."""
    tower = build_image_tower(checkpoint).double()
    expected = tower(pixels)
    for step in IMAGE_STEPS[:count]:
        tower = step(tower)
    assert distance(tower(pixels), expected) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("count", range(1, len(SHARED_STEPS) + 1), ids=[step.__name__ for step in SHARED_STEPS])
def test_text_steps_are_exact(checkpoint: Checkpoint, input_ids: torch.Tensor, count: int) -> None:
    tower = build_text_tower(checkpoint).double()
    expected = tower(input_ids)
    for step in SHARED_STEPS[:count]:
        tower = step(tower)
    assert distance(tower(input_ids), expected) < TOLERANCE


@torch.no_grad()
def test_simplify_applies_every_step(checkpoint: Checkpoint, pixels: torch.Tensor, input_ids: torch.Tensor) -> None:
    image, text = build_image_tower(checkpoint).double(), build_text_tower(checkpoint).double()
    simple_image, simple_text = simplify.simplify_image_tower(image), simplify.simplify_text_tower(text)
    assert isinstance(simple_image.embedding, FoldedImageEmbedding)
    for tower in (simple_image, simple_text):
        assert isinstance(_last_attention(tower), AbsorbedAttention | PooledAttention)
        assert _last_attention(tower).scale == 1.0
        assert not tower.norm_post.elementwise_affine
    assert distance(simple_image(pixels), image(pixels)) < TOLERANCE
    assert distance(simple_text(input_ids), text(input_ids)) < TOLERANCE


@torch.no_grad()
def test_keys_and_values_are_absorbed_with_their_biases(checkpoint: Checkpoint, input_ids: torch.Tensor) -> None:
    """The step does not rest on the one that folds them away."""
    text = build_text_tower(checkpoint).double()
    tower = simplify.pool_last_block(simplify.fuse_qkv(text))
    assert _last_attention(tower).key_value.bias.abs().min() > 0
    absorbed = simplify.absorb_keys_and_values(tower)
    assert isinstance(_last_attention(absorbed), AbsorbedAttention)
    assert distance(absorbed(input_ids), text(input_ids)) < TOLERANCE


def test_keys_and_values_stay_where_absorbing_them_saves_nothing(make_clip: MakeClip) -> None:
    """Five tokens of 32 channels: 4 heads ask them for 4 * 32 * 37 multiply-adds instead of 5 * 32 * 33, 2 for half."""
    for heads, expected in ((4, AbsorbedAttention), (8, PooledAttention)):
        folder = make_clip(image={"image_size": 16, "patch_size": 8, "num_attention_heads": heads})
        tower = simplify.simplify_image_tower(build_image_tower(load_checkpoint(folder)))
        assert type(_last_attention(tower)) is expected


def test_simplify_leaves_the_reference_alone(checkpoint: Checkpoint) -> None:
    tower = build_image_tower(checkpoint)
    before = {name: weight.clone() for name, weight in tower.state_dict().items()}
    simplify.simplify_image_tower(tower)
    after = tower.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_towers_share_the_checkpoints_memory(checkpoint: Checkpoint) -> None:
    tower = build_image_tower(checkpoint)
    for name, weight in tower.state_dict().items():
        assert weight.data_ptr() == checkpoint.image_weights[name].data_ptr()


def _last_attention(tower: Tower) -> Any:
    return tower.blocks[-1].attn


def _mean_and_std(checkpoint: Checkpoint) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return checkpoint.preprocessing.mean, checkpoint.preprocessing.std
