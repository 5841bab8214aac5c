"""Wordings for rendered scenes: the same picture said in several ways, with more or fewer attributes."""

from __future__ import annotations

import numpy as np

from clipedge.calibration.drawing import Scene, SceneObject

__all__ = ["WORDINGS", "describe", "with_article"]

WORDINGS = 6  # captions for each scene; the first is the plainest

_FRAMES = (
    "{}",
    "a {}",
    "a {}",
    "a photo of a {}",
    "a photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "a drawing of a {}",
    "there is a {}",
    "the {}",
)
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


def describe(scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    """``WORDINGS`` captions for a scene; its own ``captions`` are not read."""
    if len(scene.objects) == 1:
        item = scene.objects[0]
        plain = [_frame(rng, _name(item)) for _ in range(2)]
        rich = [_frame(rng, _detailed(rng, item) + _setting(rng, scene)) for _ in range(WORDINGS - 2)]
        return (*plain, *rich)
    return tuple(_pair(rng, scene, detailed=wording > 1) for wording in range(WORDINGS))


def with_article(noun: str) -> str:
    """The noun with "a", or with "an" before a vowel."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _name(item: SceneObject) -> str:
    return f"{item.color} {item.shape}"


def _detailed(rng: np.random.Generator, item: SceneObject) -> str:
    words = []
    if rng.random() < 0.5 and not 0.42 < item.size < 0.58:
        words.append("small" if item.size <= 0.42 else "large")
    if rng.random() < 0.7:
        words.append(item.pattern)
    return " ".join([*words, _name(item)])


def _setting(rng: np.random.Generator, scene: Scene) -> str:
    """Where the single object lies, or what it lies on, or nothing."""
    chance = rng.random()
    if chance < 0.4:
        return " " + _position(scene.objects[0])
    level = sum(scene.background.rgb) / 3
    if chance < 0.7 and not 90 < level < 150:
        return " on a dark background" if level <= 90 else " on a light background"
    return ""


def _position(item: SceneObject) -> str:
    column = "left" if item.x < 0.44 else "right" if item.x > 0.56 else ""
    row = "top" if item.y < 0.44 else "bottom" if item.y > 0.56 else ""
    if row and column:
        return f"in the {row} {column}"
    if row or column:
        return f"at the {row}" if row else f"on the {column}"
    return "in the middle"


def _frame(rng: np.random.Generator, noun: str) -> str:
    frame = _FRAMES[rng.integers(len(_FRAMES))]
    stop = "." if rng.random() < 0.4 else ""
    return frame.replace("a {}", with_article(noun)).replace("{}", noun) + stop


def _pair(rng: np.random.Generator, scene: Scene, detailed: bool) -> str:
    first, second = scene.objects
    relation = scene.relation
    if rng.random() < 0.5:
        first, second, relation = second, first, _OPPOSITE[relation]
    words = _RELATION_WORDS[relation]
    link = words[rng.integers(len(words))]
    nouns = [_detailed(rng, item) if detailed else _name(item) for item in (first, second)]
    if rng.random() < 0.2:
        link = "and"  # the relation left unsaid
    return _frame(rng, f"{nouns[0]} {link} {with_article(nouns[1])}")
