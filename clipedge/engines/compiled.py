"""What every builder of engines takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clipedge.backends import Engine

__all__ = ["Compiled", "Progress"]

# Called with what is being done, the steps of it done, and all.
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Compiled:
    """An engine just built, opened for its proof; ``made_for`` as in its record; ``builder``: what built it."""

    engine: Engine
    made_for: dict[str, str]
    builder: str
