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

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from clipedge.calibration.captions import describe
from clipedge.calibration.shapes import SHAPES, outline
from clipedge.errors import UsageError

RGB = tuple[int, int, int]

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
PATTERNS = ("solid", "striped", "dotted", "checkered")
BACKGROUNDS = ("plain", "gradient", "blotches", "texture")
SPLITS = ("train", "validation", "calibration", "proof", "test")

CLASSES = tuple((color, shape) for color in COLORS for shape in SHAPES)
CLASS_NAMES = tuple(f"{color} {shape}" for color, shape in CLASSES)
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "an image of a {}.", "there is a {}.", "{}")

# One colour for each shape; the stride walks through all ten colours.
HELD_OUT = frozenset((list(COLORS)[(3 * i + 1) % len(COLORS)], shape) for i, shape in enumerate(SHAPES))

_SEED = 20_240_229
_MIN_CONTRAST = 95.0  # smallest RGB distance between an object and its background, before light and noise
_MARGIN = 0.03  # objects keep this far from the edge of the central square


@dataclass(frozen=True)
class SceneObject:
    """A shape. Lengths and positions are fractions of the frame's central square; ``angle`` is in radians."""

    shape: str
    color: str
    pattern: str
    size: float
    x: float
    y: float
    angle: float
    rgb: RGB
    tint: RGB


@dataclass(frozen=True)
class Background:
    """What is behind the objects: one of ``BACKGROUNDS`` between two low-saturation colours."""

    kind: str
    rgb: RGB
    rgb2: RGB
    angle: float


@dataclass(frozen=True)
class Light:
    """Illumination over the frame: a gain, and a relative slope in the direction ``angle`` (radians)."""

    gain: float
    slope: float
    angle: float


