"""A training's curves as TensorBoard's event files, for who follows it in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipedge.errors import MissingDependencyError
from clipedge.export.training.recipe import TrainingRecipe, learning_rate
from clipedge.export.training.state import Progress

__all__ = ["followed", "require_tensorboard"]


def require_tensorboard() -> Any:
    """torch's writer of event files. Raises MissingDependencyError without TensorBoard, which it needs."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingDependencyError(
            '--tensorboard needs the tensorboard library; install it with pip install "clipedge[tensorboard]"'
        ) from None
    return SummaryWriter


@contextmanager
def followed(folder: Path | None, recipe: TrainingRecipe, done: int) -> Iterator[Callable[[Progress], None]]:
    """A function to be called after every step, which writes that step's numbers to ``folder``; None writes nothing.

    ``done`` steps have been done before. What an earlier process wrote of later steps, before it was killed, is hidden
    by TensorBoard: these steps are done again.
    """
    if folder is None:
        yield lambda progress: None
        return
    writer = require_tensorboard()(folder, purge_step=done + 1)

    def follow(progress: Progress) -> None:
        step = progress.step
        writer.add_scalar("loss", progress.losses[-1], step)
        writer.add_scalar("learning_rate", learning_rate(step, recipe), step)
        if progress.scores and progress.scores[-1].step == step:
            score = progress.scores[-1].score
            writer.add_scalar("validation/cosine", score.cosine, step)
            if score.accuracy is not None:
                writer.add_scalar("validation/top-1", score.accuracy, step)
        if progress.ended or step % recipe.save_every == 0:  # a state is saved: these steps are not done again
            writer.flush()

    try:
        yield follow
    finally:
        writer.close()
