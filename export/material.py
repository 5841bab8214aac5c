"""What an export works with: calibration and proof pictures, labels and templates, texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.calibration import scenes
from clipedge.calibration.data import SCENES, Pictures, read_pictures, scene_pictures, split_pictures
from clipedge.calibration.texts import tower_texts
from clipedge.errors import UsageError
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint
from clipedge.prompts.bank import check_labels
from clipedge.text import DEFAULT_TEMPLATES

__all__ = ["Material", "gather_material", "truth_of"]

CALIBRATION_SCENES = 512
# The demonstration model's accuracy is known on scenes: 2,000 of them resolve a drop of half a point. Any other
# model's embeddings of scenes say something about parity only, which fewer show.
DEMO_PROOF_SCENES = 2000
PROOF_SCENES = 128


@dataclass(frozen=True)
class Material:
    """``truth`` holds for each proof picture the index of its label, or is None where that is not known."""

    calibration: Pictures
    proof: Pictures
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    truth: npt.NDArray[np.int64] | None
    calibration_texts: Sequence[str]
    proof_texts: Sequence[str]


def gather_material(
    checkpoint: Checkpoint,
    precision: str,
    calibration_data: str | os.PathLike[str] | None,
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
) -> Material:
    """Decide on pictures and prompts: the user's own where given, scenes where they prove something.

    Raises UsageError for INT8 or FP8 without calibration pictures (except for the demonstration checkpoint), and for
    folders and labels that cannot be used.
    """
    is_demo = Path(checkpoint.source.model).resolve() == DEMO_CHECKPOINT.resolve()
    if calibration_data is None and precision in ("int8", "fp8") and not is_demo:
        raise UsageError(
            f"{precision.upper()} needs calibration pictures of the kind the camera will see, and none were given: add "
            f"--calibration-data FOLDER (some hundreds). Rendered scenes prove nothing for this model; "
            f"--calibration-data {SCENES} insists on them"
        )
    are_scenes = calibration_data is None or str(calibration_data) == SCENES
    if calibration_data is None or are_scenes:
        calibration, proof = _scene_sets(checkpoint, is_demo)
    else:
        calibration, proof = split_pictures(read_pictures(calibration_data))
    chosen, chosen_templates, truth = _prompts(proof, labels, templates, are_scenes, is_demo)
    calibration_texts, proof_texts = tower_texts(chosen, chosen_templates)
    return Material(calibration, proof, chosen, chosen_templates, truth, calibration_texts, proof_texts)


def _scene_sets(checkpoint: Checkpoint, is_demo: bool) -> tuple[Pictures, Pictures]:
    size = checkpoint.preprocessing.height
    proof = scene_pictures("proof", DEMO_PROOF_SCENES if is_demo else PROOF_SCENES, size)
    return scene_pictures("calibration", CALIBRATION_SCENES if is_demo else PROOF_SCENES, size), proof


def _prompts(
    proof: Pictures,
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
    are_scenes: bool,
    is_demo: bool,
) -> tuple[tuple[str, ...], tuple[str, ...], npt.NDArray[np.int64] | None]:
    """Labels, templates, and for each proof picture the index of its label where all of that is known."""
    own_templates = tuple(templates) if templates else None
    if labels is None:
        if are_scenes and not is_demo:
            return (), own_templates or DEFAULT_TEMPLATES, None
        default = scenes.TEMPLATES if are_scenes else DEFAULT_TEMPLATES
        return proof.class_names, own_templates or default, proof.labels
    check_labels(labels)
    return tuple(labels), own_templates or DEFAULT_TEMPLATES, truth_of(proof, labels)


def truth_of(proof: Pictures, labels: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """For each proof picture the index of its label: its class is one of them, or a number that counts them."""
    if proof.labels is None:
        return None
    if set(proof.class_names) <= set(labels):
        places = [labels.index(name) for name in proof.class_names]
    elif all(name.isdecimal() and int(name) < len(labels) for name in proof.class_names):
        places = [int(name) for name in proof.class_names]
    else:
        return None
    return np.array(places)[proof.labels]
