"""The tower that is trained against the one that is exported: values, gradients and names."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from clipedge.calibration import scenes
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.student_tower import student_tower
from clipedge.export.distillation.students import make_student
from clipedge.export.towers import AnyImageTower, build_image_tower


def gradients(tower: AnyImageTower, pixels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    tower.double().requires_grad_(True)
    embeds = tower(pixels)
    weights = torch.linspace(-1, 1, embeds.numel(), dtype=torch.float64).reshape(embeds.shape)
    (embeds * weights).sum().backward()
    found = {name: weight.grad for name, weight in tower.named_parameters()}
    return embeds.detach(), {name: torch.zeros(()) if grad is None else grad for name, grad in found.items()}


@pytest.mark.parametrize(
    "spec",
    [
        "vit:layers=1,width=32,heads=2,patch=16",
        "vit:layers=3,width=32,heads=4,patch=8",
        "resnet:blocks=1-1-1-1,width=4",
    ],
)
def test_it_is_the_same_function_of_the_same_weights(spec: str, teacher: Checkpoint) -> None:
    student = make_student(teacher, parse_spec(spec), 0, [])
    copy = dataclasses.replace(student, image_weights={k: v.clone() for k, v in student.image_weights.items()})
    pixels = torch.from_numpy(scenes.labelled_pictures("test", 3, size=64)[0])
    found, ours = gradients(student_tower(student), pixels)
    expected, theirs = gradients(build_image_tower(copy), pixels)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-11, rtol=0)


def test_it_does_less_work(teacher: Checkpoint) -> None:
    """The last of two blocks lets one token of 65 through its perceptron."""
    tower = student_tower(make_student(teacher, parse_spec("vit:layers=2,width=32,heads=2,patch=8"), 0, []))
    seen: list[torch.Size] = []
    for index in (0, 1):
        tower.get_submodule(f"blocks.{index}.fc1").register_forward_hook(
            lambda _, inputs, __: seen.append(inputs[0].shape)
        )
    tower(torch.zeros(5, 64, 64, 3, dtype=torch.uint8))
    assert seen == [(5, 65, 32), (5, 1, 32)]
