"""What a user writes for a student's text tower, and what it means.

    text-s                                        a preset: text-s or text-b
    text:layers=4,width=256,heads=4               a new causal transformer of any size
    inherit:layers=6,width=384,heads=6            the teacher's own tower, cut down; what is not named stays

A further key is mlp, as in ``spec.py``. Vocabulary and context length are the teacher's: the tokenizer is kept.
"""

from __future__ import annotations

from clipedge.errors import UsageError
from clipedge.export.distillation.spec import KEYS, StudentSpec, sizes_of

__all__ = ["TEXT_PRESETS", "parse_text_spec"]

OPTION = "--text-student"
# (layers, width, heads): S as OpenCLIP's ViT-S-16 has it (https://github.com/mlfoundations/open_clip), B of Radford et
# al. 2021 (CLIP, arXiv 2103.00020).
TEXT_PRESETS = {"text-s": (12, 384, 6), "text-b": (12, 512, 8)}


def parse_text_spec(text: str) -> StudentSpec:
    """Read a specification. Raises UsageError for one that is none, naming what there is."""
    named = f"{OPTION} {text}"
    name, colon, settings = text.strip().lower().partition(":")
    if name in TEXT_PRESETS and not colon:
        return StudentSpec("new", text, *TEXT_PRESETS[name], option=OPTION)
    if name not in ("text", "inherit"):
        raise UsageError(
            f"{named}: expected {', '.join(TEXT_PRESETS)}, text:layers=4,width=256,heads=4, or "
            "inherit:layers=6,width=384,heads=6; without this option the teacher's text tower is kept"
        )
    is_new = name == "text"
    sizes = sizes_of(named, settings, KEYS["inherited"], ("layers", "width") if is_new else ())
    layers, width, heads, mlp_width = (sizes.get(key) for key in KEYS["inherited"])
    return StudentSpec("new" if is_new else "inherited", text, layers, width, heads, mlp_width, option=OPTION)
