"""The training loop: batches of views, losses against the teacher's embeddings, AdamW, a moving average of the weights.

On one machine with one number of threads and one version of torch it is deterministic, and a training that was killed
and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from clipedge.calibration.data import Pictures, open_item
from clipedge.errors import ClipEdgeError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation.augment import augmented
from clipedge.export.distillation.objectives import (
    Embeddings,
    Weights,
    clamp_log_scale,
    distillation_losses,
)
from clipedge.export.distillation.recipe import Recipe, batch_rows, ema_decay, learning_rate
from clipedge.export.distillation.state import Progress, Scored, State, load_state, save_state
from clipedge.export.distillation.student_tower import student_tower
from clipedge.export.distillation.teacher import Lessons
from clipedge.export.distillation.validation import Validation, validate
from clipedge.parallel import cores, parallel_map

__all__ = ["Trained", "Work", "embedding_gradients", "train"]

MAX_GRADIENT = 1.0
BETAS, EPS = (0.9, 0.98), 1e-6  # Radford et al. 2021, arXiv 2103.00020, table 19, for vision transformers
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


def train(student: Checkpoint, work: Work, state_path: Path, run: str) -> Trained:
    """Train the student's image tower, or go on with the training of the fingerprint ``run`` whose state is there.

    Raises ClipEdgeError when the loss is no number any more, UsageError for a damaged or foreign state.
    """
    learner = _Learner(student, work)
    found = load_state(state_path, learner.tensors(), run)
    if found is not None:
        learner.restore(found)
    recipe, progress = work.recipe, learner.progress
    with tqdm(desc="training", total=recipe.steps, initial=progress.step, unit="step", disable=None) as bar:
        while not progress.ended:
            progress.losses.append(learner.step(progress.step + 1))
            progress.step += 1
            last = progress.step == recipe.steps
            if last or progress.step % recipe.validate_every == 0:
                learner.validate()
                progress.ended = last or _is_patience_out(progress, recipe)
            if progress.ended or progress.step % recipe.save_every == 0:
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

    def __init__(self, student: Checkpoint, work: Work) -> None:
        own = {name: weight.clone() for name, weight in student.image_weights.items()}
        self.work = work
        self.tower = student_tower(replace(student, image_weights=own)).requires_grad_(True)
        self.average = copy.deepcopy(self.tower).requires_grad_(False)
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(student.logit_scale)))
        self.average_log_scale = self.log_scale.detach().clone()
        self.progress = Progress()
        self.best = self._averages()
        self.parameters: dict[str, torch.Tensor] = {**dict(self.tower.named_parameters()), LOG_SCALE: self.log_scale}
        self.optimizer = _optimizer(self.parameters, work.recipe)

    def step(self, step: int) -> float:
        """One update of the weights; returns the loss before it."""
        work, recipe = self.work, self.work.recipe
        rows, passed = batch_rows(step, len(work.lessons.rows), recipe)
        pixels = _views(work, rows, passed % recipe.views)
        teacher, same = _teacher_side(work, rows, passed % recipe.views, step)
        self.optimizer.zero_grad()

        def loss_of(images: torch.Tensor) -> torch.Tensor:
            scale = self.log_scale.exp()
            losses = distillation_losses(
                Embeddings(images, teacher.texts), teacher, scale, work.teacher.logit_scale, work.weights, same
            )
            return torch.stack(list(losses.values())).sum()

        loss = embedding_gradients(self.tower, pixels, loss_of, recipe.accumulate)
        if not math.isfinite(loss):
            raise ClipEdgeError(f"the loss of step {step} is {loss}, no number; train again with a lower learning rate")
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), MAX_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        self.optimizer.step()
        clamp_log_scale(self.log_scale)
        self._average(ema_decay(step, recipe))
        return loss

    def validate(self) -> None:
        """Score the average; the best so far is kept."""
        progress = self.progress
        scored = Scored(progress.step, validate(self.average, self.work.validation))
        progress.scores.append(scored)
        if progress.best is None or scored.score.rank > progress.best.score.rank:
            progress.best, self.best = scored, self._averages()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that has to be kept, by name."""
        tensors: dict[str, torch.Tensor] = {f"weights.{name}": weight for name, weight in self.parameters.items()}
        tensors |= {f"average.{name}": weight for name, weight in self._averages().items()}
        tensors |= {f"best.{name}": weight for name, weight in self.best.items()}
        for name, weight in self.parameters.items():
            moments = self.optimizer.state.get(weight) or _no_moments(weight)
            tensors |= {f"optimizer.{name}.{key}": value for key, value in moments.items()}
        return tensors

    def restore(self, state: State) -> None:
        """Go back to what ``tensors`` gave."""
        tensors = state.tensors
        with torch.no_grad():
            for name, weight in self.parameters.items():
                weight.copy_(tensors[f"weights.{name}"])
                moments = {key: tensors[f"optimizer.{name}.{key}"] for key in _no_moments(weight)}
                if state.progress.step:
                    self.optimizer.state[weight] = moments
            for name, weight in self._references().items():
                weight.copy_(tensors[f"average.{name}"])
        self.best = {name: tensors[f"best.{name}"] for name in self.best}
        self.progress = state.progress

    def result(self) -> Trained:
        weights = dict(self.best)
        return Trained(weights, float(weights.pop(LOG_SCALE)), self.progress)

    def _average(self, decay: float) -> None:
        with torch.no_grad():
            for name, average in self._references().items():
                average.lerp_(self.parameters[name], 1 - decay)

    def _references(self) -> dict[str, torch.Tensor]:
        return {**dict(self.average.named_parameters()), LOG_SCALE: self.average_log_scale}

    def _averages(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self._references().items()}


