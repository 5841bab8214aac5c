"""How a model is tuned: batches of pictures and texts, contrast between them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from clipedge.export.checkpoints import Checkpoint
from clipedge.export.finetuning.batches import Batch, draw_batch
from clipedge.export.finetuning.exams import Exam, examine
from clipedge.export.finetuning.material import Material
from clipedge.export.finetuning.objectives import class_contrast_with_terms, infonce_with_terms
from clipedge.export.finetuning.recipe import Recipe
from clipedge.export.finetuning.towers import Towers
from clipedge.export.training.contrast import Embeddings
from clipedge.export.training.gradients import embedding_gradients
from clipedge.export.training.learner import Learner
from clipedge.export.training.loop import run_steps
from clipedge.export.training.precision import gradient_scaler
from clipedge.export.training.state import Progress

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
    recipe = work.recipe
    towers = Towers(work.model)
    if recipe.lora is not None:
        towers.add_lora(recipe.lora, recipe.seed)
    average = copy.deepcopy(towers)
    parameters, averages = towers.trained(), average.trained()
    average.requires_grad_(False)
    learner = Learner(parameters, averages, recipe, gradient_scaler("no", torch.device("cpu")))
    with _deterministic():
        run_steps(
            learner, lambda step: _gradients(towers, work, step), lambda: examine(average, work.exam), state_path, run
        )
    with torch.no_grad():
        for name, weight in averages.items():
            weight.copy_(learner.best[name])
    count = sum(weight.numel() for weight in parameters.values())
    return Trained(average.weights(), count, learner.progress)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Gradients of token embeddings are summed in threads, in any order unless told otherwise."""
    earlier = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(earlier)


def _gradients(towers: Towers, work: Work, step: int) -> float:
    """Add a step's gradients to the towers; returns the loss."""
    recipe = work.recipe
    batch = draw_batch(work.material, work.model.preprocessing, recipe, step)
    views, count = batch.pixels.shape[:2]
    wordings, texts_count = batch.tokens.shape[:2]
    factors = {"image_text": 1.0, "image_image": recipe.image_image, "text_text": recipe.text_text}

    def loss_of(embeds: torch.Tensor) -> torch.Tensor:
        images = embeds.reshape(views, count, -1)
        texts = towers.text(batch.tokens.flatten(0, 1)).reshape(wordings, texts_count, -1)
        losses = batch_losses(images, texts, batch, work.material.has_classes, towers.log_scale.exp())
        return torch.stack([factors[name] * loss for name, loss in losses.items()]).sum()

    return embedding_gradients(towers.image, batch.pixels.flatten(0, 1), loss_of, recipe.accumulate)


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
