"""The training loop: batches of views, losses against the teacher's embeddings, AdamW, a moving average of the weights.

On one machine with one number of threads and one version of torch it is deterministic, and a training that was killed
and resumed ends with the same bits as one that was not. Several processes share a batch, each with pictures of its own
(``gradients.py``); their weights stay equal, and they follow one process with the same batch but for rounding.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from clipedge.calibration.data import Pictures
from clipedge.errors import ClipEdgeError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation.batch_norms import average_statistics, keep_statistics, kept_buffers
from clipedge.export.distillation.batches import student_views, teacher_side
from clipedge.export.distillation.events import followed
from clipedge.export.distillation.gradients import embedding_gradients
from clipedge.export.distillation.hardening import adversarial
from clipedge.export.distillation.objectives import Embeddings, Weights, clamp_log_scale, distillation_losses
from clipedge.export.distillation.optimizer import MAX_GRADIENT, adamw, no_moments
from clipedge.export.distillation.precision import gradient_scaler
from clipedge.export.distillation.processes import by_first, join_processes
from clipedge.export.distillation.recipe import Recipe, batch_rows, ema_decay, learning_rate
from clipedge.export.distillation.state import Progress, Scored, State, load_state, save_state
from clipedge.export.distillation.student_tower import student_tower, undecayed, weights_of
from clipedge.export.distillation.teacher import Lessons
from clipedge.export.distillation.validation import Validation, validate

__all__ = ["Trained", "Work", "train"]

LOG_SCALE = "log_scale"


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
    first = accelerator.is_main_process
    learner = _Learner(student, work, accelerator)
    found = load_state(state_path, learner.tensors(), run)
    if found is not None:
        learner.restore(found)
    recipe, progress = work.recipe, learner.progress
    bar = tqdm(desc="training", total=recipe.steps, initial=progress.step, unit="step", disable=None if first else True)
    with bar, followed(events if first else None, recipe, progress.step) as follow:
        while not progress.ended:
            progress.losses.append(learner.step(progress.step + 1))
            progress.step += 1
            last = progress.step == recipe.steps
            if last or progress.step % recipe.validate_every == 0:
                learner.validate()
                progress.ended = last or _is_patience_out(progress, recipe)
            follow(progress)
            if first and (progress.ended or progress.step % recipe.save_every == 0):
                save_state(state_path, State(learner.tensors(), progress), run)
            bar.set_postfix_str(_postfix(progress), refresh=False)
            bar.update()
    return learner.result()


def _is_patience_out(progress: Progress, recipe: Recipe) -> bool:
    if recipe.patience is None or progress.best is None:
        return False
    return sum(scored.step > progress.best.step for scored in progress.scores) >= recipe.patience


def _postfix(progress: Progress) -> str:
    text = f"loss {np.mean(progress.losses[-50:]):.3f}"
    if progress.scores:
        score = progress.scores[-1].score
        text += f", cosine {score.cosine:.3f}" if score.accuracy is None else f", top-1 {score.accuracy:.1%}"
    return text


class _Learner:
    """What changes from step to step: weights, their averages, the optimizer."""

    def __init__(self, student: Checkpoint, work: Work, accelerator: Accelerator) -> None:
        own = {name: weight.clone() for name, weight in student.image_weights.items()}
        self.work, self.accelerator = work, accelerator
        device = accelerator.device
        self.tower = student_tower(replace(student, image_weights=own)).requires_grad_(True).to(device)
        self.average = copy.deepcopy(self.tower).requires_grad_(False).eval()
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(student.logit_scale), device=device))
        self.average_log_scale = self.log_scale.detach().clone()
        self.progress = Progress()
        self.best = self._averages()
        self.parameters: dict[str, torch.Tensor] = {**dict(self.tower.named_parameters()), LOG_SCALE: self.log_scale}
        recipe = work.recipe
        self.optimizer = adamw(self.parameters, recipe.learning_rate, recipe.weight_decay, undecayed(self.tower))
        self.scaler = gradient_scaler(recipe.mixed_precision, device)
        self.shared = accelerator.prepare_model(self.tower)  # the tower, or what averages its gradients over processes
        if accelerator.num_processes > 1:
            self.shared.broadcast_buffers = False  # all processes' statistics are averaged, not the first's taken
        self.learned = {**self.parameters, **kept_buffers(self.tower)}  # now: moving a tower replaces its buffers

    def step(self, step: int) -> float:
        """One update of the weights; returns the loss before it."""
        work, recipe = self.work, self.work.recipe
        pixels, teacher, same = self._batch(step)
        self.optimizer.zero_grad()

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
            scaler=self.scaler,
        )
        if not math.isfinite(loss):
            raise ClipEdgeError(f"the loss of step {step} is {loss}, no number; train again with a lower learning rate")
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), MAX_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        clamp_log_scale(self.log_scale)
        average_statistics(self.tower, self.accelerator)
        self._average(ema_decay(step, recipe))
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

    def validate(self) -> None:
        """Score the average; the best so far is kept."""
        progress = self.progress
        scored = Scored(progress.step, by_first(lambda: validate(self.average, self.work.validation)))
        progress.scores.append(scored)
        if progress.best is None or scored.score.rank > progress.best.score.rank:
            progress.best, self.best = scored, self._averages()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that has to be kept, by name."""
        tensors: dict[str, torch.Tensor] = {f"weights.{name}": weight for name, weight in self.learned.items()}
        tensors |= {f"average.{name}": weight for name, weight in self._averages().items()}
        tensors |= {f"best.{name}": weight for name, weight in self.best.items()}
        for name, weight in self.parameters.items():
            moments = self.optimizer.state.get(weight) or no_moments(weight)
            tensors |= {f"optimizer.{name}.{key}": value for key, value in moments.items()}
        return tensors | {f"scaler.{key}": torch.tensor(value) for key, value in self.scaler.state_dict().items()}

    def restore(self, state: State) -> None:
        """Go back to what ``tensors`` gave."""
        tensors = state.tensors
        with torch.no_grad():
            for name, weight in self.learned.items():
                weight.copy_(tensors[f"weights.{name}"])
            for name, weight in self.parameters.items():
                if state.progress.step:
                    self.optimizer.state[weight] = {
                        # AdamW counts its steps on the CPU, wherever the weights are.
                        key: tensors[f"optimizer.{name}.{key}"].to(empty.device)
                        for key, empty in no_moments(weight).items()
                    }
            for name, weight in self._references().items():
                weight.copy_(tensors[f"average.{name}"])
        self.best = {name: tensors[f"best.{name}"] for name in self.best}
        self.scaler.load_state_dict({key: tensors[f"scaler.{key}"].item() for key in self.scaler.state_dict()})
        self.progress = state.progress

    def result(self) -> Trained:
        weights = weights_of({name: weight.cpu() for name, weight in self.best.items()})
        return Trained(weights, float(weights.pop(LOG_SCALE)), self.progress)

    def _average(self, decay: float) -> None:
        with torch.no_grad():
            for name, average in self._references().items():
                if average.is_floating_point():
                    average.lerp_(self.learned[name], 1 - decay)
                else:
                    average.copy_(self.learned[name])

    def _references(self) -> dict[str, torch.Tensor]:
        return {
            **dict(self.average.named_parameters()),
            **kept_buffers(self.average),
            LOG_SCALE: self.average_log_scale,
        }

    def _averages(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self._references().items()}
