"""distill(): the whole job, from a teacher and pictures to a student that export takes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.calibration.data import Pictures, choose, pixel_batches
from clipedge.export.checkpoints import Checkpoint, ModelSource, load_checkpoint, named_source
from clipedge.export.describe import model_facts
from clipedge.export.distillation.exportable import as_exported, check_student
from clipedge.export.distillation.objectives import IMAGES, PAIRS, Weights
from clipedge.export.distillation.recipe import Recipe, check_recipe
from clipedge.export.distillation.result import Distilled, OwnText, student_story
from clipedge.export.distillation.shards import open_cache
from clipedge.export.distillation.spec import StudentSpec, parse_spec
from clipedge.export.distillation.students import check_teacher, make_student, student_config, with_image_tower
from clipedge.export.distillation.teacher import Lessons, ask_teacher, teacher_facts
from clipedge.export.distillation.text_spec import parse_text_spec
from clipedge.export.distillation.text_students import text_config, with_text_student, with_text_tower
from clipedge.export.distillation.texts import exam_texts, training_prompts
from clipedge.export.distillation.trainer import Trained, Work, train
from clipedge.export.distillation.validation import prepare_validation, score_images
from clipedge.export.training.bundle import checked_precisions, export_result
from clipedge.export.training.curves import write_curves
from clipedge.export.training.data import check_captions, hold_out, pictures_sha256, training_pictures
from clipedge.export.training.events import require_tensorboard
from clipedge.export.training.folder import write_student
from clipedge.export.training.processes import by_first, first_then_others, join_processes, only_first_warns
from clipedge.export.training.recipe import check_count
from clipedge.export.training.run_file import TRAINING_NAME, check_output, claim, write_result
from clipedge.export.training.state import STATE_NAME
from clipedge.manifest import Precision

__all__ = ["distill"]

RUN_NAME, TEACHER_NAME, EVENTS_NAME = "distill.json", "teacher", "tensorboard"
CURVES = ("zero-shot top-1", "zero-shot top-1 of the teacher", "cosine to the teacher", "cosine of texts")
MEASURED = 256  # pictures on which the importance of the teacher's parts is measured


def distill(
    teacher: str | os.PathLike[str] | None,
    student: str,
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    text_student: str | None = None,
    recipe: Recipe | None = None,
    validation: str | os.PathLike[str] | None = None,
    labels: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    precision: Precision | Sequence[Precision] = (),
    tensorboard: bool = False,
    arch: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    revision: str | None = None,
) -> Distilled:
    """Train a student of ``teacher`` on ``data`` and write it to the folder ``output``.

    ``teacher``: what ``export`` takes, if its text tower is CLIP's; None for the demonstration checkpoint. ``student``:
    see ``spec.py``; ``text_student``: see ``text_spec.py``, None keeps the teacher's text tower. ``data``: a folder of
    pictures, a list with captions (.csv, .tsv, .jsonl), a webdataset tar, or "scenes" (also "scenes:COUNT").
    ``validation``: pictures to score the student on, with classes for zero-shot accuracy (else a tenth of the data, or
    new scenes); ``labels`` and ``templates`` as in ``export``. ``cache``: a folder that keeps what the teacher said,
    for several students. ``precision``: the student is then exported to ``output``/bundle. ``tensorboard``: its curves
    are also written to ``output``/training/tensorboard.

    A launcher may start several processes, each of which makes this call and gets the same answer; the first of them
    writes, and all have to see the same files. A training that was killed goes on where its last state was saved when
    it is called again with the same settings, and ends with the same bits (one process on the CPU). Raises UsageError,
    before anything is trained, for data that is missing, empty, without captions where the losses need them, without
    captions and classes where a text tower learns from them, or too little, and for a student that export would refuse;
    CheckpointError for a teacher that cannot be one.
    """
    recipe = Recipe() if recipe is None else recipe
    processes = join_processes(recipe.mixed_precision)
    processes.wait_for_everyone()  # one that ends by a mistake at once would be gone before the others have found it
    check_recipe(recipe, processes.num_processes)
    if tensorboard:
        require_tensorboard()
    precisions = checked_precisions(precision)
    spec, folder = parse_spec(student), Path(output)
    text_spec = None if text_student is None else parse_text_spec(text_student)
    check_output(folder, RUN_NAME)
    checkpoint = _checked_teacher(named_source(teacher, arch, tokenizer, revision), spec, text_spec)
    together = recipe.batch_size // processes.num_processes // recipe.accumulate
    by_first(lambda: check_student(checkpoint, spec, together))
    kept = folder / TRAINING_NAME / TEACHER_NAME if cache is None else Path(cache)
    size = checkpoint.preprocessing.height
    pictures, held_out = first_then_others(
        lambda: hold_out(training_pictures(data, kept, size), data, validation, size)
    )
    weights = _weights(recipe, pictures)
    prompts = () if text_spec is None else training_prompts(text_spec, pictures, held_out, labels, templates)
    check_count(len(pictures), recipe, pictures.source)
    facts = teacher_facts(checkpoint, pictures_sha256(pictures), recipe.augmentation, recipe.views)
    settings = _settings(checkpoint, spec, text_spec, recipe, weights, facts, held_out, labels, templates)
    run = by_first(lambda: claim(folder, settings, RUN_NAME))
    answers = by_first(lambda: open_cache(kept, facts))
    captions = weights.needs_captions or (text_spec is not None and pictures.captions is not None)
    with only_first_warns():
        lessons = ask_teacher(checkpoint, pictures, recipe.augmentation, recipe.views, answers, captions, prompts)
        texts = () if text_spec is None else exam_texts(held_out, lessons.wordings)
        exam = first_then_others(lambda: prepare_validation(checkpoint, held_out, labels, templates, answers, texts))
    check_count(len(lessons.rows), recipe, pictures.source)
    beginner = make_student(checkpoint, spec, recipe.seed, _pixels(checkpoint, pictures, lessons))
    if text_spec is not None:
        beginner = with_text_student(beginner, text_spec, recipe.seed, lessons.wordings)
    work = Work(checkpoint, pictures, lessons, exam, recipe, weights, text_spec is not None)
    training = folder / TRAINING_NAME
    trained = train(beginner, work, training / STATE_NAME, run, training / EVENTS_NAME if tensorboard else None)

    def finish() -> Distilled:
        found = _write(folder, spec, text_spec, work, trained)
        if precisions:
            bundle = export_result(folder, precisions, data, labels, templates)
            found = dataclasses.replace(found, bundle=bundle)
            write_result(folder, found.to_dict(), RUN_NAME)
        return found

    return by_first(finish)


def _checked_teacher(source: ModelSource, spec: StudentSpec, text_spec: StudentSpec | None) -> Checkpoint:
    """The teacher. What it cannot teach is said before anything is computed."""
    teacher = load_checkpoint(source)
    check_teacher(teacher)
    student_config(teacher, spec)
    if text_spec is not None:
        text_config(teacher, text_spec)
    return teacher


def _weights(recipe: Recipe, pictures: Pictures) -> Weights:
    weights = recipe.weights
    if weights is None:
        weights = IMAGES if pictures.captions is None else PAIRS
    if weights.needs_captions:
        check_captions(pictures)
    return weights


def _settings(
    teacher: Checkpoint,
    spec: StudentSpec,
    text_spec: StudentSpec | None,
    recipe: Recipe,
    weights: Weights,
    facts: Mapping[str, Any],
    held_out: Pictures,
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
) -> dict[str, Any]:
    """What decides the student's weights, and by which a run is told from others."""
    return {
        "teacher": teacher.pinned_name,
        "teacher_facts": dict(facts),
        "student": spec.text,
        **({} if text_spec is None else {"text_student": text_spec.text}),
        "recipe": {**recipe.to_dict(), "weights": dataclasses.asdict(weights)},
        "validation_sha256": pictures_sha256(held_out),
        "labels": None if labels is None else list(labels),
        "templates": None if templates is None else list(templates),
    }


