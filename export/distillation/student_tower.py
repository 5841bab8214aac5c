"""The student's image tower in the form that is trained: the same function of the same weights, for less work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch

from clipedge.export.checkpoints import Checkpoint
from clipedge.export.towers import AnyImageTower, Block, ImageTower, build_image_tower
from clipedge.export.towers.blocks import Attention, activate, attend
from clipedge.export.training.batch_norms import learn_statistics

__all__ = ["student_tower", "undecayed", "weights_of"]

LIBRARY_PREFIX = "source."  # in front of a library's own names, in a tower that it built


def student_tower(student: Checkpoint) -> AnyImageTower:
    """``build_image_tower`` with a last block that computes nothing which the embedding does not depend on.

    Parameters have the names that they have there. With few blocks that is much: with three, a quarter of a step.
    BatchNorms of a library's tower learn their statistics.
    """
    tower = build_image_tower(student)
    if isinstance(tower, ImageTower) and tower.pooling is None:
        last = cast(Block, tower.blocks[-1])
        attn = cast(Attention, last.attn)
        tower.blocks[-1] = _LastBlock(last.norm1, attn, last.norm2, last.fc1, last.fc2, last.activation)
    learn_statistics(tower)
    return tower


def undecayed(tower: torch.nn.Module) -> set[str]:
    """The parameters that a library's own training leaves without weight decay: timm's networks name them, positions
    and class tokens mostly."""
    return {
        f"{place}.{name}"
        for place, module in tower.named_modules()
        if callable(names := getattr(module, "no_weight_decay", None))
        for name in names()
    }


def weights_of(trained: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a trained tower by the names that a checkpoint has."""
    return {name.removeprefix(LIBRARY_PREFIX): weight for name, weight in trained.items()}


class _LastBlock(Block):
    """A block of which only the class token is wanted: of the others no more than keys and values."""

    def forward(self, hidden: torch.Tensor, position: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, T, W) to (B, 1, W)."""
        attn, normed = cast(Attention, self.attn), self.norm1(hidden)
        query, key, value = attn.query(normed[:, :1]), attn.key(normed), attn.value(normed)
        pooled = hidden[:, :1] + attn.out(attend(query, key, value, attn.heads, attn.scale, mask))
        embedded: torch.Tensor = pooled + self.fc2(activate(self.fc1(self.norm2(pooled)), self.activation))
        return embedded
