"""The gradients of a loss over a whole batch, for less memory than the batch needs and by several processes.

A contrastive or relational loss compares every embedding with every other, so it cannot be taken of a part of a batch.
But given all embeddings E (N, D), it is a cheap function of them, and by the chain rule the gradient of the weights is

    dL/dw = sum over rows i of (dE_i/dw)^T dL/dE_i

a sum over rows again, each of which needs its own picture alone (GradCache, Gao et al. 2021, arXiv 2101.06983). So the
embeddings are computed first, then L and dL/dE from all of them, and then the sum is made piece by piece.

Of P processes, each computes the embeddings of its own N / P rows; they are gathered, without gradients, so every
process has all of E and computes the same L and dL/dE. It adds up the terms of its own rows. DistributedDataParallel
makes of the P partial sums S_p their mean, (S_1 + ... + S_P) / P, where the sum is wanted; so each process multiplies
its rows of dL/dE by P. What L depends on besides the embeddings, the logit scale, has its whole gradient in every
process already, and is not averaged.

Towers of two kinds, for pictures and for texts, have embeddings and sums of their own: the same is done for each.

An all-gather that lets gradients through gives the same: each embedding then gets the gradients of P equal losses, P
times dL/dE, before the mean is taken. Those gradients would have to be sent, too.

With BatchNorms an embedding depends on all pictures of its part. The sum is then one over parts, each with the
derivative of all its embeddings, and as exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext

import torch
from accelerate import Accelerator

from clipedge.export.training.batch_norms import keep_statistics
from clipedge.export.training.precision import Precision, autocast

__all__ = ["embedding_gradients", "joint_gradients"]


def embedding_gradients(
    tower: torch.nn.Module,
    pixels: torch.Tensor,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    parts: int,
    *,
    accelerator: Accelerator | None = None,
    precision: Precision = "no",
    scaler: torch.amp.GradScaler | None = None,
) -> float:
    """``joint_gradients`` of one tower."""
    sides = [(tower, pixels)]
    return joint_gradients(sides, loss_of, parts, accelerator=accelerator, precision=precision, scaler=scaler)


def joint_gradients(
    sides: Sequence[tuple[torch.nn.Module, torch.Tensor]],
    loss_of: Callable[..., torch.Tensor],
    parts: int,
    *,
    accelerator: Accelerator | None = None,
    precision: Precision = "no",
    scaler: torch.amp.GradScaler | None = None,
) -> float:
    """Add the loss's gradients to the parameters of towers, each with its inputs; returns the loss.

    ``loss_of`` takes each tower's embeddings (N, D) of all processes' inputs, those of the first process first, and
    gives the same in each process. Inputs (N / P, ...), such as pixels (N / P, H, W, 3), are this one's, as many as
    every other's. In several ``parts`` they are embedded without gradients first and then again part by part: memory is
    that of a part, for one more forward pass. Towers are what ``accelerator`` prepared; without one this process is
    alone. ``scaler`` multiplies the gradients.
    """

    def embed(tower: torch.nn.Module, piece: torch.Tensor) -> torch.Tensor:
        with autocast(precision, piece.device):
            embeds: torch.Tensor = tower(piece)
        return embeds.to(torch.promote_types(embeds.dtype, torch.float32))

    with torch.set_grad_enabled(parts == 1), ExitStack() as kept:
        for tower, _ in sides if parts > 1 else ():
            kept.enter_context(keep_statistics(tower))
        own = [torch.cat([embed(tower, piece) for piece in inputs.tensor_split(parts)]) for tower, inputs in sides]
    count, index = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    everyones = [
        (accelerator.gather(embeds.detach()) if accelerator else embeds.detach()).requires_grad_() for embeds in own
    ]
    loss = loss_of(*everyones)
    (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
    for (tower, inputs), embeds, everyone in zip(sides, own, everyones, strict=True):
        assert everyone.grad is not None
        gradients = count * everyone.grad[index * len(inputs) : (index + 1) * len(inputs)]
        if parts == 1:
            embeds.backward(gradients)  # type: ignore[no-untyped-call]
            continue
        pieces = zip(inputs.tensor_split(parts), gradients.tensor_split(parts), strict=True)
        for number, (piece, gradient) in enumerate(pieces, start=1):
            # The processes exchange their sums once, after the last part.
            with accelerator.no_sync(tower) if accelerator and number < parts else nullcontext():
                embed(tower, piece).backward(gradient)  # type: ignore[no-untyped-call]
    return loss.item()
