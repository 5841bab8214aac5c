"""Harder views: what is done to them, and that the teacher never sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import torch

from clipedge.calibration.data import open_item
from clipedge.cli import main
from clipedge.evaluation.corruptions import SEVERITIES, Condition, corrupt
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation import Weights
from clipedge.export.distillation.hardening import KINDS, adversarial, corrupted
from clipedge.export.distillation.students import with_image_tower
from clipedge.export.distillation.trainer import Trained, Work
from clipedge.export.towers import build_image_tower
from clipedge.export.training.augment import augmented
from clipedge.export.training.recipe import batch_rows

COSINE = Weights(cosine=2.0)
Pixels = npt.NDArray[np.uint8]


def clean_views(work: Work, step: int) -> tuple[Pixels, torch.Tensor]:
    """What the teacher was shown in a step, and what it said."""
    rows, _ = batch_rows(step, len(work.lessons.rows), work.recipe)
    views = [
        augmented(open_item(work.pictures.items[row]), work.lessons.views[row, 0], work.teacher.preprocessing)
        for row in rows
    ]
    return np.stack(views), torch.from_numpy(work.lessons.images[rows, 0].astype(np.float32))


def departures(tower: torch.nn.Module, pixels: torch.Tensor, teacher: torch.Tensor) -> npt.NDArray[np.float32]:
    """1 - cosine for each picture."""
    with torch.no_grad():
        found: npt.NDArray[np.float32] = (1 - (tower(pixels) * teacher).sum(dim=1)).numpy()
    return found


def test_corruptions_are_those_of_eval_in_the_share_asked_for(make_work: Callable[..., Work]) -> None:
    view = clean_views(make_work(), 1)[0][0]
    assert corrupted(view, 0.0, (1, 2)) is view
    found = [corrupted(view, 1.0, (7, number)) for number in range(240)]
    assert all(made.shape == view.shape and made.dtype == np.uint8 and (made != view).any() for made in found)
    np.testing.assert_array_equal(found[5], corrupted(view, 1.0, (7, 5)))
    counts = dict.fromkeys(KINDS, 0)
    fixed = {  # noise alone is drawn
        (kind, severity): np.asarray(corrupt(PIL.Image.fromarray(view), Condition(kind, severity), 0))
        for kind in KINDS[1:]
        for severity in SEVERITIES
    }
    for made in found:
        kind = next((name[0] for name, own in fixed.items() if np.array_equal(made, own)), "noise")
        counts[kind] += 1
        if kind == "noise":
            assert np.abs(made.astype(int) - view).mean() > 5
    assert sum(counts.values()) == 240 and min(counts.values()) > 35
    touched = [corrupted(view, 0.25, (8, number)) is not view for number in range(400)]
    assert 0.18 < np.mean(touched) < 0.32


@pytest.mark.parametrize("parts", [1, 3])
def test_an_adversarial_step_takes_the_student_from_its_teacher(
    parts: int, beginner: Checkpoint, make_work: Callable[..., Work]
) -> None:
    views, teacher = clean_views(make_work(), 1)
    tower = build_image_tower(beginner).requires_grad_(True)
    pixels = torch.from_numpy(views)
    moved = adversarial(tower, pixels, teacher, 4.0, parts)
    assert moved.dtype == torch.float32 and not moved.requires_grad
    assert all(weight.grad is None for weight in tower.parameters())
    change = moved - pixels
    assert float(change.abs().max()) == 4 and float(moved.min()) >= 0 and float(moved.max()) <= 255
    assert float((change.abs() == 4).float().mean()) > 0.8  # all but where it would leave the range, or nothing changes
    np.testing.assert_array_equal(moved, adversarial(tower, pixels, teacher, 4.0, 1))
    before, after = (departures(tower, values, teacher) for values in (pixels, moved))
    assert (after > before).all()
    signs = torch.from_numpy(np.random.default_rng(0).choice([-4.0, 4.0], views.shape)).float()
    chance = departures(tower, (pixels + signs).clamp(0, 255), teacher)
    assert (after - before).mean() > 5 * abs(chance - before).mean()


def test_the_loss_is_of_the_harder_view_against_what_the_teacher_said_of_the_clean_one(
    beginner: Checkpoint, make_work: Callable[..., Work], train_tiny: Callable[..., Trained]
) -> None:
    clean = make_work(COSINE, steps=1)
    views, teacher = clean_views(clean, 1)
    rows, _ = batch_rows(1, len(clean.lessons.rows), clean.recipe)
    tower = build_image_tower(beginner)
    pixels = torch.from_numpy(views)
    worse = np.stack([corrupted(view, 1.0, (0, 3, 1, int(row))) for view, row in zip(views, rows, strict=True)])
    expected = {
        "clean": departures(tower, pixels, teacher),
        "corruption": departures(tower, torch.from_numpy(worse), teacher),
        "adversarial": departures(tower, adversarial(tower, pixels, teacher, 8.0, 1), teacher),
    }
    changes = {"clean": {}, "corruption": {"corruption": 1.0}, "adversarial": {"adversarial": 8.0}}
    found = {
        name: train_tiny(make_work(COSINE, steps=1, **changed), name).progress.losses[0]
        for name, changed in changes.items()
    }
    assert found == {name: pytest.approx(2 * float(values.mean()), abs=1e-5) for name, values in expected.items()}
    assert found["adversarial"] > found["clean"] and found["corruption"] != found["clean"]


def test_a_student_trained_against_it_withstands_it_better(
    beginner: Checkpoint, make_work: Callable[..., Work], train_tiny: Callable[..., Trained]
) -> None:
    """How much an attack takes from the cosine to the teacher, on held-out pictures."""
    lost = {}
    for levels in (0.0, 8.0):
        work = make_work(COSINE, steps=30, validate_every=30, save_every=30, adversarial=levels)
        trained = train_tiny(work, f"against-{levels}")
        tower = build_image_tower(with_image_tower(work.teacher, beginner.image, trained.weights))  # type: ignore[arg-type]
        pixels, teacher = torch.from_numpy(work.validation.pixels), torch.from_numpy(work.validation.teacher)
        attacked = adversarial(tower, pixels, teacher, 8.0, 1)
        lost[levels] = float((departures(tower, attacked, teacher) - departures(tower, pixels, teacher)).mean())
    assert 0 < lost[8.0] < 0.7 * lost[0.0]


def test_the_command_line_says_it_and_one_cache_serves_both(
    pairs: Path, exam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", "--student", "vit:layers=1,width=32,heads=2,patch=16", "--data", str(pairs)]
    options = ["--validation", str(exam), "--cache", str(tmp_path / "cache"), "--steps", "2", "--views", "1"]
    runs = {"clean": [], "harder": ["--augment", "corruption,adversarial=3", "--mixed-precision", "bf16"]}
    shards = []
    for name, more in runs.items():
        output = ["--output", str(tmp_path / name), "--batch-size", "16"]
        assert main([*command, *options, *output, *more]) == 0
        shards.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()})
    assert shards[0] == shards[1]
    recipe = json.loads((tmp_path / "harder" / "distill.json").read_bytes())["settings"]["recipe"]
    assert (recipe["corruption"], recipe["adversarial"], recipe["mixed_precision"]) == (0.5, 3.0, "bf16")
    capsys.readouterr()
    for wrong in ("love", "corruption=much", "", "corruption,"):
        assert main([*command, "--output", str(tmp_path / "none"), "--augment", wrong]) == 2
        said = capsys.readouterr().err
        assert "expected corruption=0.5 or adversarial=2" in said and said.count("\n") == 1
