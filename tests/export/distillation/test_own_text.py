"""A student that has a text tower of its own: what it learns from, that it learns, and the way to the runtime."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoTokenizer, CLIPModel

import clipedge
from clipedge.calibration import scenes
from clipedge.calibration.data import Pictures, read_pictures
from clipedge.cli import main
from clipedge.export.checkpoints import Checkpoint, load_checkpoint
from clipedge.export.distillation.objectives import Weights
from clipedge.export.distillation.shards import open_cache
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student
from clipedge.export.distillation.teacher import Lessons, ask_teacher, teacher_facts
from clipedge.export.distillation.text_spec import parse_text_spec
from clipedge.export.distillation.text_students import with_text_student, with_text_tower
from clipedge.export.distillation.texts import exam_texts, label_prompts, training_prompts
from clipedge.export.distillation.trainer import Work, train
from clipedge.export.distillation.validation import validate
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_image_tower, build_text_tower
from clipedge.export.training.augment import Augmentation
from clipedge.export.training.data import pictures_sha256
from clipedge.export.training.scores import Score

IMAGE, TEXT = "vit:layers=1,width=32,heads=2,patch=16", "inherit:layers=1,width=48,heads=2,mlp=96"
NEW_TEXT = "text:layers=1,width=32,heads=2"
SHORT = ["--steps", "4", "--batch-size", "16", "--validate-every", "4", "--views", "1"]


def own_score(student: Checkpoint, work: Work) -> Score:
    return validate(build_image_tower(student), work.validation, build_text_tower(student))


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        (TEXT, Weights(cosine=8)),
        (NEW_TEXT, Weights(cosine=8)),
        (NEW_TEXT, Weights(affinity=1)),
        (TEXT, Weights(infonce=1, relational=1)),
    ],
)
def test_both_towers_come_nearer_to_the_teachers(
    spec: str, weights: Weights, teacher: Checkpoint, make_work: Callable[..., Work], tmp_path: Path
) -> None:
    work = dataclasses.replace(make_work(weights=weights, steps=30, validate_every=30), own_text=True)
    beginner = make_student(teacher, parse_spec(IMAGE), 0, [])
    beginner = with_text_student(beginner, parse_text_spec(spec), 0, work.lessons.wordings)
    before = own_score(beginner, work)
    trained = train(beginner, work, tmp_path / "state.safetensors", "run", tmp_path / "events")
    assert trained.text_weights is not None and trained.text_weights.keys() == beginner.text_weights.keys()
    student = with_text_tower(beginner, beginner.text, trained.text_weights)  # type: ignore[arg-type]
    student = dataclasses.replace(student, image_weights=trained.weights)
    after = own_score(student, work)
    assert before.text_cosine is not None and after.text_cosine is not None
    if weights.cosine:  # the others teach where texts and pictures lie to each other, not where the teacher has them
        assert after.text_cosine > before.text_cosine + 0.02 and after.cosine > before.cosine + 0.02
    moved = [
        name for name, weight in beginner.text_weights.items() if not torch.equal(weight, trained.text_weights[name])
    ]
    assert len(moved) == len(beginner.text_weights)
    losses = trained.progress.losses
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    best = trained.progress.best
    assert best is not None and best.score.accuracy == after.accuracy
    assert best.score.text_cosine == pytest.approx(after.text_cosine, abs=1e-6)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("validation/cosine of texts")] == [
        (30, pytest.approx(after.text_cosine, abs=1e-6))
    ]


def test_the_score_is_that_of_the_students_own_labels(
    teacher: Checkpoint, exam: Path, make_work: Callable[..., Work]
) -> None:
    """With all classes' prompts embedded by hand; the teacher's own tower gives the teacher's labels."""
    work = make_work()
    student = with_text_student(teacher, parse_text_spec(TEXT), 0, work.lessons.wordings)
    prompts = [f"a photo of a {name}." for name in read_pictures(exam).class_names]
    ours, theirs = (SourceTexts(model).encode(prompts) for model in (student, teacher))
    found = own_score(student, work)
    assert found.text_cosine == pytest.approx(float((ours * theirs).sum(axis=1).mean()), abs=1e-5)
    answers = (work.validation.teacher @ ours.T).argmax(axis=1)
    assert found.accuracy == pytest.approx((answers == work.validation.truth).mean())
    same = own_score(teacher, work)
    plain = validate(build_image_tower(teacher), work.validation)
    assert same.text_cosine == pytest.approx(1, abs=1e-5) and plain.text_cosine is None
    assert (same.accuracy, same.cosine) == (plain.accuracy, plain.cosine)


