"""What a student's own text tower reads: captions, where the pictures have them, else prompts made of labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clipedge.calibration.data import Pictures
from clipedge.errors import UsageError
from clipedge.export.distillation.spec import StudentSpec
from clipedge.export.training.data import check_captions, default_templates
from clipedge.prompts.bank import check_labels
from clipedge.text import Tokenizer, TruncatedTextWarning, fill_template

__all__ = ["exam_texts", "label_prompts", "tokens_of", "training_prompts"]

MOST_EXAMINED = 1000


def label_prompts(names: Sequence[str], templates: Sequence[str] | None) -> list[str]:
    """Each name in all templates, the first name's first."""
    return [fill_template(each, name) for name in names for each in templates or default_templates(names)]


def training_prompts(
    spec: StudentSpec,
    pictures: Pictures,
    held_out: Pictures,
    labels: Sequence[str] | None,
    templates: Sequence[str] | None,
) -> tuple[str, ...]:
    """What stands for captions where the pictures have none: prompts of the labels, else of the pictures' own classes,
    else of the validation's. Nothing where there are captions.

    Raises UsageError where there is nothing to read, and where only some pictures have captions.
    """
    if pictures.captions is not None:
        check_captions(pictures, "leave those pictures out")
        return ()
    if labels is not None:
        check_labels(labels)
    names = (pictures.class_names or held_out.class_names) if labels is None else tuple(labels)
    if not names:
        raise UsageError(
            f"{spec.named}: a text tower learns from captions or from the names of classes, and {pictures.source} has "
            "neither; add captions (CSV, JSON Lines, KEY.txt in a tar), name what the pictures show (--labels), or "
            f"keep the teacher's text tower: leave {spec.option} out"
        )
    return tuple(dict.fromkeys(label_prompts(names, templates)))


def exam_texts(held_out: Pictures, learned: Sequence[str]) -> tuple[str, ...]:
    """On which a text tower is compared with its teacher's where no class is known: held-out captions, and without such
    those that it learned from."""
    captions = [text for texts in held_out.captions or () for text in texts]
    return tuple(dict.fromkeys(captions or learned))[:MOST_EXAMINED]


def tokens_of(tokenizer: Tokenizer, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """(N, context length). Of a text that is too long its start counts, and nobody is told: captions of the web are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        return tokenizer(texts)
