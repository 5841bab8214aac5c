"""Prompt templates for the places where cameras hang, fly and drive; written for this project.

A model has seen captions, and a caption says how a picture was taken. A set varies that: what took the picture, from
where, and how well. Each template has exactly one gap for the label. Which set is best is a question for a labelled
folder and ``clipedge eval``, not for its name.
"""

from __future__ import annotations

from clipedge.errors import UsageError

__all__ = ["TEMPLATE_SETS", "template_set"]

TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "photos": (
        "a photo of a {}.",
        "a photo of the {}.",
        "a close-up of a {}.",
        "a {} in the distance.",
        "a bright photo of a {}.",
        "a dark photo of a {}.",
        "a blurry photo of a {}.",
        "a sharp photo of a {}.",
        "a photo of a {} among other things.",
        "there is a {} in the picture.",
        "a snapshot of a {}, taken with a phone.",
        "{}",
    ),
    "surveillance": (
        "a frame of a surveillance camera that shows a {}.",
        "security camera footage of a {}.",
        "a {} seen from a camera high on a wall.",
        "a grainy camera image of a {}.",
        "a {} at night under a street lamp, seen by a security camera.",
        "a black and white camera image of a {}.",
        "a small {} in a wide view of a yard.",
        "a {} at the edge of a surveillance picture.",
        "a {} at an entrance, seen from above.",
        "a still of a fixed camera: {}.",
    ),
    "drones": (
        "an aerial photo of a {}.",
        "a {} seen from a drone.",
        "a drone picture of a {} on the ground.",
        "a {} from straight above.",
        "a tiny {} far below.",
        "a {} seen at an angle from the air.",
        "an overhead view of a {} and its shadow.",
        "an aerial image of a landscape with a {}.",
        "a hazy aerial picture of a {}.",
        "a {} photographed during a low flight.",
    ),
    "robots": (
        "a photo of a {} inside a building.",
        "a {} on the floor of a room.",
        "a {} seen by a robot that drives indoors.",
        "a {} seen from close to the floor.",
        "a {} in a corridor.",
        "a {} in a warehouse aisle.",
        "a {} on a table or shelf.",
        "a {} partly hidden behind furniture.",
        "a wide-angle picture of a room with a {}.",
        "a {} under ceiling lights.",
        "a {}, blurred because the camera moves.",
        "a {} right in front of the robot.",
    ),
}


def template_set(name: str) -> tuple[str, ...]:
    """The built-in set called ``name``. Raises UsageError for another name."""
    if name not in TEMPLATE_SETS:
        raise UsageError(f"there is no template set {name!r}; the sets are: {', '.join(TEMPLATE_SETS)}")
    return TEMPLATE_SETS[name]
