"""A run's folder, and in it the file (``distill.json``, say) with what was asked for, which tells it from others, and
what it came to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipedge.errors import UsageError
from clipedge.export.training.facts import first_difference
from clipedge.whole import write_whole

__all__ = ["TRAINING_NAME", "check_output", "claim", "write_result"]

TRAINING_NAME = "training"  # the folder with what a killed run goes on with
LEFTOVERS = ".*.staging*"


def check_output(folder: Path, name: str) -> None:
    """Raises UsageError for what is neither empty nor the folder of a run whose file has this name."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a new folder for the result")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / name).is_file():
        known = {TRAINING_NAME}  # a run that was killed before it wrote its settings
        if {path.name for path in folder.iterdir()} - known:
            raise UsageError(f"{folder} holds files and no {name}; name a new folder for the result")


def claim(folder: Path, settings: Mapping[str, Any], name: str) -> str:
    """Write the settings to the folder, or see that it has the same; returns their fingerprint.

    What a killed run had begun to write (``clipedge.whole``) is removed: a state is several times a model's size.
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
    for leftover in (*folder.glob(LEFTOVERS), *(folder / TRAINING_NAME).rglob(LEFTOVERS)):
        leftover.unlink(missing_ok=True)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _read_run(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged ({error!s:.80}); name another folder for the result") from None
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise UsageError(f"{path} is damaged (no settings); name another folder for the result")
    return found


def write_result(folder: Path, result: Mapping[str, Any], name: str) -> None:
    """Put the result beside the settings."""
    path = folder / name
    write_whole(path, _json({"settings": _read_run(path)["settings"], "result": result}))


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
