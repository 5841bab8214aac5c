"""The training loop: batches of pictures and texts, contrast between them, AdamW, a moving average of the weights.

On one machine with one number of threads and one version of torch it is deterministic, and a training that was killed
and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from clipedge.errors import ClipEdgeError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.finetuning.batches import Batch, draw_batch
from clipedge.export.finetuning.exams import Exam, examine, top1
from clipedge.export.finetuning.material import Material
from clipedge.export.finetuning.objectives import class_contrast_with_terms, infonce_with_terms
from clipedge.export.finetuning.recipe import Recipe
from clipedge.export.finetuning.towers import Towers
from clipedge.export.training.contrast import Embeddings, clamp_log_scale
from clipedge.export.training.determinism import deterministic
from clipedge.export.training.gradients import embedding_gradients
from clipedge.export.training.optimizer import MAX_GRADIENT, adamw, no_moments
from clipedge.export.training.recipe import ema_decay, learning_rate
from clipedge.export.training.state import Progress, Scored, State, load_state, save_state

__all__ = ["Trained", "Work", "batch_losses", "train"]


@dataclass(frozen=True, eq=False)
class Work:
    """All that a training needs: the model, what it is trained on, and how it is scored."""

    model: Checkpoint
    material: Material
    exam: Exam
    recipe: Recipe


@dataclass(frozen=True, eq=False)
class Trained:
    """The best moving average of the weights, under ``Towers.weights``'s names, how many ``parameters`` were trained,
    and what happened."""

    weights: dict[str, torch.Tensor]
    parameters: int
    progress: Progress


def train(work: Work, state_path: Path, run: str) -> Trained:
    """Tune the model, or go on with the training of the fingerprint ``run`` whose state is there.

    Raises ClipEdgeError when the loss is no number any more, UsageError for a damaged or foreign state.
    """
    learner = _Learner(work)
    found = load_state(state_path, learner.tensors(), run)
    if found is not None:
        learner.restore(found)
    recipe, progress = work.recipe, learner.progress
    with deterministic(), tqdm(desc="training", total=recipe.steps, initial=progress.step, disable=None) as bar:
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
    return f"{text}, top-1 {top1(progress.scores[-1].score):.1%}" if progress.scores else text


def batch_losses(
    images: torch.Tensor, texts: torch.Tensor, batch: Batch, by_class: bool, scale: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The loss and its terms, by name. ``images`` (V, N, D) and ``texts`` (K, G, D) are the batch's embeddings."""
    other_images = images[1] if len(images) > 1 else None
    other_texts = texts[1] if len(texts) > 1 else None
    if by_class:
        return class_contrast_with_terms(
            Embeddings(images[0], texts[0]), batch.places, scale, other_images, other_texts
        )
    own = Embeddings(images[0], texts[0][batch.places])
    others = None if other_texts is None else other_texts[batch.places]
    return infonce_with_terms(own, scale, batch.same, other_images, others)


class _Learner:
    """What changes from step to step: weights, their averages, the optimizer."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.towers = Towers(work.model)
        if work.recipe.lora is not None:
            self.towers.add_lora(work.recipe.lora, work.recipe.seed)
        self.parameters = self.towers.trained()
        self.average = copy.deepcopy(self.towers)
        self.averages = self.average.trained()
        self.average.requires_grad_(False)
        self.progress = Progress()
        self.best = self._copy()
        self.optimizer = adamw(self.parameters, work.recipe.rate, work.recipe.weight_decay)

    def step(self, step: int) -> float:
        """One update of the weights; returns the loss before it."""
        work, recipe = self.work, self.work.recipe
        batch = draw_batch(work.material, work.model.preprocessing, recipe, step)
        views, count = batch.pixels.shape[:2]
        wordings, texts_count = batch.tokens.shape[:2]
        factors = {"image_text": 1.0, "image_image": recipe.image_image, "text_text": recipe.text_text}

        def loss_of(embeds: torch.Tensor) -> torch.Tensor:
            images = embeds.reshape(views, count, -1)
            texts = self.towers.text(batch.tokens.flatten(0, 1)).reshape(wordings, texts_count, -1)
            scale = self.towers.log_scale.exp()
            losses = batch_losses(images, texts, batch, work.material.has_classes, scale)
            return torch.stack([factors[name] * loss for name, loss in losses.items()]).sum()

        self.optimizer.zero_grad(set_to_none=True)
        loss = embedding_gradients(self.towers.image, batch.pixels.flatten(0, 1), loss_of, recipe.accumulate)
        if not math.isfinite(loss):
            raise ClipEdgeError(f"the loss of step {step} is {loss}, no number; tune again with a lower learning rate")
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), MAX_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        self.optimizer.step()
        clamp_log_scale(self.towers.log_scale)
        decay = ema_decay(step, recipe)
        with torch.no_grad():
            for name, average in self.averages.items():
                average.lerp_(self.parameters[name], 1 - decay)
        return loss

    def validate(self) -> None:
        """Score the average; the best so far is kept."""
        progress = self.progress
        scored = Scored(progress.step, examine(self.average, self.work.exam))
        progress.scores.append(scored)
        if progress.best is None or scored.score.rank > progress.best.score.rank:
            progress.best, self.best = scored, self._copy()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that has to be kept, by name."""
        tensors: dict[str, torch.Tensor] = {f"weights.{name}": weight for name, weight in self.parameters.items()}
        tensors |= {f"average.{name}": weight for name, weight in self.averages.items()}
        tensors |= {f"best.{name}": weight for name, weight in self.best.items()}
        for name, weight in self.parameters.items():
            moments = self.optimizer.state.get(weight) or no_moments(weight)
            tensors |= {f"optimizer.{name}.{key}": value for key, value in moments.items()}
        return tensors

    def restore(self, state: State) -> None:
        """Go back to what ``tensors`` gave."""
        tensors = state.tensors
        with torch.no_grad():
            for name, weight in self.parameters.items():
                weight.copy_(tensors[f"weights.{name}"])
                self.averages[name].copy_(tensors[f"average.{name}"])
                moments = {key: tensors[f"optimizer.{name}.{key}"] for key in no_moments(weight)}
                if state.progress.step:
                    self.optimizer.state[weight] = moments
        self.best = {name: tensors[f"best.{name}"] for name in self.best}
        self.progress = state.progress

    def result(self) -> Trained:
        """The best average, updates merged into it."""
        with torch.no_grad():
            for name, average in self.averages.items():
                average.copy_(self.best[name])
        count = sum(weight.numel() for weight in self.parameters.values())
        return Trained(self.average.weights(), count, self.progress)

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self.averages.items()}
