"""``distill.json`` (or another name), next to the result: what a run was asked for, which tells it from others, and
what it came to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipedge.errors import UsageError
from clipedge.export.distillation.facts import first_difference
from clipedge.whole import write_whole

__all__ = ["RUN_NAME", "claim", "write_result"]

RUN_NAME = "distill.json"


def claim(folder: Path, settings: Mapping[str, Any], name: str = RUN_NAME) -> str:
    """Write the settings to the folder, or see that it has the same; returns their fingerprint.

    Raises UsageError that names the first difference.
    """
    path = folder / name
    if path.is_file():
        difference = first_difference(settings, _read_run(path)["settings"])
        if difference:
            raise UsageError(
                f"{folder} has a run with other settings: {difference}; name another folder, or the same settings to "
                "go on"
            )
    else:
        write_whole(path, _json({"settings": settings, "result": None}))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _read_run(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged ({error!s:.80}); name another folder for the result") from None
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise UsageError(f"{path} is damaged (no settings); name another folder for the result")
    return found


def write_result(folder: Path, result: Mapping[str, Any], name: str = RUN_NAME) -> None:
    """Put the result beside the settings."""
    path = folder / name
    write_whole(path, _json({"settings": _read_run(path)["settings"], "result": result}))


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
