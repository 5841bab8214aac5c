"""What something was made of, as JSON, and how two such documents differ: for messages that name one difference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["first_difference", "plain"]


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples become lists."""
    found: dict[str, Any] = json.loads(json.dumps(facts))
    return found


def first_difference(asked: Mapping[str, Any], earlier: Mapping[str, Any]) -> str | None:
    """ "expected NAME VALUE, found VALUE" of the first entry that differs, named with dots; None if none does."""
    ours, theirs = _flat(plain(asked)), _flat(earlier)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            return f"expected {name} {ours.get(name)!s:.70}, found {theirs.get(name)!s:.70}"
    return None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
