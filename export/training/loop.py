"""The training loop: steps, validations, a state that a killed training goes on with, early stopping, progress.

On one machine with one number of threads and one version of torch it is deterministic, and a training that was killed
and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clipedge.errors import ClipEdgeError
from clipedge.export.training.events import followed
from clipedge.export.training.learner import Learner
from clipedge.export.training.recipe import TrainingRecipe
from clipedge.export.training.scores import Score
from clipedge.export.training.state import Progress, State, load_state, save_state

__all__ = ["run_steps"]


def run_steps(
    learner: Learner,
    gradients: Callable[[int], float],
    score: Callable[[], Score],
    state_path: Path,
    run: str,
    *,
    first: bool = True,
    events: Path | None = None,
) -> None:
    """Train, or go on with the training of the fingerprint ``run`` whose state is there.

    ``gradients`` adds those of a step, counted from 1, to the learner's parameters and returns the loss before it;
    ``score`` is that of the averages. Of several processes the ``first`` writes. ``events``: a folder for TensorBoard's
    files. Raises ClipEdgeError when the loss is no number any more, UsageError for a damaged or foreign state.
    """
    found = load_state(state_path, learner.tensors(), run)
    if found is not None:
        learner.restore(found)
    recipe, progress = learner.recipe, learner.progress
    bar = tqdm(desc="training", total=recipe.steps, initial=progress.step, unit="step", disable=None if first else True)
    with bar, followed(events if first else None, recipe, progress.step) as follow:
        while not progress.ended:
            _step(learner, gradients)
            last = progress.step == recipe.steps
            if last or progress.step % recipe.validate_every == 0:
                learner.take(score())
                progress.ended = last or _is_patience_out(progress, recipe)
            follow(progress)
            if first and (progress.ended or progress.step % recipe.save_every == 0):
                save_state(state_path, State(learner.tensors(), progress), run)
            bar.set_postfix_str(_postfix(progress), refresh=False)
            bar.update()


def _step(learner: Learner, gradients: Callable[[int], float]) -> None:
    step = learner.progress.step + 1
    learner.optimizer.zero_grad()
    loss = gradients(step)
    if not math.isfinite(loss):
        raise ClipEdgeError(f"the loss of step {step} is {loss}, no number; train again with a lower learning rate")
    learner.update(step)
    learner.progress.losses.append(loss)
    learner.progress.step = step


def _is_patience_out(progress: Progress, recipe: TrainingRecipe) -> bool:
    if recipe.patience is None or progress.best is None:
        return False
    return sum(scored.step > progress.best.step for scored in progress.scores) >= recipe.patience


def _postfix(progress: Progress) -> str:
    text = f"loss {np.mean(progress.losses[-50:]):.3f}"
    if progress.scores:
        score = progress.scores[-1].score
        text += f", cosine {score.cosine:.3f}" if score.accuracy is None else f", top-1 {score.accuracy:.1%}"
    return text
