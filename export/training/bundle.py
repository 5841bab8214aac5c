"""A trained model's bundle: exported at the end of a training that is asked for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from clipedge.calibration import scenes
from clipedge.calibration.data import SCENES
from clipedge.errors import UsageError
from clipedge.export.pipeline import PRECISIONS, export
from clipedge.export.training.data import scene_count
from clipedge.manifest import Precision

__all__ = ["checked_precisions", "export_result"]

BUNDLE_NAME = "bundle"


def checked_precisions(precision: Precision | Sequence[Precision]) -> tuple[Precision, ...]:
    """One or several, as a tuple. Raises UsageError for what the export would refuse, but only after the training."""
    precisions: tuple[Precision, ...] = (precision,) if isinstance(precision, str) else tuple(precision)
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown:
        raise UsageError(f"--export {unknown[0]}: expected {' or '.join(PRECISIONS)}")
    return precisions


def export_result(
    folder: Path,
    precisions: Sequence[Precision],
    data: str | os.PathLike[str],
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
) -> str:
    """The bundle of what a folder holds, calibrated and proven on the pictures that it was trained on."""
    bundle, are_scenes = folder / BUNDLE_NAME, scene_count(data) is not None
    export(
        folder,
        bundle,
        precision=precisions,
        calibration_data=SCENES if are_scenes else data,
        labels=scenes.CLASS_NAMES if are_scenes and labels is None else labels,
        templates=scenes.TEMPLATES if are_scenes and templates is None else templates,
    )
    return os.fspath(bundle)
