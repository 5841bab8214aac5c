"""What a user writes for a student, and what it means.

    vit-s/16                                      a preset, patches of 16 pixels (default: 16)
    vit:layers=4,width=64,heads=2,patch=8         a new vision transformer of any size
    inherit:layers=3,width=64,heads=2             the teacher's own tower, cut down; what is not named stays

Further keys: mlp, the width of the perceptrons (default: four times the width; inherited, the teacher's share of it).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from clipedge.errors import UsageError

__all__ = ["PRESETS", "StudentSpec", "parse_spec"]

# (layers, width, heads): Ti and S of Touvron et al. 2020 (DeiT, arXiv 2012.12877), B of Dosovitskiy et al. 2020
# (arXiv 2010.11929).
PRESETS = {"vit-ti": (12, 192, 3), "vit-s": (12, 384, 6), "vit-b": (12, 768, 12)}
PATCH_SIZE = 16
KEYS = {"new": ("layers", "width", "heads", "mlp", "patch"), "inherited": ("layers", "width", "heads", "mlp")}
MOST = 100_000  # no model has a dimension beyond; a slip of the finger would fill the memory


@dataclass(frozen=True)
class StudentSpec:
    """Sizes of a student's image tower. ``None``: of a new one what its width suggests, of an inherited one the
    teacher's. ``text`` is what was written."""

    kind: Literal["new", "inherited"]
    text: str
    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    mlp_width: int | None = None
    patch_size: int | None = None


def parse_spec(text: str) -> StudentSpec:
    """Read a specification. Raises UsageError for one that is none, naming what there is."""
    name, colon, settings = text.strip().lower().partition(":")
    preset, _, patch = name.partition("/")
    if preset in PRESETS and not colon and re.fullmatch(r"(/[1-9]\d{0,3})?", name.removeprefix(preset)):
        layers, width, heads = PRESETS[preset]
        return StudentSpec("new", text, layers, width, heads, None, int(patch or PATCH_SIZE))
    if name in ("vit", "inherit"):
        kind: Literal["new", "inherited"] = "new" if name == "vit" else "inherited"
        sizes = _sizes(text, settings, KEYS[kind])
        missing = [key for key in ("layers", "width", "patch") if key not in sizes]
        if kind == "new" and missing:
            raise UsageError(f"--student {text}: expected layers, width and patch, {missing[0]} is missing")
        return StudentSpec(kind, text, *(sizes.get(key) for key in ("layers", "width", "heads", "mlp", "patch")))
    raise UsageError(
        f"--student {text}: expected {', '.join(PRESETS)} (with /PATCH), vit:layers=4,width=64,patch=8, or "
        "inherit:layers=3,width=64,heads=2"
    )


def _sizes(text: str, settings: str, keys: tuple[str, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for part in filter(None, settings.split(",")):
        key, _, value = part.strip().partition("=")
        if key not in keys or key in sizes or not re.fullmatch(r"[1-9]\d*", value) or int(value[:9]) > MOST:
            raise UsageError(f"--student {text}: expected KEY=NUMBER of {', '.join(keys)}, each once, found {part!r}")
        sizes[key] = int(value[:9])
    return sizes
