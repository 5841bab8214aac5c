"""Mixed precision: the student's matrix products in half precision; its weights, losses and updates in float32.

After Micikevicius et al. 2018, "Mixed Precision Training", arXiv 1710.03740. By torch's own autocast and gradient
scaler: Accelerate's belong to a process for its life, so that a program could not train two students differently, and
they refuse float16 on the CPU, where it can be tested.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch

__all__ = ["PRECISIONS", "Precision", "autocast", "gradient_scaler"]

Precision: TypeAlias = Literal["no", "fp16", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which a tower's matrix products are computed in this precision."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "no")


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Keeps small gradients above what float16 can hold, and leaves an update out when one of them overflows.

    For the other precisions, which have float32's range, it does nothing.
    """
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
