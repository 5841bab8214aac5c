"""The classes of pictures that a model is trained or scored on: their names, each picture's own, their prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clipedge.calibration import scenes
from clipedge.calibration.data import Pictures
from clipedge.errors import UsageError
from clipedge.export.material import truth_of
from clipedge.prompts.bank import check_labels
from clipedge.text import DEFAULT_TEMPLATES

__all__ = ["classes_of", "default_templates"]


def classes_of(
    pictures: Pictures, labels: Sequence[str] | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64] | None]:
    """The labels, and for each picture the index of its own; nothing and None where no class is known.

    Raises UsageError for labels that are not those of the pictures.
    """
    if labels is None:
        return (pictures.class_names, pictures.labels) if pictures.labels is not None else ((), None)
    check_labels(labels)
    truth = truth_of(pictures, labels)
    if truth is None:
        raise UsageError(
            f"the labels are not the classes of {pictures.source} (expected {', '.join(pictures.class_names[:5])} "
            f"or numbers that count them, found {', '.join(labels[:5])}); name each class, or leave --labels out"
        )
    return tuple(labels), truth


def default_templates(names: Sequence[str]) -> tuple[str, ...]:
    """The templates for these classes where none are given."""
    return scenes.TEMPLATES if tuple(names) == scenes.CLASS_NAMES else DEFAULT_TEMPLATES
