"""How a file holds one tower of a model: under which names and shapes, and what makes canonical weights of them.

A family's reader gives one ``TowerLayout`` for each tower. The tensors of both are then read and checked in one go
(``clipedge.export.checkpoints.tensors.read_tensors``), since only a file's whole list of names tells what is missing
and what is left over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import torch

from clipedge.export.checkpoints.configs import ImageConfig, TextConfig
from clipedge.export.checkpoints.tensors import Shape

__all__ = ["ImageLayout", "TextLayout", "TowerLayout"]

ConfigT = TypeVar("ConfigT")


def _none_ignored(name: str) -> bool:
    return False


@dataclass(frozen=True, eq=False)
class TowerLayout(Generic[ConfigT]):
    """``shapes`` are the tensors by their names in the file; ``canonical`` takes them, float32, and returns the
    tower's weights by its parameters' names. ``ignored`` tells names that may be in the file and are not wanted."""

    config: ConfigT
    shapes: Mapping[str, Shape]
    canonical: Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]
    ignored: Callable[[str], bool] = _none_ignored


ImageLayout: TypeAlias = TowerLayout[ImageConfig]
TextLayout: TypeAlias = TowerLayout[TextConfig]
