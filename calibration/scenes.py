"""Rendered, captioned scenes: the data that the project makes itself.

A scene is coloured shapes on an uneven background. It is described in units of the frame's central square, so one
scene renders at any size and aspect ratio and looks the same after a centre crop. Everything is a function of
(split, index): nothing is stored, nothing is downloaded, and two machines make the same scene.

    scene = sample_scene("calibration", 7)
    rendered = render(scene, 640, 480)          # picture, captions, boxes, masks
    pictures, labels = labelled_pictures("proof", 500, size=64)

Splits draw from separate random streams. Twelve of the 120 shape-colour combinations (``HELD_OUT``) never occur in
"train"; every other split has them, which shows whether a model composes words or remembers pairs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipedge.calibration.captions import describe
from clipedge.calibration.drawing import (
    BACKGROUNDS,
    PATTERNS,
    RGB,
    Background,
    Light,
    Rendered,
    Scene,
    SceneObject,
    render,
)
from clipedge.calibration.shapes import SHAPES, UNSEEN
from clipedge.errors import UsageError

__all__ = [
    "BACKGROUNDS",
    "CLASSES",
    "CLASS_NAMES",
    "COLORS",
    "HELD_OUT",
    "PATTERNS",
    "SHAPES",
    "SPLITS",
    "TEMPLATES",
    "UNSEEN",
    "Background",
    "Light",
    "Rendered",
    "Scene",
    "SceneObject",
    "labelled_pictures",
    "labelled_scene",
    "render",
    "sample_scene",
    "scene_of",
    "write_folder",
]

# Main colour, and the tint that patterns add: the same colour to a person who names it.
COLORS: dict[str, tuple[RGB, RGB]] = {
    "red": ((218, 32, 36), (150, 12, 20)),
    "orange": ((246, 136, 20), (255, 186, 96)),
    "yellow": ((246, 224, 44), (212, 180, 0)),
    "green": ((46, 164, 60), (18, 108, 36)),
    "cyan": ((52, 208, 216), (14, 150, 166)),
    "blue": ((36, 70, 216), (104, 138, 246)),
    "purple": ((128, 44, 172), (172, 100, 212)),
    "pink": ((250, 130, 188), (222, 78, 142)),
    "brown": ((120, 72, 34), (164, 114, 68)),
    "white": ((246, 246, 246), (196, 196, 202)),
}
SPLITS = ("train", "validation", "calibration", "proof", "test")

CLASSES = tuple((color, shape) for color in COLORS for shape in SHAPES)
CLASS_NAMES = tuple(f"{color} {shape}" for color, shape in CLASSES)
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.", "there is a {}.", "{}")

# One colour for each shape; the stride walks through all ten colours.
HELD_OUT = frozenset((list(COLORS)[(3 * i + 1) % len(COLORS)], shape) for i, shape in enumerate(SHAPES))

_SEED = 20_240_229
_MIN_CONTRAST = 95.0  # smallest RGB distance between an object and its background, before light and noise
_MARGIN = 0.03  # objects keep this far from the edge of the central square


# ---- sampling ------------------------------------------------------------------------------------------------


def sample_scene(split: str, index: int, *, objects: int | None = None) -> Scene:
    """Scene number ``index`` of a split: one object (70 %) or two with a relation, or as many as asked for.

    Raises ``UsageError`` for an unknown split, a negative index, or a number of objects other than 1 and 2.
    """
    if objects not in (None, 1, 2):
        raise UsageError(f"a scene has 1 or 2 objects, not {objects}")
    seed = _scene_seed(split, index, stream=0)
    rng = np.random.default_rng(seed)
    count = (1 if rng.random() < 0.7 else 2) if objects is None else objects
    allowed = _allowed_classes(split)
    chosen = [CLASSES[i] for i in rng.choice(allowed, size=count, replace=False)]
    return _compose(rng, seed, chosen)


def labelled_scene(split: str, index: int, *, held_out_only: bool = False) -> tuple[Scene, int]:
    """A scene of one object for zero-shot classification, and its index in ``CLASS_NAMES``.

    Classes are drawn uniformly over all that the split may show, or over ``HELD_OUT`` alone.
    Raises ``UsageError`` for an unknown split, a negative index, or held-out combinations of "train".
    """
    if held_out_only and split == "train":
        raise UsageError('the held-out combinations never occur in the split "train"')
    seed = _scene_seed(split, index, stream=2 if held_out_only else 1)
    rng = np.random.default_rng(seed)
    classes = [i for i, pair in enumerate(CLASSES) if pair in HELD_OUT] if held_out_only else _allowed_classes(split)
    label = int(rng.choice(classes))
    return _compose(rng, seed, [CLASSES[label]]), label


def scene_of(split: str, index: int, color: str, shape: str) -> Scene:
    """A scene of one object of a named colour and shape, which may be one of ``UNSEEN``, whatever the split shows.

    Raises ``UsageError`` for an unknown split, colour or shape, or a negative index.
    """
    if color not in COLORS or shape not in SHAPES + UNSEEN:
        raise UsageError(f"no scene has a {color} {shape}; colours: {', '.join(COLORS)}; shapes: SHAPES and UNSEEN")
    seed = (*_scene_seed(split, index, stream=3), list(COLORS).index(color), (SHAPES + UNSEEN).index(shape))
    return _compose(np.random.default_rng(seed), seed, [(color, shape)])


def _scene_seed(split: str, index: int, stream: int) -> tuple[int, ...]:
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    if index < 0:
        raise UsageError(f"a scene's index is 0 or more, not {index}")
    return (_SEED, SPLITS.index(split), stream, index)


def _allowed_classes(split: str) -> list[int]:
    return [i for i, pair in enumerate(CLASSES) if split != "train" or pair not in HELD_OUT]


def _compose(rng: np.random.Generator, seed: tuple[int, ...], classes: list[tuple[str, str]]) -> Scene:
    relation, places = _sample_places(rng, len(classes))
    objects = tuple(_sample_object(rng, *pair, *place) for pair, place in zip(classes, places, strict=True))
    background = _sample_background(rng, objects)
    light = Light(rng.uniform(0.82, 1.08), rng.uniform(0, 0.2), rng.uniform(0, 2 * np.pi))
    noise = rng.uniform(0, 10)
    scene = Scene(objects, relation, background, light, noise, seed, ())
    return replace(scene, captions=describe(scene, rng))


def _sample_places(rng: np.random.Generator, count: int) -> tuple[str, list[tuple[float, float, float]]]:
    """A relation and (size, x, y) for every object."""
    if count == 1:
        size = rng.uniform(0.34, 0.72)
        free = 1 - size - 2 * _MARGIN
        return "", [(size, *(_MARGIN + size / 2 + free * rng.random(2)))]
    sizes = rng.uniform(0.3, 0.44, size=2)
    along = np.array([0.25, 0.75]) + rng.uniform(-1, 1, size=2) * (0.5 - sizes - _MARGIN) / 2
    # Across the relation's axis the two stay near each other, so that "left of" is not also "above".
    across = rng.uniform(0.3, 0.7) + rng.uniform(-0.06, 0.06, size=2)
    across = np.clip(across, _MARGIN + sizes / 2, 1 - _MARGIN - sizes / 2)
    swapped = rng.random() < 0.5
    if swapped:
        sizes, along, across = sizes[::-1], along[::-1], across[::-1]
    if rng.random() < 0.5:
        return ("right of" if swapped else "left of"), list(zip(sizes, along, across, strict=True))
    return ("below" if swapped else "above"), list(zip(sizes, across, along, strict=True))


def _sample_object(rng: np.random.Generator, color: str, shape: str, size: float, x: float, y: float) -> SceneObject:
    pattern = "solid" if rng.random() < 0.4 else PATTERNS[1 + rng.integers(3)]
    main, tint = (_jitter(rng, rgb, 9) for rgb in COLORS[color])
    return SceneObject(shape, color, pattern, float(size), float(x), float(y), rng.uniform(-0.24, 0.24), main, tint)


def _sample_background(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> Background:
    kind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    inks = np.array([rgb for item in objects for rgb in (item.rgb, item.tint)], dtype=np.float64)
    while True:  # a level far from every ink always exists: the inks of two objects cover few of the greys
        level = rng.uniform(15, 235)
        first = _jitter(rng, (level, level, level), 12)
        second = _jitter(rng, first, 24)
        backs = np.array([first, second], dtype=np.float64)
        if np.linalg.norm(inks[:, None] - backs[None], axis=2).min() >= _MIN_CONTRAST:
            return Background(kind, first, second, rng.uniform(0, 2 * np.pi))


def _jitter(rng: np.random.Generator, rgb: tuple[float, float, float], amount: float) -> RGB:
    red, green, blue = (int(v) for v in np.clip(np.array(rgb) + rng.uniform(-amount, amount, 3), 0, 255))
    return red, green, blue


# ---- sets of pictures ----------------------------------------------------------------------------------------


def labelled_pictures(
    split: str, count: int, *, size: int = 64, start: int = 0, held_out_only: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Scenes ``start`` to ``start + count`` for zero-shot classification, drawn square.

    Returns pictures, uint8 (count, size, size, 3) RGB, and labels, int64 (count,), indices into ``CLASS_NAMES``.
    """
    pictures = np.empty((count, size, size, 3), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    for row in range(count):
        scene, labels[row] = labelled_scene(split, start + row, held_out_only=held_out_only)
        pictures[row] = render(scene, size, size).picture
    return pictures, labels


def write_folder(
    directory: str | Path, split: str, count: int, *, width: int = 256, height: int = 256, by_label: bool = False
) -> list[Path]:
    """Writes labelled scenes as PNG files; with ``by_label`` in one sub-folder for each class name.

    A file is named for its class, so a person sees what a classifier should answer. Returns the paths.
    """
    paths = []
    for index in range(count):
        scene, label = labelled_scene(split, index)
        folder = Path(directory) / CLASS_NAMES[label] if by_label else Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{index:05d}-{CLASS_NAMES[label].replace(' ', '-')}.png"
        Image.fromarray(render(scene, width, height).picture).save(path)
        paths.append(path)
    return paths


def main() -> None:
    """``python -m clipedge.calibration.scenes DIRECTORY``: scenes as PNG files, to look at and to try things on."""
    parser = argparse.ArgumentParser(
        prog="python -m clipedge.calibration.scenes", description="write scenes as PNG files"
    )
    parser.add_argument("directory")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--by-label", action="store_true", help="one sub-folder for each class")
    arguments = parser.parse_args()
    for path in write_folder(arguments.directory, arguments.split, arguments.count, by_label=arguments.by_label):
        print(path)


if __name__ == "__main__":
    main()
