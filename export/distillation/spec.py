"""What a user writes for a student, and what it means.

    vit-s/16                                      a preset, patches of 16 pixels (default: 16)
    vit:layers=4,width=64,heads=2,patch=8         a new vision transformer of any size
    rn50                                          a preset: OpenAI's modified ResNet of this size
    resnet:blocks=1-1-1-1,width=12                a new one of any size: the blocks of its four stages, the stem's width
    inherit:layers=3,width=64,heads=2             the teacher's own tower, cut down; what is not named stays
    timm:mobilenetv3_small_100                    an image tower of the library timm, by its name; with new weights

Further keys of a transformer: mlp, the width of the perceptrons (default: four times the width; inherited, the
teacher's share of it).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from clipedge.errors import UsageError

__all__ = ["KEYS", "PRESETS", "RESNET_PRESETS", "StudentSpec", "parse_spec", "sizes_of"]

# (layers, width, heads): Ti and S of Touvron et al. 2020 (DeiT, arXiv 2012.12877), B of Dosovitskiy et al. 2020
# (arXiv 2010.11929).
PRESETS = {"vit-ti": (12, 192, 3), "vit-s": (12, 384, 6), "vit-b": (12, 768, 12)}
PATCH_SIZE = 16
# (blocks, width): Radford et al. 2021 (CLIP, arXiv 2103.00020).
RESNET_PRESETS = {"rn50": ((3, 4, 6, 3), 64), "rn101": ((3, 4, 23, 3), 64)}
KEYS = {"new": ("layers", "width", "heads", "mlp", "patch"), "inherited": ("layers", "width", "heads", "mlp")}
MOST = 100_000  # no model has a dimension beyond; a slip of the finger would fill the memory


@dataclass(frozen=True)
class StudentSpec:
    """Sizes of a student's tower. ``None``: of a new one what its width suggests, of an inherited one the teacher's.
    A ResNet has ``width`` and ``blocks`` alone, one of timm's towers its ``name`` there. ``text`` is what was written
    behind ``option``."""

    kind: Literal["new", "inherited", "resnet", "timm"]
    text: str
    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    mlp_width: int | None = None
    patch_size: int | None = None
    blocks: tuple[int, int, int, int] | None = None
    name: str | None = None
    option: str = "--student"

    @property
    def named(self) -> str:
        """How messages begin."""
        return f"{self.option} {self.text}"


def parse_spec(text: str) -> StudentSpec:
    """Read a specification. Raises UsageError for one that is none, naming what there is."""
    name, colon, settings = text.strip().lower().partition(":")
    preset, _, patch = name.partition("/")
    if preset in PRESETS and not colon and re.fullmatch(r"(/[1-9]\d{0,3})?", name.removeprefix(preset)):
        layers, width, heads = PRESETS[preset]
        return StudentSpec("new", text, layers, width, heads, None, int(patch or PATCH_SIZE))
    if name in RESNET_PRESETS and not colon:
        blocks, width = RESNET_PRESETS[name]
        return StudentSpec("resnet", text, width=width, blocks=blocks)
    if name in ("vit", "inherit"):
        return _transformer(text, "new" if name == "vit" else "inherited", settings)
    if name == "resnet":
        return _resnet(text, settings)
    if name == "timm":
        return _timm(text, settings)
    raise UsageError(
        f"--student {text}: expected {', '.join(PRESETS)} (with /PATCH), {', '.join(RESNET_PRESETS)}, "
        "vit:layers=4,width=64,patch=8, resnet:blocks=1-1-1-1,width=12, inherit:layers=3,width=64,heads=2, or timm:NAME"
    )


def _transformer(text: str, kind: Literal["new", "inherited"], settings: str) -> StudentSpec:
    needed = ("layers", "width", "patch") if kind == "new" else ()
    sizes = sizes_of(f"--student {text}", settings, KEYS[kind], needed)
    layers, width, heads, mlp_width, patch_size = (sizes.get(key) for key in KEYS["new"])
    return StudentSpec(kind, text, layers, width, heads, mlp_width, patch_size)


def _resnet(text: str, settings: str) -> StudentSpec:
    named = f"--student {text}"
    values = _values(named, settings, ("blocks", "width"))
    _check_given(named, values, ("blocks", "width"))
    blocks = [_number(named, value) for value in values["blocks"].split("-")]
    if len(blocks) != 4:
        raise UsageError(f"{named}: expected the blocks of four stages, such as 1-1-1-1, found {len(blocks)}")
    width = _number(named, values["width"])
    return StudentSpec("resnet", text, width=width, blocks=(blocks[0], blocks[1], blocks[2], blocks[3]))


def _timm(text: str, name: str) -> StudentSpec:
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise UsageError(
            f"--student {text}: expected the name of an architecture of timm, such as timm:mobilenetv3_small_100, "
            "without a tag, a hub or a path: a student begins with new weights"
        )
    return StudentSpec("timm", text, name=name)


def sizes_of(named: str, settings: str, keys: tuple[str, ...], needed: tuple[str, ...] = ()) -> dict[str, int]:
    """The numbers of "KEY=NUMBER,...". Raises UsageError that begins with ``named``."""
    values = _values(named, settings, keys)
    _check_given(named, values, needed)
    return {key: _number(named, value) for key, value in values.items()}


def _values(named: str, settings: str, keys: tuple[str, ...]) -> dict[str, str]:
    """What was written behind each key."""
    values: dict[str, str] = {}
    for part in filter(None, settings.split(",")):
        key, _, value = part.strip().partition("=")
        if key not in keys or key in values:
            raise UsageError(f"{named}: expected KEY=NUMBER of {', '.join(keys)}, each once, found {part!r}")
        values[key] = value
    return values


def _check_given(named: str, values: dict[str, str], needed: tuple[str, ...]) -> None:
    missing = [key for key in needed if key not in values]
    if missing:
        expected = f"{', '.join(needed[:-1])} and {needed[-1]}"
        raise UsageError(f"{named}: expected {expected}, {missing[0]} is missing")


def _number(named: str, value: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", value) or int(value[:9]) > MOST:
        raise UsageError(f"{named}: expected numbers from 1 to {MOST}, found {value!r}")
    return int(value)
