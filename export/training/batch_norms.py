"""BatchNorm in training (Ioffe and Szegedy 2015, arXiv 1502.03167): what a tower learns without gradients.

A BatchNorm normalises by mean and variance of the pictures that it sees together, and keeps running statistics of both,
by which the student is validated and used. They belong to what is trained: the moving average of the weights has the
same average of them, and a training's state holds all.

What is seen together is a part of a batch, where a batch has parts (``--accumulate``), and of several processes each
one's share. The losses are still those of the whole batch, and their gradients exact, for an embedding depends on the
pictures of its own part and on no others (``gradients.py``). After each step the running statistics are averaged over
the processes: they are the same in all, and every picture counts. So a student with BatchNorms, other than one
without, depends on the number of parts and processes. torch's SyncBatchNorm, with which it would not on the number of
processes, computes on GPUs alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import nn

__all__ = ["average_statistics", "has_statistics", "keep_statistics", "kept_buffers", "learn_statistics"]


def learn_statistics(tower: nn.Module) -> None:
    """Have the tower's BatchNorms normalise by what they see and keep running statistics.

    Every other module stays as in use: dropout would need a generator whose state a resumed training had to know.
    """
    for module in tower.modules():
        if getattr(module, "running_var", None) is not None:
            module.training = True


def has_statistics(tower: nn.Module) -> bool:
    """Whether the tower has anything for ``learn_statistics``."""
    return any(getattr(module, "running_var", None) is not None for module in tower.modules())


def kept_buffers(tower: nn.Module) -> dict[str, torch.Tensor]:
    """What of the tower's state is no parameter, by name: running statistics, counts, tables. Not copied."""
    state = tower.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if not isinstance(value, nn.Parameter)}


@contextmanager
def keep_statistics(tower: nn.Module) -> Iterator[None]:
    """In this context the tower may look at pictures without learning statistics of them.

    No gradient may be taken afterwards of what was computed inside.
    """
    before = {name: value.clone() for name, value in kept_buffers(tower).items()}
    yield
    with torch.no_grad():
        for name, value in kept_buffers(tower).items():
            value.copy_(before[name])


def average_statistics(tower: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the mean of all processes' running statistics."""
    floats = [value for value in kept_buffers(tower).values() if value.is_floating_point()]
    if accelerator.num_processes == 1 or not floats:
        return
    mean = accelerator.reduce(torch.cat([value.flatten() for value in floats]), reduction="mean")
    with torch.no_grad():
        for value, part in zip(floats, mean.split([value.numel() for value in floats]), strict=True):
            value.copy_(part.view_as(value))
