"""One process or several, on processors, GPUs and machines: which of them this is, and what the first does for all.

Hugging Face Accelerate reads what a launcher has set (``accelerate launch``, ``torchrun``), joins the processes,
chooses each one's device and wraps a tower in DistributedDataParallel. No more of it is used: not its optimizer and its
checkpoints, because a training's state is one file of ours, the same for any number of processes and bit-exact for one
(``state.py``), and not its mixed precision (``precision.py`` says why).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, InitProcessGroupKwargs, PartialState
from accelerate.utils import DistributedType, broadcast_object_list

from clipedge.errors import ClipEdgeError, UsageError
from clipedge.export.training.precision import Precision

__all__ = ["by_first", "first_then_others", "is_first", "join_processes", "leave_processes", "only_first_warns"]

T = TypeVar("T")

# The others wait while the first validates and exports. No time limit has to find a process that died: its launcher
# ends all of them.
PATIENCE = timedelta(days=7)
SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
LAUNCHER_PRECISION = "ACCELERATE_MIXED_PRECISION"  # what `accelerate launch --mixed_precision` sets


def join_processes(precision: Precision | None = None) -> Accelerator:
    """Join those that a launcher started, or be alone; called again, it gives the same. ``precision`` is a training's.

    Raises UsageError where the launcher asks for something that this training does not do.
    """
    asked = os.environ.get(LAUNCHER_PRECISION, "no")
    if precision is not None and asked not in ("no", precision):
        raise UsageError(
            f"the launcher asks for mixed precision {asked}, the training for {precision}: leave it out there, and "
            f"write --mixed-precision {asked} to `clipedge distill`"
        )
    accelerator = Accelerator(
        # Without this, processes that torchrun started on a machine without a GPU would each be alone.
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise UsageError(
            f"expected {started} processes, as WORLD_SIZE says, to train together, found {accelerator.num_processes}; "
            "start them with torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    if accelerator.distributed_type not in SUPPORTED:
        raise UsageError(
            f"the launcher asks for {accelerator.distributed_type.value}; expected processes that each hold the whole "
            "student: accelerate launch --multi_gpu or --cpu, or torchrun"
        )
    return accelerator


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return bool(PartialState().is_main_process)


def leave_processes() -> None:
    """Say that this process is done with the others; after this it cannot join them again."""
    PartialState().destroy_process_group()


def by_first(work: Callable[[], T]) -> T:
    """What ``work`` gives in the first process, in all of them. An error of ClipEdge's there is raised in all."""
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            outcome[0] = work()
        except ClipEdgeError as error:
            outcome[1] = error
    result, failure = broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    found: T = result
    return found


def first_then_others(work: Callable[[], T]) -> T:
    """``work`` in the first process and then in the others, which find the files that it has written."""
    results: list[T] = []
    by_first(lambda: results.append(work()))
    return results[0] if results else work()


@contextmanager
def only_first_warns() -> Iterator[None]:
    """All processes see the same pictures; what is wrong with them is said once."""
    with warnings.catch_warnings():
        if not is_first():
            warnings.simplefilter("ignore")
        yield
