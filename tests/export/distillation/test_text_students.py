"""Students' own text towers: cut out of the teacher's, or new."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint, load_checkpoint
from clipedge.export.checkpoints.configs import TextConfig
from clipedge.export.distillation.importance import measure_text_importance
from clipedge.export.distillation.inherit import inherit_text
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student
from clipedge.export.distillation.text_spec import parse_text_spec
from clipedge.export.distillation.text_students import text_config, with_text_student, with_text_tower
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_text_tower
from clipedge.export.training.folder import write_student

LENGTHS = (3, 12, 7, 5, 9)  # of texts with start and end, in a context of 12
TEXTS = ("a red circle", "two blue stars above a house", "an image of a green cross.", "moon")


@pytest.fixture
def random_teacher(make_clip: Callable[..., Path]) -> Checkpoint:
    """Its text tower has 2 layers, 3 heads of 8 channels, and perceptrons of 80."""
    return load_checkpoint(make_clip())


def tokens_with(padding: int) -> NDArray[np.int64]:
    """Texts of these lengths between a start (58) and an end (59), and what fills them up."""
    rng = np.random.default_rng(0)
    tokens = np.full((len(LENGTHS), 12), padding, np.int64)
    for row, length in enumerate(LENGTHS):
        tokens[row, :length] = [58, *rng.integers(1, 58, length - 2), 59]
    return tokens


def embed(checkpoint: Checkpoint, tokens: NDArray[np.int64]) -> torch.Tensor:
    with torch.inference_mode():
        embeds: torch.Tensor = build_text_tower(checkpoint)(torch.from_numpy(tokens))
    return embeds


def inherited(teacher: Checkpoint, spec: str, tokens: NDArray[np.int64]) -> Checkpoint:
    config = text_config(teacher, parse_text_spec(spec))
    return with_text_tower(teacher, config, inherit_text(teacher, config, measure_text_importance(teacher, tokens)))


@pytest.mark.parametrize("spec", ["inherit:", "inherit:layers=2,width=24,heads=3,mlp=80"])
def test_a_tower_that_keeps_everything_is_its_teachers(spec: str, random_teacher: Checkpoint) -> None:
    tokens = tokens_with(0)
    student = inherited(random_teacher, spec, tokens)
    assert student.text == random_teacher.text and student.space_id == random_teacher.space_id
    assert student.text_weights.keys() == random_teacher.text_weights.keys()
    for name, weight in student.text_weights.items():
        assert torch.equal(weight, random_teacher.text_weights[name]), name
    assert torch.equal(embed(student, tokens), embed(random_teacher, tokens))


@pytest.mark.parametrize(
    "spec",
    [
        *("inherit:layers=1", "inherit:width=16,heads=2", "inherit:width=14,heads=1", "inherit:mlp=7"),
        *("text:layers=3,width=20,heads=4", "text:layers=1,width=36,mlp=10"),
    ],
)
def test_towers_have_the_shapes_of_their_configuration(spec: str, teacher: Checkpoint) -> None:
    student = with_text_student(teacher, parse_text_spec(spec), 0, TEXTS)
    assert student.space_id != teacher.space_id and student.image_weights is teacher.image_weights
    assert isinstance(student.text, TextConfig) and isinstance(teacher.text, TextConfig)
    kept = ("vocab_size", "context_length", "eos_token_id", "causal", "pool")
    assert all(getattr(student.text, name) == getattr(teacher.text, name) for name in kept)
    assert np.isfinite(SourceTexts(student).encode(TEXTS)).all()  # strict loading has compared every shape


def test_parts_that_do_nothing_are_what_goes(random_teacher: Checkpoint) -> None:
    """With dead neurons and a block that adds nothing, the student without them computes the same."""
    weights = {name: weight.clone() for name, weight in random_teacher.text_weights.items()}
    for layer in ("attn.out", "fc2"):
        weights[f"blocks.0.{layer}.weight"].zero_()
        weights[f"blocks.0.{layer}.bias"].zero_()
    weights["blocks.1.fc2.weight"][:, 10:40] = 0
    teacher, tokens = dataclasses.replace(random_teacher, text_weights=weights), tokens_with(0)
    student = inherited(teacher, "inherit:layers=1,mlp=50", tokens)
    torch.testing.assert_close(embed(student, tokens), embed(teacher, tokens), atol=1e-5, rtol=0)
    worse = inherited(random_teacher, "inherit:layers=1,mlp=50", tokens)
    assert not torch.allclose(embed(worse, tokens), embed(random_teacher, tokens), atol=1e-2)


def test_what_stands_behind_a_text_does_not_count(random_teacher: Checkpoint) -> None:
    """Whatever a text is filled up with, its embedding and so the importance are the same."""
    first, second = (measure_text_importance(random_teacher, tokens_with(padding)) for padding in (0, 57))
    for field in dataclasses.fields(first):
        np.testing.assert_allclose(getattr(first, field.name), getattr(second, field.name), rtol=1e-5, atol=1e-7)


def test_importance_equals_a_reference_by_hand(random_teacher: Checkpoint) -> None:
    """The second block's, text by text without padding, in float64."""
    tokens = tokens_with(0)
    found = measure_text_importance(random_teacher, tokens)
    tower = build_text_tower(random_teacher).double()
    query_sums, key_sums, neuron_sums = (torch.zeros(n, dtype=torch.float64) for n in (24, 24, 80))
    with torch.no_grad():
        for row, length in zip(tokens, LENGTHS, strict=True):
            position, mask = torch.tensor([length - 1]), torch.full((length, length), -torch.inf).triu(1).double()
            hidden = tower.embedding.token[row[:length]][None] + tower.embedding.position[:length]
            hidden = tower.blocks[0](hidden, position, mask)
            block = tower.blocks[1]
            normed = block.norm1(hidden)
            query_sums += block.attn.query(normed)[0].square().sum(0)
            key_sums += block.attn.key(normed)[0].square().sum(0)
            inner = block.fc1(block.norm2(hidden + block.attn(normed, position, mask)))[0]
            neuron_sums += (inner * torch.sigmoid(1.702 * inner)).square().sum(0)
    neurons = neuron_sums * tower.blocks[1].fc2.weight.square().sum(0)
    np.testing.assert_allclose(found.scores[1], (query_sums * key_sums).numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.neurons[1], neurons.numpy(), rtol=1e-4)


