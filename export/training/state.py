"""A training between two steps, in one file: written as a whole, read back bit for bit, by any number of processes.

Everything random is a function of the seed and the step (``recipe.batch_rows``, ``trainer``), so the step is the data's
position and there is no generator whose state would have to be kept.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from clipedge.errors import UsageError
from clipedge.export.training.scores import Score
from clipedge.whole import write_whole

__all__ = ["STATE_NAME", "Progress", "Scored", "State", "load_state", "save_state"]

STATE_NAME = "state.safetensors"
KEY = "clipedge_training"


@dataclass(frozen=True)
class Scored:
    """A validation after a step."""

    step: int
    score: Score


@dataclass
class Progress:
    """What has happened: ``losses`` after each step, all validations, the best of them, and whether it has ended."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    best: Scored | None = None
    ended: bool = False


@dataclass(frozen=True, eq=False)
class State:
    """``tensors``: the weights and running statistics, their moving average, the best average, the optimizer's
    moments and with float16 the gradients' scale, by name."""

    tensors: dict[str, torch.Tensor]
    progress: Progress


def save_state(path: Path, state: State, run: str) -> None:
    """Write a state of the run of this fingerprint over an earlier one."""
    head = {"run": run, "progress": asdict(state.progress)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    write_whole(path, save(tensors, {KEY: json.dumps(head)}))


def load_state(path: Path, like: dict[str, torch.Tensor], run: str) -> State | None:
    """Read a state; None if there is none yet. ``like`` has the names and shapes that are expected.

    Raises UsageError for a file that is damaged, or of another run.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        if head["run"] != run:
            raise UsageError(f"{path} is of a training with other settings; name another folder, or delete that file")
        progress = _progress(head["progress"])
    except UsageError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged ({error!s:.100}); delete it to begin the training again") from None
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in like.items()}
    if {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} != shapes:
        raise UsageError(f"{path} holds other tensors than this model has; delete it to begin the training again")
    return State(tensors, progress)


def _progress(values: dict[str, Any]) -> Progress:
    def scored(entry: dict[str, Any]) -> Scored:
        score = entry["score"]
        accuracy, texts = (
            None if part is None else float(part) for part in (score["accuracy"], score.get("text_cosine"))
        )
        return Scored(int(entry["step"]), Score(accuracy, float(score["cosine"]), texts))

    best = values["best"]
    progress = Progress(
        int(values["step"]),
        [float(loss) for loss in values["losses"]],
        [scored(entry) for entry in values["scores"]],
        None if best is None else scored(best),
        bool(values["ended"]),
    )
    if progress.step != len(progress.losses):
        raise ValueError(f"{len(progress.losses)} losses after {progress.step} steps")
    return progress
