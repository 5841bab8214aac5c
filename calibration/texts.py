"""Texts for calibrating and proving a text tower: the user's own prompts, and everyday captions where those are few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipedge.text import fill_template

__all__ = ["everyday_captions", "tower_texts"]

TEXTS = 384

SUBJECTS = (
    "a man in a red jacket", "two children", "a small brown dog", "a black cat", "an empty chair", "a delivery truck",
    "a cyclist with a helmet", "a bowl of fruit", "an open laptop", "a person with a suitcase", "a yellow taxi",
    "a forklift", "a traffic light", "a wet floor sign", "a stack of boxes", "a woman holding a phone", "a robot arm",
    "a white mug", "a broken window", "a flock of birds", "a parked motorcycle", "a fire extinguisher",
)  # fmt: skip
PLACES = (
    "in a warehouse", "on a wooden table", "at a crossing", "next to a river", "in front of a brick wall",
    "in a hospital corridor", "on the grass", "under a bridge", "in a kitchen", "on a snowy road", "inside a train",
    "in a field of flowers", "on the beach", "at a construction site", "behind a glass door", "on a shelf",
)  # fmt: skip
ENDINGS = (
    "",
    " at night",
    " in the rain",
    ", seen from above",
    ", blurred",
    " on a sunny day",
    ", close-up",
    " in fog",
)


def everyday_captions(count: int, seed: int) -> list[str]:
    """``count`` captions of ordinary scenes, a function of ``seed``."""
    rng = np.random.default_rng(seed)
    return [
        f"{SUBJECTS[rng.integers(len(SUBJECTS))]} {PLACES[rng.integers(len(PLACES))]}"
        f"{ENDINGS[rng.integers(len(ENDINGS))]}"
        for _ in range(count)
    ]


def tower_texts(labels: Sequence[str], templates: Sequence[str]) -> tuple[list[str], list[str]]:
    """(calibration texts, proof texts), without overlap: prompts from ``labels`` first, filled up with captions."""
    prompts = [fill_template(template, label) for label in labels for template in templates]
    order = np.random.default_rng(0).permutation(len(prompts))
    texts = [prompts[i] for i in order[:TEXTS]]
    texts += everyday_captions(2 * TEXTS - len(texts), seed=1)
    texts = list(dict.fromkeys(texts))  # distinct, so that no proof text was calibrated on
    return texts[0::2], texts[1::2]
