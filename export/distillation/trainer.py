"""How a student is trained: batches of views, losses against the teacher's embeddings.

Several processes share a batch, each with pictures of its own (``training/gradients.py``); their weights stay equal,
and they follow one process with the same batch but for rounding.
"""

from __future__ import annotations

import copy
import math
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
from clipedge.export.distillation.validation import Validation, validate
from clipedge.export.training.batch_norms import average_statistics, keep_statistics, kept_buffers
from clipedge.export.training.contrast import Embeddings
from clipedge.export.training.gradients import embedding_gradients
from clipedge.export.training.learner import LOG_SCALE, Learner
from clipedge.export.training.loop import run_steps
from clipedge.export.training.precision import gradient_scaler
from clipedge.export.training.processes import by_first, join_processes
from clipedge.export.training.recipe import batch_rows
from clipedge.export.training.scores import Score
from clipedge.export.training.state import Progress

__all__ = ["Trained", "Work", "train"]


@dataclass(frozen=True, eq=False)
class Work:
    """All that a training needs: the teacher's ``lessons`` about ``pictures``, and how it is scored."""

    teacher: Checkpoint
    pictures: Pictures
    lessons: Lessons
    validation: Validation
    recipe: Recipe
    weights: Weights


@dataclass(frozen=True, eq=False)
class Trained:
    """The best moving average of the weights, by the tower's names, the learned logarithm of the logit scale that
    belongs to it, and what happened."""

    weights: dict[str, torch.Tensor]
    log_scale: float
    progress: Progress


def train(student: Checkpoint, work: Work, state_path: Path, run: str, events: Path | None = None) -> Trained:
    """Train the student's image tower, or go on with the training of the fingerprint ``run`` whose state is there.

    Every process calls this, with the same. ``events``: a folder for TensorBoard's files. Raises ClipEdgeError when the
    loss is no number any more, UsageError for a damaged or foreign state.
    """
    accelerator = join_processes(work.recipe.mixed_precision)
    trainee = _Student(student, work, accelerator)
    first, learner = accelerator.is_main_process, trainee.learner
    run_steps(learner, trainee.gradients, trainee.score, state_path, run, first=first, events=events)
    weights = weights_of({name: weight.cpu() for name, weight in learner.best.items()})
    return Trained(weights, float(weights.pop(LOG_SCALE)), learner.progress)


class _Student:
    """The tower that is trained, its moving average, and the logarithm of the logit scale."""

    def __init__(self, student: Checkpoint, work: Work, accelerator: Accelerator) -> None:
        own = {name: weight.clone() for name, weight in student.image_weights.items()}
        self.work, self.accelerator = work, accelerator
        recipe, device = work.recipe, accelerator.device
        self.tower = student_tower(replace(student, image_weights=own)).requires_grad_(True).to(device)
        self.average = copy.deepcopy(self.tower).requires_grad_(False).eval()
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(student.logit_scale), device=device))
        self.shared = accelerator.prepare_model(self.tower)  # the tower, or what averages its gradients over processes
        if accelerator.num_processes > 1:
            self.shared.broadcast_buffers = False  # all processes' statistics are averaged, not the first's taken
        averages = {**dict(self.average.named_parameters()), **kept_buffers(self.average)}
        self.learner = Learner(
            {**dict(self.tower.named_parameters()), LOG_SCALE: self.log_scale},
            {**averages, LOG_SCALE: self.log_scale.detach().clone()},
            recipe,
            gradient_scaler(recipe.mixed_precision, device),
            kept_buffers(self.tower),  # taken here: preparing a tower replaces its buffers
            undecayed(self.tower),
        )

    def gradients(self, step: int) -> float:
        """Add a step's gradients to the weights; returns the loss."""
        work, recipe = self.work, self.work.recipe
        pixels, teacher, same = self._batch(step)

        def loss_of(images: torch.Tensor) -> torch.Tensor:
            scale = self.log_scale.exp()
            losses = distillation_losses(
                Embeddings(images, teacher.texts), teacher, scale, work.teacher.logit_scale, work.weights, same
            )
            return torch.stack(list(losses.values())).sum()

        loss = embedding_gradients(
            self.shared,
            pixels,
            loss_of,
            recipe.accumulate,
            accelerator=self.accelerator,
            precision=recipe.mixed_precision,
            scaler=self.learner.scaler,
        )
        average_statistics(self.tower, self.accelerator)
        return loss

    def _batch(self, step: int) -> tuple[torch.Tensor, Embeddings, torch.Tensor | None]:
        """This process' pictures of a step; the teacher's embeddings of all, and which of their captions are equal."""
        work, recipe, device = self.work, self.work.recipe, self.accelerator.device
        rows, passed = batch_rows(step, len(work.lessons.rows), recipe)
        view, parts = passed % recipe.views, self.accelerator.num_processes
        own = np.array_split(rows, parts)[self.accelerator.process_index]
        pixels = student_views(work.pictures, work.lessons, work.teacher.preprocessing, own, view, step, recipe)
        pixels = pixels.to(device)
        images, texts, same = teacher_side(work.lessons, rows, view, step, recipe)
        teacher = Embeddings(images.to(device), None if texts is None else texts.to(device))
        if recipe.adversarial:
            targets = teacher.images.tensor_split(parts)[self.accelerator.process_index]
            with keep_statistics(self.tower):
                pixels = adversarial(self.tower, pixels, targets, recipe.adversarial, recipe.accumulate)
        return pixels, teacher, None if same is None else same.to(device)

    def score(self) -> Score:
        """The average's score."""
        return by_first(lambda: validate(self.average, self.work.validation))
