"""What a rendered scene is made of, and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from clipedge.calibration.shapes import outline
from clipedge.errors import UsageError

__all__ = ["BACKGROUNDS", "PATTERNS", "RGB", "Background", "Light", "Rendered", "Scene", "SceneObject", "render"]

RGB = tuple[int, int, int]
Floats = NDArray[np.float32]

PATTERNS = ("solid", "striped", "dotted", "checkered")
BACKGROUNDS = ("plain", "gradient", "blotches", "texture")


@dataclass(frozen=True)
class SceneObject:
    """A shape. Lengths and positions are fractions of the frame's central square; ``angle`` is in radians.

    ``size`` is the diameter of the outline's unit circle; ``tint`` is the second colour of a pattern.
    """

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
    x, y = _centres(width, side), _centres(height, side)[:, None]
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


def _centres(length: int, side: int) -> Floats:
    return np.asarray((np.arange(length, dtype=np.float32) + 0.5 - (length - side) / 2) / side, dtype=np.float32)


def _draw_background(background: Background, rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
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
    return _blend(background.rgb, background.rgb2, mix)


def _grain(rng: np.random.Generator, width: int, height: int, cells: int) -> Floats:
    """Normal noise (H, W) with ``cells`` cells along the shorter side, whatever the picture's size."""
    side = min(width, height)
    shape = (max(1, round(cells * height / side)), max(1, round(cells * width / side)))
    noise = rng.standard_normal(shape, dtype=np.float32)
    if shape == (height, width):
        return noise
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def _coverage(item: SceneObject, width: int, height: int) -> Floats:
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


def _ink(item: SceneObject, x: Floats, y: Floats, side: int) -> Floats:
    """The object's colour at every pixel: its main colour, with its tint where the pattern says so."""
    if item.pattern == "solid":
        return np.array(item.rgb, dtype=np.float32)
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
    return _blend(item.rgb, item.tint, np.clip(0.5 + sharpness * wave, 0, 1))


def _blend(first: RGB, second: RGB, mix: NDArray[np.floating]) -> Floats:
    """The colours (H, W, 3) between two, by how much of the second there is at every pixel (H, W)."""
    low, high = (np.array(rgb, dtype=np.float32) for rgb in (first, second))
    return np.asarray(low + mix[..., None].astype(np.float32) * (high - low), dtype=np.float32)


def _visible(covers: list[Floats]) -> NDArray[np.bool_]:
    masks: NDArray[np.bool_] = np.stack(covers) >= 0.5
    for number in range(len(masks) - 1):
        masks[number] &= ~masks[number + 1 :].any(axis=0)  # later objects are in front
    return masks


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0, 0, 0, 0  # smaller than a pixel
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