def pictures_of(captions: list[tuple[str, ...]] | None = None, names: tuple[str, ...] = ()) -> Pictures:
    items = [np.full((8, 8, 3), shade, np.uint8) for shade in range(4)]
    labels = np.arange(4) % len(names) if names else None
    return Pictures("here", items, labels, names, captions)


def test_texts_are_captions_else_prompts_of_labels_else_of_classes() -> None:
    spec, bare, cats = parse_text_spec(TEXT), pictures_of(), pictures_of(names=("cat", "dog"))
    captioned = pictures_of([("a",), ("b",), ("a", "c"), ("d",)], ("cat", "dog"))
    assert training_prompts(spec, captioned, bare, ["x"], None) == ()
    assert training_prompts(spec, cats, bare, ["x", "y"], ["{}!", "{}?"]) == ("x!", "x?", "y!", "y?")
    assert training_prompts(spec, cats, bare, None, None) == ("a photo of a cat.", "a photo of a dog.")
    assert training_prompts(spec, bare, cats, None, ["{}"]) == ("cat", "dog")
    assert exam_texts(captioned, ("z",)) == ("a", "b", "c", "d") and exam_texts(bare, ("z", "y")) == ("z", "y")
    assert label_prompts(scenes.CLASS_NAMES, None)[:2] == ["a photo of a red circle.", "a picture of a red circle."]


