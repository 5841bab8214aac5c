"""Reading JSON configurations strictly: every value is checked, and every message names the file and the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipedge.errors import CheckpointError

__all__ = ["Section", "read_json"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises CheckpointError when the file cannot be read or holds anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); fetch the checkpoint again") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch the checkpoint again")
    return document


@dataclass(frozen=True)
class Section:
    """One object of a configuration file, with its place for the messages."""

    path: Path
    name: str
    values: Mapping[str, Any]

    def refuse(self, key: str, expected: str) -> CheckpointError:
        place = f"{self.name}.{key}" if self.name else key
        return CheckpointError(f"{self.path}: {place}: expected {expected}, found {self.values.get(key)!r:.60}")

    def integer(self, key: str, default: int) -> int:
        value = self.values.get(key, default)
        # `type(...) is`, not isinstance: true is no size.
        if type(value) is not int or value <= 0:
            raise self.refuse(key, "a positive whole number")
        return value

    def number(self, key: str, default: float) -> float:
        """A number above zero."""
        value = self.values.get(key, default)
        if type(value) not in (float, int) or not 0 < value < float("inf"):
            raise self.refuse(key, "a number above zero")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if type(value) is not bool:
            raise self.refuse(key, "true or false")
        return value