def test_what_is_inherited_is_nearer_to_the_teacher_than_what_is_new(teacher: Checkpoint) -> None:
    own = SourceTexts(teacher).encode(TEXTS)
    cosines = []
    for spec in ("inherit:mlp=128", "inherit:width=48,heads=2,mlp=128", "text:layers=2,width=64,heads=2"):
        student = with_text_student(teacher, parse_text_spec(spec), 0, TEXTS)
        cosines.append(float((SourceTexts(student).encode(TEXTS) * own).sum(axis=1).mean()))
    assert cosines[0] > cosines[1] > 0.3 > cosines[2]


def test_new_weights_are_the_seeds_and_not_the_image_towers(teacher: Checkpoint) -> None:
    spec = parse_text_spec("text:layers=1,width=64,heads=2")
    first, again, other = (with_text_student(teacher, spec, seed, TEXTS).text_weights for seed in (0, 0, 1))
    image = make_student(teacher, parse_spec("vit:layers=1,width=64,heads=2,patch=8"), 0, []).image_weights
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        if "norm" not in name and not name.endswith("bias"):
            assert not torch.equal(weight, other[name])
            assert name not in image or not torch.equal(weight, image[name]), name


@pytest.mark.parametrize("image", ["resnet:blocks=1-1-1-1,width=4", "vit:layers=1,width=32,heads=2,patch=16"])
def test_a_student_with_both_towers_of_its_own_is_read_as_it_was(
    image: str, teacher: Checkpoint, tmp_path: Path
) -> None:
    """In both layouts; 3.3 times the width is what a ratio cannot say without rounding."""
    student = make_student(teacher, parse_spec(image), 0, [])
    student = with_text_student(student, parse_text_spec("text:layers=3,width=40,heads=4,mlp=132"), 0, TEXTS)
    write_student(student, tmp_path / "student", 4.0, "# A student\n")
    found = load_checkpoint(tmp_path / "student")
    assert found.text == student.text and found.image == student.image and found.space_id == student.space_id
    assert found.text_weights.keys() == student.text_weights.keys()
    assert all(torch.equal(weight, found.text_weights[name]) for name, weight in student.text_weights.items())
    np.testing.assert_array_equal(SourceTexts(found).encode(TEXTS), SourceTexts(student).encode(TEXTS))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("inherit:layers=3", "--text-student inherit:layers=3: the teacher has layers 2; expected 1 to 2, found 3"),
        ("inherit:width=64", "width 24"),
        ("inherit:heads=2", "up to the teacher's 8"),
        ("text:layers=1,width=10,heads=3", "no multiple of 3 heads"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(spec: str, message: str, random_teacher: Checkpoint) -> None:
    with pytest.raises(UsageError, match=message):
        text_config(random_teacher, parse_text_spec(spec))


def test_presets_and_specifications_are_read() -> None:
    small, cut, new = (parse_text_spec(text) for text in ("Text-S", "inherit:layers=6", "text:layers=2,width=128"))
    assert (small.kind, small.layers, small.width, small.heads) == ("new", 12, 384, 6)
    assert (cut.kind, cut.layers, cut.width) == ("inherited", 6, None)
    assert (new.kind, new.width, new.heads, new.named) == ("new", 128, None, "--text-student text:layers=2,width=128")


@pytest.mark.parametrize(
    "text",
    [
        *("", "vit-s", "text-x", "text-s:layers=2", "text-s/16", "text", "text:layers=2", "text:layers=0,width=1"),
        *("inherit:patch=8", "text:layers=2,width=64,patch=8", "inherit:layers=1,layers=2", "new:layers=2,width=64"),
    ],
)
def test_other_specifications_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--text-student"):
        parse_text_spec(text)
