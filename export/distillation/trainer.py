"""The training loop: batches of views, losses against the teacher's embeddings, AdamW, a moving average of the weights.

On one machine with one number of threads and one version of torch it is deterministic, and a training that was killed
and resumed ends with the same bits as one that was not. Several processes share a batch, each with pictures of its own
(``gradients.py``); their weights stay equal, and they follow one process with the same batch but for rounding.
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
from tqdm import tqdm

from clipedge.calibration.data import Pictures
from clipedge.errors import ClipEdgeError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation.batches import student_views, teacher_side
from clipedge.export.distillation.hardening import adversarial
from clipedge.export.distillation.objectives import Weights, distillation_losses
from clipedge.export.distillation.recipe import Recipe
from clipedge.export.distillation.student_tower import student_tower
from clipedge.export.distillation.teacher import Lessons
from clipedge.export.distillation.texts import tokens_of
from clipedge.export.distillation.validation import Validation, validate
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_text_tower
from clipedge.export.training.contrast import Embeddings, clamp_log_scale
from clipedge.export.training.determinism import deterministic
from clipedge.export.training.events import followed
from clipedge.export.training.gradients import joint_gradients
from clipedge.export.training.optimizer import MAX_GRADIENT, adamw, no_moments
from clipedge.export.training.precision import gradient_scaler
from clipedge.export.training.processes import by_first, join_processes
from clipedge.export.training.recipe import batch_rows, ema_decay, learning_rate
from clipedge.export.training.scores import Score
from clipedge.export.training.state import Progress, Scored, State, load_state, save_state

__all__ = ["Trained", "Work", "train"]

LOG_SCALE = "log_scale"
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
    first = accelerator.is_main_process
    learner = _Learner(student, work, accelerator)
    found = load_state(state_path, learner.tensors(), run)
    if found is not None:
        learner.restore(found)
    recipe, progress = work.recipe, learner.progress
    bar = tqdm(desc="training", total=recipe.steps, initial=progress.step, unit="step", disable=None if first else True)
    exact = deterministic() if work.own_text and accelerator.device.type == "cpu" else nullcontext()
    with exact, bar, followed(events if first else None, recipe, progress.step) as follow:
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


class _Learner:
    """What changes from step to step: weights, their averages, the optimizer."""

    def __init__(self, student: Checkpoint, work: Work, accelerator: Accelerator) -> None:
        self.work, self.accelerator = work, accelerator
        device = accelerator.device
        towers = _towers(student, work.own_text)
        self.towers = {name: tower.requires_grad_(True).to(device) for name, tower in towers.items()}
        self.average = {name: copy.deepcopy(tower).requires_grad_(False) for name, tower in self.towers.items()}
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(student.logit_scale), device=device))
        self.average_log_scale = self.log_scale.detach().clone()
        self.progress = Progress()
        self.best = self._averages()
        self.parameters: dict[str, torch.Tensor] = {**_named(self.towers), LOG_SCALE: self.log_scale}
        self.optimizer = adamw(self.parameters, work.recipe.learning_rate, work.recipe.weight_decay)
        self.scaler = gradient_scaler(work.recipe.mixed_precision, device)
        # The towers, or what averages their gradients over processes.
        self.shared = [accelerator.prepare_model(tower) for tower in self.towers.values()]
        self.tokenizer = SourceTexts(work.teacher).tokenizer if work.own_text else None

    def step(self, step: int) -> float:
        """One update of the weights; returns the loss before it."""
        work, recipe = self.work, self.work.recipe
        inputs, teacher, same = self._batch(step)
        self.optimizer.zero_grad()

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
        self._average(ema_decay(step, recipe))
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
            pixels = adversarial(self.towers[IMAGE], pixels, targets, recipe.adversarial, recipe.accumulate)
        inputs = [pixels]
        if self.tokenizer is not None and side.places is not None:
            texts = [work.lessons.wordings[place] for place in np.array_split(side.places, parts)[part]]
            inputs.append(torch.from_numpy(tokens_of(self.tokenizer, texts)).to(device))
        return inputs, teacher, None if side.same is None else side.same.to(device)

    def validate(self) -> None:
        """Score the average; the best so far is kept."""
        progress = self.progress
        scored = Scored(progress.step, by_first(self._score))
        progress.scores.append(scored)
        if progress.best is None or scored.score.rank > progress.best.score.rank:
            progress.best, self.best = scored, self._averages()

    def _score(self) -> Score:
        return validate(self.average[IMAGE], self.work.validation, self.average.get(TEXT))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that has to be kept, by name."""
        tensors: dict[str, torch.Tensor] = {f"weights.{name}": weight for name, weight in self.parameters.items()}
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
            for name, weight in self.parameters.items():
                weight.copy_(tensors[f"weights.{name}"])
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
        weights = {name: weight.cpu() for name, weight in self.best.items()}
        text = {name.removeprefix(TEXT): weights.pop(name) for name in list(weights) if name.startswith(TEXT)}
        return Trained(weights, float(weights.pop(LOG_SCALE)), self.progress, text or None)

    def _average(self, decay: float) -> None:
        with torch.no_grad():
            for name, average in self._references().items():
                average.lerp_(self.parameters[name], 1 - decay)

    def _references(self) -> dict[str, torch.Tensor]:
        return {**_named(self.average), LOG_SCALE: self.average_log_scale}

    def _averages(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self._references().items()}
