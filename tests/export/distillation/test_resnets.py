"""Students of OpenAI's modified ResNet: how they begin, that they learn, and what their folder holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import clipedge
from clipedge.calibration import scenes
from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints import Checkpoint, load_checkpoint
from clipedge.export.checkpoints.configs import ResNetConfig, TextConfig
from clipedge.export.distillation import Recipe, distill
from clipedge.export.distillation.objectives import feature_cosine
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student, student_config
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_image_tower
from clipedge.export.training.folder import write_student

SMALL = "resnet:blocks=1-2-1-1,width=6"
TEXTS = ["a photo of a red circle.", "It's BLUE, and two stars", "star " * 40]


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return scenes.labelled_pictures("test", 24, size=64)[0]


def student_of(teacher: Checkpoint, spec: str = SMALL, seed: int = 0) -> Checkpoint:
    return make_student(teacher, parse_spec(spec), seed, [])


def randomised(student: Checkpoint) -> Checkpoint:
    """With other weights everywhere, also where a student begins with zeros."""
    generator = torch.Generator().manual_seed(1)
    weights = {name: 0.1 * torch.randn(w.shape, generator=generator) for name, w in student.image_weights.items()}
    return dataclasses.replace(student, image_weights=weights)


@pytest.mark.parametrize("spec", [SMALL, "resnet:blocks=3-4-6-3,width=4"])
def test_a_new_student_tells_pictures_apart_and_its_blocks_are_nothing_yet(
    spec: str, teacher: Checkpoint, pixels: NDArray[np.uint8]
) -> None:
    student = student_of(teacher, spec)
    tower = build_image_tower(student)
    with torch.inference_mode():
        embeds = tower(torch.from_numpy(pixels)).numpy()
        for name, weight in tower.state_dict().items():
            if name.startswith("layer") and ".conv1." in name:  # in front of a convolution of zeros
                weight.mul_(7)
        np.testing.assert_array_equal(tower(torch.from_numpy(pixels)).numpy(), embeds)
    assert np.linalg.matrix_rank(embeds - embeds.mean(axis=0)) == len(pixels) - 1
    assert all(torch.isfinite(weight).all() for weight in student.image_weights.values())
    assert student.space_id == student_of(teacher, spec).space_id != student_of(teacher, spec, seed=1).space_id


def test_every_weight_of_it_learns(teacher: Checkpoint, pixels: NDArray[np.uint8]) -> None:
    student = student_of(teacher)
    before = {name: weight.clone() for name, weight in student.image_weights.items()}
    tower = build_image_tower(student).requires_grad_(True)
    images = torch.from_numpy(pixels)
    with torch.no_grad():
        wanted = build_image_tower(teacher)(images)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = feature_cosine(tower(images), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    for name, weight in tower.state_dict().items():
        assert not torch.equal(weight, before[name]), name


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu", "gelu_tanh"])
def test_a_written_student_is_read_as_it_was(activation: Any, teacher: Checkpoint, tmp_path: Path) -> None:
    text = teacher.text
    assert isinstance(text, TextConfig)
    other = dataclasses.replace(teacher, text=dataclasses.replace(text, activation=activation, eps=1e-6))
    student = randomised(student_of(other))
    write_student(student, tmp_path / "student", 4.0, "# A student\n")
    found = load_checkpoint(tmp_path / "student")
    for field in ("image", "text", "embed_dim", "license"):
        assert getattr(found, field) == getattr(student, field), field
    for tower in ("image_weights", "text_weights"):
        ours, theirs = getattr(student, tower), getattr(found, tower)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), tower
    pixels = dataclasses.replace(student.preprocessing, crop_offset="half-even")
    assert found.preprocessing == pixels
    assert found.logit_scale == pytest.approx(float(np.exp(np.float32(4.0))))
    np.testing.assert_allclose(SourceTexts(found).encode(TEXTS), SourceTexts(other).encode(TEXTS), atol=1e-6)


def test_the_whole_job(pairs: Path, exam: Path, tmp_path: Path) -> None:
    """From the specification to a bundle whose embeddings are the tower's."""
    recipe = Recipe(steps=2, batch_size=16, validate_every=2, views=1)
    found = distill(None, SMALL, pairs, tmp_path / "out", recipe=recipe, validation=exam, precision="fp32")
    student = load_checkpoint(tmp_path / "out")
    assert isinstance(student.image, ResNetConfig) and student.image.layers == (1, 2, 1, 1)
    assert found.space_id == student.space_id
    assert "library_name: open_clip" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    clip = clipedge.load(tmp_path / "out" / "bundle")
    pictures, _ = scenes.labelled_pictures("test", 4, size=64)
    with torch.inference_mode():
        own = build_image_tower(student)(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(clip.encode_image(pictures), own, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet:blocks=1-1-1-1,width=7", "expected an even width, which the stem halves, found 7"),
        ("resnet:blocks=1-1-1,width=8", "four stages"),
        ("resnet:blocks=1-1-0-1,width=8", "numbers from 1"),
        ("resnet:width=8", "blocks is missing"),
        ("resnet:blocks=1-1-1-1", "width is missing"),
        ("resnet:blocks=1-1-1-1,width=8,heads=2", "each once, found 'heads=2'"),
        ("rn50:width=8", "--student rn50:width=8"),
        ("rn51", "--student rn51"),
    ],
)
def test_impossible_shapes_are_refused(spec: str, message: str, teacher: Checkpoint) -> None:
    with pytest.raises(UsageError, match=message):
        student_config(teacher, parse_spec(spec))


def test_the_presets_are_openais(teacher: Checkpoint) -> None:
    assert student_config(teacher, parse_spec("rn50")) == ResNetConfig(64, 64, (3, 4, 6, 3), 32)
    assert student_config(teacher, parse_spec("RN101")) == ResNetConfig(64, 64, (3, 4, 23, 3), 32)


def test_what_the_layout_does_not_hold_is_refused_before_the_training(
    teacher: Checkpoint, make_clip: Callable[..., Path]
) -> None:
    spec = parse_spec(SMALL)
    with pytest.raises(UsageError, match="24 pixels, and a ResNet needs a multiple of 32"):
        student_config(load_checkpoint(make_clip()), spec)
    for changes in ({"shortest_edge": 72}, {"interpolation": "lanczos"}):
        pixels = dataclasses.replace(teacher.preprocessing, **changes)  # type: ignore[arg-type]
        with pytest.raises(CheckpointError, match="scaled to the size that is cut out"):
            student_config(dataclasses.replace(teacher, preprocessing=pixels), spec)
    document = json.loads(teacher.tokenizer_json)
    document["added_tokens"].append({**document["added_tokens"][0], "id": 5, "content": "<mask>"})
    extended = dataclasses.replace(teacher, read_tokenizer=json.dumps(document).encode)
    with pytest.raises(CheckpointError, match="special tokens are the last"):
        student_config(extended, spec)