def test_prompts_are_embedded_once_and_known_by_their_words(
    teacher: Checkpoint, exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = read_pictures(exam)
    cache = open_cache(tmp_path, teacher_facts(teacher, pictures_sha256(pictures), Augmentation(), 1))

    def ask(*prompts: str) -> Lessons:
        return ask_teacher(teacher, pictures, Augmentation(), 1, cache, False, prompts)

    first, other = ask("a moon", "a sun"), ask("a sun")
    assert first.wordings == ("a moon", "a sun") and first.captions is None
    assert first.texts is not None and other.texts is not None
    np.testing.assert_allclose(first.texts, SourceTexts(teacher).encode(["a moon", "a sun"]), atol=5e-4)
    np.testing.assert_allclose(other.texts, first.texts[1:], atol=5e-4)
    monkeypatch.setattr(SourceTexts, "encode", None)
    np.testing.assert_array_equal(ask("a moon", "a sun").texts, first.texts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def student(pairs: Path, exam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student after four steps, made by the command line. Not to be changed."""
    folder = tmp_path_factory.mktemp("student") / "both"
    assert main([*command(pairs, exam), "--output", str(folder)]) == 0
    return folder


def command(pairs: Path, exam: Path, text_student: str = TEXT) -> list[str]:
    towers = ["distill", "--student", IMAGE, "--text-student", text_student]
    return [*towers, "--data", str(pairs), "--validation", str(exam), *SHORT]


def test_transformers_reads_the_folder_and_gives_the_same_texts(student: Path, teacher: Checkpoint) -> None:
    checkpoint, texts = load_checkpoint(student), ["a red circle", "two blue stars above a house"]
    tokens = AutoTokenizer.from_pretrained(student)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = CLIPModel.from_pretrained(student).eval().get_text_features(**tokens)
    theirs = getattr(found, "pooler_output", found)
    ours = SourceTexts(checkpoint).encode(texts)
    np.testing.assert_allclose(ours, torch.nn.functional.normalize(theirs, dim=-1).numpy(), atol=1e-5)
    assert checkpoint.tokenizer_json == teacher.tokenizer_json and checkpoint.space_id != teacher.space_id


def test_the_result_tells_of_both_towers(student: Path) -> None:
    run = json.loads((student / "distill.json").read_bytes())
    assert run["settings"]["text_student"] == TEXT and run["result"]["space_id"] == load_checkpoint(student).space_id
    text = run["result"]["text"]
    assert text["student"] == TEXT and text["texts"] == run["result"]["captions"] > 100
    assert text["student_tower"]["multiply_adds"] < 0.5 * text["teacher_tower"]["multiply_adds"]
    assert text["student_tower"]["parameters"] < text["teacher_tower"]["parameters"]
    assert 0.3 < run["result"]["best"]["score"]["text_cosine"] <= 1
    card = (student / "README.md").read_text(encoding="utf-8")
    assert "Two towers that" in card and "text tower        transformer of 1 layers of width 48" in card
    assert "of texts" in (student / "validation.svg").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_bundle_classifies_with_the_students_texts(
    student: Path, pairs: Path, exam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the folder through the export's proof to answers at the command line."""
    copy = shutil.copytree(student, tmp_path / "copy")
    assert main([*command(pairs, exam), "--output", str(copy), "--export", "fp32"]) == 0
    checkpoint = load_checkpoint(student)
    clip = clipedge.load(copy / "bundle")
    assert clip.manifest.space_id == checkpoint.space_id
    texts = ["a red circle", "a blue star"]
    np.testing.assert_allclose(clip.encode_text(texts), SourceTexts(checkpoint).encode(texts), atol=1e-5)
    pictures, _ = scenes.labelled_pictures("test", 4, size=64)
    with torch.inference_mode():
        images = build_image_tower(checkpoint)(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(clip.encode_image(pictures), images, atol=1e-5)
    picture = next(exam.rglob("*.png"))
    capsys.readouterr()
    assert main(["classify", str(copy / "bundle"), str(picture), "--labels", "circle,star", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("names_classes", [True, False], ids=["folders", "labels"])
def test_pictures_without_captions_are_learned_with_prompts(
    names_classes: bool,
    exam: Path,
    folder_of: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the folders' names, scored by zero-shot accuracy, or of labels, by cosines alone."""
    data = exam if names_classes else folder_of(24)
    labels = [] if names_classes else ["--labels", "moon,sun,red circle", "--template", "{}", "--template", "a {}"]
    options = ["--steps", "2", "--batch-size", "8", "--views", "1", "--output", str(tmp_path / "out"), "--json"]
    towers = ["--student", IMAGE, "--text-student", NEW_TEXT]
    assert main(["distill", *towers, "--data", str(data), *labels, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    classes = len(read_pictures(exam).class_names)
    assert found["captions"] == 0 and found["text"]["texts"] == (classes if names_classes else 6)
    score = found["best"]["score"]
    assert (score["accuracy"] is not None) == names_classes and -1 <= score["text_cosine"] <= 1
    weights = load_checkpoint(tmp_path / "out").text_weights
    assert len(weights["embedding.position"]) == 32 and "prompts" in (tmp_path / "out" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text-student", "text-x"], "--text-student text-x: expected text-s"),
        (["--text-student", "inherit:layers=9"], "the teacher has layers 2; expected 1 to 2, found 9"),
        (["--text-student", "inherit:layers=1"], "learns from captions or from the names of classes"),
        (["--text-student", "text-s", "--labels", "a,a"], "labels have to differ"),
        (["--text-student", "text-s", "--labels", "a", "--losses", "affinity=1"], "has no captions"),
    ],
)
def test_a_wrong_call_ends_before_anything_is_computed(
    options: list[str],
    message: str,
    folder_of: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["distill", "--student", IMAGE, "--data", str(folder_of(21)), "--output", str(tmp_path / "out")]
    assert main([*command, "--batch-size", "4", *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and not printed.out and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_text_tower_in_the_same_folder_is_refused(
    student: Path, pairs: Path, exam: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(pairs, exam, "text-s"), "--output", str(student)]) == 2
    assert f"other settings: expected text_student text-s, found {TEXT}" in capsys.readouterr().err
