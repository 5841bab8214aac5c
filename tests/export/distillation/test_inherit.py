"""Students that are cut out of their teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipedge.calibration.scenes import labelled_pictures
from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints import Checkpoint, load_checkpoint
from clipedge.export.checkpoints.configs import VitConfig
from clipedge.export.distillation.importance import Importance, measure_importance
from clipedge.export.distillation.inherit import inherit
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student, student_config
from clipedge.export.towers import build_image_tower

Draw = Callable[[int, int], NDArray[np.uint8]]


@pytest.fixture
def pixels(draw_pixels: Draw) -> NDArray[np.uint8]:
    return draw_pixels(6, 24)


@pytest.fixture
def random_teacher(make_clip: Callable[..., Path]) -> Checkpoint:
    """Of 3 layers, 4 heads of 8 channels, and perceptrons of 96."""
    return load_checkpoint(make_clip())


def embed(checkpoint: Checkpoint, pixels: NDArray[np.uint8]) -> torch.Tensor:
    with torch.inference_mode():
        embeds: torch.Tensor = build_image_tower(checkpoint)(torch.from_numpy(pixels))
    return embeds


def student_of(teacher: Checkpoint, spec: str, pixels: NDArray[np.uint8]) -> Checkpoint:
    return make_student(teacher, parse_spec(spec), 0, [pixels])


@pytest.mark.parametrize("spec", ["inherit:", "inherit:layers=3,width=32,heads=4,mlp=96"])
def test_a_student_that_keeps_everything_is_its_teacher(
    spec: str, random_teacher: Checkpoint, pixels: NDArray[np.uint8]
) -> None:
    student = student_of(random_teacher, spec, pixels)
    assert student.image == random_teacher.image and student.space_id == random_teacher.space_id
    assert student.image_weights.keys() == random_teacher.image_weights.keys()
    for name, weight in student.image_weights.items():
        assert torch.equal(weight, random_teacher.image_weights[name]), name
    assert torch.equal(embed(student, pixels), embed(random_teacher, pixels))


@pytest.mark.parametrize(
    "spec", ["inherit:layers=1", "inherit:width=16,heads=2", "inherit:width=12,heads=3", "inherit:mlp=7,heads=4"]
)
def test_smaller_students_have_the_shapes_of_their_configuration(
    spec: str, random_teacher: Checkpoint, pixels: NDArray[np.uint8]
) -> None:
    student = student_of(random_teacher, spec, pixels)
    assert student.space_id != random_teacher.space_id
    assert torch.isfinite(embed(student, pixels)).all()  # strict loading has compared every shape


def with_weights(teacher: Checkpoint, **changes: torch.Tensor) -> Checkpoint:
    names = {name.replace(".", "_"): name for name in teacher.image_weights}
    weights = {names[name]: weight for name, weight in changes.items()}
    return dataclasses.replace(teacher, image_weights={**teacher.image_weights, **weights})


def test_parts_that_do_nothing_are_what_goes(random_teacher: Checkpoint, pixels: NDArray[np.uint8]) -> None:
    """With dead neurons, a block that adds nothing and a dead head, the student without them computes the same."""
    weights = {name: weight.clone() for name, weight in random_teacher.image_weights.items()}
    for layer in ("attn.out", "fc2"):
        weights[f"blocks.1.{layer}.weight"].zero_()
        weights[f"blocks.1.{layer}.bias"].zero_()
    for block in (0, 2):
        weights[f"blocks.{block}.fc2.weight"][:, 10:40] = 0
    teacher = dataclasses.replace(random_teacher, image_weights=weights)
    student = student_of(teacher, "inherit:layers=2,mlp=66", pixels)
    torch.testing.assert_close(embed(student, pixels), embed(teacher, pixels), atol=1e-5, rtol=0)
    worse = student_of(random_teacher, "inherit:layers=2,mlp=66", pixels)
    assert not torch.allclose(embed(worse, pixels), embed(random_teacher, pixels), atol=1e-2)


def test_narrower_heads_keep_the_teachers_scores(random_teacher: Checkpoint, pixels: NDArray[np.uint8]) -> None:
    """Where half of each head's channels are dead and half of the stream's are unread, half the width is enough to
    give each head's scores and values as they were."""
    config = random_teacher.image
    assert isinstance(config, VitConfig)
    rng = np.random.default_rng(0)
    ones = {name: rng.random((3, width)) + 1 for name, width in (("scores", 32), ("values", 32), ("neurons", 96))}
    dead = np.tile(np.arange(8) >= 4, 4)
    importance = Importance(
        blocks=np.ones(3),
        scores=np.where(dead, 0.0, ones["scores"]),
        values=np.where(dead, 0.0, ones["values"]),
        neurons=ones["neurons"],
        readers=np.tile(np.arange(32) < 16, (3, 1)).astype(float),
        projection=np.zeros(32),
    )
    small = dataclasses.replace(config, width=16, mlp_width=96)
    weights = inherit(random_teacher, small, importance)
    teacher = random_teacher.image_weights
    alive = np.flatnonzero(~dead)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    for block in range(3):
        ours = [
            (x @ weights[f"blocks.{block}.attn.{name}.weight"].T + weights[f"blocks.{block}.attn.{name}.bias"])
            for name in ("query", "key")
        ]
        theirs = [
            x @ teacher[f"blocks.{block}.attn.{name}.weight"][alive][:, :16].T
            + teacher[f"blocks.{block}.attn.{name}.bias"][alive]
            for name in ("query", "key")
        ]
        for head in range(4):
            part = slice(4 * head, 4 * head + 4)
            torch.testing.assert_close(
                ours[0][:, part] @ ours[1][:, part].T * 4**-0.5, theirs[0][:, part] @ theirs[1][:, part].T * 8**-0.5
            )


