"""The whole job: a teacher and pictures to a student that export and the runtime take."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import clipedge
from clipedge.calibration import scenes
from clipedge.cli import main
from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints import Checkpoint, load_checkpoint
from clipedge.export.distillation import Recipe, distill
from clipedge.export.distillation.students import check_teacher
from clipedge.export.towers import build_image_tower

TINY = "vit:layers=1,width=32,heads=2,patch=16"
QUICK = Recipe(steps=4, batch_size=16, validate_every=4, save_every=4, views=1)


@pytest.fixture(scope="module")
def student(pairs: Path, exam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student after four steps, made by the command line. Not to be changed."""
    folder = tmp_path_factory.mktemp("student") / "tiny"
    assert main([*command(pairs, exam), "--output", str(folder)]) == 0
    return folder


def command(pairs: Path, exam: Path) -> list[str]:
    data = ["distill", "--student", TINY, "--data", str(pairs), "--validation", str(exam)]
    return [*data, "--steps", "4", "--batch-size", "16", "--validate-every", "4", "--views", "1"]


def test_the_folder_holds_what_it_should(student: Path, teacher: Checkpoint) -> None:
    names = {path.name for path in student.iterdir()}
    checkpoint = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    assert names == checkpoint | {"tokenizer.json", "tokenizer_config.json"} | {
        "distill.json", "loss.svg", "validation.svg", "training",
    }  # fmt: skip
    run = json.loads((student / "distill.json").read_bytes())
    loaded = load_checkpoint(student)
    assert run["result"]["space_id"] == loaded.space_id != teacher.space_id
    assert run["result"]["multiply_adds_share"] < 0.25
    assert run["settings"]["recipe"]["steps"] == 4 and run["settings"]["recipe"]["weights"]["affinity"] == 1.0
    assert loaded.license == teacher.license
    card = (student / "README.md").read_text(encoding="utf-8")
    assert "zero-shot top-1" in card and "cosine to it" in card
    # Lines, with one more for each entry of the legend where there are several.
    for name, lines in (("loss.svg", 1), ("validation.svg", 6)):
        picture = ElementTree.fromstring((student / name).read_text(encoding="utf-8"))
        assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == lines


@pytest.mark.slow
def test_the_bundle_gives_the_students_answers(
    student: Path, pairs: Path, exam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that has ended is only exported when it is called again with ``--export``."""
    copy = shutil.copytree(student, tmp_path / "copy")
    assert main([*command(pairs, exam), "--output", str(copy), "--export", "fp32"]) == 0
    assert f"bundle: {copy / 'bundle'}" in capsys.readouterr().out
    clip = clipedge.load(copy / "bundle")
    checkpoint = load_checkpoint(student)
    assert clip.manifest.space_id == checkpoint.space_id
    pictures, _ = scenes.labelled_pictures("test", 4, size=64)
    with torch.inference_mode():
        own = build_image_tower(checkpoint)(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(clip.encode_image(pictures), own, atol=1e-5)


def test_an_inherited_student_of_pictures_alone(
    folder_of: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No captions, no classes: scored by its cosine to the teacher on a tenth of the pictures; JSON on stdout."""
    command = ["distill", "--student", "inherit:layers=2,width=64,heads=2", "--data", str(folder_of(24))]
    options = ["--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--steps", "2", "--json"]
    assert main([*command, *options, "--batch-size", "8", "--losses", "cosine=1,relational=0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == 22 and found["validation_pictures"] == 2 and found["captions"] == 0
    assert found["best"]["score"]["accuracy"] is None and found["teacher_score"]["cosine"] == pytest.approx(1, abs=1e-5)
    assert found["multiply_adds_share"] == pytest.approx(0.145, abs=0.001)
    assert list((tmp_path / "cache").glob("pictures-*")) and not (tmp_path / "out" / "training" / "teacher").exists()


def test_another_run_in_the_same_folder_is_refused(student: Path, pairs: Path, exam: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(student, tmp_path / "copy")
    found = re.escape(f"other settings: expected recipe.learning_rate 0.5, found {QUICK.learning_rate}")
    with pytest.raises(UsageError, match=found):
        distill(None, TINY, pairs, copy, recipe=dataclasses.replace(QUICK, learning_rate=0.5), validation=exam)
    before = (copy / "model.safetensors").read_bytes()
    leftover = copy / "training" / ".state.12345.staging.safetensors"
    leftover.write_bytes(b"half")
    settings = json.loads((copy / "distill.json").read_bytes())["settings"]["recipe"]
    same = dataclasses.replace(QUICK, save_every=settings["save_every"])
    assert distill(None, TINY, pairs, copy, recipe=same, validation=exam).steps == 4  # it has ended: nothing is done
    assert (copy / "model.safetensors").read_bytes() == before
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--student", "vit-x"], "--student vit-x: expected vit-ti"),
        (["--student", TINY, "--steps", "0"], "expected steps to be 1 or more"),
        (["--student", TINY, "--losses", "affinity=1"], "has no captions"),
        (["--student", TINY, "--losses", "love=1"], "expected losses of cosine"),
        (["--student", TINY, "--losses", "cosine"], "found 'cosine'"),
        (["--student", TINY, "--export", "int9"], "--export int9"),
        (["--student", TINY, "--batch-size", "100"], "19 pictures are left"),
        (["--student", TINY, "--validation", "nowhere"], "there is no folder"),
        (["--student", TINY, "--teacher", "nobody-has-this"], "nobody-has-this"),
        (["--student", "vit-s/20"], "no multiple of patches"),
        (["--student", TINY, "--seed", "-1"], "expected seed to be 0 or more"),
    ],
)
def test_a_wrong_call_ends_before_anything_is_computed(
    options: list[str],
    message: str,
    folder_of: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["distill", "--data", str(folder_of(21)), "--output", str(tmp_path / "out"), "--batch-size", "4"]
    assert main([*command, *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and not printed.out and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"no distill\.json"):
        distill(None, TINY, pairs, tmp_path / "mine", recipe=QUICK)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        distill(None, TINY, pairs, tmp_path / "file", recipe=QUICK)


def test_a_teacher_whose_text_tower_is_not_clips_is_refused(teacher: Checkpoint) -> None:
    check_teacher(teacher)
    for other in (
        dataclasses.replace(teacher, activation="sigmoid"),
        dataclasses.replace(teacher, text=dataclasses.replace(teacher.text, causal=False)),  # type: ignore[type-var]
    ):
        with pytest.raises(CheckpointError, match="text tower"):
            check_teacher(other)