@dataclass(frozen=True)
class Scene:
    """A picture's description; ``relation`` is how the first of two objects lies to the second, else empty."""

    objects: tuple[SceneObject, ...]
    relation: str
    background: Background
    light: Light
    noise: float
    seed: tuple[int, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Rendered:
    """A rendered scene.

    picture: uint8 (H, W, 3) RGB. captions: several wordings, the first the plainest. boxes: int64 (objects, 4) in
    pixels, left, top, right, bottom, right and bottom exclusive. masks: bool (objects, H, W), the visible part.
    """

    picture: NDArray[np.uint8]
    captions: tuple[str, ...]
    boxes: NDArray[np.int64]
    masks: NDArray[np.bool_]


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


# ---- drawing -------------------------------------------------------------------------------------------------


def render(scene: Scene, width: int, height: int) -> Rendered:
    """Draws a scene at any size; the objects lie in the frame's central square.

    Outlines are antialiased, and texture and noise are tied to the frame rather than to pixels, so that a large
    picture scaled down looks like one that was drawn small. Raises ``UsageError`` for a size below 1.
    """
    if width < 1 or height < 1:
        raise UsageError(f"a picture is at least 1 x 1 pixels, not {width} x {height}")
    rng = np.random.default_rng((*scene.seed, 1))
    side = min(width, height)
    # Pixel centres in units of the central square, which spans [0, 1] on both axes.
    x = (np.arange(width, dtype=np.float32) + 0.5 - (width - side) / 2) / side
    y = ((np.arange(height, dtype=np.float32) + 0.5 - (height - side) / 2) / side)[:, None]
    canvas = _draw_background(scene.background, rng, x, y)
    covers = []
    for item in scene.objects:
        cover = _coverage(item, width, height)
        ink = _ink(item, x, y, side)
        canvas += cover[..., None] * (ink - canvas)
        covers.append(cover)
    light = scene.light
    canvas *= (light.gain + light.slope * (np.cos(light.angle) * (x - 0.5) + np.sin(light.angle) * (y - 0.5)))[
        ..., None
    ]
    canvas += scene.noise * _grain(rng, width, height, cells=64)[..., None]
    picture = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    masks = _visible(covers)
    return Rendered(picture, scene.captions, np.array([_box(mask) for mask in masks], dtype=np.int64), masks)


def _draw_background(
    background: Background, rng: np.random.Generator, x: NDArray[np.float32], y: NDArray[np.float32]
) -> NDArray[np.float32]:
    width, height = x.size, y.size
    ramp = np.cos(background.angle) * (x - 0.5) + np.sin(background.angle) * (y - 0.5)
    if background.kind == "plain":
        mix = np.zeros((height, width), dtype=np.float32)
    elif background.kind == "gradient":
        mix = np.clip(0.5 + ramp, 0, 1)
    elif background.kind == "blotches":
        mix = np.clip(0.5 + 0.7 * _grain(rng, width, height, cells=6), 0, 1)
    else:
        mix = 0.5 + 0.5 * np.sin(ramp * (2 * np.pi * 9))
    first, second = np.float32(background.rgb), np.float32(background.rgb2)
    return first + mix[..., None].astype(np.float32) * (second - first)


def _grain(rng: np.random.Generator, width: int, height: int, cells: int) -> NDArray[np.float32]:
    """Normal noise (H, W) with ``cells`` cells along the shorter side, whatever the picture's size."""
    side = min(width, height)
    shape = (max(1, round(cells * height / side)), max(1, round(cells * width / side)))
    noise = rng.standard_normal(shape, dtype=np.float32)
    if shape == (height, width):
        return noise
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def _coverage(item: SceneObject, width: int, height: int) -> NDArray[np.float32]:
    """How much of each pixel the object covers, float32 (H, W) in [0, 1]."""
    side, radius = min(width, height), item.size / 2
    factor = 4 if side <= 512 else 2  # edges need less help where pixels are small
    cos, sin = np.cos(item.angle) * radius, np.sin(item.angle) * radius
    centre = np.array([item.x * side + (width - side) / 2, item.y * side + (height - side) / 2])
    # Drawn in a box around the object: a panorama costs no more than its object.
    left, top = (max(0, int(v)) for v in np.floor(centre - radius * 1.5 * side))
    right, bottom = (min(n, int(v) + 1) for n, v in zip((width, height), centre + radius * 1.5 * side, strict=True))
    patch = Image.new("L", ((right - left) * factor, (bottom - top) * factor))
    draw = ImageDraw.Draw(patch)
    for number, polygon in enumerate(outline(item.shape)):
        turned = polygon @ np.array([[cos, sin], [-sin, cos]]) * side
        points = (turned + centre - (left, top)) * factor - 0.5
        draw.polygon([(px, py) for px, py in points.tolist()], fill=0 if number else 255)
    cover = np.zeros((height, width), dtype=np.float32)
    cover[top:bottom, left:right] = np.asarray(patch.reduce(factor), dtype=np.float32) / 255
    return cover


def _ink(item: SceneObject, x: NDArray[np.float32], y: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The object's colour at every pixel: its main colour, with its tint where the pattern says so."""
    main, tint = np.float32(item.rgb), np.float32(item.tint)
    if item.pattern == "solid":
        return main
    cos, sin = np.cos(item.angle), np.sin(item.angle)
    u = (cos * (x - item.x) + sin * (y - item.y)) / item.size
    v = (cos * (y - item.y) - sin * (x - item.x)) / item.size
    if item.pattern == "striped":
        wave, period = np.sin(2 * np.pi * 4 * (u + v)), 1 / 4
    elif item.pattern == "checkered":
        wave, period = np.sin(2 * np.pi * 2.5 * u) * np.sin(2 * np.pi * 2.5 * v), 1 / 2.5
    else:
        wave, period = np.cos(2 * np.pi * 4 * u) + np.cos(2 * np.pi * 4 * v) - 0.6, 1 / 4
    # The wave's zero crossings, softened over about a pixel.
    sharpness = np.float32(period * item.size * side / (2 * np.pi))
    mix = np.clip(0.5 + sharpness * wave, 0, 1).astype(np.float32)
    return main + mix[..., None] * (tint - main)


def _visible(covers: list[NDArray[np.float32]]) -> NDArray[np.bool_]:
    masks = np.stack(covers) >= 0.5
    for number in range(len(masks) - 1):
        masks[number] &= ~masks[number + 1 :].any(axis=0)  # later objects are in front
    return masks


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0, 0, 0, 0  # smaller than a pixel
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


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
