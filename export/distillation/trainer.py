"""How a student is trained: batches of views, losses against the teacher's embeddings.

Several processes share a batch, each with pictures of its own (``training/gradients.py``); their weights stay equal,
and they follow one process with the same batch but for rounding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from clipedge.calibration.data import Pictures
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation.batches import student_views, teacher_side
from clipedge.export.distillation.hardening import adversarial
from clipedge.export.distillation.objectives import Weights, distillation_losses
from clipedge.export.distillation.recipe import Recipe
from clipedge.export.distillation.student_tower import student_tower, undecayed, weights_of
from clipedge.export.distillation.teacher import Lessons
from clipedge.export.distillation.texts import tokens_of
from clipedge.export.distillation.validation import Validation, validate
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_text_tower
from clipedge.export.training.batch_norms import average_statistics, keep_statistics, kept_buffers
from clipedge.export.training.contrast import Embeddings
from clipedge.export.training.determinism import deterministic
from clipedge.export.training.gradients import joint_gradients
from clipedge.export.training.learner import LOG_SCALE, Learner
from clipedge.export.training.loop import run_steps
from clipedge.export.training.precision import gradient_scaler
from clipedge.export.training.processes import by_first, join_processes
from clipedge.export.training.recipe import batch_rows
from clipedge.export.training.scores import Score
from clipedge.export.training.state import Progress

__all__ = ["Trained", "Work", "train"]

IMAGE, TEXT = "", "text."  # what the names of a tower's weights begin with


@dataclass(frozen=True, eq=False)
class Work:
    """All that a training needs: the teacher's ``lessons`` about ``pictures``, and how it is scored. ``own_text``:
    whether the student has a text tower of its own, which then trains, too, on the lessons' texts."""

    teacher: Checkpoint
    pictures: Pictures
    lessons: Lessons
    validation: Validation
    recipe: Recipe
    weights: Weights
    own_text: bool = False


@dataclass(frozen=True, eq=False)
class Trained:
    """The best moving average of the weights, by the towers' names, the learned logarithm of the logit scale that
    belongs to it, and what happened. ``text_weights`` are None where the text tower was the teacher's."""

    weights: dict[str, torch.Tensor]
    log_scale: float
    progress: Progress
    text_weights: dict[str, torch.Tensor] | None = None


def train(student: Checkpoint, work: Work, state_path: Path, run: str, events: Path | None = None) -> Trained:
    """Train the student's image tower and a text tower of its own, or go on with the training of the fingerprint
    ``run`` whose state is there.

    Every process calls this, with the same. ``events``: a folder for TensorBoard's files. Raises ClipEdgeError when the
    loss is no number any more, UsageError for a damaged or foreign state.
    """
    accelerator = join_processes(work.recipe.mixed_precision)
    trainee = _Student(student, work, accelerator)
    first, learner = accelerator.is_main_process, trainee.learner
    with deterministic() if work.own_text and accelerator.device.type == "cpu" else nullcontext():
        run_steps(learner, trainee.gradients, trainee.score, state_path, run, first=first, events=events)
    weights = {name: weight.cpu() for name, weight in learner.best.items()}
    log_scale = float(weights.pop(LOG_SCALE))
    text = {name.removeprefix(TEXT): weights.pop(name) for name in list(weights) if name.startswith(TEXT)}
    return Trained(weights_of(weights), log_scale, learner.progress, text or None)


def _towers(student: Checkpoint, own_text: bool) -> dict[str, torch.nn.Module]:
    """The student's towers that train, with weights of their own, by what names of weights begin with."""
    image = {name: weight.clone() for name, weight in student.image_weights.items()}
    towers: dict[str, torch.nn.Module] = {IMAGE: student_tower(replace(student, image_weights=image))}
    if own_text:
        text = {name: weight.clone() for name, weight in student.text_weights.items()}
        towers[TEXT] = build_text_tower(replace(student, text_weights=text))
    return towers