def test_importance_equals_a_reference_by_hand(random_teacher: Checkpoint, pixels: NDArray[np.uint8]) -> None:
    """The second block's, from its own input, in float64."""
    found = measure_importance(random_teacher, [pixels[:4], pixels[4:]])
    tower = build_image_tower(random_teacher)
    position = torch.zeros(len(pixels), dtype=torch.int64)
    with torch.no_grad():
        first, block = tower.blocks[0], tower.blocks[1]
        hidden = first(tower.embedding(torch.from_numpy(pixels)), position, None)
        normed = block.norm1(hidden)
        query, key = (
            layer(normed).double().flatten(0, 1).square().sum(0) for layer in (block.attn.query, block.attn.key)
        )
        hidden = block.fc1(block.norm2(hidden + block.attn(normed, position, None)))
        inner = (hidden * torch.sigmoid(1.702 * hidden)).double()
        neurons = inner.flatten(0, 1).square().sum(0) * block.fc2.weight.double().square().sum(0)
    np.testing.assert_allclose(found.scores[1], (query * key).numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.neurons[1], neurons.numpy(), rtol=1e-5)


def test_of_a_trained_teacher_the_block_goes_that_costs_least(teacher: Checkpoint) -> None:
    """By students that were really built without one."""
    pictures, _ = labelled_pictures("validation", 24, size=64)
    own = embed(teacher, pictures)
    importance = measure_importance(teacher, [pictures])
    cosines = []
    for block in range(4):
        kept = dataclasses.replace(importance, blocks=np.where(np.arange(4) == block, 0.0, 1.0))
        config = student_config(teacher, parse_spec("inherit:layers=3"))
        student = dataclasses.replace(teacher, image=config, image_weights=inherit(teacher, config, kept))
        cosines.append(float((embed(student, pictures) * own).sum(1).mean()))
    chosen = int(np.argmin(importance.blocks))
    assert cosines[chosen] == max(cosines)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("inherit:layers=4", "layers 3; expected 1 to 3, found 4"),
        ("inherit:width=64", "width 32"),
        ("inherit:heads=3", "whole number"),
        ("inherit:heads=2", "up to the teacher's 8"),
        ("vit:layers=1,width=10,heads=3,patch=8", "no multiple of 3 heads"),
        ("vit:layers=1,width=10,heads=2,patch=7", "24 pixels, no multiple"),
        ("vit-s", "24 pixels, no multiple of patches of 16"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(spec: str, message: str, random_teacher: Checkpoint) -> None:
    with pytest.raises(UsageError, match=message):
        student_config(random_teacher, parse_spec(spec))


def test_nothing_can_be_inherited_from_another_kind_of_tower(random_teacher: Checkpoint) -> None:
    config = random_teacher.image
    assert isinstance(config, VitConfig)
    other = dataclasses.replace(random_teacher, image=dataclasses.replace(config, pool="map"))
    with pytest.raises(CheckpointError, match="class token"):
        student_config(other, parse_spec("inherit:layers=1"))


def test_importance_needs_pictures(random_teacher: Checkpoint) -> None:
    def none() -> Iterator[NDArray[np.uint8]]:
        yield from ()

    with pytest.raises(UsageError, match="measured on pictures"):
        measure_importance(random_teacher, none())


@pytest.mark.parametrize("text", ["vit-s/16", "VIT-B/32", "vit-ti", "vit:layers=2,width=64,patch=8", "inherit:"])
def test_specifications_are_read(text: str) -> None:
    spec = parse_spec(text)
    assert spec.kind == ("inherited" if text.startswith("inherit") else "new")
    assert (spec.patch_size is None) == (spec.kind == "inherited")


@pytest.mark.parametrize(
    "text",
    [
        *("", "vit-x", "vit-s/0", "vit-s/16x", "vit-s/16/4", "vit", "vit:layers=2", "vit:layers=0,width=1,patch=1"),
        *("inherit:layers=x", "inherit:layers=1,layers=2", "inherit:patch=8", "inherit:width=9999999999"),
        *("inherit:layers", "vit-s:layers=2"),
    ],
)
def test_other_specifications_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--student"):
        parse_spec(text)