def _pixels(teacher: Checkpoint, pictures: Pictures, lessons: Lessons) -> Iterator[npt.NDArray[np.uint8]]:
    """The first readable pictures as the teacher takes them."""
    chosen = choose(pictures, lessons.rows[:MEASURED])
    return (pixels for _, pixels in pixel_batches(chosen, teacher.preprocessing, []))


def _write(folder: Path, spec: StudentSpec, text_spec: StudentSpec | None, work: Work, trained: Trained) -> Distilled:
    """Write the student, its curves and the result."""
    student = with_image_tower(work.teacher, student_config(work.teacher, spec), trained.weights)
    if text_spec is not None and trained.text_weights is not None:
        student = with_text_tower(student, text_config(work.teacher, text_spec), trained.text_weights)
    exported = as_exported(student)
    assert trained.progress.best is not None
    lessons, exam = work.lessons, work.validation
    before, after = model_facts(work.teacher), model_facts(exported)
    found = Distilled(
        teacher=work.teacher.pinned_name,
        student=spec.text,
        space_id=exported.space_id,
        teacher_tower=before.image,
        student_tower=after.image,
        pictures=len(lessons.rows),
        captions=0 if lessons.captions is None else len(lessons.wordings),
        validation_pictures=len(exam.pixels),
        steps=trained.progress.step,
        teacher_score=score_images(exam.teacher, exam),
        scores=tuple(trained.progress.scores),
        best=trained.progress.best,
        unreadable=lessons.unreadable,
        text=None if text_spec is None else OwnText(text_spec.text, before.text, after.text, len(lessons.wordings)),
    )
    write_curves(folder, trained.progress, CURVES, found.teacher_score.accuracy)
    write_student(student, folder, trained.log_scale, student_story(found))
    write_result(folder, found.to_dict(), RUN_NAME)
    return found