def _optimizer(parameters: dict[str, torch.Tensor], recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices and kernels, not on gains, biases, positions and the scale."""
    decays = {name: weight.ndim >= 2 and not name.endswith(".position") for name, weight in parameters.items()}
    groups = [
        {
            "params": [weight for name, weight in parameters.items() if decays[name] == decay],
            "weight_decay": recipe.weight_decay * decay,
        }
        for decay in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=BETAS, eps=EPS)


def _no_moments(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """AdamW's state of a weight before the first step, under its own names."""
    return {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}


def embedding_gradients(
    tower: torch.nn.Module, pixels: torch.Tensor, loss_of: Callable[[torch.Tensor], torch.Tensor], parts: int
) -> float:
    """Add the loss's gradients to the tower's parameters; returns the loss.

    ``loss_of`` takes the embeddings (N, D) of all ``pixels`` (N, H, W, 3), which a contrastive loss needs at once. In
    several ``parts`` they are computed without gradients first and then again part by part, each with its share of the
    gradients of the embeddings: memory is that of a part, the result that of the whole, for one more forward pass
    (GradCache, Gao et al. 2021, arXiv 2101.06983).
    """
    if parts == 1:
        loss = loss_of(tower(pixels))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()
    pieces = pixels.tensor_split(parts)
    with torch.no_grad():
        embeds = torch.cat([tower(piece) for piece in pieces])
    embeds.requires_grad_()
    loss = loss_of(embeds)
    loss.backward()  # type: ignore[no-untyped-call]
    assert embeds.grad is not None
    for piece, gradient in zip(pieces, embeds.grad.tensor_split(parts), strict=True):
        tower(piece).backward(gradient)
    return loss.item()


def _views(work: Work, rows: npt.NDArray[np.intp], view: int) -> torch.Tensor:
    """(N, H, W, 3) uint8: the pictures of these rows of the lessons as the student takes them."""
    lessons, preprocessing = work.lessons, work.teacher.preprocessing

    def look(row: int) -> npt.NDArray[np.uint8]:
        return augmented(open_item(work.pictures.items[lessons.rows[row]]), lessons.views[row, view], preprocessing)

    return torch.from_numpy(np.stack(parallel_map(look, rows.tolist(), cores())))


def _teacher_side(
    work: Work, rows: npt.NDArray[np.intp], view: int, step: int
) -> tuple[Embeddings, torch.Tensor | None]:
    """The teacher's embeddings of the batch, each picture with one of its captions, and which captions are equal."""
    lessons = work.lessons
    images = torch.from_numpy(lessons.images[rows, view].astype(np.float32))
    if lessons.captions is None or lessons.texts is None:
        return Embeddings(images), None
    rng = np.random.default_rng((work.recipe.seed, 2, step))
    chosen = np.array([rng.choice(lessons.captions[row]) for row in rows])
    same = torch.from_numpy(chosen[:, None] == chosen[None]) & ~torch.eye(len(chosen), dtype=torch.bool)
    return Embeddings(images, torch.from_numpy(lessons.texts[chosen].astype(np.float32))), same