def _named(towers: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    return {f"{tower}{name}": weight for tower in towers for name, weight in towers[tower].named_parameters()}


class _Student:
    """The towers that are trained, their moving averages, and the logarithm of the logit scale."""

    def __init__(self, student: Checkpoint, work: Work, accelerator: Accelerator) -> None:
        self.work, self.accelerator = work, accelerator
        recipe, device = work.recipe, accelerator.device
        towers = _towers(student, work.own_text)
        self.towers = {name: tower.requires_grad_(True).to(device) for name, tower in towers.items()}
        self.averages = {name: copy.deepcopy(tower).requires_grad_(False).eval() for name, tower in self.towers.items()}
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(student.logit_scale), device=device))
        # The towers, or what averages their gradients over processes.
        self.shared = [accelerator.prepare_model(tower) for tower in self.towers.values()]
        for shared in self.shared if accelerator.num_processes > 1 else ():
            shared.broadcast_buffers = False  # all processes' statistics are averaged, not the first's taken
        averages = {**_named(self.averages), **kept_buffers(self.averages[IMAGE])}
        self.learner = Learner(
            {**_named(self.towers), LOG_SCALE: self.log_scale},
            {**averages, LOG_SCALE: self.log_scale.detach().clone()},
            recipe,
            gradient_scaler(recipe.mixed_precision, device),
            kept_buffers(self.towers[IMAGE]),  # taken here: preparing a tower replaces its buffers
            undecayed(self.towers[IMAGE]),
        )
        self.tokenizer = SourceTexts(work.teacher).tokenizer if work.own_text else None

    def gradients(self, step: int) -> float:
        """Add a step's gradients to the weights; returns the loss."""
        work, recipe = self.work, self.work.recipe
        inputs, teacher, same = self._batch(step)

        def loss_of(images: torch.Tensor, texts: torch.Tensor | None = None) -> torch.Tensor:
            scale, factor = self.log_scale.exp(), work.teacher.logit_scale
            student = Embeddings(images, teacher.texts if texts is None else texts)
            own_texts = None if texts is None or teacher.texts is None else (texts, teacher.texts)
            losses = distillation_losses(student, teacher, scale, factor, work.weights, same, own_texts)
            return torch.stack(list(losses.values())).sum()

        loss = joint_gradients(
            list(zip(self.shared, inputs, strict=True)),
            loss_of,
            recipe.accumulate,
            accelerator=self.accelerator,
            precision=recipe.mixed_precision,
            scaler=self.learner.scaler,
        )
        average_statistics(self.towers[IMAGE], self.accelerator)
        return loss

    def _batch(self, step: int) -> tuple[list[torch.Tensor], Embeddings, torch.Tensor | None]:
        """This process' pictures of a step and, for a text tower of the student's own, texts; the teacher's embeddings
        of all, and which texts are equal."""
        work, recipe, device = self.work, self.work.recipe, self.accelerator.device
        rows, passed = batch_rows(step, len(work.lessons.rows), recipe)
        view, parts, part = passed % recipe.views, self.accelerator.num_processes, self.accelerator.process_index
        own = np.array_split(rows, parts)[part]
        pixels = student_views(work.pictures, work.lessons, work.teacher.preprocessing, own, view, step, recipe)
        pixels = pixels.to(device)
        side = teacher_side(work.lessons, rows, view, step, recipe)
        teacher = Embeddings(side.images.to(device), None if side.texts is None else side.texts.to(device))
        if recipe.adversarial:
            targets = teacher.images.tensor_split(parts)[part]
            with keep_statistics(self.towers[IMAGE]):
                pixels = adversarial(self.towers[IMAGE], pixels, targets, recipe.adversarial, recipe.accumulate)
        inputs = [pixels]
        if self.tokenizer is not None and side.places is not None:
            texts = [work.lessons.wordings[place] for place in np.array_split(side.places, parts)[part]]
            inputs.append(torch.from_numpy(tokens_of(self.tokenizer, texts)).to(device))
        return inputs, teacher, None if side.same is None else side.same.to(device)

    def score(self) -> Score:
        """The averages' score."""
        return by_first(lambda: validate(self.averages[IMAGE], self.work.validation, self.averages.get(TEXT)))
