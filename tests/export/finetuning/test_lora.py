"""Low-rank updates: where they are, what they start as, and what they are merged into."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from clipedge.calibration import scenes
from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.finetuning.towers import Towers, check_rank

RANK = 3
LAYERS = ("attn.query", "attn.key", "attn.value", "attn.out", "fc1", "fc2")


def updated(model: Checkpoint, seed: int = 0) -> Towers:
    """Towers whose updates are no longer zero."""
    towers = Towers(model)
    towers.add_lora(RANK, seed)
    with torch.no_grad():
        for name, weight in towers.trained().items():
            if name.endswith(".up"):
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) / 50)
    return towers


def test_attention_and_perceptrons_of_both_towers_train_and_nothing_else(model: Checkpoint) -> None:
    towers = Towers(model)
    assert towers.trained().keys() == set(towers.names)
    towers.add_lora(RANK, 0)
    blocks = [f"image.blocks.{i}" for i in range(model.image.layers)]  # type: ignore[union-attr]
    blocks += [f"text.blocks.{i}" for i in range(model.text.layers)]  # type: ignore[union-attr]
    factors = {
        f"{block}.{layer}.parametrizations.weight.0.{factor}"
        for block in blocks
        for layer in LAYERS
        for factor in ("up", "down")
    }
    assert towers.trained().keys() == factors | {"log_scale"}


def test_they_begin_as_the_model_itself(model: Checkpoint) -> None:
    towers = Towers(model)
    before = towers.weights()
    towers.add_lora(RANK, 0)
    after = towers.weights()
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_merged_weights_are_the_sum_in_float64_and_give_the_same_embeddings(model: Checkpoint) -> None:
    towers = updated(model)
    merged, before = towers.weights(), Towers(model).weights()
    parts = dict(towers.named_parameters())
    changed = [name for name in merged if not torch.equal(merged[name], before[name])]
    assert len(changed) == 6 * (model.image.layers + model.text.layers)  # type: ignore[union-attr]
    for name in changed:
        layer = name.removesuffix(".weight")
        up, down = (parts[f"{layer}.parametrizations.weight.0.{factor}"].double() for factor in ("up", "down"))
        expected = before[name].double().numpy() + up.detach().numpy() @ down.detach().numpy()
        np.testing.assert_allclose(merged[name].numpy(), expected, atol=1e-6)
        assert np.linalg.matrix_rank(up.detach().numpy() @ down.detach().numpy()) == RANK
    plain = Towers(model)
    plain.assign(merged)
    pixels = torch.from_numpy(scenes.labelled_pictures("test", 3, size=64)[0])
    with torch.no_grad():
        assert torch.equal(plain.image(pixels), towers.image(pixels))
        assert not torch.allclose(plain.image(pixels), Towers(model).image(pixels), atol=1e-3)


def test_a_copy_has_updates_of_its_own(model: Checkpoint) -> None:
    towers = updated(model)
    other = copy.deepcopy(towers)
    with torch.no_grad():
        for weight in other.trained().values():
            weight.zero_()
    name = "image.blocks.0.fc1.weight"
    assert not torch.equal(towers.weights()[name], other.weights()[name])
    assert torch.equal(other.weights()[name], Towers(model).weights()[name])


def test_their_start_depends_on_the_seed(model: Checkpoint) -> None:
    first, again, other = (updated(model, seed).weights() for seed in (0, 0, 1))
    name = "text.blocks.1.attn.out.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


def test_a_rank_that_saves_nothing_is_refused(model: Checkpoint) -> None:
    check_rank(model, 31)  # the text tower is 64 wide
    with pytest.raises(UsageError, match="--lora 32: layers of 64 x 64 weights take a rank of 31 at most"):
        check_rank(model, 32)
