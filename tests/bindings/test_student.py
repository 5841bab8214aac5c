"""A distilled student on its way to the device: proven, timed, and classifying in libclipedge as in Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from native import Native
from numpy.typing import NDArray

import clipedge
from clipedge.cli import main
from clipedge.images.frames import Frame


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The INT8 bundle of a student after a few steps. Not to be changed."""
    from clipedge.export.distillation import Recipe, distill

    folder = tmp_path_factory.mktemp("student") / "small"
    recipe = Recipe(steps=12, batch_size=32, views=1, validate_every=12)
    found = distill(None, "inherit:layers=3,width=96,heads=3", "scenes:96", folder, recipe=recipe, precision="int8")
    assert found.bundle is not None
    return Path(found.bundle)


def test_the_students_labels_are_those_of_python(
    native: Native, student: Path, pictures: list[NDArray[np.uint8]]
) -> None:
    model = native.load(student)
    bank = model.bank("default")
    found = bank.classify(model.encode([Frame.from_array(picture, "rgb8") for picture in pictures])).argmax(axis=1)
    model.free()
    clip = clipedge.load(student, backend="onnxruntime")
    expected = clip.classifier(clip.saved_bank("default"))
    assert bank.labels() == expected.labels
    assert [bank.labels()[best] for best in found] == expected.predict(pictures).tolist()
    assert len(set(found.tolist())) > 10


def test_the_student_is_proven_and_timed(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads((student / "report.json").read_bytes())
    assert report["passed"] and report["precision"] == "int8"
    options = ["--scenario", "single-stream", "--from", "tensor", "--seconds", "0.05", "--json"]
    assert main(["bench", str(student), *options]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["space_id"] == clipedge.load(student).manifest.space_id
