"""finetune(): the whole job, from a model and pictures to a tuned model that export takes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clipedge.calibration.data import Pictures
from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint, load_checkpoint, named_source
from clipedge.export.finetuning.curves import write_all
from clipedge.export.finetuning.exams import Exam, prepare_exam
from clipedge.export.finetuning.interpolation import Point, between, choose_alpha, walk
from clipedge.export.finetuning.material import Material, exam_pictures, gather, with_sidecars
from clipedge.export.finetuning.recipe import Recipe, check_recipe
from clipedge.export.finetuning.result import Finetuned, story
from clipedge.export.finetuning.towers import Towers, check_model, check_rank, with_weights
from clipedge.export.finetuning.trainer import Trained, Work, train
from clipedge.export.source_texts import SourceTexts
from clipedge.export.training.bundle import checked_precisions, export_result
from clipedge.export.training.data import hold_out, pictures_sha256, training_pictures
from clipedge.export.training.folder import write_student
from clipedge.export.training.learner import LOG_SCALE
from clipedge.export.training.recipe import check_count
from clipedge.export.training.run_file import TRAINING_NAME, check_output, claim, write_result
from clipedge.export.training.state import STATE_NAME
from clipedge.manifest import Precision

__all__ = ["RUN_NAME", "Forgetting", "finetune"]

RUN_NAME = "finetune.json"


@dataclasses.dataclass(frozen=True)
class Forgetting:
    """How far the written model goes from the one before: to the ``alpha`` that is named, else as far as loses at most
    ``most`` points on the ``original`` set, pictures of what the model could do before; without one, half way."""

    original: str | os.PathLike[str] | None = None
    most: float = 1.0
    alpha: float | None = None


def finetune(
    model: str | os.PathLike[str] | None,
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    recipe: Recipe | None = None,
    validation: str | os.PathLike[str] | None = None,
    forgetting: Forgetting | None = None,
    labels: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    precision: Precision | Sequence[Precision] = (),
    arch: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    revision: str | None = None,
) -> Finetuned:
    """Train both towers of ``model`` on ``data``, interpolate with it, and write a CLIP folder to ``output``.

    ``model``: what ``export`` takes, if it is a CLIP with a vision transformer; None for the demonstration checkpoint.
    ``data``: pairs or pictures with classes, see ``material.py``; "scenes" (also "scenes:COUNT") for rendered ones.
    ``validation``: pictures of the same kind to score it on (else a tenth of the data). ``labels`` and ``templates`` as
    in ``export``. ``precision``: the model is then exported to ``output``/bundle.

    A training that was killed goes on where its last state was saved when it is called again with the same settings,
    and ends with the same bits; one that has ended is only interpolated again, so another ``forgetting`` costs no
    training. Raises UsageError, before anything is trained, for data that is missing, empty, without captions and
    classes, of other classes than its validation, or too little; CheckpointError for a model that cannot be tuned.
    """
    recipe, forgetting = recipe or Recipe(), forgetting or Forgetting()
    check_recipe(recipe)
    _check_forgetting(forgetting)
    precisions = checked_precisions(precision)
    folder = Path(output)
    check_output(folder, RUN_NAME)
    checkpoint = load_checkpoint(named_source(model, arch, tokenizer, revision))
    check_model(checkpoint)
    if recipe.lora is not None:
        check_rank(checkpoint, recipe.lora)
    size, texts = checkpoint.preprocessing.height, SourceTexts(checkpoint).tokenizer
    pictures, held_out = _pictures(data, validation, folder / TRAINING_NAME, size)
    material = gather(pictures, labels, templates, texts)
    _check_material(material, recipe)
    exam = prepare_exam(checkpoint, held_out, material.labels or None, templates, texts)
    original = None
    if forgetting.original is not None:
        original = prepare_exam(checkpoint, exam_pictures(forgetting.original, size), None, None, texts)
    run = claim(folder, _settings(checkpoint, recipe, pictures, held_out, labels, templates), RUN_NAME)
    work = Work(checkpoint, material, exam, recipe)
    trained = train(work, folder / TRAINING_NAME / STATE_NAME, run)
    before = Towers(checkpoint).weights()
    points = walk(Towers(checkpoint), before, trained.weights, exam, original, forgetting.alpha)
    found = _write(folder, work, trained, before, original, points, forgetting)
    if precisions:
        bundle = export_result(folder, precisions, data, labels, templates)
        found = dataclasses.replace(found, bundle=bundle)
        write_result(folder, found.to_dict(), RUN_NAME)
    return found


def _pictures(
    data: str | os.PathLike[str], validation: str | os.PathLike[str] | None, scratch: Path, size: int
) -> tuple[Pictures, Pictures]:
    """(training, validation)"""
    pictures = with_sidecars(training_pictures(data, scratch, size))
    if validation is not None:
        return pictures, exam_pictures(validation, size)
    return hold_out(pictures, data, None, size)


def _check_forgetting(forgetting: Forgetting) -> None:
    if forgetting.alpha is not None and not 0 <= forgetting.alpha <= 1:
        raise UsageError(f"expected alpha from 0 (the model before) to 1 (the tuned one), found {forgetting.alpha}")
    if not 0 <= forgetting.most <= 100:
        raise UsageError(f"expected max_forgetting in points, from 0 to 100, found {forgetting.most}")


def _check_material(material: Material, recipe: Recipe) -> None:
    check_count(len(material.groups), recipe, material.pictures.source)
    if recipe.text_text and any(len(texts) < 2 for texts in material.texts):
        raise UsageError(
            f"{material.pictures.source}: the loss between texts compares two of each picture's, and some have one; "
            "add captions, or another --template, or leave --text-text out"
        )


def _settings(
    model: Checkpoint,
    recipe: Recipe,
    pictures: Pictures,
    held_out: Pictures,
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
) -> dict[str, Any]:
    """What decides the tuned weights, and by which a run is told from others."""
    return {
        "model": model.pinned_name,
        "space_id": model.space_id,
        "logit_scale": model.logit_scale,
        "preprocessing": dataclasses.asdict(model.preprocessing),
        "recipe": recipe.to_dict(),
        "data_sha256": pictures_sha256(pictures),
        "validation_sha256": pictures_sha256(held_out),
        "labels": None if labels is None else list(labels),
        "templates": None if templates is None else list(templates),
    }


def _write(
    folder: Path,
    work: Work,
    trained: Trained,
    before: Mapping[str, torch.Tensor],
    original: Exam | None,
    points: tuple[Point, ...],
    forgetting: Forgetting,
) -> Finetuned:
    """Write the model, its curves and the result."""
    alpha = choose_alpha(points, forgetting.alpha, forgetting.most)
    weights = between(before, trained.weights, alpha)
    tuned = with_weights(work.model, weights)
    assert trained.progress.best is not None
    material = work.material
    found = Finetuned(
        model=work.model.pinned_name,
        space_id=tuned.space_id,
        lora=work.recipe.lora,
        trained_parameters=trained.parameters,
        pictures=len(material.groups),
        texts=len(material.tokens),
        classes=len(material.labels) or None,
        domain=work.exam.kind,
        domain_pictures=len(work.exam.pixels),
        original=None if original is None else original.kind,
        original_pictures=0 if original is None else len(original.pixels),
        max_forgetting=forgetting.most,
        steps=trained.progress.step,
        best=trained.progress.best,
        points=points,
        alpha=alpha,
        unreadable=material.unreadable,
    )
    write_all(folder, trained.progress, points, alpha)
    write_student(tuned, folder, float(weights[LOG_SCALE]), story(found))
    write_result(folder, found.to_dict(), RUN_NAME)
    return found
